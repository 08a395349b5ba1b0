"""The tracker by plain calls: one event in, the commands out."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import deque
from typing import TYPE_CHECKING

import pytest

from rowloop.engine.core.events import (
    WHOLE,
    Admit,
    Cancel,
    Cancelled,
    Commit,
    CommitFailed,
    Committed,
    Discard,
    Done,
    Due,
    Execute,
    Failed,
    Halted,
    IllegalEventError,
    Null,
    Record,
    Restored,
    RunAfter,
    Started,
    Stop,
    Tally,
)
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.policy import ErrorBudget, Exhausted, Policies, RetryPolicy
from rowloop.engine.core.row_groups import Earlier, Plan
from rowloop.engine.core.totals import CellCounts
from rowloop.engine.core.tracker import Tracker
from tracker_reference import BROKEN, FATAL, FLAKY, LATER, LIMITED

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

    from rowloop.engine.core.events import Command, Event
    from rowloop.engine.core.graph import OnError

OFF = ErrorBudget(rate=None)
NOTHING = Earlier()
BEGUN = Earlier(begun=(0,))
LANE = Lane("writer", 2)


def tracker(
    *nodes: Node, rows: int = 2, size: int = 100, budget: ErrorBudget = OFF, earlier: Earlier = NOTHING
) -> Tracker:
    """Make a tracker with waits of 1, 2, ... seconds and three attempts."""
    plan = Plan(rows, size, earlier=earlier)
    return Tracker(compile_graph(nodes), plan, Policies(RetryPolicy(3, float, longest_wait=60), budget))


def answers(run: Tracker, *events: Event) -> list[Command]:
    """Hand over events, and return the commands that follow from the last, without tallies."""
    answer: list[Command] = []
    for event in events:
        answer = run.handle(event)
    return [_without_tally(command) for command in answer]


def _without_tally(command: Command) -> Command:
    if isinstance(command, Commit):
        return Commit(command.group, command.rows)
    return Discard(command.group) if isinstance(command, Discard) else command


# The way of a row group


def test_a_row_group_from_admission_to_commit() -> None:
    """Samplers fill the group, cells follow as their lane has room, row by row, and the group is committed."""
    run = tracker(Node("topic", strategy="whole"), Node("q", ("topic",), lane=LANE), Node("a", ("q",)), rows=3)
    assert answers(run, Started()) == [Admit(0, 0, 3), Execute(0, 0, WHOLE, range(3))]
    assert answers(run, Done(0, 0, WHOLE)) == [Execute(0, 1, 0), Execute(0, 1, 1)]
    assert answers(run, Done(0, 1, 1)) == [Execute(0, 2, 1), Execute(0, 1, 2)]
    assert answers(run, Failed(0, 1, 0, FLAKY)) == [RunAfter(1.0, 0, 1, 0)]
    assert answers(run, Done(0, 2, 1)) == []
    assert answers(run, Failed(0, 1, 2, BROKEN)) == [Record(0, 1, 2, BROKEN, 1)]
    assert answers(run, Due(0, 1, 0)) == [Execute(0, 1, 0)]
    assert answers(run, Done(0, 1, 0)) == [Execute(0, 2, 0)]
    assert answers(run, Done(0, 2, 0)) == [Commit(0, [0, 1])]
    assert answers(run, Committed(0)) == [Stop(None)]
    assert run.totals.columns == [
        CellCounts(completed=3),
        CellCounts(completed=2, failed=1),
        CellCounts(completed=2, skipped=1),
    ]
    assert (run.totals.committed, run.totals.dropped, run.totals.retries, run.totals.groups_over) == (2, 1, 1, 1)


def test_a_whole_column_waits_for_every_row() -> None:
    """A whole column starts when the last cell it needs is done, and is given the rows that are left."""
    run = tracker(Node("a", lane=Lane("writer", 9)), Node("all", ("a",), "whole"), rows=3)
    assert answers(run, Started(), Done(0, 0, 0), Failed(0, 0, 1, BROKEN)) == [Record(0, 0, 1, BROKEN, 1)]
    assert answers(run, Done(0, 0, 2)) == [Execute(0, 1, WHOLE, [0, 2])]
    assert answers(run, Done(0, 1, WHOLE)) == [Commit(0, [0, 2])]


def test_a_small_row_group_overtakes_a_large_one() -> None:
    """Row groups are committed as they are done, not in their order."""
    run = tracker(Node("a", lane=Lane("writer", 9)), rows=3, size=2)
    assert answers(run, Started()) == [
        Admit(0, 0, 2),
        Execute(0, 0, 0),
        Execute(0, 0, 1),
        Admit(1, 2, 1),
        Execute(1, 0, 0),
    ]
    assert answers(run, Done(1, 0, 0)) == [Commit(1, range(1))]


def test_rows_are_admitted_until_a_lane_has_enough_waiting() -> None:
    """A lane starts full if there are rows for it, however small the row groups, and as many wait; then one by one."""
    run = tracker(Node("a", lane=Lane("writer", 3)), rows=10, size=1)
    assert [type(command) for command in answers(run, Started())] == [Admit, Execute] * 3 + [Admit] * 3
    assert answers(run, Done(0, 0, 0)) == [Commit(0, range(1)), Execute(3, 0, 0), Admit(6, 6, 1)]


def test_a_plan_without_rows_stops_at_once() -> None:
    """Nothing to do is done."""
    assert answers(tracker(Node("a"), rows=0), Started()) == [Stop(None)]


def test_a_stateful_column_takes_row_groups_one_at_a_time_in_their_order() -> None:
    """A row group that is ready early waits for its turn, and gets it when the ones before are through, or gone."""
    cell, whole = Node("a", lane=Lane("writer", 9)), Node("all", ("a",), "whole", Lane("f", 9), stateful=True)
    run = tracker(cell, whole, rows=4, size=1)
    answers(run, Started())
    assert answers(run, Done(2, 0, 0)) == []
    assert answers(run, Done(1, 0, 0)) == []
    assert answers(run, Done(0, 0, 0)) == [Execute(0, 1, WHOLE, range(1))]
    assert answers(run, Failed(0, 1, WHOLE, FLAKY)) == [RunAfter(1.0, 0, 1, WHOLE)]
    assert answers(run, Due(0, 1, WHOLE)) == [Execute(0, 1, WHOLE, range(1))]
    assert answers(run, Done(0, 1, WHOLE)) == [Commit(0, range(1)), Execute(1, 1, WHOLE, range(1))]
    assert answers(run, Failed(3, 0, 0, BROKEN)) == [Record(3, 0, 0, BROKEN, 1), Discard(3)]
    assert answers(run, Failed(1, 1, WHOLE, BROKEN))[1:] == [Discard(1), Execute(2, 1, WHOLE, range(1))]
    assert answers(run, Done(2, 1, WHOLE), Committed(0), Committed(2)) == [Stop(None)]


def test_a_row_group_that_is_gone_before_its_turn_is_passed_over() -> None:
    """The next one gets the turn in its place, also when it is admitted later."""
    cell, whole = Node("a", lane=Lane("writer", 9)), Node("all", ("a",), "whole", Lane("f", 9), stateful=True)
    run = tracker(cell, whole, rows=3, size=1)
    assert answers(run, Started(), Failed(1, 0, 0, BROKEN), Done(2, 0, 0)) == []
    assert answers(run, Done(0, 0, 0)) == [Execute(0, 1, WHOLE, range(1))]
    assert answers(run, Done(0, 1, WHOLE)) == [Commit(0, range(1)), Execute(2, 1, WHOLE, range(1))]


def test_in_a_halted_run_no_turn_is_passed_on() -> None:
    """A row group that waited for its turn is cut off, and not started because those before it are cut off as well."""
    cell, whole = Node("a", lane=Lane("writer", 9)), Node("all", ("a",), "whole", stateful=True)
    run = tracker(cell, whole, rows=2, size=1)
    assert answers(run, Started(), Done(1, 0, 0)) == []
    assert [type(command) for command in answers(run, Halted("cancelled"))] == [Cancel, Discard]
    assert answers(run, Cancelled(0, 0, 0)) == [Discard(0), Stop("cancelled")]


# Failures


def test_on_error_drop() -> None:
    """A row whose cell failed is dropped and recorded, and its other columns are skipped."""
    run = tracker(Node("a", lane=LANE), Node("b", ("a",)))
    assert answers(run, Started(), Failed(0, 0, 0, BROKEN)) == [Record(0, 0, 0, BROKEN, 1)]
    assert answers(run, Done(0, 0, 1), Done(0, 1, 1)) == [Commit(0, [1])]
    assert run.totals.columns == [CellCounts(completed=1, failed=1), CellCounts(completed=1, skipped=1)]


def test_on_error_null() -> None:
    """A nulled cell is recorded, and its row continues as if it had a value."""
    run = tracker(Node("a", lane=LANE, on_error="null"), Node("b", ("a",)))
    assert answers(run, Started(), Failed(0, 0, 0, BROKEN)) == [
        Record(0, 0, 0, BROKEN, 1),
        Null(0, 0, 0),
        Execute(0, 1, 0),
    ]
    assert answers(run, Done(0, 0, 1), Done(0, 1, 0), Done(0, 1, 1)) == [Commit(0, range(2))]
    assert run.totals.columns[0] == CellCounts(completed=1, failed=1)


def test_on_error_raise() -> None:
    """A failure in such a column halts the run: what is in flight is cancelled, and nothing more is committed."""
    run = tracker(Node("a", lane=LANE, on_error="raise"))
    assert answers(run, Started(), Failed(0, 0, 0, BROKEN)) == [Record(0, 0, 0, BROKEN, 1), Cancel()]
    assert answers(run, Done(0, 0, 1)) == [Discard(0), Stop("failed")]
    assert run.totals.cut_short == [0]


def test_on_error_raise_in_the_last_cell() -> None:
    """Nothing more is committed even if the row group is over with that very cell."""
    run = tracker(Node("a", lane=LANE, on_error="raise"))
    answer = answers(run, Started(), Done(0, 0, 0), Failed(0, 0, 1, BROKEN))
    assert answer == [Record(0, 0, 1, BROKEN, 1), Cancel(), Discard(0), Stop("failed")]


def test_a_fatal_failure_ends_the_run() -> None:
    """A refused key is not tried on ten thousand rows."""
    run = tracker(Node("a", lane=LANE), rows=10_000)
    assert Cancel() in answers(run, Started(), Failed(0, 0, 0, FATAL))
    assert answers(run, Cancelled(0, 0, 1))[-1] == Stop("failed")


def test_a_whole_column_that_fails_drops_all_its_rows() -> None:
    """One record names them all, nothing else of the row group is run, and nothing is committed."""
    run = tracker(Node("seed", strategy="whole"), Node("a", ("seed",), lane=LANE), rows=3)
    answer = answers(run, Started(), Failed(0, 0, WHOLE, BROKEN))
    assert answer == [Record(0, 0, WHOLE, BROKEN, 1, range(3)), Discard(0), Stop(None)]
    assert run.totals.columns == [CellCounts(failed=3), CellCounts(skipped=3)]
    assert run.totals.dropped == 3


def test_a_whole_column_that_is_nulled_keeps_its_rows() -> None:
    """The rows go on without its values."""
    run = tracker(Node("seed", strategy="whole", on_error="null"), Node("a", ("seed",)))
    answer = answers(run, Started(), Failed(0, 0, WHOLE, BROKEN))
    assert answer == [Record(0, 0, WHOLE, BROKEN, 1, range(2)), Null(0, 0, WHOLE), Execute(0, 1, 0), Execute(0, 1, 1)]


def test_a_row_group_without_rows_is_discarded() -> None:
    """A row group of which every row was dropped is not committed, and what waited for all of it is not run."""
    run = tracker(Node("a", lane=LANE), Node("all", ("a",), "whole"), Node("b", ("all",)))
    answer = answers(run, Started(), Failed(0, 0, 0, BROKEN), Failed(0, 0, 1, BROKEN))
    assert answer == [Record(0, 0, 1, BROKEN, 1), Discard(0), Stop(None)]
    assert run.totals.columns[2] == CellCounts(skipped=2)


def test_a_dropped_rows_cells_in_flight_end_on_their_own() -> None:
    """A sibling that is in flight may succeed for nothing; what waits for it is not run, and the group waits for it."""
    run = tracker(Node("a"), Node("b"), Node("c", ("b",)), rows=1)
    assert answers(run, Started(), Failed(0, 0, 0, BROKEN)) == [Record(0, 0, 0, BROKEN, 1)]
    assert answers(run, Done(0, 1, 0)) == [Discard(0), Stop(None)]
    assert run.totals.columns == [CellCounts(failed=1), CellCounts(completed=1), CellCounts(skipped=1)]


def test_a_dropped_rows_cell_is_not_tried_again() -> None:
    """Another attempt would be paid for and thrown away; nor does the cell count as failed, or end the run."""
    run = tracker(Node("a"), Node("b", on_error="raise"))
    answers(run, Started(), Failed(0, 0, 0, BROKEN))
    assert answers(run, Failed(0, 1, 0, FLAKY)) == []
    assert run.totals.columns[1] == CellCounts(skipped=1, running=1)


def test_no_column_starts_for_rows_that_are_about_to_be_dropped() -> None:
    """When all rows go at once, a whole column does not start for those that go last."""
    nodes = [Node("seed", strategy="whole"), Node("a", lane=Lane("writer", 1)), Node("all", ("a",), "whole")]
    run = tracker(*nodes, rows=3)
    answers(run, Started(), Done(0, 1, 0), Done(0, 1, 1))
    assert Cancel() in answers(run, Failed(0, 0, WHOLE, FATAL))
    assert answers(run, Cancelled(0, 1, 2)) == [Discard(0), Stop("failed")]


def test_a_long_chain_of_whole_columns_is_skipped() -> None:
    """A thousand columns that wait for one another end without a recursion from one to the next."""
    nodes = [Node("c0", strategy="whole"), *(Node(f"c{i}", (f"c{i - 1}",), "whole") for i in range(1, 1000))]
    run = tracker(*nodes)
    assert answers(run, Started(), Failed(0, 0, WHOLE, BROKEN))[-2:] == [Discard(0), Stop(None)]


# Retries


def test_a_retry_that_succeeds() -> None:
    """The row is whole, and nothing is recorded but a retry."""
    run = tracker(Node("a"), rows=1)
    assert answers(run, Started(), Failed(0, 0, 0, FLAKY)) == [RunAfter(1.0, 0, 0, 0)]
    assert answers(run, Due(0, 0, 0)) == [Execute(0, 0, 0)]
    assert answers(run, Done(0, 0, 0)) == [Commit(0, range(1))]
    assert (run.totals.retries, run.totals.columns) == (1, [CellCounts(completed=1)])


def test_attempts_run_out() -> None:
    """After three attempts of three the row is dropped, and the record says how many there were."""
    run = tracker(Node("a"), rows=1)
    answers(run, Started(), Failed(0, 0, 0, FLAKY), Due(0, 0, 0), Failed(0, 0, 0, FLAKY), Due(0, 0, 0))
    assert answers(run, Failed(0, 0, 0, FLAKY)) == [Record(0, 0, 0, FLAKY, 3), Discard(0), Stop(None)]


def test_a_rate_limit_never_drops() -> None:
    """A hundred refusals delay a cell, and leave it the attempts it had."""
    run = tracker(Node("a"), rows=1)
    answers(run, Started())
    for attempt in range(1, 101):
        assert answers(run, Failed(0, 0, 0, LIMITED)) == [RunAfter(float(attempt), 0, 0, 0)]
        answers(run, Due(0, 0, 0))
    answers(run, Failed(0, 0, 0, FLAKY), Due(0, 0, 0), Failed(0, 0, 0, FLAKY), Due(0, 0, 0))
    assert answers(run, Failed(0, 0, 0, FLAKY))[0] == Record(0, 0, 0, FLAKY, 103)


def test_retry_after_is_honoured() -> None:
    """The wait is what the endpoint asked for, and up to a tenth more."""
    run = tracker(Node("a"), rows=1)
    (command,) = answers(run, Started(), Failed(0, 0, 0, LATER))
    assert isinstance(command, RunAfter)
    assert 3.0 <= command.delay <= 3.3


def test_a_wait_holds_no_permit() -> None:
    """While a cell waits for its next attempt, its place in the lane is another's."""
    run = tracker(Node("a", lane=Lane("writer", 1)))
    assert answers(run, Started(), Failed(0, 0, 0, FLAKY)) == [RunAfter(1.0, 0, 0, 0), Execute(0, 0, 1)]
    assert (run.totals.running, run.totals.waiting_to_retry) == (1, 1)


