"""Tasks: how a task starts, how it ends, and what that starts or skips; the part of the tracker that every cell passes.

The theory of operation is in tracker.py. What happened arrives there, and so does what is decided about failures,
budgets and early ends; it is carried out here. Only the tracker calls this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import events
from .events import WHOLE, Execute, IllegalEventError
from .open_groups import OpenGroups
from .row_groups import DONE, DUE, FAILED, READY, RUNNING, SKIPPED, WAITING
from .totals import totals_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .events import Command
    from .graph import Column, Graph
    from .lanes import Lanes
    from .row_groups import GroupState, Plan


class Tasks:
    """The tasks of a run's open row groups, with the counts of those that have ended."""

    def __init__(self, graph: Graph, plan: Plan, lanes: Lanes) -> None:
        """Start with no row group."""
        self.out: list[Command] = []
        """The commands that follow from the event at hand."""
        self.totals = totals_of(graph, plan.earlier)
        self.open = OpenGroups(graph, plan, self.totals.columns)
        self.lane_of = [None if column.lane is None else lanes.queues[column.lane] for column in graph.columns]
        self.on_the_spot = 0
        """Running tasks without a lane: until they end, empty lanes do not mean a want of rows."""
        self.excused = False
        """Whether an outage excuses the attempt that was released last."""
        self.over = False
        """Whether the run is halted, and what had not started has been skipped."""
        self.failed = False
        """Whether the run has failed: then no row is committed any more."""
        self._plan = plan
        self._columns = graph.columns
        self._lanes = lanes
        self._groups = self.open.by_id
        self._counts = self.totals.columns

    # How a task starts

    def ready(self, group: GroupState, column: int, row: int, *, first: bool = False) -> None:
        """Start a task as soon as its lane has room; `first`: before those of its column that were never tried."""
        lane = self.lane_of[column]
        if lane is None:
            self.on_the_spot += 1
            self._run(group, column, row)
        else:
            group.state[column][row] = READY
            if first:
                self._lanes.put_first(lane, group, column, row)
            else:
                self._lanes.put(lane, group, column, row)

    def start(self, group: GroupState, tasks: Iterable[tuple[int, int]]) -> None:
        """Start the tasks of a row group that wait for nothing more."""
        for column, row in tasks:
            self.ready(group, column, row)

    def _run(self, group: GroupState, column: int, row: int) -> None:
        group.state[column][row] = RUNNING
        self._counts[column].running += 1
        if row == WHOLE:
            group.worked[column] = group.live
            self.out.append(Execute(group.id, column, row, group.live_rows()))
        else:
            self.out.append(Execute(group.id, column, row))

    def fill(self, now: float) -> None:
        """Start what the lanes have permits for, and open row groups until they have enough to do."""
        self._lanes.fill(now, self._run, self.out)
        # Every lane is about to run dry, and nothing is under way that may give it tasks.
        while not (self._lanes.congested or self.on_the_spot) and self.open.have_room:
            self._admit()
            self._lanes.fill(now, self._run, self.out)

    # How a task ends

    def release(self, event: events.Done | events.Resized | events.Failed | events.Cancelled, now: float) -> GroupState:
        """Take a running task out of its lane. The one check that it was running."""
        group = self._groups.get(event.group)
        if group is None or not group.is_in(RUNNING, event.column, event.row):
            raise IllegalEventError(f"{event} for a task that is not running")
        self._counts[event.column].running -= 1
        lane = self.lane_of[event.column]
        self.excused = False
        if lane is None:
            self.on_the_spot -= 1
        else:
            self.excused = self._lanes.release(lane, event, now)
        return group

    def settle(self, group: GroupState, column: Column, row: int, state: int) -> None:
        """End a task: count it and start its children. A nulled cell is FAILED, and its children start all the same."""
        if row == WHOLE:
            self.settle_whole(group, column, state)
            return
        id_ = column.id
        group.state[id_][row] = state
        count = self._counts[id_]
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
                    self.ready(group, child, row)
        group.left[id_] -= 1
        if not group.left[id_]:
            self._column_over(group, column.whole_children)

    def _column_over(self, group: GroupState, children: Iterable[int]) -> None:
        """Start the columns that waited for all rows of this one; where no row is left, they are skipped already."""
        if group.live:
            for child in children:
                self.start(group, group.meet_need(child))
        group.open -= 1
        if not group.open:
            self._finish(group)

    def settle_whole(self, group: GroupState, column: Column, state: int) -> None:
        """End a whole column: the rows it was worked for are completed or failed, those dropped before are skipped."""
        group.end_whole(column.id, state)
        self._counts[column.id].add_whole(state, group.worked[column.id], group.size)
        self._column_over(group, (*column.whole_children, *column.cell_children))
        if column.stateful:
            following = self.open.pass_turn(group.id, column.id)
            if following is not None and not self.over:
                tasks = following.meet_need(column.id)
                self.start(following, [] if following.restoring else tasks)

    # How rows go

    def do_without(
        self, group: GroupState, column: Column, row: int, rows: Iterable[int] | None, *, cut: bool = False
    ) -> None:
        """Null a task that failed, or drop its row; for a whole column, its `rows`."""
        if column.on_error == "null":
            self.out.append(events.Null(group.id, column.id, row))
        else:
            self.drop(group, (row,) if rows is None else rows, cut=cut)

    def give_up(self, group: GroupState, event: events.Failed | events.Cancelled) -> None:
        """End a task that gets no further attempt, as its row is gone or the run is halted: its rows are cut off."""
        self.drop(group, group.live_rows() if event.row == WHOLE else (event.row,), cut=True)
        self.settle(group, self._columns[event.column], event.row, SKIPPED)

    def drop(self, group: GroupState, rows: Iterable[int], *, cut: bool = False) -> None:
        """Take rows out: their tasks that have not started are skipped, and whole columns too once no row is left."""
        rows = group.take_out(rows, cut=cut)
        if not cut:
            self.totals.dropped += len(rows)
        for column, row in group.not_started(rows):
            self.totals.waiting_to_retry -= group.state[column][row] == DUE
            self.settle(group, self._columns[column], row, SKIPPED)

    # How a row group begins and ends

    def _admit(self) -> None:
        """Open the next row group."""
        group = self.open.admit()
        self.out.append(events.Admit(group.id, self._plan.row(group.id, 0), group.size, group.restoring))
        if group.restoring:
            self.on_the_spot += 1
        else:
            self.start(group, group.startable_roots())

    def _finish(self, group: GroupState) -> None:
        """Commit the live rows of a group in which every column is over."""
        if not group.live or self.failed:
            over = not (group.cut or self.failed)
            self.out.append(events.Discard(group.id, group.tally() if over else None))
            self.lose(group)
            return
        group.committing = True
        self.out.append(events.Commit(group.id, group.live_rows(), group.tally()))

    def lose(self, group: GroupState) -> None:
        """Close a row group of which nothing is written; its live rows, if any, are cut off."""
        group.cut.update(group.live_rows())
        self.close_group(group)

    def close_group(self, group: GroupState) -> None:
        """Count a row group that is over, and forget it."""
        self.totals.add_group(group.id, cut=bool(group.cut))
        self.open.close(group)
