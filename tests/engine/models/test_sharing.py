"""The limits of a process: who shares one, for how long it is kept, and that no key is in it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from rowloop.adapters.http.endpoint import Endpoint
from rowloop.engine.core.events import Cancelled, Done
from rowloop.engine.core.graph import Lane
from rowloop.engine.core.permits import FixedLimit
from rowloop.engine.core.policy import RetryPolicy
from rowloop.engine.core.shared_limit import Share
from rowloop.engine.models.sharing import SharedLimits, limit_key

if TYPE_CHECKING:
    from collections.abc import Callable

LANE = Lane("openai:m", 8, start=4)


def begun(limits: SharedLimits, key: bytes | None, now: float = 0.0, lane: Lane = LANE) -> Share:
    """Begin a run at an endpoint."""
    share = limits.permits_of(RetryPolicy(), {} if key is None else {lane.name: key})(lane, lambda: None)
    assert isinstance(share, Share)
    share.begin(now)
    return share


def test_runs_share_by_key_and_a_lane_without_one_shares_nothing(virtually: Callable[[Any], Any]) -> None:
    """The most runs at a time are kept, also when the others have ended."""

    async def check() -> None:
        limits = SharedLimits()
        first, second = begun(limits, b"a"), begun(limits, b"a")
        other, alone, also_alone = begun(limits, b"b"), begun(limits, None), begun(limits, None)
        assert [share.runs for share in (first, second, other, alone, also_alone)] == [2, 2, 1, 1, 1]
        second.close(1.0)
        assert (first.runs, len(limits)) == (2, 2)

    virtually(check())


def test_a_limit_is_kept_for_five_minutes_and_256_at_most(virtually: Callable[[Any], Any]) -> None:
    """A run after four minutes starts with what was learnt, one after six starts anew."""

    async def check() -> None:
        limits = SharedLimits()
        for now, known in [(0.0, 4), (240.0, 5), (600.0, 4)]:
            share = begun(limits, b"a", now)
            assert share.limit == known
            permits = []
            while share.earliest(9, now) <= now:
                permits.append(share.sent(now))
            for permit in permits[:1]:
                share.ended(permit, Done(0, 0, 0), now)
            for permit in permits[1:]:
                share.ended(permit, Cancelled(0, 0, 0), now)
            share.earliest(0, now)
            share.close(now)
        for i in range(400):
            begun(limits, str(i).encode(), 601.0).close(601.0)
        assert len(limits) <= 257

    virtually(check())


def test_loops_with_another_clock_do_not_share(virtually: Callable[[Any], Any]) -> None:
    """Times of two virtual clocks have nothing to do with each other."""
    limits = SharedLimits()

    async def begin() -> int:
        return begun(limits, b"a", asyncio.get_running_loop().time()).runs

    assert [virtually(begin()), virtually(begin())] == [1, 1]


def test_a_function_has_a_limit_of_its_own() -> None:
    """It costs nothing extra per call."""
    assert SharedLimits().permits_of(RetryPolicy(), {})(Lane("f", 3), lambda: None) == FixedLimit(3)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Endpoint("https://A.example/v1/", "secret-key"), True),
        (Endpoint("https://a.example/v1", "other-key"), False),
        (Endpoint("https://b.example/v1", "secret-key"), False),
        (Endpoint("https://a.example/v1", "secret-key", (("OpenAI-Project", "p"),)), False),
    ],
)
def test_an_endpoint_is_known_by_address_key_and_headers(other: Endpoint, same: bool) -> None:  # noqa: FBT001 - drawn
    """And by the model, which is not the endpoint's own."""
    endpoint = Endpoint("https://a.example/v1", "secret-key")
    assert (endpoint.limit_key("m") == other.limit_key("m")) is same
    assert endpoint.limit_key("m") != endpoint.limit_key("n")


def test_no_key_can_be_read_from_what_identifies_a_limit() -> None:
    """It is a keyed hash of fixed size, and parts cannot run into each other."""
    assert b"sk-verysecret" not in limit_key("https://a.example", "sk-verysecret", "m")
    assert len(limit_key("x" * 1000)) == 16
    assert limit_key("a", "bc") != limit_key("ab", "c")