def test_a_retry_that_is_due_goes_first() -> None:
    """A cell that has waited once does not wait behind those that have never been tried."""
    run = tracker(Node("a", lane=Lane("writer", 1)), rows=9)
    answers(run, Started(), Failed(0, 0, 0, FLAKY), Due(0, 0, 0))
    assert answers(run, Done(0, 0, 1)) == [Execute(0, 0, 0)]


def test_a_whole_columns_retry_is_for_the_rows_that_are_left() -> None:
    """Rows that were dropped while it waited are skipped, not counted as worked."""
    run = tracker(Node("a"), Node("all", strategy="whole"), rows=3)
    answers(run, Started(), Failed(0, 1, WHOLE, FLAKY), Failed(0, 0, 1, BROKEN))
    assert answers(run, Due(0, 1, WHOLE)) == [Execute(0, 1, WHOLE, [0, 2])]
    answers(run, Done(0, 1, WHOLE))
    assert run.totals.columns[1] == CellCounts(completed=2, skipped=1)


def test_a_whole_columns_retry_ends_with_the_last_row() -> None:
    """When no row is left nobody waits for a retry, and its rows are skipped, whatever was tried before."""
    run = tracker(Node("a"), Node("all", strategy="whole"), rows=1)
    answer = answers(run, Started(), Failed(0, 1, WHOLE, FLAKY), Failed(0, 0, 0, BROKEN))
    assert answer == [Record(0, 0, 0, BROKEN, 1), Discard(0), Stop(None)]
    assert answers(run, Due(0, 1, WHOLE)) == []
    assert run.totals.columns[1] == CellCounts(skipped=1)
    assert run.totals.waiting_to_retry == 0


