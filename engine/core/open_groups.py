"""Open row groups: which ones are being worked, which is admitted next, and whose turn it is at a stateful column.

Row groups are admitted one at a time, while no lane has more tasks waiting than it can take at once: a slow lane then
bounds the memory, and a fast lane always has rows to work on. Row groups that are over are never opened.

The bytes of their values are bounded as well. Only the opening of row groups waits for that, never a task of one that
is open, so that a run always proceeds; one row group is open in any case. How large a row group becomes is estimated
from those before it. Room is left for the table that the sink makes of a row group to write it.

A stateful column is worked in one row group after the other. It awaits one thing more than other columns, counted in
`missing_whole`: its turn, which comes when all earlier row groups have finished the column.

Plain data; only the tracker changes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .events import IllegalEventError
from .row_groups import DUE, RUNNING, GroupState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .graph import Graph
    from .row_groups import Plan
    from .totals import CellCounts

_OVERHEAD: Final = 2
"""Values take up to so many times their size, because memory is lost between them."""


class Turn:
    """Whose turn it is at a column that takes row groups one at a time, in their order."""

    __slots__ = ("_over", "group")

    def __init__(self, over: Iterable[int]) -> None:
        """Start with the first row group that is not over."""
        self.group = 0
        self._over: set[int] = set()
        for group in over:
            self.end(group)

    def end(self, group: int) -> bool:
        """Record that a row group has finished the column; return whether the turn has passed to another one."""
        self._over.add(group)
        before = self.group
        while self.group in self._over:
            self._over.remove(self.group)
            self.group += 1
        return self.group != before


class OpenGroups:
    """The row groups of a run that have been admitted and are not over."""

    __slots__ = (
        "_before", "_counts", "_freed", "_full", "_graph", "_latest", "_memory", "_most", "_plan", "_row_groups",
        "_rows", "_turns", "by_id", "next", "sizes",
    )  # fmt: skip

    def __init__(self, graph: Graph, plan: Plan, counts: Sequence[CellCounts]) -> None:
        """Start with none. `counts` are the cells of each column so far; the tracker changes them."""
        self._graph = graph
        self._plan = plan
        self._row_groups = plan.row_groups
        self._most = plan.open_groups
        self._memory = plan.memory
        self._full = False  # the memory is, until the next row group is closed
        self._rows = 0
        self._freed = 0
        self._counts = counts
        self._before = [count.completed for count in counts]
        self.sizes = [0] * len(graph.columns)
        """The bytes of all values that were in the store, by column; the tracker adds to them."""
        self._latest = 0.0  # bytes per row of the row group that was closed last
        self._turns = {column.id: Turn(plan.earlier.over) for column in graph.columns if column.stateful}
        self.by_id: dict[int, GroupState] = {}
        self.next = self._unfinished(0)
        """The row group to be admitted next."""

    @property
    def all_admitted(self) -> bool:
        """Whether no row group is left to be admitted."""
        return self.next == self._row_groups

    @property
    def bytes(self) -> int:
        """The size of the values of all open row groups."""
        return sum(self.sizes) - self._freed

    @property
    def have_room(self) -> bool:
        """Whether another row group can be admitted."""
        return self.next < self._row_groups and len(self.by_id) < self._most and self._fits()

    def _fits(self) -> bool:
        """Return whether the next row group fits into the memory beside the open ones, when all have their values."""
        if self._memory is None or not self.by_id:
            return True
        if not self._full:
            per_row = max(self._latest, self._mean_row())
            another = per_row * self._plan.size(self.next)
            values = max(self.bytes, per_row * self._rows) + another
            self._full = values * _OVERHEAD + another > self._memory
        return not self._full

    def _mean_row(self) -> float:
        """Return the bytes of a row: for each column the mean of its values so far."""
        done = zip(self.sizes, self._counts, self._before, strict=True)
        return sum(size / (count.completed - before) for size, count, before in done if count.completed > before)

    def close(self, group: GroupState) -> None:
        """Close a row group."""
        del self.by_id[group.id]
        self._freed += group.bytes
        self._rows -= group.rows
        self._full = False
        if group.live:
            self._latest = group.bytes / group.rows

    def in_flight(self, column: int) -> list[tuple[int, int]]:
        """Return the row group and the row of each task of a column that runs or waits for another attempt, ascending.

        The row of a whole column is 0.
        """
        found: list[tuple[int, int]] = []
        for group in self.by_id.values():
            found += [(group.id, row) for row in sorted(group.find(column, RUNNING) + group.find(column, DUE))]
        return found

    def admit(self) -> GroupState:
        """Open the next row group."""
        group = GroupState(self.next, self._plan.size(self.next), self._graph)
        group.restoring = group.id in self._plan.earlier.begun
        for column, turn in self._turns.items():
            group.missing_whole[column] += turn.group != group.id
        self.by_id[group.id] = group
        self._rows += group.rows
        self.next = self._unfinished(group.id + 1)
        return group

    def _unfinished(self, group: int) -> int:
        """Return the first row group from this one on that is not over."""
        while group in self._plan.earlier.over:
            group += 1
        return group

    def committing(self, id_: int) -> GroupState:
        """Return a row group that is being committed; raises IllegalEventError for any other."""
        group = self.by_id.get(id_)
        if group is None or not group.committing:
            raise IllegalEventError(f"row group {id_} is not being committed")
        return group

    def pass_turn(self, group: int, column: int) -> GroupState | None:
        """End a row group's turn at a stateful column; return the row group whose turn it is now, if that is open."""
        turn = self._turns[column]
        return self.by_id.get(turn.group) if turn.end(group) else None
