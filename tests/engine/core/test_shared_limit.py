"""One limit, pace and circuit for several runs: what they keep together, and what each keeps for itself."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from statistics import mean

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from rowloop.engine.core.bounds import Pace
from rowloop.engine.core.events import Done, Failed, Failure, Limited
from rowloop.engine.core.graph import Lane
from runs_together import Runs
from shared_permits import RealPermits

DOWN = Failure("ModelError", "refused", retryable=True, kind="connection")


def lanes(*figures: tuple[int, float | None]) -> list[Lane]:
    """Give a lane to each run: how many at once, and how many a minute."""
    return [
        Lane("m", most, start=most, pace=None if a_minute is None else Pace(a_minute)) for most, a_minute in figures
    ]


def most_in_a_minute(sent: list[tuple[float, int]]) -> int:
    """Return the largest number of requests in any sixty seconds."""
    times = [time for time, _ in sent]
    return max(sum(first <= time < first + 60 for time in times) for first in times)


def test_six_runs_keep_120_a_minute_and_64_at_once_together_in_equal_shares() -> None:
    """They take as long as one run with all the rows, and end together."""
    runs = Runs(lanes(*[(64, 120.0)] * 6), [60] * 6)
    for run in range(6):
        runs.start(run)
    runs.until(60.0)
    assert 119 <= len(runs.sent) <= 122
    assert Counter(run for _, run in runs.sent) == dict.fromkeys(range(6), pytest.approx(20, abs=2))
    runs.finish()
    assert most_in_a_minute(runs.sent) <= 122
    assert runs.sent[-1][0] == pytest.approx(360 / 2, abs=1.5)


@pytest.mark.parametrize("runs", [2, 6])
def test_runs_that_are_not_paced_have_equal_parts_of_64(runs: int) -> None:
    """Whoever began first."""
    together = Runs(lanes(*[(64, None)] * runs), [600] * runs)
    for run in range(runs):
        together.start(run)
        together.until(run * 2.0)
    held = []
    while together.now < 2.0 * runs + 6:
        together.step()
        assert sum(together.in_flight) <= 64
        if together.now > 2.0 * runs + 2:
            held.append(together.in_flight)
    assert [mean(run) for run in zip(*held, strict=True)] == pytest.approx([64 / runs] * runs, abs=1.5)
    together.finish()


def test_each_run_keeps_its_own_figures_and_together_the_largest_limit_and_the_smallest_budgets() -> None:
    """Four and ten at once: ten together. Sixty and six hundred a minute: sixty together, as long as that run lasts."""
    runs = Runs(lanes((4, None), (10, 600.0)), [400, 400])
    runs.start(0)
    runs.start(1)
    while runs.now < 20.0:
        runs.step()
        assert runs.in_flight[0] <= 4
        assert sum(runs.in_flight) <= 10
    paced = Runs(lanes((64, 60.0), (64, 600.0)), [10, 400])
    paced.start(0)
    paced.start(1)
    paced.until(10.0)
    assert len(paced.sent) == pytest.approx(11, abs=1)
    while not paced.members[0].stopped:
        paced.step()
    ended, sent = paced.now, len(paced.sent)
    paced.until(ended + 10)
    assert len(paced.sent) - sent == pytest.approx(100, abs=8)
    paced.finish()


def test_a_limit_set_for_one_run_caps_that_run_alone() -> None:
    """The other takes what it leaves, at once."""
    runs = Runs(lanes((8, None), (8, None)), [100, 100])
    runs.start(0)
    runs.start(1)
    runs.until(4.0)
    runs.feed(0, Limited(0, 1))
    runs.until(6.0)
    assert runs.in_flight == [1, 7]
    runs.finish()


def test_runs_one_after_the_other_keep_the_pace() -> None:
    """Twenty runs of ten rows are no faster than one of two hundred."""
    runs = Runs(lanes(*[(64, 120.0)] * 20), [10] * 20)
    for run in range(20):
        runs.start(run)
        while not runs.members[run].stopped:
            runs.step()
    assert most_in_a_minute(runs.sent) <= 122
    runs.finish()


def test_the_slot_of_a_run_that_is_cancelled_is_used_by_another() -> None:
    """No second of the pace is lost, though the cancelled run's turn was next."""
    runs = Runs(lanes((64, 60.0), (64, 60.0)), [40, 40])
    runs.start(0)
    runs.start(1)
    runs.until(9.7)
    runs.cancel(0)
    runs.until(30.0)
    assert len(runs.sent) == pytest.approx(31, abs=1)
    runs.finish()