# Lanes


def test_columns_that_share_a_lane_take_turns() -> None:
    """Neither column waits until the other has nothing left."""
    lane = Lane("writer", 1)
    run = tracker(Node("a", lane=lane), Node("b", lane=lane), rows=3)
    columns = [command.column for command in answers(run, Started()) if isinstance(command, Execute)]
    for row, column in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]:
        columns += [command.column for command in answers(run, Done(0, column, row)) if isinstance(command, Execute)]
    assert columns == [0, 1, 0, 1, 0, 1]


def test_a_cooling_lane_holds_up_no_other() -> None:
    """Cells that wait for a retry in one lane leave the cells of another alone."""
    run = tracker(Node("a", lane=Lane("slow", 1)), Node("b", lane=Lane("fast", 1)))
    answers(run, Started(), Failed(0, 0, 0, LIMITED))
    assert answers(run, Done(0, 1, 0)) == [Execute(0, 1, 1)]


# How a run ends early


def outcomes(budget: ErrorBudget, ends: str) -> list[Command]:
    """Let the cells of a run end, with a value (.) or failing (F), and give all answers."""
    run = tracker(Node("a"), rows=len(ends) + 1, budget=budget)
    events = [Failed(0, 0, row, BROKEN) if end == "F" else Done(0, 0, row) for row, end in enumerate(ends)]
    return [command for event in (Started(), *events) for command in run.handle(event)]


