"""The tracker: every change of a run's state happens here. Events in, commands out; no clock, no IO, no asyncio.

Theory of operation
    A run is a row of row groups, and a row group is a small table of task states. A task is one cell, or a whole
    column of a row group (`row=WHOLE`). Its life:

        WAITING -> READY -> RUNNING -> DONE | FAILED
                     ^         |                        SKIPPED: the row was dropped, or the run was stopped,
                     +- DUE <--+  (a retry)             before the task ran to its end

    WAITING becomes READY when counters reach zero, never by a scan: `missing[column][row]` cells of this row and
    `missing_whole[column]` whole columns of this group are still awaited. READY becomes RUNNING when the column's lane
    has room, at once where it has no lane. `_settle_cell` and `_settle_whole` are the only places where a task ends:
    they count and release the children. A row group whose `open` columns reach zero is committed. A stateful column
    also awaits its turn, as one more in `missing_whole`: the row groups before must be through with it.

    A failure for good drops its row, nulls its cell or halts the run, as its column says. A dropped row's tasks that
    have not started are skipped; those in flight end on their own, without another attempt, and their children are
    skipped already; so are whole columns once no row is left. Rows that go together are gone before anything is
    released: no column starts for rows on their way out.

    Row groups are admitted one at a time, while no lane has more cells waiting than it can take at once: a slow lane
    then bounds the memory, and a fast one never starves for want of rows.

    What an earlier run had of a row group is in place before anything of it starts: the shell is told to put the values
    back (`Admit.known`), and with `Restored` those tasks end as if they had just been worked. Row groups that are over
    are never opened.

    Halting (cancelled, failed, too many failures): everything not in flight is skipped, the shell cancels what is, and
    `Stop` follows when the last task has ended. Rows that were whole by then are committed, unless the run failed. What
    is lost to the halt is cut off, not dropped, also the row whose failure was the reason: a later run can still work
    it. So nothing may start for what is left without it, and a whole column that fails does so for rows cut off, too.

    An event that cannot be (a task done that was not running) raises IllegalEventError, and nothing has changed.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

from .events import (
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
    Null,
    Record,
    Resized,
    Restored,
    RunAfter,
    Started,
    Stop,
    Wake,
    Woken,
)
from .lanes import LaneQueue, LaneState
from .policy import ErrorBudget, RetryPolicy
from .row_groups import DONE, DUE, FAILED, NOT_STARTED, READY, RUNNING, SKIPPED, WAITING, GroupState, Turn
from .totals import totals_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .adaptive_limit import Change
    from .events import Command, Event, Reason, Usage
    from .graph import Column, Graph
    from .policy import CostBudget
    from .row_groups import Plan
    from .throttle import Throttle


class IllegalEventError(Exception):
    """An event that cannot be: a fault of the shell, not of a row."""


class Tracker:
    """The state of one run. `handle` is the only way to change it; everything else looks."""

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        retry: RetryPolicy | None = None,
        budget: ErrorBudget | None = None,
        cost: CostBudget | None = None,
    ) -> None:
        """Take what is to be done; nothing starts before the event Started."""
        self.graph = graph
        self.plan = plan
        self.totals = totals_of(graph, plan.earlier)
        self.halted: Reason | None = None
        self._retry = retry or RetryPolicy()
        self._budget = budget or ErrorBudget()
        self._cost = cost
        self._cancelled = False
        self._ended = [0] * len(graph.columns)  # outcomes of each column
        self._failed_at: list[deque[int]] = [deque() for _ in graph.columns]
        self._columns = graph.columns
        self._counts = self.totals.columns
        self._lanes = [
            LaneQueue(i, lane, (c for c in graph.columns if c.lane == i), self._retry)
            for i, lane in enumerate(graph.lanes)
        ]
        self.timed = self._retry.give_up_after is not None or any(lane.throttle is not None for lane in self._lanes)
        """Whether `handle` has to be told the time."""
        self._now = 0.0
        self._lane_of = [None if column.lane is None else self._lanes[column.lane] for column in graph.columns]
        self._turns = {column.id: Turn() for column in graph.columns if column.stateful}
        self._groups: dict[int, GroupState] = {}
        self._row_groups = plan.row_groups
        self._open_groups = plan.open_groups
        self._started = False
        self._next = 0
        """The row group to be admitted next."""
        self._on_the_spot = 0  # running tasks without a lane: until they end, empty lanes do not mean a want of rows
        self._congested = 0  # lanes with as many cells waiting as they can take at once, or more
        self._touched: list[LaneQueue] = []
        self._stopped = False
        self._out: list[Command] = []
        self._handlers: dict[type, Callable[[Any], None]] = {
            Started: self._on_started,
            Restored: self._on_restored,
            Done: self._on_done,
            Resized: self._on_resized,
            Failed: self._on_failed,
            Cancelled: self._on_cancelled,
            Due: self._on_due,
            Committed: self._on_committed,
            CommitFailed: self._on_commit_failed,
            Woken: self._on_woken,
            Halted: self._on_halted,
        }

    def handle(self, event: Event, now: float = 0.0) -> list[Command]:
        """Take in what happened and give back what is to be done, in order.

        `now`: the seconds since the run began, where a lane has a limit or a pace that follows time.
        """
        self._now = now
        out = self._out = []
        self._handlers[type(event)](event)
        if self.halted is None:
            self._fill_touched()
            while self._wants_rows():
                self._admit()
        if not (self._groups or self._stopped) and (self.halted or self._next == self._row_groups):
            self._stopped = True
            out.append(Stop(self.halted))
        return out

    @property
    def lanes(self) -> list[LaneState]:
        """The lanes as they are, in the order of the graph's."""
        return [
            LaneState(lane.name, now.limit, now.in_flight, now.waiting, self._shut(now), now.refused_since)
            for lane, now in zip(self.graph.lanes, self._lanes, strict=True)
        ]

    @property
    def limits(self) -> dict[str, Sequence[Change]]:
        """How the limits that follow what an endpoint takes have changed, by lane."""
        throttles = {lane.name: now.throttle for lane, now in zip(self.graph.lanes, self._lanes, strict=True)}
        return {name: throttle.history for name, throttle in throttles.items() if throttle and throttle.history}

    @property
    def committing(self) -> list[int]:
        """The row groups that the sink has been handed and is not through with."""
        return [group.id for group in self._groups.values() if group.committing]

    # What happened

    def _on_started(self, _: Started) -> None:
        if self._started:
            raise IllegalEventError("the run has started already")
        self._started = True
        for id_ in self.plan.earlier.over:
            for turn in self._turns.values():
                turn.end(id_)
        self._pass_over()
        if self._cost is not None and self._cost.spent:
            self._halt("budget")

    def _on_restored(self, event: Restored) -> None:
        group = self._groups.get(event.group)
        if group is None and self.halted is not None:
            return  # its rows have been cut off meanwhile
        if group is None or not group.restoring:
            raise IllegalEventError(f"row group {event.group} was not to be restored")
        self._check_restored(group, event)
        group.restoring = False
        self._on_the_spot -= 1
        group.restore(event)
        for column, row, rows in event.failed:  # before anything is released
            self._do_without(group, self._columns[column], row, rows)
        for column, row in event.cells:
            self._settle_cell(group, self._columns[column], row, DONE)
        for column in event.wholes:
            self._settle_whole(group, self._columns[column], DONE)
        for column, row, _ in event.failed:
            self._settle(group, self._columns[column], row, FAILED)
        if group.open:
            self._begin(group)

    def _check_restored(self, group: GroupState, event: Restored) -> None:
        """Refuse tasks that there are not, or that come twice, and rows that the group does not have."""
        tasks = [*event.cells, *((column, WHOLE) for column in event.wholes), *(task[:2] for task in event.failed)]
        for column, row in tasks:
            if column < 0 or not self._is(WAITING, group, column, row):
                raise IllegalEventError(f"row group {group.id} has no column {column}, row {row} to be restored")
        if len(set(tasks)) < len(tasks):
            raise IllegalEventError(f"row group {group.id}: a task is to be restored twice")
        for column, worked in event.wholes.items():
            if not 0 <= worked <= group.size:
                raise IllegalEventError(f"row group {group.id}: column {column} was worked for {worked} rows")
        for column, row, rows in event.failed:
            if (row == WHOLE) != (rows is not None) or not all(0 <= of < group.size for of in rows or ()):
                raise IllegalEventError(f"row group {group.id}: column {column}, row {row} failed for rows {rows}")

    def _on_done(self, event: Done) -> None:
        group = self._release(event)
        column = self._columns[event.column]
        self._ended[event.column] += 1
        if event.row == WHOLE:
            self._settle_whole(group, column, DONE)
        else:
            self._settle_cell(group, column, event.row, DONE)
        if self._failed_at[event.column]:
            self._judge(event.column)
        if self._cost is not None and event.usage is not None:
            self._pay(self._cost, event.column, event.usage)

    def _on_resized(self, event: Resized) -> None:
        """Go on with other rows; only in the sequential engine, where nothing else of the group is in flight."""
        group = self._release(event)
        self._ended[event.column] += 1
        if event.rows:
            group.resize(event.rows, self._columns)
            group.worked[event.column] = event.rows
        else:
            dropped = self.totals.dropped, group.dropped
            self._drop(group, group.live_rows())
            self.totals.dropped, group.dropped = dropped  # the column took them out, no failure did
        self._settle_whole(group, self._columns[event.column], DONE)

    def _on_failed(self, event: Failed) -> None:
        group = self._release(event)
        key = (event.column, event.row)
        attempts, counted, since = group.attempts.get(key, (0, 0, math.inf))
        limited = event.failure.rate_limited
        attempts, counted, since = attempts + 1, counted + (not limited), min(since, self._now) if limited else since
        group.attempts[key] = attempts, counted, since
        delay = self._retry.delay(event.failure, attempts, counted, max(0.0, self._now - since))
        if delay is None:
            self._fail(group, event, attempts)
        elif self.halted or not (group.live if event.row == WHOLE else group.alive[event.row]):
            self._give_up(group, event)
        else:
            self.totals.retries += 1
            self.totals.waiting_to_retry += 1
            group.state[event.column][event.row] = DUE
            self._out.append(RunAfter(delay, event.group, event.column, event.row))
        if self._cost is not None and event.usage is not None:
            self._pay(self._cost, event.column, event.usage)

    def _on_cancelled(self, event: Cancelled) -> None:
        if self.halted is None:
            raise IllegalEventError(f"{event}, and nothing was to be cancelled")
        self._give_up(self._release(event), event)

    def _on_due(self, event: Due) -> None:
        group = self._find(event, DUE)
        if group is not None:  # else its row was dropped, or the run was halted, while it waited
            self.totals.waiting_to_retry -= 1
            self._ready(group, event.column, event.row, again=True)

    def _on_committed(self, event: Committed) -> None:
        group = self._committing(event.group)
        self.totals.committed += group.live
        self._close(group)

    def _on_commit_failed(self, event: CommitFailed) -> None:
        self._lose(self._committing(event.group))
        self._halt("failed")

    def _on_woken(self, event: Woken) -> None:
        lane = self._lanes[event.lane]
        if lane.throttle is None:
            raise IllegalEventError(f"lane {event.lane} was not to be woken")
        lane.throttle.woken_at = -math.inf
        if not lane.touched:
            self._touch(lane)

    def _on_halted(self, event: Halted) -> None:
        if not self._stopped:
            self._halt(event.reason)

    # How a task ends

    def _find(self, event: Done | Resized | Failed | Cancelled | Due, state: int) -> GroupState | None:
        """Give the row group of a task if there is such a task and it is in this state."""
        group = self._groups.get(event.group)
        return group if group is not None and self._is(state, group, event.column, event.row) else None

    def _is(self, state: int, group: GroupState, column: int, row: int) -> bool:
        """Tell whether there is such a task and it is in this state."""
        try:
            return group.state[column][row] == state and (row < 0) == self._columns[column].whole
        except LookupError:
            return False

    def _release(self, event: Done | Resized | Failed | Cancelled) -> GroupState:
        """Take a running task out of its lane; the one check that it was running."""
        group = self._find(event, RUNNING)
        if group is None:
            raise IllegalEventError(f"{event} for a task that is not running")
        self._counts[event.column].running -= 1
        lane = self._lane_of[event.column]
        if lane is None:
            self._on_the_spot -= 1
        else:
            lane.in_flight -= 1
            if lane.throttle is not None:
                lane.throttle.ended(event, self._now)
                lane.limit = lane.throttle.limit
            if not lane.touched:
                self._touch(lane)
        return group

    def _settle(self, group: GroupState, column: Column, row: int, state: int) -> None:
        if row == WHOLE:
            self._settle_whole(group, column, state)
        else:
            self._settle_cell(group, column, row, state)

    def _settle_cell(self, group: GroupState, column: Column, row: int, state: int) -> None:
        """End a cell: count it and release its children. A nulled cell is FAILED and releases them all the same."""
        group.state[column.id][row] = state
        count = self._counts[column.id]
        if state == DONE:
            count.completed += 1
        elif state == FAILED:
            count.failed += 1
        else:
            count.skipped += 1
        if group.alive[row]:
            for child in column.cell_children:
                missing = group.missing[child]
                missing[row] -= 1
                if not missing[row] and not group.missing_whole[child] and group.state[child][row] == WAITING:
                    self._ready(group, child, row)
        left = group.left
        left[column.id] -= 1
        if not left[column.id]:
            self._column_over(group, column.whole_children)

    def _settle_whole(self, group: GroupState, column: Column, state: int) -> None:
        """End a whole column: the rows it was worked for are completed or failed, those dropped before are skipped."""
        group.state[column.id][WHOLE] = state
        group.sizes[column.id] = group.size
        count = self._counts[column.id]
        worked = 0 if state == SKIPPED else group.worked[column.id]
        if state == DONE:
            count.completed += worked
        else:
            count.failed += worked
        count.skipped += group.size - worked
        self._column_over(group, (*column.whole_children, *column.cell_children))
        if column.stateful:
            self._pass_on(group, column)

    def _pass_on(self, group: GroupState, column: Column) -> None:
        """Let the row group whose turn it is then have a stateful column, which it may have been waiting for."""
        turn = self._turns[column.id]
        if not turn.end(group.id) or self.halted is not None:
            return
        following = self._groups.get(turn.group)
        if following is not None:
            following.missing_whole[column.id] -= 1
            if not (following.missing_whole[column.id] or following.restoring):
                self._release_column(following, column)

    def _column_over(self, group: GroupState, children: Iterable[int]) -> None:
        """Release the columns that waited for all rows of this one; where no row is left, they are skipped already."""
        if group.live:
            for child in children:
                group.missing_whole[child] -= 1
                if not group.missing_whole[child]:
                    self._release_column(group, self._columns[child])
        group.open -= 1
        if not group.open:
            self._finish(group)

    def _release_column(self, group: GroupState, column: Column) -> None:
        """Start a column whose whole needs are all met, as far as its cells are not awaiting other cells."""
        state, missing = group.state[column.id], group.missing[column.id]
        if column.whole:
            if state[WHOLE] == WAITING:  # else an earlier run has worked it
                self._ready(group, column.id, WHOLE)
            return
        for row in group.live_rows():
            if state[row] == WAITING and not (missing and missing[row]):
                self._ready(group, column.id, row)

    # How a task fails

    def _fail(self, group: GroupState, event: Failed, attempts: int) -> None:
        """End a task that failed for good: drop the row, null the cell or halt the run."""
        column = self._columns[event.column]
        rows = group.undropped() if event.row == WHOLE else None
        self._out.append(Record(group.id, column.id, event.row, event.failure, attempts, rows))
        halts = event.failure.fatal or column.on_error == "raise"
        if halts:  # before a row goes or the task has ended: that might start what waited for them, or commit the group
            self._halt("failed")
        self._do_without(group, column, event.row, rows, cut=halts)
        self._settle(group, column, event.row, FAILED)
        self._ended[column.id] += 1
        if not (event.failure.retryable or event.failure.verdict):
            self._failed_at[column.id].append(self._ended[column.id])
        self._judge(column.id)

    def _do_without(
        self, group: GroupState, column: Column, row: int, rows: Iterable[int] | None, *, cut: bool = False
    ) -> None:
        """Null a task that failed, or drop its row; a whole column's `rows`."""
        if column.on_error == "null":
            self._out.append(Null(group.id, column.id, row))
        else:
            self._drop(group, (row,) if rows is None else rows, cut=cut)

    def _give_up(self, group: GroupState, event: Failed | Cancelled) -> None:
        """End a task that would need another attempt for which there is no use, or no time: its rows are cut off."""
        self._drop(group, group.live_rows() if event.row == WHOLE else (event.row,), cut=True)
        self._settle(group, self._columns[event.column], event.row, SKIPPED)

    def _pay(self, cost: CostBudget, column: int, usage: Usage) -> None:
        """Count what an attempt has cost; once all is spent that may be, no other begins."""
        self._cost = cost = cost.paid(column, usage)
        if cost.spent and self.halted is None:
            self._halt("budget")

    def _judge(self, column: int) -> None:
        """Hold the failures among a column's latest outcomes against the error budget."""
        ended, failed_at, window = self._ended[column], self._failed_at[column], self._budget.window
        while failed_at and failed_at[0] <= ended - window:
            failed_at.popleft()
        if self.halted is None and self._budget.spent(min(ended, window), len(failed_at)):
            self._halt("early_shutdown")

    def _drop(self, group: GroupState, rows: Iterable[int], *, cut: bool = False) -> None:
        """Take rows out: whatever of them has not started is skipped, and whole columns too once no row is left."""
        rows = [row for row in rows if group.alive[row]]
        for row in rows:
            group.alive[row] = 0
        group.live -= len(rows)
        if cut:
            group.cut.update(rows)
        else:
            self.totals.dropped += len(rows)
            group.dropped += len(rows)
        for column in self._columns:
            whole = () if group.live else (WHOLE,)
            for row in whole if column.whole else rows:
                state = group.state[column.id][row]
                if state in NOT_STARTED:
                    self.totals.waiting_to_retry -= state == DUE
                    self._settle(group, column, row, SKIPPED)

    # How a task starts

    def _ready(self, group: GroupState, column: int, row: int, *, again: bool = False) -> None:
        """Start a task as soon as there is room for it: one that has been tried before goes first."""
        lane = self._lane_of[column]
        if lane is None:
            self._on_the_spot += 1
            self._run(group, column, row)
            return
        group.state[column][row] = READY
        if again:
            lane.put_first(group, column, row)
        else:
            lane.put(group, column, row)
        if lane.waiting == lane.enough:
            self._congested += 1
        if not lane.touched:
            self._touch(lane)

    def _touch(self, lane: LaneQueue) -> None:
        lane.touched = True
        self._touched.append(lane)

    def _fill_touched(self) -> None:
        """Fill the lanes in which something has changed."""
        for lane in self._touched:
            lane.touched = False
            throttle = lane.throttle
            while lane.waiting and lane.in_flight < lane.limit:
                if throttle is not None and not self._may_send(lane, throttle):
                    break
                if lane.waiting == lane.enough:
                    self._congested -= 1
                task = lane.take()
                if task is not None:
                    lane.in_flight += 1
                    if throttle is not None:
                        throttle.sent(task[0].id, task[1], task[2], self._now)
                    self._run(*task)
        self._touched.clear()

    def _may_send(self, lane: LaneQueue, throttle: Throttle) -> bool:
        """Tell whether a lane may send now; else have the shell look at it again when it may."""
        at = throttle.earliest(self._now)
        if at > self._now and not throttle.woken_at >= at:
            throttle.woken_at = at
            self._out.append(Wake(at - self._now, lane.id))
        return at <= self._now

    def _shut(self, lane: LaneQueue) -> float:
        return 0.0 if lane.throttle is None else lane.throttle.earliest(self._now) - self._now

    def _run(self, group: GroupState, column: int, row: int) -> None:
        group.state[column][row] = RUNNING
        self._counts[column].running += 1
        if row == WHOLE:
            group.worked[column] = group.live
            self._out.append(Execute(group.id, column, row, group.live_rows()))
        else:
            self._out.append(Execute(group.id, column, row))

    # How a row group begins and ends

    def _wants_rows(self) -> bool:
        """Tell whether every lane is about to run dry and there is room for another row group."""
        return (
            not (self._congested or self._on_the_spot)
            and self._next < self._row_groups
            and len(self._groups) < self._open_groups
        )

    def _admit(self) -> None:
        """Open the next row group."""
        plan = self.plan
        group = GroupState(self._next, plan.size(self._next), self.graph)
        self._groups[group.id] = group
        self._next += 1
        self._pass_over()
        group.restoring = group.id in plan.earlier.begun
        self._out.append(Admit(group.id, plan.row(group.id, 0), group.size, group.restoring))
        for id_, turn in self._turns.items():
            group.missing_whole[id_] += turn.group != group.id
        if group.restoring:
            self._on_the_spot += 1
        else:
            self._begin(group)

    def _pass_over(self) -> None:
        """Go on to a row group in which there is something to be done."""
        while self._next in self.plan.earlier.over:
            self._next += 1

    def _begin(self, group: GroupState) -> None:
        """Start what needs nothing."""
        for column in self._columns:
            if not group.missing_whole[column.id] and not column.cell_needs:
                self._release_column(group, column)
        self._fill_touched()

    def _finish(self, group: GroupState) -> None:
        """Every column of the group is over: commit what is live."""
        if not group.live or self.halted == "failed":
            over = not (group.cut or self.halted == "failed")
            self._out.append(Discard(group.id, group.tally(self._columns) if over else None))
            self._lose(group)
            return
        group.committing = True
        self._out.append(Commit(group.id, group.live_rows(), group.tally(self._columns)))

    def _committing(self, id_: int) -> GroupState:
        group = self._groups.get(id_)
        if group is None or not group.committing:
            raise IllegalEventError(f"row group {id_} was not to be committed")
        return group

    def _lose(self, group: GroupState) -> None:
        """End a row group of which nothing is written; if it has live rows, the run's end costs it those."""
        group.cut.update(group.live_rows())
        self._close(group)

    def _close(self, group: GroupState) -> None:
        if group.cut:
            self.totals.cut_short.append(group.id)
        self.totals.groups_over += 1
        del self._groups[group.id]

    def _halt(self, reason: Reason) -> None:
        """End the run early: skip what has not started, have the rest cancelled, unless it is paid for already.

        A failure outranks other reasons, and each of them that the budget is spent.
        """
        if reason != "budget" and not self._cancelled:
            self._cancelled = True
            self._out.append(Cancel())
        if self.halted is not None:
            self.halted = reason if reason == "failed" or self.halted == "budget" else self.halted
            return
        self.halted = reason
        for group in list(self._groups.values()):
            if not group.committing:
                self._cut(group)

    def _cut(self, group: GroupState) -> None:
        """Skip what has not started: rows that are whole stay, or whole but for what is in flight; the rest goes."""
        rows = group.live_rows()
        if not any(column.whole and group.state[column.id][WHOLE] in NOT_STARTED for column in self._columns):
            cells = [group.state[column.id] for column in self._columns if not column.whole]
            rows = [row for row in rows if any(state[row] in NOT_STARTED for state in cells)]
        self._drop(group, rows, cut=True)
