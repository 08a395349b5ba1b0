"""Observers: what is known of a run beside its state, each a fold over its events."""

from __future__ import annotations

import json
import logging
import time
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


logger = logging.getLogger("rowloop")


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
class FailureObserver:
    """Keeps every cell that failed for good, with the values it was given.

    `cells` are those of earlier runs at first. `keep` is told of each failure and its lines, and whether it is final:
    one for which a run was ended is not, as another run will try it again.
    """

    graph: Graph
    cells: list[FailedCell] = field(default_factory=list)
    keep: Callable[[Record, list[FailedCell], bool], None] | None = None
    by_error: Counter[str] = field(default_factory=Counter)
    first: Record | None = None
    """The first failure for good: the root cause, where nothing came of a run."""
    _first: dict[tuple[int, int, int], datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Count what there is."""
        self.by_error.update(cell.error for cell in self.cells)

    def saw(self, event: Event) -> None:
        """Remember when a task first failed, until it has succeeded."""
        if type(event) is Failed:
            self._first.setdefault((event.group, event.column, event.row), datetime.now(UTC))
        elif self._first and type(event) is Done:
            self._first.pop((event.group, event.column, event.row), None)

    def recorded(self, record: Record, group: RowGroup) -> None:
        """Write a line for the cell, or for each row of a whole column."""
        self.first = self.first or record
        now = datetime.now(UTC)
        first = self._first.pop((record.group, record.column, record.row), now)
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
        """Give the table, in the order of the rows."""
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
        except (TypeError, ValueError, OverflowError):  # surrogates, numbers beyond 64 bits, keys that are no text
            return writable(json.dumps({name: repr(value) for name, value in inputs.items()}))


def _without_bytes(value: Any) -> Any:
    """Say how many bytes there are in place of them: a photo in each line helps nobody."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value):,} bytes"
    return [_without_bytes(part) for part in value] if isinstance(value, list) else value


class Clock:
    """When a run began and how long it has taken."""

    def __init__(self) -> None:
        """Start now."""
        self.started_at = datetime.now(UTC)
        self._start = time.monotonic()
        self._elapsed: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds so far, or in all once it is stopped."""
        return time.monotonic() - self._start if self._elapsed is None else self._elapsed

    def stop(self) -> None:
        """Stop counting."""
        self._elapsed = self.elapsed