def test_early_shutdown_waits_for_a_full_window() -> None:
    """Three failures of three do not stop a run that judges by four outcomes; the fourth does."""
    assert Cancel() not in outcomes(ErrorBudget(window=4, rate=0.5), "FFF")
    assert Cancel() in outcomes(ErrorBudget(window=4, rate=0.5), "FFFF")


def test_early_shutdown_at_its_rate() -> None:
    """Two of the latest four stop it, also when the fourth is a success; failures that are longer ago do not count."""
    assert Cancel() in outcomes(ErrorBudget(window=4, rate=0.5), "F.F.")
    assert Cancel() not in outcomes(ErrorBudget(window=4, rate=0.5), "F...F...F...F")


def test_early_shutdown_counts_only_failures_that_no_retry_can_mend() -> None:
    """Attempts that ran out are an outcome, and no failure in the budget's eyes."""
    policies = Policies(RetryPolicy(attempts=1), ErrorBudget(window=2, rate=0.5))
    run = Tracker(compile_graph([Node("a")]), Plan(9), policies)
    answers(run, Started(), *(Failed(0, 0, row, FLAKY) for row in range(8)))
    assert run.halted is None
    answers(run, Failed(0, 0, 8, BROKEN))
    assert run.halted == "early_shutdown"


def test_the_window_of_early_shutdown_also_fills_with_spent_retries() -> None:
    """An outcome that is no failure itself may complete the window."""
    policies = Policies(RetryPolicy(attempts=1), ErrorBudget(window=2, rate=0.5))
    run = Tracker(compile_graph([Node("a")]), Plan(9), policies)
    assert Cancel() in answers(run, Started(), Failed(0, 0, 0, BROKEN), Failed(0, 0, 1, FLAKY))


def failing_rows(run: Tracker, rows: Iterable[int]) -> None:
    """Let the cells of the column 0 fail in these rows."""
    for row in rows:
        run.handle(Failed(0, 0, row, BROKEN))


def test_a_run_of_which_nothing_succeeds_stops_after_ten_failures_in_a_row_of_its_first_cells() -> None:
    """Failures behind a cell that is in flight, or waits for another attempt, do not count before it has ended."""
    run = tracker(Node("a", lane=Lane("l", 60)), rows=60, budget=ErrorBudget())
    run.handle(Started())
    failing_rows(run, [0, *range(3, 20)])
    run.handle(Failed(0, 0, 1, FLAKY))
    assert run.halted is None
    failing_rows(run, [2])
    assert run.halted is None  # row 1 waits for another attempt
    run.handle(Due(0, 0, 1))
    failing_rows(run, [1])
    assert (run.halted, run.exhausted) == ("early_shutdown", Exhausted(20, 20, 0))


def test_a_run_of_which_anything_has_succeeded_is_judged_over_the_whole_window() -> None:
    """A success of another column that waits in a lane is enough, also one of an earlier run; samplers do not count."""
    lane = Lane("l", 30)
    nodes = Node("a", lane=lane), Node("b", lane=lane, on_error="null"), Node("sampler", strategy="whole")
    run = tracker(*nodes, rows=60, budget=ErrorBudget())
    answers(run, Started(), Done(0, 2, WHOLE), Done(0, 1, 0))
    failing_rows(run, range(14))
    assert run.halted is None

    earlier = Earlier(over={0: Tally(1, 0, ((1, 0, 0),))})
    resumed = tracker(Node("a", lane=lane), rows=60, size=1, budget=ErrorBudget(), earlier=earlier)
    resumed.handle(Started())
    for group in range(1, 15):
        resumed.handle(Failed(group, 0, 0, BROKEN))
    assert resumed.halted is None

    alone = tracker(Node("a", lane=lane), Node("sampler", strategy="whole"), rows=60, budget=ErrorBudget())
    answers(alone, Started(), Done(0, 1, WHOLE))
    failing_rows(alone, range(9))
    assert alone.halted is None
    failing_rows(alone, [9])
    assert alone.halted == "early_shutdown"


def test_early_shutdown_judges_each_column_by_itself() -> None:
    """What succeeds around a column that fails does not hide it; nor do failures of two columns add up."""
    budget = ErrorBudget(window=4, rate=1.0)
    nodes = Node("easy", strategy="whole"), Node("hard", ("easy",), lane=Lane("l", 1)), Node("other", ("easy",))
    run = tracker(*nodes, rows=9, size=1, budget=budget)
    run.handle(Started())
    for group in range(4):
        answers(run, Done(group, 0, WHOLE), Done(group, 2, 0))
        assert run.halted is None
        answers(run, Failed(group, 1, 0, BROKEN))
    assert run.halted == "early_shutdown"

    columns = tracker(Node("a"), Node("b"), rows=4, budget=budget)
    answers(columns, Started(), *(Failed(0, row % 2, row, BROKEN) for row in range(4)))
    assert columns.halted is None


def test_early_shutdown_can_be_switched_off() -> None:
    """With rate=None a run continues though everything fails."""
    assert Cancel() not in outcomes(ErrorBudget(rate=None), "F" * 50)


