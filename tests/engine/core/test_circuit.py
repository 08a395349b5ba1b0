"""The circuit of an endpoint: by its rules, in simulations of outages, and whatever happens in any order."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from rowloop.engine.core.circuit import Circuit
from rowloop.engine.core.events import Cancelled, Done, Failed, Failure, Usage
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.policy import ErrorBudget, Policies, RetryPolicy
from rowloop.engine.core.row_groups import Plan
from rowloop.engine.core.tracker import Tracker
from simulated_server import Outcome, Server, Tracked

if TYPE_CHECKING:
    from collections.abc import Sequence

SEEDS = range(3)
DOWN: Sequence[Outcome] = ("refused", "hangs", "503")


def failure(kind: str | None = "connection", *, retryable: bool = True) -> Failure:
    """Give a failure of a kind."""
    return Failure("ModelError", "no", retryable=retryable, kind=kind)


class Endpoint:
    """A circuit, and one request after the other."""

    def __init__(self) -> None:
        self.circuit = Circuit()
        self.rows = itertools.count()

    def answer(self, now: float, usage: Usage | None = Usage(1, 1)) -> None:  # noqa: B008 - it is frozen
        """Have a request answered."""
        self.circuit.ended(self.circuit.sent(None, now), Done(0, 0, 0, usage), now, 0, 1)

    def fail(
        self, now: float, failed: Failure | None = None, *, row: int | None = None, in_flight: int = 0, waiting: int = 1
    ) -> bool:
        """Have a request fail, by default for a new row; return whether the attempt is excused."""
        row = next(self.rows) if row is None else row
        event = Failed(0, 0, row, failed or failure())
        return self.circuit.ended(self.circuit.sent(row, now), event, now, in_flight, waiting)

    def fail_until_open(self, now: float, failed: Failure | None = None) -> int:
        """Have requests fail until the circuit opens; return how many it took."""
        for count in range(1, 1000):
            self.fail(now, failed)
            if self.circuit.since is not None:
                return count
        raise AssertionError("it never opens")


@pytest.mark.parametrize("kind", ["connection", "timeout", "server", "truncated"])
def test_it_opens_after_failures_in_a_row(kind: str):
    """It opens after a few where nothing ever failed, and an answer closes it."""
    endpoint = Endpoint()
    for _ in range(100):
        endpoint.answer(1.0)
    assert endpoint.fail_until_open(2.0, failure(kind)) == 5
    assert (endpoint.circuit.state, endpoint.circuit.since, endpoint.circuit.outages) == ("open", 2.0, 1)
    probe = endpoint.circuit.sent(9, 3.0)
    assert endpoint.circuit.state == "half-open"
    endpoint.circuit.ended(probe, Done(0, 0, 9, Usage(1, 1)), 4.0, 0, 1)
    assert (endpoint.circuit.state, endpoint.circuit.lasted(9.0)) == ("closed", 2.0)


def test_it_never_opens_before_the_first_success():
    """An endpoint that never answered fails the run; an answer of the response cache is no success."""
    endpoint = Endpoint()
    endpoint.answer(0.0, None)
    assert not any(endpoint.fail(1.0) for _ in range(1000))
    assert endpoint.circuit.state == "closed"


def test_other_failures_are_answers_or_show_nothing():
    """A refused request shows that the endpoint works; a prompt that was not sent shows nothing."""
    endpoint = Endpoint()
    for kind in ["bad_request", "rate_limited", None, "empty_prompt"]:
        endpoint.answer(0.0)
        endpoint.fail_until_open(1.0)
        endpoint.fail(2.0, failure(kind, retryable=False))
        assert endpoint.circuit.state == ("closed" if kind in {"bad_request", "rate_limited"} else "open")


def test_more_must_fail_than_are_in_flight():
    """Connections that are cut at once, while many others are in flight, are no outage."""
    endpoint = Endpoint()
    endpoint.answer(0.0)
    assert not any(endpoint.fail(1.0, in_flight=100) for _ in range(99))
    assert endpoint.fail(1.0, in_flight=100)


def test_a_row_that_always_fails_opens_nothing():
    """Time-outs and 5xx count once for a row; connection errors count each time."""
    endpoint = Endpoint()
    endpoint.answer(0.0)
    assert not any(endpoint.fail(1.0, failure(kind), row=7) for kind in ["server", "timeout"] * 500)
    endpoint.answer(2.0)
    assert any(endpoint.fail(3.0, row=7) for _ in range(300))


def test_the_last_rows_find_an_outage_with_fewer_failures():
    """With nothing else in flight or waiting, two connection errors are enough, or one failure soon after an outage."""
    endpoint = Endpoint()
    endpoint.answer(0.0)
    assert not any(endpoint.fail(1.0, failure("timeout"), row=1, waiting=0) for _ in range(9))
    endpoint.answer(2.0)
    assert [endpoint.fail(3.0, row=1, waiting=0) for _ in range(2)] == [False, True]
    endpoint.answer(4.0)
    assert endpoint.fail(63.0, failure("timeout"), row=1, waiting=0)
    endpoint.answer(64.0)
    assert not endpoint.fail(125.0, failure("timeout"), row=1, waiting=0)


def test_attempts_are_forgiven_when_it_opens_and_excused_until_it_closes():
    """The failures before it opened are forgiven once; those of requests from before its end are excused."""
    endpoint = Endpoint()
    endpoint.answer(0.0)
    late = endpoint.circuit.sent(0, 0.5)
    assert not endpoint.fail(1.0, row=-1)
    assert not endpoint.fail(1.0, row=-1)
    endpoint.fail_until_open(2.0)
    assert [endpoint.circuit.forgiven(-1) for _ in range(2)] == [2, 0]
    assert endpoint.fail(3.0)
    endpoint.answer(4.0)
    assert endpoint.circuit.ended(late, Failed(0, 0, 0, failure("timeout")), 30.0, 0, 1)
    assert not endpoint.fail(31.0)


def test_probes_come_at_growing_intervals():
    """They are at most an eighth of the outage apart, and at most 30 s."""
    endpoint = Endpoint()
    endpoint.answer(0.0)
    endpoint.fail_until_open(0.0)
    now, spaces = 0.0, list[float]()
    while now < 600:
        spaces.append(endpoint.circuit.earliest(now) - now)
        now += spaces[-1]
        assert spaces[-1] <= max(0.5, min(30, now / 8))
        endpoint.fail(now)
    assert len(spaces) < 80
    assert spaces[-1] > 15


# In a run


def run(
    rows: int, seed: int, *, attempts: int = 6, limit: int = 64, outage_after: float | None = 600.0, **server: Any
) -> Tracked:
    """Simulate a run to its end."""
    random.seed(seed)  # the jitter of RetryPolicy
    graph = compile_graph([Node("a", lane=Lane("m", limit, start=min(16, limit)))])
    policies = Policies(RetryPolicy(attempts=attempts), ErrorBudget(rate=None), outage_after=outage_after)
    tracked = Tracked(Tracker(graph, Plan(rows), policies), Server(random.Random(seed), **server))  # noqa: S311 - no secret
    tracked.run()
    return tracked


@pytest.mark.parametrize("attempts", [1, 6])
@pytest.mark.parametrize("limit", [4, 512])
@pytest.mark.parametrize("down", DOWN)
def test_an_outage_of_20_s_drops_no_row_and_costs_25_s(down: Outcome, limit: int, attempts: int):
    """3,000 rows end within 25 s of what they take without it, however many attempts a row has."""
    for seed in SEEDS:
        plain = run(3000, seed, limit=limit)
        ran = run(3000, seed, limit=limit, attempts=attempts, outages=[(1.0, 21.0)], down=down)
        assert (ran.reason, ran.ran.done, ran.dropped) == (None, 3000, [])
        assert ran.ran.seconds <= plain.ran.seconds + 25
        assert ran.tracker.lanes[0].outages == 1
        probes = [at for at in ran.sent if 4.5 < at < 21]
        assert len(probes) < 40


@pytest.mark.parametrize("down", DOWN)
def test_an_outage_for_ever_ends_the_run_and_drops_no_row(down: Outcome):
    """It ends after `outage_after`, with that reason; everything else can still be worked."""
    for seed in SEEDS:
        ran = run(3000, seed, outages=[(1.0, 1e9)], down=down, outage_after=600.0)
        assert (ran.reason, ran.dropped, ran.tracker.totals.dropped) == ("outage", [], 0)
        assert 600 <= ran.ran.seconds <= 605
        lane, seconds = ran.tracker.outage or ("", 0.0)
        assert (lane, round(seconds)) == ("m", 600)


@pytest.mark.parametrize("down", DOWN)
def test_an_endpoint_that_comes_and_goes_drops_no_row(down: Outcome):
    """It works for one second in five."""
    for seed in SEEDS:
        ran = run(3000, seed, attempts=3, outages=[(5 * n + 1.0, 5 * n + 5.0) for n in range(200)], down=down)
        assert (ran.reason, ran.ran.done, ran.dropped) == (None, 3000, [])


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.7])
def test_a_share_of_5xx_is_no_outage(share: float):
    """Other requests succeed, so attempts count, and the rows that fail too often are dropped as ever."""
    for seed in SEEDS:
        ran = run(1000, seed, attempts=2, faults={"500": share})
        assert ran.tracker.lanes[0].outages == 0
        assert len(ran.dropped) == pytest.approx(1000 * share**2, rel=0.5, abs=5)
        assert all(record.attempts == 2 for record in ran.dropped)


def test_an_endpoint_that_never_answered_fails_as_ever():
    """Every row is dropped after its attempts."""
    ran = run(50, 0, outages=[(0.0, 1e9)])
    assert (ran.reason, len(ran.dropped)) == (None, 50)
    assert {record.attempts for record in ran.dropped} == {6}


def test_the_last_rows_fail_where_nothing_else_could_show_an_outage():
    """Two rows that always get 500 are dropped after their attempts, and the run ends."""
    ran = run(100, 0, limit=1, faults={"500": 0.02}, attempts=1)
    assert ran.reason is None
    assert ran.ran.done + len(ran.dropped) == 100


@given(
    outages=st.lists(st.tuples(st.floats(0, 40), st.floats(0.1, 30)), max_size=4),
    down=st.sampled_from(DOWN),
    rows=st.integers(1, 300),
    limit=st.integers(1, 40),
    attempts=st.integers(1, 4),
    seed=st.integers(0, 2**16),
    faults=st.sampled_from([{}, {"500": 0.3}, {"429": 0.2, "cut": 0.2}]),
)
@settings(max_examples=60)
def test_every_run_ends_whatever_the_outages(  # noqa: PLR0913, PLR0917 - each is drawn
    outages: list[tuple[float, float]],
    down: Outcome,
    rows: int,
    limit: int,
    attempts: int,
    seed: int,
    faults: dict[Outcome, float],
):
    """Every row is completed or dropped, and no permit is lost; nothing is waited for longer than the outages."""
    ran = run(
        rows, seed, attempts=attempts, limit=limit, outage_after=None, faults=faults, down=down,
        outages=[(begins, begins + seconds) for begins, seconds in outages],
    )  # fmt: skip
    totals, lane = ran.tracker.totals, ran.tracker.lanes[0]
    assert (ran.reason, totals.committed + totals.dropped) == (None, rows)
    assert (lane.in_flight, lane.ready, totals.waiting_to_retry, totals.running) == (0, 0, 0, 0)


@given(events=st.lists(st.tuples(st.sampled_from("adsfc"), st.integers(0, 4), st.floats(0, 50)), max_size=80))
def test_the_circuit_keeps_its_rules_in_any_order(events: list[tuple[str, int, float]]):
    """It is open only after a success, closes with every answer, and excuses every failure while it is open."""
    circuit, now, succeeded = Circuit(), 0.0, False
    flying = [circuit.sent(0, now)]
    for what, row, seconds in events:
        now += seconds
        if what == "s" or not flying:
            flying.append(circuit.sent(row, now))
            continue
        request, was_open = flying.pop(row % len(flying)), circuit.since is not None
        event: Any = {
            "a": Done(0, 0, row, Usage(1, 1)),
            "d": Done(0, 0, row),
            "f": Failed(0, 0, row, failure()),
            "c": Cancelled(0, 0, row),
        }[what]
        excused = circuit.ended(request, event, now, len(flying), row)
        succeeded = succeeded or what == "a"
        assert circuit.since is None or succeeded
        assert what != "a" or request.at < now - seconds or circuit.state == "closed"
        assert not (what == "f" and was_open) or excused
        assert circuit.earliest(now) >= now
        assert circuit.forgiven(row) >= 0
