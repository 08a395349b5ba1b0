"""Deadline: fixed limits and limits learnt from answers, on a virtual clock and against a server that hangs."""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import rowloop as rl
from rowloop.engine.core.errors import ModelError
from rowloop.engine.models.deadline import Deadline
from rowloop.engine.models.time_limit import TimeLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import TypeAlias

    from fake_openai import FakeOpenAI

    Virtually: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]
    Seconds: TypeAlias = Callable[[random.Random, float], float]
    """How long a request takes that is sent at a time."""


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
    assert limit.seconds(50, 0.1) == 15


def test_the_limit_is_ten_times_the_p99_where_that_is_more_than_15_seconds():
    """Slow reasoning models keep their time."""
    limit = TimeLimit()
    assert limit.seconds(50, 1.4) == 15
    assert limit.seconds(50, 2.9) == 29
    assert limit.seconds(50, 45.0) == 450
    assert limit.seconds(50, 120.0) == 1200


def test_a_column_that_was_watched_for_a_short_time_has_forty_times_the_p99():
    """The slowest of the first answers cannot have arrived yet."""
    limit = TimeLimit()
    assert limit.seconds(50, 1.0, watched=39.9) == 40
    assert limit.seconds(50, 1.0, watched=40.0) == 15
    assert limit.seconds(50, 0.1, watched=0.0) == 15


def test_the_limit_leaves_room_for_the_slowest_answer_in_a_thousand():
    """Twice the 99.9th percentile, but one very slow answer does not keep hung requests for longer than ten minutes."""
    limit = TimeLimit()
    assert limit.seconds(5000, 1.0, 30.0) == 60
    assert limit.seconds(5000, 1.0, 500.0) == 600
    assert limit.seconds(5000, 80.0, 500.0) == 800


def test_a_request_that_runs_into_the_limit_again_and_again_gets_more_time():
    """The third attempt has twice the limit, the sixth sixteen times, up to ten minutes."""
    limit = TimeLimit()
    assert [limit.again(15, times) for times in range(1, 6)] == [15, 30, 60, 120, 240]
    assert limit.again(300, 5) == 600
    assert limit.again(900, 5) == 900


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
        assert await hung == 'no answer within 15 s (timeout="auto")'
        assert now() == pytest.approx(15)

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
        assert now() == pytest.approx(15)
        await missed(deadline, 1e6)
        assert now() == pytest.approx(30)

    virtually(main())


def lognormal(median: float, sigma: float) -> Seconds:
    """Answer with a heavy tail."""
    return lambda dice, _: median * math.exp(dice.gauss(0, sigma))


def bimodal(median: float, slow: float) -> Seconds:
    """Answer, in a share of cases, after 30 times as long."""
    return lambda dice, _: median * math.exp(dice.gauss(0, 0.2)) * (30 if dice.random() < slow else 1)


def slowing_down(median: float) -> Seconds:
    """Answer ten times slower from one moment on."""
    return lambda dice, time: median * math.exp(dice.gauss(0, 0.3)) * (10 if time > 12 * median else 1)


class Simulated(NamedTuple):
    """How many good answers were cut off, and how many of the rows were lost by that."""

    cut: int
    lost: int


def simulate(virtually: Virtually, seconds: Seconds, *, rows: int = 2000, in_flight: int = 64) -> Simulated:
    """Work rows whose request takes as long each time it is sent."""

    async def work(deadline: Deadline, row: int, takes: float) -> int:
        for attempt in range(6):
            try:
                await deadline.enforce(asyncio.sleep(takes), key=row)
            except ModelError:
                await asyncio.sleep(0.5)
            else:
                return attempt
        return 6

    async def main() -> Simulated:
        deadline, dice, numbers, cut = Deadline("auto"), random.Random(1), iter(range(rows)), []  # noqa: S311 - a simulation

        async def worker() -> None:
            cut.extend([await work(deadline, row, seconds(dice, now())) for row in numbers])

        await asyncio.gather(*[worker() for _ in range(in_flight)])
        return Simulated(sum(cut), cut.count(6))

    return virtually(main())


@pytest.mark.parametrize("median", [0.05, 1.0, 10.0])
@pytest.mark.parametrize(
    "seconds",
    [
        lambda median: lognormal(median, 1.0),
        lambda median: lognormal(median, 1.5),
        lambda median: bimodal(median, 0.01),
        slowing_down,
    ],
    ids=["heavy tail", "heavier tail", "1 % are 30 times slower", "ten times slower from one moment on"],
)
def test_answers_that_are_merely_slow_are_not_cut_off(
    virtually: Virtually, seconds: Callable[[float], Seconds], median: float
):
    """Less than one in a thousand, whatever the distribution, and no row is lost."""
    simulated = simulate(virtually, seconds(median))
    assert simulated.cut <= 2
    assert not simulated.lost


def test_two_percent_that_hang_do_not_raise_the_limit_by_more_than_doubling_it(virtually: Virtually):
    """The patience with the first answers ends with the first attempt that runs into the limit."""

    async def main():
        deadline = Deadline("auto", TimeLimit(least=0.5))
        hung = [asyncio.create_task(missed(deadline, 1e6)) for _ in range(8)]
        for _ in range(8):
            await asyncio.gather(*[deadline.enforce(asyncio.sleep(0.1)) for _ in range(50)])
        await asyncio.gather(*hung)
        assert now() == pytest.approx(4.0, abs=0.3)
        await missed(deadline, 1e6)
        assert now() < 13

    virtually(main())


def test_a_few_rows_that_always_take_long_are_not_lost(virtually: Virtually):
    """Two in a thousand requests need 30 times as long, each time: they are cut off at first, then get their time."""
    simulated = simulate(virtually, bimodal(1.0, 0.002), rows=5000)
    assert 0 < simulated.cut <= 40
    assert not simulated.lost


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


@pytest.mark.stress
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