def test_a_cancelled_run_keeps_what_is_whole() -> None:
    """Rows that are whole, or become so in the time that is left, are committed; the others are cut off."""
    run = tracker(Node("a"), Node("b", ("a",), lane=Lane("writer", 2)), rows=4)
    answers(run, Started(), *(Done(0, 0, row) for row in range(4)), Done(0, 1, 0))
    assert answers(run, Halted("cancelled")) == [Cancel()]
    assert answers(run, Done(0, 1, 1)) == []
    assert answers(run, Cancelled(0, 1, 2)) == [Commit(0, [0, 1])]
    assert answers(run, Committed(0)) == [Stop("cancelled")]
    assert (run.totals.committed, run.totals.dropped, run.totals.cut_short) == (2, 0, [0])
    assert run.totals.columns == [CellCounts(completed=4), CellCounts(completed=2, skipped=2)]


def test_a_halted_run_tries_nothing_again() -> None:
    """A failure that a retry might mend cuts its row off, and is no failure of the run, whatever its column says."""
    run = tracker(Node("a", on_error="raise"))
    answers(run, Started(), Halted("cancelled"))
    assert answers(run, Failed(0, 0, 0, FLAKY)) == []
    assert answers(run, Done(0, 0, 1)) == [Commit(0, [1])]
    assert answers(run, Committed(0)) == [Stop("cancelled")]


def test_a_timer_that_goes_off_late_does_nothing() -> None:
    """A timer may be on its way when the run is halted."""
    run = tracker(Node("a"), rows=1)
    answers(run, Started(), Failed(0, 0, 0, FLAKY))
    assert answers(run, Halted("cancelled")) == [Cancel(), Discard(0), Stop("cancelled")]
    assert answers(run, Due(0, 0, 0)) == []


def test_a_failure_outranks_a_cancellation() -> None:
    """A run that fails while it is being cancelled has failed; one that has failed cannot be cancelled."""
    run = tracker(Node("a"), rows=1)
    answers(run, Started(), Halted("cancelled"), Halted("failed"))
    assert answers(run, Cancelled(0, 0, 0)) == [Discard(0), Stop("failed")]
    run = tracker(Node("a"), rows=1)
    answers(run, Started(), Halted("failed"), Halted("cancelled"))
    assert answers(run, Cancelled(0, 0, 0)) == [Discard(0), Stop("failed")]


def test_a_commit_that_fails_fails_the_run() -> None:
    """Nothing new is started, and commits on their way are waited for."""
    run = tracker(Node("a", lane=Lane("writer", 9)), rows=3, size=1)
    answers(run, Started(), Done(0, 0, 0), Done(1, 0, 0))
    assert answers(run, CommitFailed(0)) == [Cancel()]
    assert answers(run, Cancelled(2, 0, 0)) == [Discard(2)]
    assert answers(run, Committed(1)) == [Stop("failed")]
    assert (run.totals.committed, run.totals.cut_short) == (1, [0, 2])


def test_a_run_that_has_ended_cannot_be_halted() -> None:
    """Someone may cancel at the very end: Stop was said, and nothing follows."""
    run = tracker(Node("a"), rows=1)
    assert answers(run, Started(), Done(0, 0, 0), Committed(0)) == [Stop(None)]
    assert answers(run, Halted("cancelled")) == []
    assert run.halted is None


def test_a_run_halted_before_it_starts_does_nothing() -> None:
    """Cancelling comes first, too."""
    run = tracker(Node("a"))
    assert answers(run, Halted("cancelled")) == [Cancel(), Stop("cancelled")]
    assert answers(run, Started()) == []


# Illegal events


@pytest.mark.parametrize(
    "event",
    [
        Started(),
        Done(0, 0, 0),
        Done(0, 0, WHOLE),
        Done(0, 1, 0),
        Done(0, 2, 1),
        Done(0, 2, -2),
        Done(0, 2, 2),
        Done(0, 9, 0),
        Done(7, 0, 0),
        Failed(0, 2, 1, BROKEN),
        Cancelled(0, 1, WHOLE),
        Committed(0),
        CommitFailed(0),
        Committed(7),
    ],
    ids=repr,
)
def test_an_illegal_event_is_refused(event: Event) -> None:
    """An event that does not fit the state is the shell's fault, and says so."""
    run = tracker(Node("a", lane=LANE), Node("all", strategy="whole"), Node("b", ("a",), lane=LANE))
    answers(run, Started(), Done(0, 0, 0))
    with pytest.raises(IllegalEventError):
        run.handle(event)
    assert answers(run, Done(0, 0, 1), Done(0, 1, WHOLE), Done(0, 2, 0), Done(0, 2, 1)) == [Commit(0, range(2))]


# Resuming an earlier run


def test_tasks_that_an_earlier_run_has_done_are_not_run_again() -> None:
    """Cells and whole columns that are restored are counted as completed, and only the others are run."""
    nodes = Node("topic", strategy="whole"), Node("q", ("topic",), lane=LANE), Node("a", ("q",), lane=LANE)
    run = tracker(*nodes, rows=3, earlier=BEGUN)
    assert answers(run, Started()) == [Admit(0, 0, 3, known=True)]
    assert answers(run, Restored(0, [(1, 0), (1, 1), (2, 0)], {0: 3}, [])) == [Execute(0, 2, 1), Execute(0, 1, 2)]
    assert run.totals.columns == [
        CellCounts(completed=3),
        CellCounts(completed=2, running=1),
        CellCounts(completed=1, running=1),
    ]
    assert answers(run, Done(0, 1, 2), Done(0, 2, 1), Done(0, 2, 2)) == [Commit(0, range(3))]
    assert answers(run, Committed(0)) == [Stop(None)]
    assert run.totals.columns == [CellCounts(completed=3)] * 3


def test_restored_tasks_release_only_children_that_lack_nothing_else() -> None:
    """A cell waits for its other parent as ever, and a whole column for the cells that were not done."""
    nodes = Node("a", lane=LANE), Node("b", lane=LANE), Node("c", ("a", "b")), Node("all", ("a",), "whole")
    run = tracker(*nodes, earlier=BEGUN)
    assert answers(run, Started(), Restored(0, [(0, 0)], {}, [])) == [Execute(0, 0, 1), Execute(0, 1, 0)]
    assert answers(run, Done(0, 1, 0)) == [Execute(0, 2, 0), Execute(0, 1, 1)]
    assert answers(run, Done(0, 0, 1)) == [Execute(0, 3, WHOLE, range(2))]


