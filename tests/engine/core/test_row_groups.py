"""Row groups: how a plan cuts its rows, and that rows which are there already stay where they are."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowloop.engine.core.row_groups import Earlier, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable

ROWS = st.integers(0, 60)
SIZES = st.integers(1, 12)
TARGETS = st.lists(ROWS, max_size=4)


def groups(plan: Plan) -> list[range]:
    """Give the rows of each row group."""
    starts = [plan.row(group, 0) for group in range(plan.row_groups)]
    return [range(start, start + plan.size(group)) for group, start in enumerate(starts)]


def extended(rows: Iterable[int], size: int) -> list[Plan]:
    """Make one dataset ever longer."""
    targets = sorted(rows)
    return [Plan(rows, size, earlier=Earlier(tuple(targets[:i]))) for i, rows in enumerate(targets)]


@given(ROWS, SIZES, TARGETS)
def test_row_groups_cover_the_rows_once_and_in_order(rows: int, size: int, targets: list[int]) -> None:
    """None is empty or larger than it may be, and a row's number is its group's first plus its place in it."""
    plan = Plan(rows, size, earlier=Earlier(tuple(targets)))
    cut = groups(plan)
    assert [row for group in cut for row in group] == list(range(rows))
    assert all(0 < len(group) <= size for group in cut)
    assert all(plan.row(i, place) == row for i, group in enumerate(cut) for place, row in enumerate(group))


@given(ROWS, SIZES, TARGETS)
def test_a_row_group_is_smaller_only_where_a_run_ended(rows: int, size: int, targets: list[int]) -> None:
    """Earlier targets below the rows are where groups end, and no group ends early but there."""
    ends = {group.stop for group in groups(Plan(rows, size, earlier=Earlier(tuple(targets)))) if len(group) < size}
    assert ends <= {rows, *targets}
    cut = groups(Plan(rows, size, earlier=Earlier(tuple(targets))))
    assert {target for target in targets if 0 < target < rows} <= {group.stop for group in cut}


@given(st.lists(ROWS, min_size=1, max_size=5), SIZES)
def test_a_dataset_that_is_extended_keeps_its_row_groups(rows: list[int], size: int) -> None:
    """However often it is, on a boundary or off it: each run's groups are the next one's first."""
    for before, after in pairwise(groups(plan) for plan in extended(rows, size)):
        assert after[: len(before)] == before


@pytest.mark.parametrize(
    ("targets", "sizes"),
    [
        ((), [4, 4, 2]),
        ((8,), [4, 4, 2]),
        ((6,), [4, 2, 4]),
        ((6, 7), [4, 2, 1, 3]),
        ((1, 9), [1, 4, 4, 1]),
        ((7, 6, 7, 10), [4, 2, 1, 3]),
        ((0,), [4, 4, 2]),
    ],
)
def test_ten_rows_in_groups_of_four(targets: tuple[int, ...], sizes: list[int]) -> None:
    """What is there ends where it did, and groups are counted anew from there; the order of targets says nothing."""
    assert [len(group) for group in groups(Plan(10, 4, earlier=Earlier(targets)))] == sizes


@given(ROWS, SIZES, TARGETS)
def test_an_earlier_run_for_as_many_rows_changes_nothing(rows: int, size: int, targets: list[int]) -> None:
    """A run that is resumed as it was is cut as it was."""
    once = Plan(rows, size, earlier=Earlier(tuple(targets)))
    again = Plan(rows, size, earlier=Earlier((*targets, rows)))
    assert groups(once) == groups(again)


def test_a_plan_takes_no_memory_for_its_rows() -> None:
    """A trillion rows are planned, extended and looked up in a few kilobytes."""
    tracemalloc.start()
    try:
        plan = Plan(10**12, 1000, earlier=Earlier((10**9 + 1, 10**11 + 2)))
        assert (plan.row_groups, plan.row(10**6 + 1, 5)) == (10**9 + 2, 10**9 + 6)
        assert (plan.size(10**6), plan.size(plan.row_groups - 1)) == (1, 998)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000