def test_a_429_seen_by_one_run_holds_all() -> None:
    """The endpoint asks for two seconds and refuses everything: the other run sends nothing until they are over."""
    runs = Runs(lanes((64, None), (64, None)), [300, 300], share=1.0)
    runs.start(0)
    while not runs.source.throttle.requests.held(runs.now):
        runs.step()
    held_at = runs.now
    runs.start(1)
    runs.until(held_at + 1.99)
    assert [time for time, _ in runs.sent if time > held_at] == []
    runs.rate_limited = 0.0
    runs.until(held_at + 4.0)
    assert {run for time, run in runs.sent if time > held_at} == {0, 1}
    runs.finish()
    assert [member.tracker.totals.committed for member in runs.members] == [300, 300]


def test_what_one_run_has_learnt_serves_the_next() -> None:
    """The first began with two at once; the second has as many at once as the first had in the end."""
    runs = Runs([Lane("m", 64, start=2)] * 2, [100, 100])
    runs.start(0)
    while not runs.members[0].stopped:
        runs.step()
    assert runs.source.throttle.limit > 10
    runs.start(1)
    assert runs.in_flight == [0, runs.source.throttle.limit]
    runs.finish()


def fail(runs: Runs) -> None:
    """Let what happens next happen, with a connection error for each request that would be answered."""
    runs.events = [
        (time, number, run, Failed(event.group, event.column, event.row, DOWN) if isinstance(event, Done) else event)
        for time, number, run, event in runs.events
    ]
    runs.step()


def test_an_outage_found_by_one_run_is_open_for_all_and_probed_once() -> None:
    """A run that begins meanwhile sends nothing by itself, and both go on when a single probe has been answered."""
    runs = Runs(lanes((8, None), (8, None)), [100, 20])
    assert isinstance(runs.source, RealPermits)
    circuit = runs.source.circuit
    assert circuit is not None
    runs.start(0)
    runs.until(5.0)
    while circuit.since is None:
        fail(runs)
    runs.start(1)
    (lane,) = runs.members[1].tracker.lanes
    assert (lane.in_flight, lane.open_since, lane.outages, lane.runs) == (0, 0.0, 1, 2)
    while sum(runs.in_flight):
        fail(runs)
    quiet_since = runs.now
    while circuit.since is not None:
        runs.step()
    probes = [time for time, _ in runs.sent if quiet_since < time < runs.now]
    assert probes
    assert min((later - time for time, later in pairwise(probes)), default=1.0) >= 0.25
    runs.until(runs.now + 2.0)
    assert min(runs.in_flight) >= 3
    runs.finish()
    assert [member.tracker.totals.committed for member in runs.members] == [100, 20]


@given(
    figures=st.lists(st.tuples(st.integers(1, 9), st.sampled_from([None, None, 60.0, 600.0])), min_size=2, max_size=5),
    begins=st.lists(st.floats(0, 12), min_size=5, max_size=5),
    acts=st.lists(st.sampled_from(["well", "cancelled", "broken", "capped"]), min_size=5, max_size=5),
    seed=st.integers(0, 2**16),
    share=st.sampled_from([0.0, 0.2, 0.9]),
)
@settings(max_examples=60)
def test_runs_with_different_figures_never_exceed_them_and_all_finish(
    figures: list[tuple[int, float | None]], begins: list[float], acts: list[str], seed: int, share: float
) -> None:
    """`Runs` checks after each moment that no free permit is waited for, and that every wait has a timer."""
    runs = Runs(lanes(*figures), [40] * len(figures), seed, share)
    for begin, run in sorted(zip(begins, range(len(figures)), strict=False)):
        runs.until(begin)
        runs.start(run)
    runs.until(14.0)
    for run, act in zip(range(len(figures)), acts, strict=False):
        member = runs.members[run]
        if member.stopped:
            continue
        if act == "cancelled":
            runs.cancel(run)
        elif act == "broken":
            runs.break_off(run)
        elif act == "capped":
            runs.feed(run, Limited(0, 1))
    runs.finish()
    well = [run for run in range(len(figures)) if acts[run] not in {"cancelled", "broken"}]
    assert [runs.members[run].tracker.totals.committed for run in well] == [40] * len(well)
    assert isinstance(runs.source, RealPermits)
    assert runs.source.waiting == 0