def test_a_cell_whose_parent_is_not_restored_is_not_run_again() -> None:
    """The values of some columns are made anew; what was made from them stays."""
    nodes = Node("seed", strategy="whole"), Node("a", ("seed",)), Node("b", ("a",)), Node("all", ("b",), "whole")
    run = tracker(*nodes, earlier=BEGUN)
    assert answers(run, Started(), Restored(0, [(2, 0), (2, 1)], {3: 2}, [])) == [Execute(0, 0, WHOLE, range(2))]
    assert answers(run, Done(0, 0, WHOLE)) == [Execute(0, 1, 0), Execute(0, 1, 1)]
    assert answers(run, Done(0, 1, 0)) == []
    assert answers(run, Done(0, 1, 1)) == [Commit(0, range(2))]
    assert run.totals.columns == [CellCounts(completed=2)] * 4


def test_a_row_group_of_which_nothing_could_be_restored_begins() -> None:
    """It has begun, but no value is left: every task is run."""
    run = tracker(Node("a"), earlier=BEGUN)
    assert answers(run, Started(), Restored(0, [], {}, [])) == [Execute(0, 0, 0), Execute(0, 0, 1)]


def test_a_restored_row_group_with_nothing_left_is_committed_at_once() -> None:
    """A run that was killed before its part was written has it written by the next."""
    run = tracker(Node("seed", strategy="whole"), Node("a", ("seed",)), earlier=BEGUN)
    assert answers(run, Started(), Restored(0, [(1, 0), (1, 1)], {0: 2}, [])) == [Commit(0, range(2))]
    assert answers(run, Committed(0)) == [Stop(None)]


def test_a_restored_failure_drops_its_row() -> None:
    """Nothing of the row is run, also not for a whole column that is free to start, and it is not recorded again."""
    nodes = Node("a"), Node("b"), Node("c", ("b",)), Node("all", ("b",), "whole")
    run = tracker(*nodes, rows=3, earlier=BEGUN)
    answer = answers(run, Started(), Restored(0, [(1, 0), (1, 1), (1, 2), (0, 0)], {}, [(0, 1, None)]))
    assert answer == [Execute(0, 2, 0), Execute(0, 2, 2), Execute(0, 3, WHOLE, [0, 2]), Execute(0, 0, 2)]
    assert answers(run, Done(0, 0, 2), Done(0, 2, 0), Done(0, 2, 2), Done(0, 3, WHOLE)) == [Commit(0, [0, 2])]
    done, gone = CellCounts(completed=2, failed=1), CellCounts(completed=2, skipped=1)
    assert run.totals.columns == [done, CellCounts(completed=3), gone, gone]
    assert run.totals.dropped == 1


def test_a_restored_failure_nulls_its_cell() -> None:
    """Null comes again, before any task that may use the value."""
    run = tracker(Node("a", on_error="null"), Node("b", ("a",)), rows=1, earlier=BEGUN)
    assert answers(run, Started(), Restored(0, [], {}, [(0, 0, None)])) == [Null(0, 0, 0), Execute(0, 1, 0)]
    assert answers(run, Done(0, 1, 0)) == [Commit(0, range(1))]
    assert run.totals.columns == [CellCounts(failed=1), CellCounts(completed=1)]


def test_a_restored_whole_column_keeps_the_rows_it_was_worked_for() -> None:
    """Rows that were dropped before it was are skipped, in the totals and in the tally."""
    nodes = Node("a"), Node("all", ("a",), "whole")
    run = tracker(*nodes, rows=3, earlier=BEGUN)
    run.handle(Started())
    (commit,) = run.handle(Restored(0, [(0, 0), (0, 2)], {1: 2}, [(0, 1, None)]))
    assert commit == Commit(0, [0, 2], Tally(2, 1, ((2, 1, 0), (2, 0, 1))))
    assert run.totals.columns == [CellCounts(completed=2, failed=1), CellCounts(completed=2, skipped=1)]


@pytest.mark.parametrize("on_error", ["drop", "null"])
def test_a_restored_failure_of_a_whole_column(on_error: OnError) -> None:
    """It is for all the rows it names: they are gone, or go on without its values."""
    nodes = Node("a"), Node("all", ("a",), "whole", on_error=on_error)
    run = tracker(*nodes, rows=3, earlier=BEGUN)
    run.handle(Started())
    answer = run.handle(Restored(0, [(0, 0), (0, 2)], {}, [(0, 1, None), (1, WHOLE, [0, 2])]))
    columns = (2, 1, 0), (0, 2, 1)
    if on_error == "drop":
        assert answer == [Discard(0, Tally(0, 3, columns)), Stop(None)]
    else:
        assert answer == [Null(0, 1, WHOLE), Commit(0, [0, 2], Tally(2, 1, columns))]
    assert run.totals.columns == [CellCounts(completed=2, failed=1), CellCounts(failed=2, skipped=1)]


def test_no_row_group_is_admitted_while_one_is_restored() -> None:
    """Its tasks may fill the lanes; other row groups wait until that is known."""
    run = tracker(Node("a", lane=Lane("writer", 9)), rows=4, size=2, earlier=BEGUN)
    assert answers(run, Started()) == [Admit(0, 0, 2, known=True)]
    assert answers(run, Restored(0, [(0, 1)], {}, [])) == [
        Execute(0, 0, 0),
        Admit(1, 2, 2),
        Execute(1, 0, 0),
        Execute(1, 0, 1),
    ]


def test_a_row_group_that_is_over_is_not_admitted() -> None:
    """Totals begin with its tally, and the others are as they would be without it."""
    over = {0: Tally(1, 1, ((1, 1, 0),)), 2: Tally(0, 2, ((0, 2, 0),)), 3: Tally(2, 0, ((2, 0, 0),))}
    run = tracker(Node("a", lane=Lane("writer", 9)), rows=9, size=2, earlier=Earlier(over=over, begun=(0, 4)))
    assert (run.totals.committed, run.totals.dropped, run.totals.groups_over) == (3, 3, 3)
    assert run.totals.columns == [CellCounts(completed=3, failed=3)]
    assert answers(run, Started()) == [Admit(1, 2, 2), Execute(1, 0, 0), Execute(1, 0, 1), Admit(4, 8, 1, known=True)]
    assert answers(run, Restored(4, [(0, 0)], {}, []), Done(1, 0, 0), Done(1, 0, 1)) == [Commit(1, range(2))]
    assert answers(run, Committed(4), Committed(1)) == [Stop(None)]
    assert (run.totals.committed, run.totals.groups_over) == (6, 5)
    assert run.totals.columns == [CellCounts(completed=6, failed=3)]


