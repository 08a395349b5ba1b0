"""Permits from a source that is not the run's own: several runs share it, in plain calls and in a real loop."""

from __future__ import annotations

import asyncio
from statistics import mean
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from rowloop.engine.core.bounds import Pace
from rowloop.engine.core.events import (
    Budgeted,
    Done,
    Execute,
    Paused,
    Resumed,
    Started,
    Wake,
    Woken,
)
from rowloop.engine.core.graph import Lane
from shared_permits import RealPermits, SharedPermits
from virtual_run import VirtualRun

if TYPE_CHECKING:
    from collections.abc import Callable


from runs_together import Runs


@given(
    lane=st.builds(
        Lane,
        st.just("m"),
        st.integers(1, 12),
        st.none() | st.integers(1, 12),
        st.sampled_from([None, Pace(120), Pace(None, 6000), Pace(6000, 60_000)]),
    ),
    rows=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    begins=st.lists(st.floats(0, 20), min_size=4, max_size=4),
    ends=st.lists(st.sampled_from(["well", "well", "cancelled", "broken"]), min_size=4, max_size=4),
    seed=st.integers(0, 2**16),
    share=st.sampled_from([0.0, 0.1, 0.9]),
    kind=st.sampled_from([RealPermits, RealPermits, SharedPermits]),
)
@settings(max_examples=100)
def test_runs_that_share_permits_never_exceed_them_together_and_all_finish(  # noqa: PLR0913, PLR0917 - each is drawn
    lane: Lane,
    rows: list[int],
    begins: list[float],
    ends: list[str],
    seed: int,
    share: float,
    kind: type[RealPermits | SharedPermits],
) -> None:
    """Whatever the limit, the pace and the endpoint do, whenever each run begins, and however others end."""
    runs = Runs(lane, rows, seed, share, kind)
    for begin, run in sorted(zip(begins, range(len(rows)), strict=False)):
        runs.until(begin)
        runs.start(run)
    runs.until(22.0)
    for run, end in zip(range(len(rows)), ends, strict=False):
        if end == "cancelled" and not runs.members[run].stopped:
            runs.cancel(run)
        elif end == "broken":
            runs.break_off(run)
    runs.finish()
    well = [run for run in range(len(rows)) if ends[run] == "well"]
    assert [runs.members[run].tracker.totals.committed for run in well] == [rows[run] for run in well]


def test_a_paused_run_leaves_its_permits_to_the_others_and_asks_for_them_again() -> None:
    """While it is paused the other has all ten; once it is resumed they share them."""
    runs = Runs(Lane("m", 10), [200, 200])
    runs.start(0)
    runs.start(1)
    runs.until(5.0)
    runs.feed(0, Paused())
    runs.until(8.0)
    assert runs.in_flight == [0, 10]
    runs.feed(0, Resumed())
    runs.until(12.0)
    assert min(runs.in_flight) >= 4
    runs.finish()
    assert [member.tracker.totals.committed for member in runs.members] == [200, 200]


def test_a_run_whose_budget_is_raised_asks_for_its_permits_again() -> None:
    """It has given them up when the budget was spent, and nothing of it has ended since."""
    runs = Runs(Lane("m", 10), [200, 200])
    runs.start(0)
    runs.until(5.0)
    runs.feed(0, Budgeted(None, 1, {}, 0.0, 1))
    runs.start(1)
    runs.feed(0, Budgeted(None, None, {}, 0.0, 1))
    runs.finish()
    assert [member.tracker.totals.committed for member in runs.members] == [200, 200]


def test_a_run_that_begins_later_gets_its_share() -> None:
    """The first run holds all ten permits; within a round trip each has five, and at the end it has all ten again."""
    runs, held = Runs(Lane("m", 10), [200, 60]), []
    runs.start(0)
    runs.until(5.0)
    assert runs.in_flight == [10, 0]
    runs.start(1)
    assert runs.in_flight == [10, 0]
    runs.until(6.5)
    while runs.members[1].tracker.lanes[0].ready:
        held.append(runs.in_flight)
        runs.step()
    assert [mean(run) for run in zip(*held, strict=True)] == pytest.approx([5, 5], abs=0.5)
    while not runs.members[1].stopped:
        runs.step()
    runs.until(runs.now)
    assert runs.in_flight == [10, 0]
    runs.finish()


def test_shares_of_equal_runs_are_equal() -> None:
    """Three runs of the same size end within a few round trips of one another."""
    runs, ended = Runs(Lane("m", 7), [200, 200, 200]), {}
    for run in range(3):
        runs.start(run)
    while runs.events:
        runs.step()
        ended |= {run: runs.now for run, member in enumerate(runs.members) if member.stopped and run not in ended}
    assert max(ended.values()) - min(ended.values()) < 0.05 * max(ended.values())


