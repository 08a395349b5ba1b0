"""Row groups: how the rows of a run are divided, and the task states of one group.

Plain data; only the tracker changes it.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from .events import WHOLE, IllegalEventError, Tally

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

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

    `targets`: how many rows they were to make; a row group ends there, full or not. `over`: the tallies of the row
    groups in which nothing is left to do. `begun`: the row groups of which the journal has something.
    """

    targets: tuple[int, ...] = ()
    over: Mapping[int, Tally] = field(default_factory=dict)
    begun: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How many rows to make, in row groups of which size, how many rows may be open at once, and what is there.

    `memory`: how many bytes the values of open row groups may take; None for any number.
    """

    rows: int
    row_group_size: int = 1000
    open_rows: int = 65_536
    earlier: Earlier = field(default_factory=Earlier)
    memory: int | None = None
    _firsts: list[tuple[int, int]] = field(init=False, repr=False, compare=False)
    """Where row groups of full size begin again, after one that may be smaller: (group, row)."""

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
        """How many row groups have something left to do."""
        return self.row_groups - len(self.earlier.over)

    @property
    def open_groups(self) -> int:
        """How many row groups may be open at once."""
        return max(4, self.open_rows // self.row_group_size)

    def row(self, group: int, row: int) -> int:
        """Return the run's number of a row of a row group."""
        first_group, first_row = self._firsts[bisect(self._firsts, group, key=_group) - 1]
        return first_row + (group - first_group) * self.row_group_size + row

    def size(self, group: int) -> int:
        """Return the number of rows of a row group."""
        return min(self.rows, self.row(group + 1, 0)) - self.row(group, 0)


def _group(first: tuple[int, int]) -> int:
    return first[0]


class Attempts(NamedTuple):
    """The attempts at one task that have failed: all, those that count, and when the first was rate limited."""

    failed: int = 0
    counted: int = 0
    rate_limited_at: float = math.inf


