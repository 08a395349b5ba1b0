"""The store: the values of the open row groups, from admission to commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .vector import plain

if TYPE_CHECKING:
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
