"""Row groups: how the rows of a run are cut, and the task states of one group.

Plain data; only the tracker changes it.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .events import WHOLE

if TYPE_CHECKING:
    from collections.abc import Sequence

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
class Plan:
    """How many rows there are to be, in groups of how many, and how many rows may be open at once."""

    rows: int
    row_group_size: int = 1000
    open_rows: int = 65_536

    @property
    def row_groups(self) -> int:
        """How many row groups the rows make; the last may be smaller."""
        return -(-self.rows // self.row_group_size)

    @property
    def open_groups(self) -> int:
        """How many row groups may be open at once."""
        return max(4, self.open_rows // self.row_group_size)

    def row(self, group: int, row: int) -> int:
        """Give the run's number of a row of a row group."""
        return group * self.row_group_size + row


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
        "alive", "attempts", "committing", "cut", "id", "left", "live", "missing", "missing_whole", "open", "size",
        "state", "worked",
    )  # fmt: skip

    def __init__(self, id_: int, size: int, graph: Graph) -> None:
        """Start with every task waiting."""
        self.id = id_
        self.size = size
        self.live = size
        self.alive = bytearray(b"\1") * size
        self.committing = False
        self.cut = False
        self.open = len(graph.columns)
        self.left = [size] * self.open
        self.missing_whole = [column.whole_needs for column in graph.columns]
        self.missing = [array("H", [] if c.whole or not c.cell_needs else [c.cell_needs]) * size for c in graph.columns]
        self.state = [bytearray(1 if column.whole else size) for column in graph.columns]  # a whole one's is at WHOLE
        self.worked = [0] * self.open
        self.attempts: dict[tuple[int, int], tuple[int, int]] = {}

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

    def live_rows(self) -> range | list[int]:
        """Give the offsets of the rows that have not been dropped."""
        if self.live == self.size:
            return range(self.size)
        return [row for row in range(self.size) if self.alive[row]]