class GroupState:
    """The task states of one row group."""

    __slots__ = (
        "alive", "attempts", "bytes", "columns", "committing", "cut", "dropped", "id", "left", "live", "missing",
        "missing_whole", "open", "restoring", "rows", "size", "sizes", "state", "worked",
    )  # fmt: skip

    def __init__(self, id_: int, size: int, graph: Graph) -> None:
        """Start with every task waiting."""
        self.id = id_
        self.columns = graph.columns
        self.size = self.rows = size
        """`rows` is what the size was when the row group was opened."""
        self.live = size
        self.bytes = 0
        """The size of its values."""
        self.alive = bytearray(b"\1") * size
        self.dropped = 0
        self.restoring = False
        self.committing = False
        self.cut: set[int] = set()
        """Rows lost because the run was halted: a later run can still work them."""
        self.open = len(graph.columns)
        self.left = [size] * self.open
        self.missing_whole = [column.whole_needs for column in graph.columns]
        self.missing = [array("H", [] if c.whole or not c.cell_needs else [c.cell_needs]) * size for c in graph.columns]
        self.state = [bytearray(1 if column.whole else size) for column in graph.columns]  # a whole one's is at WHOLE
        self.worked = [0] * self.open
        self.sizes = [size] * self.open
        """How many rows there were when a whole column ended: later ones may have changed it (sequential engine)."""
        self.attempts: dict[tuple[int, int], Attempts] = {}
        """By column and row, for tasks of which an attempt has failed."""

    def is_in(self, state: int, column: int, row: int) -> bool:
        """Return whether there is such a task and it is in this state."""
        try:
            return self.state[column][row] == state and (row < 0) == self.columns[column].whole
        except LookupError:
            return False

    def find(self, column: int, state: int) -> list[int]:
        """Return the rows whose task of a column is in a state; 0 for a whole column."""
        states, rows = self.state[column], [-1]
        while (row := states.find(state, rows[-1] + 1)) >= 0:
            rows.append(row)
        return rows[1:]

    def count_attempt(self, column: int, row: int, now: float, *, rate_limited: bool, counts: int = 1) -> Attempts:
        """Count an attempt that failed; one that was rate limited does not use up the task's attempts.

        `counts`: how many attempts it counts for: none during an outage, less than that if earlier ones were forgiven.
        """
        failed, counted, since = self.attempts.get((column, row), Attempts())
        since = min(since, now) if rate_limited else since
        counted += counts - rate_limited
        self.attempts[column, row] = attempts = Attempts(failed + 1, counted, since)
        return attempts

    def end_whole(self, column: int, state: int) -> None:
        """Record how a whole column ended, and for how many rows."""
        self.state[column][WHOLE] = state
        self.sizes[column] = self.size

    def meet_need(self, column: int) -> list[tuple[int, int]]:
        """Count down the whole columns and turns that a column awaits; return the tasks that lack nothing else."""
        self.missing_whole[column] -= 1
        return [] if self.missing_whole[column] else self.startable(column)

    def startable(self, column: int) -> list[tuple[int, int]]:
        """Return the tasks of a column whose whole needs are met, but for cells that still wait for other cells."""
        state, missing = self.state[column], self.missing[column]
        rows = (WHOLE,) if self.columns[column].whole else self.live_rows()
        # What an earlier run has worked is no longer waiting.
        return [(column, row) for row in rows if state[row] == WAITING and not (missing and missing[row])]

    def startable_roots(self) -> list[tuple[int, int]]:
        """Return the tasks that need nothing."""
        roots = (c.id for c in self.columns if not (self.missing_whole[c.id] or c.cell_needs))
        return [task for column in roots for task in self.startable(column)]

    def take_out(self, rows: Iterable[int], *, cut: bool) -> list[int]:
        """Take out those of the rows that are live, cut off or dropped, and return them."""
        gone = [row for row in rows if self.alive[row]]
        for row in gone:
            self.alive[row] = 0
        self.live -= len(gone)
        if cut:
            self.cut.update(gone)
        else:
            self.dropped += len(gone)
        return gone

    def resize(self, rows: int) -> None:
        """Change the number of rows, all of them live. Columns that are over stay so, the others have not begun."""
        columns = self.columns
        begun = [self.state[c.id][WHOLE] != WAITING if c.whole else not self.left[c.id] for c in columns]
        for column in columns:
            if not begun[column.id] and not column.whole:
                missing = sum(column.id in c.cell_children and not c.whole and not begun[c.id] for c in columns)
                self.left[column.id] = rows
                self.state[column.id] = bytearray(rows)
                self.missing[column.id] = array("H", [missing] if column.cell_needs else []) * rows
        self.size = self.live = rows
        self.alive = bytearray(b"\1") * rows

    def check(self, event: Restored) -> None:
        """Raise IllegalEventError for tasks that do not exist or come twice, and for rows that the group has not."""
        tasks = [*event.cells, *((column, WHOLE) for column in event.wholes), *(task[:2] for task in event.failed)]
        for column, row in tasks:
            if column < 0 or not self.is_in(WAITING, column, row):
                raise IllegalEventError(f"row group {self.id}: cannot restore column {column}, row {row}")
        if len(set(tasks)) < len(tasks):
            raise IllegalEventError(f"row group {self.id}: cannot restore a task twice")
        for column, worked in event.wholes.items():
            if not 0 <= worked <= self.size:
                raise IllegalEventError(
                    f"row group {self.id}: column {column} cannot have been worked for {worked} rows"
                )
        for column, row, rows in event.failed:
            if (row == WHOLE) != (rows is not None) or not all(0 <= of < self.size for of in rows or ()):
                raise IllegalEventError(
                    f"row group {self.id}: column {column}, row {row} cannot have failed for {rows}"
                )

    def restore(self, event: Restored) -> list[tuple[int, int, int]]:
        """Take over how tasks ended in an earlier run; return each with its state, as (column, row, state)."""
        ended = [(column, row, DONE) for column, row in event.cells]
        ended += [(column, WHOLE, DONE) for column in event.wholes]
        ended += [(column, row, FAILED) for column, row, _ in event.failed]
        for column, row, state in ended:
            self.state[column][row] = state
        for column, worked in event.wholes.items():
            self.worked[column] = worked
        for column, row, rows in event.failed:
            if row == WHOLE:
                self.worked[column] = len(rows or ())
        return ended

    def tally(self) -> Tally:
        """Count how the rows and cells of the group ended, when all of it is over."""
        return Tally(self.live, self.dropped, tuple(self._counted(column) for column in self.columns), bool(self.cut))

    def _counted(self, column: Column) -> tuple[int, int, int]:
        state = self.state[column.id]
        if not column.whole:
            return state.count(DONE), state.count(FAILED), state.count(SKIPPED)
        worked = 0 if state[WHOLE] == SKIPPED else self.worked[column.id]
        done = worked if state[WHOLE] == DONE else 0
        return done, worked - done, self.sizes[column.id] - worked

    def live_rows(self) -> range | list[int]:
        """Return the offsets of the rows that have been neither dropped nor cut off."""
        if self.live == self.size:
            return range(self.size)
        return [row for row in range(self.size) if self.alive[row]]

    def undropped(self) -> range | list[int]:
        """Return the offsets of the rows that no failure has taken out: the live ones and those that were cut off."""
        return sorted(self.cut.union(self.live_rows())) if self.cut else self.live_rows()

    def not_started(self, rows: Collection[int]) -> list[tuple[int, int]]:
        """Return the tasks of rows that have not started, and the whole columns that have not once no row is left."""
        whole = () if self.live else (WHOLE,)
        return [
            (column.id, row)
            for column in self.columns
            for row in (whole if column.whole else rows)
            if self.state[column.id][row] in NOT_STARTED
        ]

    def unfinished(self) -> Sequence[int]:
        """Return the live rows in which something has not started; all of them while a whole column has not."""
        rows = self.live_rows()
        if any(column.whole and self.state[column.id][WHOLE] in NOT_STARTED for column in self.columns):
            return rows
        cells = [self.state[column.id] for column in self.columns if not column.whole]
        return [row for row in rows if any(state[row] in NOT_STARTED for state in cells)]
