"""The store: the values of the open row groups, from admission to commit.

An embedding in it is a `Vector`: four bytes a number, and no object for each.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from .events import Admit, Null
    from .graph import Graph


class RowGroup:
    """The values of one row group: a list per column, with None where there is no value (yet).

    `start` is the run's row number of its first row; rows inside are offsets from it.
    """

    __slots__ = ("id", "size", "start", "values")

    def __init__(self, admit: Admit, graph: Graph) -> None:
        """Make room for every column that is worked by cell; a whole column brings its own list."""
        self.id = admit.group
        self.start = admit.start
        self.size = admit.rows
        self.values: list[Any] = [None if column.whole else [None] * admit.rows for column in graph.columns]

    def value(self, column: int, row: int) -> Any:
        """Return one value, None where there is none yet; a vector as a list of floats."""
        values = self.values[column]
        return None if values is None else plain(values[row])


class Store:
    """The open row groups by their number."""

    def __init__(self, graph: Graph) -> None:
        """Start empty."""
        self._graph = graph
        self.groups: dict[int, RowGroup] = {}

    def admit(self, admit: Admit) -> None:
        """Make room for a row group."""
        self.groups[admit.group] = RowGroup(admit, self._graph)

    def null(self, command: Null) -> None:
        """Store no value for a cell or a whole column."""
        group = self.groups[command.group]
        if command.row >= 0:
            group.values[command.column][command.row] = None
        else:
            group.values[command.column] = [None] * group.size

    def free(self, group: int) -> None:
        """Free a row group's values."""
        del self.groups[group]


class Vector(array):  # type: ignore[type-arg] # noqa: PLW1641 - it may change; `array[float]` is no class
    """32-bit floats. Providers make them, the journal keeps their bytes, and a part is their concatenation.

    Everybody else reads a list of floats: functions, templates, validators and observers get `plain(value)`.
    """

    __slots__ = ()

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Self:
        """Take numbers, each rounded to 32 bits; one beyond their range becomes infinite.

        Raises TypeError for anything but numbers.
        """
        return cls("f", numbers)

    @classmethod
    def from_bytes(cls, raw: bytes | memoryview) -> Self:
        """Take little-endian bytes; raises ValueError for a number of bytes that is no multiple of four."""
        vector = cls("f")
        vector.frombytes(raw)
        return vector._little_endian()

    def to_bytes(self) -> bytes:
        """Return little-endian bytes."""
        return self._little_endian().tobytes()

    def _little_endian(self) -> Self:
        if sys.byteorder == "little":
            return self
        swapped = type(self)("f", self)
        swapped.byteswap()
        return swapped

    def __eq__(self, other: object) -> bool:
        """Compare the numbers, also with those of a list."""
        return self.tolist() == other if isinstance(other, list) else bool(super().__eq__(other))


def plain(value: Any) -> Any:
    """Return a value as everybody but the engine reads it: a vector as a list of floats."""
    return value.tolist() if type(value) is Vector else value
