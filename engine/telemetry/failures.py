"""The failures table: every cell that failed for good, with its error, its attempts and its inputs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.errors import writable
from ..core.events import WHOLE, Done, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from ..core.events import Event, Record
    from ..core.graph import Graph
    from ..core.store import RowGroup


@dataclass(frozen=True, slots=True)
class FailedCell:
    """One line of the failures table. Times are UTC; `inputs` is JSON."""

    row: int
    column: str
    error: str
    message: str
    attempts: int
    first_failed_at: datetime
    last_failed_at: datetime
    inputs: str
    row_group: int


@dataclass(slots=True)
class FailureTable:
    """Collects the lines of the failures table; an observer.

    `cells` begins with the failures of earlier runs. `keep` is called with each failure, its lines, and whether it is
    final: a failure that ends the run is not final, because the next run retries it.
    """

    graph: Graph
    cells: list[FailedCell] = field(default_factory=list)
    keep: Callable[[Record, list[FailedCell], bool], None] | None = None
    by_error: Counter[str] = field(default_factory=Counter)
    first: Record | None = None
    """The first failure of this run: the root cause of a run in which no row was completed."""
    _first_failed: dict[tuple[int, int, int], datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Count the failures of earlier runs."""
        self.by_error.update(cell.error for cell in self.cells)

    def on_event(self, event: Event) -> None:
        """Remember when a task first failed, until it succeeds."""
        if type(event) is Failed:
            self._first_failed.setdefault((event.group, event.column, event.row), datetime.now(UTC))
        elif self._first_failed and type(event) is Done:
            self._first_failed.pop((event.group, event.column, event.row), None)

    def on_failure(self, record: Record, group: RowGroup) -> None:
        """Add a line for the cell, or one for each row of a whole column."""
        self.first = self.first or record
        now = datetime.now(UTC)
        first = self._first_failed.pop((record.group, record.column, record.row), now)
        column = self.graph.columns[record.column]
        lines = [
            FailedCell(
                row=group.start + row,
                column=column.name,
                error=record.failure.error,
                message=writable(record.failure.message),
                attempts=record.attempts,
                first_failed_at=first,
                last_failed_at=now,
                inputs=self._inputs(group, column.needs, row),
                row_group=group.id,
            )
            for row in ([record.row] if record.row != WHOLE else record.rows or ())
        ]
        self.by_error[record.failure.error] += len(lines)
        self.cells += lines
        if self.keep is not None:
            self.keep(record, lines, not (record.failure.fatal or column.on_error == "raise"))

    def frame(self) -> pd.DataFrame:
        """Return the table, in the order of the rows."""
        import pandas as pd  # noqa: PLC0415 - not at import time

        names = list(FailedCell.__dataclass_fields__)
        lines = sorted(self.cells, key=lambda cell: (cell.row, cell.column))
        return pd.DataFrame({name: [getattr(line, name) for line in lines] for name in names}, columns=names)

    def _inputs(self, group: RowGroup, needs: tuple[int, ...], row: int) -> str:
        inputs: dict[str, Any] = {}
        for need in needs:
            inputs[self.graph.columns[need].name] = _without_bytes(group.value(need, row))
        try:
            return msgspec.json.encode(inputs, enc_hook=str).decode()
        except (TypeError, ValueError, OverflowError):  # surrogates, integers beyond 64 bits, keys that are not text
            return writable(json.dumps({name: repr(value) for name, value in inputs.items()}))


def _without_bytes(value: Any) -> Any:
    """Replace bytes by their number: nobody can read a photo in a table."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value):,} bytes"
    return [_without_bytes(part) for part in value] if isinstance(value, list) else value