def test_a_run_without_permits_is_woken_by_another_runs_answer() -> None:
    """It has nothing in flight and no timer: only the answer to the other run's request can make it start."""
    runs = Runs(Lane("m", 1), [5, 1])
    runs.start(0)
    assert not any(isinstance(command, Execute | Wake) for command in runs.feed(1, Started()))
    (first,) = runs.members[0].running
    assert runs.feed(0, Done(0, 0, first.row)) == []  # the permit is kept for the one that has none
    woken = [(run, event) for _, _, run, event in runs.events if isinstance(event, Woken)]
    assert woken == [(1, Woken(0))]
    assert runs.feed(*woken[0]) == [Execute(0, 0, 0)]
    assert runs.in_flight == [0, 1]


def test_a_run_that_is_halted_leaves_the_permits_to_the_others() -> None:
    """Its tasks that were waiting wait no longer, so no permit is kept for them."""
    runs = Runs(Lane("m", 4), [50, 50])
    runs.start(0)
    runs.start(1)
    runs.until(3.0)
    assert runs.in_flight == [2, 2]
    halted = runs.source.shares[0]
    runs.cancel(0)
    assert halted.waiting == 0
    runs.until(runs.now)
    assert runs.in_flight == [0, 4]
    runs.finish()


def test_a_run_that_breaks_off_gives_its_permits_back() -> None:
    """The shell closes the tracker whatever has happened: another run takes what was in flight."""
    runs = Runs(Lane("m", 3), [9, 9])
    runs.start(0)
    runs.start(1)
    assert runs.in_flight == [3, 0]
    runs.break_off(0)
    runs.until(0.0)
    assert runs.in_flight == [0, 3]
    runs.finish()


def test_a_pace_is_shared() -> None:
    """Sixty requests a minute for both runs: twenty take nineteen seconds, whoever sends them."""
    runs = Runs(Lane("m", 8, pace=Pace(requests_per_minute=60)), [10, 10])
    runs.start(0)
    runs.start(1)
    runs.until(18.5)
    sent = [member.tracker.totals.columns[0].completed + len(member.running) for member in runs.members]
    assert sum(sent) == 19
    runs.finish()


def test_a_run_reports_the_limit_since_it_began() -> None:
    """The limit was learnt by the first run: the second one starts with it, at its own second 0."""
    runs = Runs(Lane("m", 64, start=2), [300, 20])
    runs.start(0)
    runs.until(100.0)
    assert runs.members[0].tracker.limits["m"][0].limit == 2
    known = runs.source.throttle.limit
    assert known > 10
    runs.start(1)
    (first,) = runs.members[1].tracker.limits["m"]
    assert (first.time, first.limit, first.why) == (0.0, known, "started")
    runs.finish()


# In a real loop, with a clock that is virtual


@pytest.mark.parametrize("kind", [RealPermits, SharedPermits])
def test_schedulers_share_permits(virtually: Callable[[Any], Any], kind: type[RealPermits | SharedPermits]) -> None:
    """Two runs in one loop: four requests at once together, each run half of the time, and all rows come out."""
    now, most, seen = 0, 0, []

    def call(run: int) -> Callable[[int], Any]:
        async def work(value: int) -> int:
            nonlocal now, most
            now, most = now + 1, max(most, now + 1)
            seen.append(run)
            await asyncio.sleep(1.0)
            now -= 1
            return value

        return work

    async def both() -> list[VirtualRun]:
        source = kind(Lane("openai:m0", 4))
        runs = [VirtualRun(call(i), rows=40, permits=source) for i in range(2)]
        assert await asyncio.gather(*(run() for run in runs)) == [None, None]
        assert source.in_flight == 0
        return runs

    runs = virtually(both())
    assert (most, len(seen)) == (4, 80)
    assert [run.tracker.totals.committed for run in runs] == [40, 40]
    assert seen[:40].count(0) == pytest.approx(20, abs=3)
    assert max(run.elapsed for run in runs) == pytest.approx(20, abs=1)


def test_a_scheduler_that_breaks_off_gives_its_permits_back(virtually: Callable[[Any], Any]) -> None:
    """The engine of the first run fails while it holds every permit: the second one goes through."""

    async def broken(value: int) -> int:
        await asyncio.sleep(5.0)
        raise RuntimeError(f"no fault of cell {value}")

    async def fine(value: int) -> int:
        await asyncio.sleep(1.0)
        return value

    async def both() -> list[Any]:
        source = RealPermits(Lane("openai:m0", 2))
        runs = [VirtualRun(call, rows=10, parallel=2, permits=source) for call in (broken, fine)]
        ended = await asyncio.gather(*(run() for run in runs), return_exceptions=True)
        assert source.in_flight == 0
        return [*ended, runs[1].tracker.totals.committed, runs[1].elapsed]

    error, reason, committed, elapsed = virtually(both())
    assert str(error).startswith("no fault of cell")
    assert (reason, committed) == (None, 10)
    assert elapsed == pytest.approx(10, abs=0.1)