def test_a_run_whose_row_groups_are_all_over_stops_at_once() -> None:
    """There is nothing to do, and what earlier runs have done is counted."""
    over = {group: Tally(2, 0, ((2, 0, 0),)) for group in range(3)}
    run = tracker(Node("a"), rows=6, size=2, earlier=Earlier(over=over))
    assert answers(run, Started()) == [Stop(None)]
    assert (run.totals.committed, run.totals.groups_over) == (6, 3)


def test_an_extended_dataset_continues_after_its_last_row() -> None:
    """The last row group of the earlier run is not filled up, as its part has been written."""
    over = {0: Tally(2, 0, ((2, 0, 0),)), 1: Tally(1, 0, ((1, 0, 0),))}
    run = tracker(Node("a", lane=Lane("writer", 9)), rows=6, size=2, earlier=Earlier((3,), over))
    answer = answers(run, Started())
    assert answer == [Admit(2, 3, 2), Execute(2, 0, 0), Execute(2, 0, 1), Admit(3, 5, 1), Execute(3, 0, 0)]


def test_stateful_columns_take_turns_beside_row_groups_that_are_over() -> None:
    """Those are through with them, wherever they are in the order."""
    cell, whole = Node("a", lane=Lane("writer", 9)), Node("all", ("a",), "whole", Lane("f", 9), stateful=True)
    over = {group: Tally(1, 0, ((1, 0, 0), (1, 0, 0))) for group in (0, 2, 3)}
    run = tracker(cell, whole, rows=6, size=1, earlier=Earlier(over=over))
    assert [command.group for command in answers(run, Started()) if isinstance(command, Admit)] == [1, 4, 5]
    assert answers(run, Done(4, 0, 0), Done(5, 0, 0)) == []
    assert answers(run, Done(1, 0, 0)) == [Execute(1, 1, WHOLE, range(1))]
    assert answers(run, Done(1, 1, WHOLE)) == [Commit(1, range(1)), Execute(4, 1, WHOLE, range(1))]
    assert answers(run, Done(4, 1, WHOLE)) == [Commit(4, range(1)), Execute(5, 1, WHOLE, range(1))]


def test_a_turn_that_comes_while_a_row_group_is_restored_waits_for_it() -> None:
    """What an earlier run had may show that the column has been worked there, or needs more."""
    cell, whole = Node("a", lane=Lane("writer", 9)), Node("all", strategy="whole", lane=Lane("f", 9), stateful=True)
    run = tracker(cell, whole, rows=3, size=1, earlier=Earlier(begun=(1, 2)))
    assert answers(run, Started())[-1] == Admit(1, 1, 1, known=True)
    assert answers(run, Done(0, 1, WHOLE)) == []
    assert answers(run, Restored(1, [], {1: 1}, [])) == [Execute(1, 0, 0), Admit(2, 2, 1, known=True)]
    assert answers(run, Restored(2, [], {}, [])) == [Execute(2, 0, 0), Execute(2, 1, WHOLE, range(1))]


def test_a_row_group_that_is_restored_passes_a_turn_on() -> None:
    """A stateful column that was worked in one row group is free for the next, though other things are left in it."""
    cell, whole = Node("a", lane=Lane("writer", 9)), Node("all", strategy="whole", lane=Lane("f", 9), stateful=True)
    run = tracker(cell, whole, rows=2, size=1, earlier=BEGUN)
    answers(run, Started())
    answer = answers(run, Restored(0, [], {1: 1}, []))
    assert answer == [Execute(0, 0, 0), Admit(1, 1, 1), Execute(1, 0, 0), Execute(1, 1, WHOLE, range(1))]


def test_a_run_that_is_halted_while_a_row_group_is_restored() -> None:
    """It is cut off, whatever the store is about to have; that it has it then is no news."""
    run = tracker(Node("a"), rows=2, earlier=BEGUN)
    answers(run, Started())
    assert run.handle(Halted("cancelled")) == [Cancel(), Discard(0, None), Stop("cancelled")]
    assert answers(run, Restored(0, [(0, 0), (0, 1)], {}, [])) == []
    assert (run.totals.columns, run.totals.cut_short) == ([CellCounts(skipped=2)], [0])


@pytest.mark.parametrize(
    "event",
    [
        Restored(1, [], {}, []),
        Restored(2, [], {}, []),
        Restored(0, [(0, 2)], {}, []),
        Restored(0, [(0, 0), (0, -2)], {}, []),
        Restored(0, [(0, 0), (1, 0)], {}, []),
        Restored(0, [(0, WHOLE)], {}, []),
        Restored(0, [(9, 0)], {}, []),
        Restored(0, [(-2, 0)], {}, []),
        Restored(0, [(0, 0), (0, 0)], {}, []),
        Restored(0, [(0, 0)], {}, [(0, 0, None)]),
        Restored(0, [(0, 0)], {0: 2}, []),
        Restored(0, [], {1: 2}, [(1, WHOLE, [0, 1])]),
        Restored(0, [], {1: 3}, []),
        Restored(0, [], {1: -1}, []),
        Restored(0, [], {9: 2}, []),
        Restored(0, [], {}, [(0, 2, None)]),
        Restored(0, [], {}, [(0, 0, [0])]),
        Restored(0, [], {}, [(1, WHOLE, None)]),
        Restored(0, [], {}, [(1, WHOLE, [0, 2])]),
        Restored(0, [], {}, [(1, WHOLE, [-1])]),
    ],
    ids=repr,
)
def test_an_illegal_restore_is_refused(event: Restored) -> None:
    """Tasks and rows that there are not, or twice, and row groups that nobody has begun: nothing has changed."""
    run = tracker(Node("a"), Node("all", ("a",), "whole"), rows=4, size=2, earlier=BEGUN)
    answers(run, Started())
    with pytest.raises(IllegalEventError):
        run.handle(event)
    answer = answers(run, Restored(0, [(0, 0)], {}, []))
    assert answer == [Execute(0, 0, 1)]
    with pytest.raises(IllegalEventError):
        run.handle(Restored(0, [], {}, []))
    assert run.totals.columns == [CellCounts(completed=1, running=1), CellCounts()]


