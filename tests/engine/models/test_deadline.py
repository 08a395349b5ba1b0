"""Deadline: fixed limits and limits learnt from answers, on a virtual clock and against a server that hangs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import rowloop as rl
from rowloop.engine.core.errors import ModelError
from rowloop.engine.core.policy import TimeLimit
from rowloop.engine.models.deadline import Deadline

if TYPE_CHECKING:
    from pathlib import Path

    from fake_openai import FakeOpenAI


def now() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


async def missed(deadline: Deadline, seconds: float) -> str:
    """Take too long, and return the message."""
    with pytest.raises(ModelError) as raised:
        await deadline.enforce(asyncio.sleep(seconds))
    assert raised.value.kind == "timeout"
    assert raised.value.retryable
    return str(raised.value)


def test_the_limit_is_600_seconds_until_50_answers_are_in():
    """Too few answers allow no estimate."""
    limit = TimeLimit()
    assert limit.seconds(49, 0.1) == 600
    assert limit.seconds(50, 0.1) == 30


def test_the_limit_is_ten_times_the_p99_where_that_is_more_than_30_seconds():
    """Slow reasoning models keep their time."""
    limit = TimeLimit()
    assert limit.seconds(50, 2.9) == 30
    assert limit.seconds(50, 45.0) == 450
    assert limit.seconds(50, 120.0) == 1200


def test_attempts_that_ran_into_the_limit_double_it_up_to_600_seconds():
    """Where many attempts are cut off, the answers may be slower than those seen so far."""
    limit = TimeLimit()
    assert limit.seconds(100, limit.counts_as(30)) == 60
    assert limit.seconds(100, limit.counts_as(400)) == 600
    assert limit.seconds(100, limit.counts_as(900)) == 900


def test_a_fixed_limit_ends_an_attempt_when_it_is_over(virtually):
    """timeout=5 means five seconds in all."""

    async def main():
        assert await missed(Deadline(5.0), 3600) == "no answer within timeout=5 s"
        assert now() == pytest.approx(5)

    virtually(main())


def test_an_attempt_that_hangs_from_the_start_is_ended_by_a_limit_learnt_after_it_began(virtually):
    """The first requests may hang: a limit learnt later applies to them as well."""

    async def main():
        deadline = Deadline("auto")
        hung = asyncio.create_task(missed(deadline, 1e6))
        for _ in range(50):
            await deadline.enforce(asyncio.sleep(0.2))
        assert now() == pytest.approx(10)
        assert await hung == 'no answer within 30 s (timeout="auto")'
        assert now() == pytest.approx(30)

    virtually(main())


def test_without_50_answers_a_hung_attempt_ends_after_600_seconds(virtually):
    """The limit before anything is known."""

    async def main():
        deadline = Deadline("auto")
        await deadline.enforce(asyncio.sleep(1))
        await missed(deadline, 1e6)
        assert now() == pytest.approx(601)

    virtually(main())


def test_a_model_whose_answers_become_slow_is_not_cut_off_for_ever(virtually):
    """Fast answers first, then slow ones: a few are cut off, then the limit is higher."""

    async def main():
        deadline = Deadline("auto")
        for _ in range(50):
            await deadline.enforce(asyncio.sleep(0.2))
        cut = 0
        for _ in range(20):
            try:
                await deadline.enforce(asyncio.sleep(200))
            except ModelError:
                cut += 1
        assert cut <= 4

    virtually(main())


def test_half_a_percent_that_hangs_leaves_the_limit_where_it_is(virtually):
    """The doubling is for models that are slow, not for a few requests that hang."""

    async def main():
        deadline = Deadline("auto")
        hung = [asyncio.create_task(missed(deadline, 1e6)) for _ in range(10)]
        for _ in range(40):
            await asyncio.gather(*[deadline.enforce(asyncio.sleep(0.2)) for _ in range(50)])
        await asyncio.gather(*hung)
        assert now() == pytest.approx(30)
        await missed(deadline, 1e6)
        assert now() == pytest.approx(60)

    virtually(main())


def test_cancelling_an_attempt_is_no_timeout_and_leaves_nothing_behind(virtually):
    """A cancellation is passed on."""

    async def main():
        deadline = Deadline("auto")
        task = asyncio.create_task(deadline.enforce(asyncio.sleep(100)))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not len(deadline._sweep)

    virtually(main())


def test_the_default_timeout_of_a_model_is_auto():
    """Both forms are accepted; everything else is refused with the name of the field."""
    assert rl.Model("openai:m").timeout == "auto"
    assert rl.Model("openai:m", timeout=2).timeout == 2
    for wrong in (0, -1, float("nan"), float("inf"), "soon", True, None):
        with pytest.raises(rl.RecipeError, match='timeout: must be a number of seconds above 0, or "auto"'):
            rl.Model("openai:m", timeout=wrong)  # type: ignore[arg-type]


def test_a_run_of_short_answers_survives_requests_that_hang_for_ever(
    server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """End to end, with a floor of half a second: requests that are never answered are ended and asked again."""
    monkeypatch.setattr("rowloop.engine.models.deadline.TimeLimit", lambda: TimeLimit(least=0.5))
    server.configure(latency=0.005, fault_hang=0.02, fault_attempts=1, seed=1)
    recipe = rl.Recipe(
        models={"m": rl.Model("openai:m", base_url=server.url)},
        columns=[
            rl.Uniform("id"),
            rl.Text("a", model="m", prompt="{{ id }}"),
        ],
        seed=1,
    )
    result = recipe.build(tmp_path / "out", rows=400, progress=False)
    assert result.status == "complete"
    assert result.elapsed < 30
