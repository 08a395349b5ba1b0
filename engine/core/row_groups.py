"""Row groups: how the rows of a run are cut, and the task states of one group.

Plain data; only the tracker changes it.
"""

from __future__ import annotations

from array import array
from bisect import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .events import WHOLE, Tally

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .events import Restored
    from .graph import Column, Graph

WAITING: Final = 0
READY: Final = 1
RUNNING: Final = 2
DUE: Final = 3
DONE: Final = 4
FAILED: Final = 5
SKIPPED: Final = 6
NOT_STARTED = frozenset({WAITING, READY, DUE})


@dataclass(frozen=True, slots=True)
class Earlier:
    """What earlier runs of the same dataset have left.

    `targets`: how many rows they were to make; a row group ends there, full or not. `over`: what came of the row groups
    in which nothing is left to be done. `begun`: row groups of which something is known.
    """

    targets: tuple[int, ...] = ()
    over: Mapping[int, Tally] = field(default_factory=dict)
    begun: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How many rows there are to be, in groups of how many, how many rows may be open at once, and what is there."""

    rows: int
    row_group_size: int = 1000
    open_rows: int = 65_536
    earlier: Earlier = field(default_factory=Earlier)
    _firsts: list[tuple[int, int]] = field(init=False, repr=False, compare=False)
    """Where groups are counted from anew, after one that may be smaller: (group, row)."""

    def __post_init__(self) -> None:
        """Find the groups at which the targets of earlier runs make the next one begin."""
        firsts = [(0, 0)]
        for target in sorted({target for target in self.earlier.targets if target < self.rows}):
            group, row = firsts[-1]
            firsts.append((group - (row - target) // self.row_group_size, target))
        object.__setattr__(self, "_firsts", firsts)

    @property
    def row_groups(self) -> int:
        """How many row groups the rows make; the last may be smaller."""
        group, row = self._firsts[-1]
        return group - (row - self.rows) // self.row_group_size

    @property
    def left(self) -> int:
        """How many row groups there is something to be done in."""
        return self.row_groups - len(self.earlier.over)

    @property
    def open_groups(self) -> int:
        """How many row groups may be open at once."""
        return max(4, self.open_rows // self.row_group_size)

    def row(self, group: int, row: int) -> int:
        """Give the run's number of a row of a row group."""
        first_group, first_row = self._firsts[bisect(self._firsts, group, key=_group) - 1]
        return first_row + (group - first_group) * self.row_group_size + row

    def size(self, group: int) -> int:
        """Give the number of rows of a row group."""
        return min(self.rows, self.row(group + 1, 0)) - self.row(group, 0)


def _group(first: tuple[int, int]) -> int:
    return first[0]


class Turn:
    """Whose turn it is at a column that takes row groups one at a time, in their order."""

    __slots__ = ("_over", "group")

    def __init__(self) -> None:
        """Begin with the first."""
        self.group = 0
        self._over: set[int] = set()

    def end(self, group: int) -> bool:
        """Take note that a row group is through with the column; tell whether it is another one's turn now."""
        self._over.add(group)
        before = self.group
        while self.group in self._over:
            self._over.remove(self.group)
            self.group += 1
        return self.group != before


class GroupState:
    """The task states of one row group."""

    __slots__ = (
        "alive", "attempts", "committing", "cut", "dropped", "id", "left", "live", "missing", "missing_whole", "open",
        "restoring", "size", "sizes", "state", "worked",
    )  # fmt: skip

    def __init__(self, id_: int, size: int, graph: Graph) -> None:
        """Start with every task waiting."""
        self.id = id_
        self.size = size
        self.live = size
        self.alive = bytearray(b"\1") * size
        self.dropped = 0
        self.restoring = False
        self.committing = False
        self.cut: set[int] = set()
        """Rows lost because the run was halted: a later one can still work them."""
        self.open = len(graph.columns)
        self.left = [size] * self.open
        self.missing_whole = [column.whole_needs for column in graph.columns]
        self.missing = [array("H", [] if c.whole or not c.cell_needs else [c.cell_needs]) * size for c in graph.columns]
        self.state = [bytearray(1 if column.whole else size) for column in graph.columns]  # a whole one's is at WHOLE
        self.worked = [0] * self.open
        self.sizes = [size] * self.open
        """How many rows there were when a whole column ended: later ones may have changed it (sequential engine)."""
        self.attempts: dict[tuple[int, int], tuple[int, int, float]] = {}
        """By task: how many have failed, how many of them counted, and when a rate limit first refused one."""

    def resize(self, rows: int, columns: Sequence[Column]) -> None:
        """Take another number of rows, all of them live. What is over stays so, the rest has not begun."""
        begun = [self.state[c.id][WHOLE] != WAITING if c.whole else not self.left[c.id] for c in columns]
        for column in columns:
            if not begun[column.id] and not column.whole:
                missing = sum(column.id in c.cell_children and not c.whole and not begun[c.id] for c in columns)
                self.left[column.id] = rows
                self.state[column.id] = bytearray(rows)
                self.missing[column.id] = array("H", [missing] if column.cell_needs else []) * rows
        self.size = self.live = rows
        self.alive = bytearray(b"\1") * rows

    def restore(self, event: Restored) -> None:
        """Take over how tasks of an earlier run ended."""
        for column, row in event.cells:
            self.state[column][row] = DONE
        for column, rows in event.wholes.items():
            self.state[column][WHOLE] = DONE
            self.worked[column] = rows
        for column, row, rows_failed in event.failed:
            self.state[column][row] = FAILED
            if row == WHOLE:
                self.worked[column] = len(rows_failed or ())

    def tally(self, columns: Sequence[Column]) -> Tally:
        """Count what came of the group, when all of it is over."""
        return Tally(self.live, self.dropped, tuple(self._counted(column) for column in columns), bool(self.cut))

    def _counted(self, column: Column) -> tuple[int, int, int]:
        state = self.state[column.id]
        if not column.whole:
            return state.count(DONE), state.count(FAILED), state.count(SKIPPED)
        worked = 0 if state[WHOLE] == SKIPPED else self.worked[column.id]
        done = worked if state[WHOLE] == DONE else 0
        return done, worked - done, self.sizes[column.id] - worked

    def live_rows(self) -> range | list[int]:
        """Give the offsets of the rows that have not been dropped."""
        if self.live == self.size:
            return range(self.size)
        return [row for row in range(self.size) if self.alive[row]]

    def undropped(self) -> range | list[int]:
        """Give the offsets of the rows that no failure has taken out: the live ones, and those that a halt cut off."""
        return sorted(self.cut.union(self.live_rows())) if self.cut else self.live_rows()