# What a run leaves to the next one


def tallies(run: Tracker, *events: Event) -> list[Tally | None]:
    """Hand over events, and give the tallies of the last answer."""
    answer = [run.handle(event) for event in events][-1]
    return [command.tally for command in answer if isinstance(command, Commit | Discard)]


def test_a_tally_counts_how_a_row_group_ended() -> None:
    """Each column's cells are completed, failed or skipped, and there is one for each row."""
    nodes = Node("a", lane=Lane("writer", 9)), Node("b", ("a",), on_error="null"), Node("all", ("b",), "whole")
    run = tracker(*nodes, rows=3)
    answers(
        run, Started(), Done(0, 0, 0), Failed(0, 0, 1, BROKEN), Done(0, 0, 2), Failed(0, 1, 0, BROKEN), Done(0, 1, 2)
    )
    assert tallies(run, Done(0, 2, WHOLE)) == [Tally(2, 1, ((2, 1, 0), (1, 1, 1), (2, 0, 1)))]


def test_a_tally_of_a_row_group_without_rows() -> None:
    """It is over; a whole column that was to be tried again when the last row went was not worked."""
    run = tracker(Node("a"), Node("all", strategy="whole"))
    answers(run, Started(), Failed(0, 1, WHOLE, FLAKY), Failed(0, 0, 0, BROKEN))
    assert tallies(run, Failed(0, 0, 1, BROKEN)) == [Tally(0, 2, ((0, 2, 0), (0, 0, 2)))]


def test_a_tally_shows_that_rows_were_cut_off() -> None:
    """What is whole is committed, and the rest can still be worked; where nothing is whole there is no tally."""
    run = tracker(Node("a", lane=Lane("writer", 3)), rows=4, size=2)
    answers(run, Started(), Done(0, 0, 0))
    assert tallies(run, Halted("cancelled")) == []
    assert tallies(run, Cancelled(0, 0, 1)) == [Tally(1, 0, ((1, 0, 1),), cut=True)]
    assert tallies(run, Cancelled(1, 0, 0), Cancelled(1, 0, 1)) == [None]


def test_a_row_group_of_a_run_that_failed_has_no_tally() -> None:
    """Its rows can still be worked, or have been and are to be written."""
    run = tracker(Node("a", on_error="raise"))
    answers(run, Started(), Done(0, 0, 0))
    assert tallies(run, Failed(0, 0, 1, BROKEN)) == [None]
    assert run.totals.dropped == 0
    run = tracker(Node("a"))
    assert tallies(run, Started(), Halted("failed"), Done(0, 0, 0), Done(0, 0, 1)) == [None]


def test_the_row_of_the_task_that_ends_a_run_is_cut_off() -> None:
    """The next run tries it again, so nothing may start here for which it was missing."""
    nodes = Node("a", lane=Lane("one", 9)), Node("b", lane=Lane("two", 1)), Node("all", ("b",), "whole")
    run = tracker(*nodes)
    answers(run, Started(), Done(0, 1, 0), Failed(0, 1, 1, FLAKY))
    answer = answers(run, Failed(0, 0, 1, FATAL))
    assert answer == [Record(0, 0, 1, FATAL, 1), Cancel()]
    assert answers(run, Cancelled(0, 0, 0)) == [Discard(0), Stop("failed")]
    assert (run.totals.dropped, run.totals.cut_short) == (0, [0])


def test_a_whole_column_fails_also_for_rows_that_were_cut_off() -> None:
    """It was worked for them, and the next run has them: its record names all that no failure has taken out."""
    run = tracker(Node("all", strategy="whole"), Node("a", lane=LANE), rows=5)
    answers(run, Started(), Failed(0, 1, 0, BROKEN), Done(0, 1, 1), Halted("cancelled"))
    assert answers(run, Failed(0, 0, WHOLE, BROKEN)) == [Record(0, 0, WHOLE, BROKEN, 1, [1, 2, 3, 4])]


# What it costs


def test_a_million_rows_are_planned_in_five_megabytes() -> None:
    """Memory is bounded by the row groups that are open, not by the rows of the run."""
    lanes = Lane("writer", 64), Lane("judge", 64)
    nodes = [Node("s", strategy="whole"), Node("a", ("s",), lane=lanes[0]), Node("b", ("a",), lane=lanes[1])]
    tracemalloc.start()
    try:
        run = Tracker(compile_graph(nodes), Plan(1_000_000))
        todo = deque(answers(run, Started()))
        for _ in range(5000):
            command = todo.popleft()
            if isinstance(command, Execute):
                todo += run.handle(Done(command.group, command.column, command.row))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * 2**20


def calls_for(cells: int, rows: int) -> int:
    """Count the calls, of Python and of C, that the first cells of a run of so many rows cost its tracker."""
    lane = Lane("writer", 8)
    nodes = [Node("a", lane=lane), Node("b", ("a",), lane=lane)]
    run = Tracker(compile_graph(nodes), Plan(rows, row_group_size=10, open_rows=100))
    todo = deque(answers(run, Started()))
    calls = done = 0

    def count(_frame: FrameType, what: str, _: object) -> None:
        nonlocal calls
        calls += what in {"call", "c_call"}

    gc.disable()  # others have it call them (gc.callbacks), which would count
    while done < cells:
        command = todo.popleft()
        if isinstance(command, Execute | Commit):
            event: Event = Committed(command.group)
            if isinstance(command, Execute):
                event = Done(command.group, command.column, command.row)
                done += 1
            sys.setprofile(count)
            try:
                todo += run.handle(event)
            finally:
                sys.setprofile(None)
    gc.enable()
    return calls


def test_a_cell_costs_the_same_in_a_run_of_any_length() -> None:
    """The first two thousand cells of a million rows take as many steps as those of ten thousand."""
    assert calls_for(2000, rows=1_000_000) == calls_for(2000, rows=10_000)


def test_a_cell_costs_the_same_at_the_end_of_a_run() -> None:
    """What is over costs nothing: the second ten thousand cells take as many steps as the first, within a hundredth."""
    first, both = calls_for(10_000, rows=100_000), calls_for(20_000, rows=100_000)
    assert both == pytest.approx(2 * first, rel=0.01)
