"""Traces: when each attempt was queued, started and finished, and how it ended.

A trace is folded from events and commands. The time at which a task was queued is not stored: it is the time at which
the last of its needs ended, or the wait before a retry. An attempt takes 45 bytes, in the layout of `_RECORD`, and
becomes a TaskTrace when someone reads it.
"""

from __future__ import annotations

import struct
import time
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from ..core.events import (
    WHOLE,
    Admit,
    Cancelled,
    CommitFailed,
    Committed,
    Discard,
    Done,
    Due,
    Execute,
    Failed,
    Hedge,
    HedgeEnded,
    Resized,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from ..core.events import Command, Event, Usage
    from ..core.graph import Graph

Kind: TypeAlias = Literal["cell", "batch"]
Outcome: TypeAlias = Literal["done", "failed", "cancelled"]

_OUTCOMES: Final = get_args(Outcome)
_DONE, _FAILED, _CANCELLED = range(3)
_RECORD: Final = struct.Struct("<iiqdddBii")
_DTYPE: Final = [
    ("column", "<i4"),
    ("row_group", "<i4"),
    ("row", "<i8"),
    ("queued", "<f8"),
    ("started", "<f8"),
    ("finished", "<f8"),
    ("outcome", "u1"),
    ("prompt_tokens", "<i4"),
    ("completion_tokens", "<i4"),
]
"""The same layout in numpy's terms."""
_pack = _RECORD.pack
ON_THE_SPOT: Final = "on the spot"


@dataclass(frozen=True, slots=True)
class TaskTrace:
    """One attempt at one task. Times are in seconds since the run began.

    `row` is the run's row number, None for a column that is worked whole ("batch"). `queued` is when all its inputs
    were ready, `started` when its lane had a free permit. A task that was retried has a trace for each attempt.
    """

    column: str
    row_group: int
    row: int | None
    kind: Kind
    queued: float
    started: float
    finished: float
    outcome: Outcome
    error: str | None
    prompt_tokens: int
    completion_tokens: int


class _Times:
    """When the tasks of one open row group started and ended.

    `ended` has a list per column, with an element per row and one more, at the index WHOLE: when a whole column ended,
    or the last cell so far. While a task runs, its element holds the time at which it started.
    """

    __slots__ = ("admitted", "due", "ended", "start")

    def __init__(self, admit: Admit, columns: int, now: float) -> None:
        self.admitted = now
        self.start = admit.start
        self.ended = [array("d", [now]) * (admit.rows + 1) for _ in range(columns)]
        self.due: dict[tuple[int, int], float] = {}

    def resize(self, rows: int) -> None:
        """Change the number of rows: a column that has ended did so when its last row did."""
        self.ended = [array("d", [ended[WHOLE]]) * (rows + 1) for ended in self.ended]


class TraceObserver:
    """Folds a run into traces."""

    def __init__(self, graph: Graph, traced: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """Take the number of columns that do any work (the barriers come last), and a clock in seconds."""
        self._graph = graph
        self._traced = traced
        self._clock = clock
        self._began = clock()
        self._awaited = [_awaited(graph, column.id) for column in graph.columns]
        self._groups: dict[int, _Times] = {}
        self._records = bytearray()
        self._count = 0
        self._errors: dict[int, str] = {}
        self._hedged: dict[tuple[int, int, int], float] = {}
        """When the second requests of cells in flight started."""

    def on_command(self, command: Command) -> None:
        """Note when a task starts, and when its row group is opened."""
        if type(command) is Execute:
            self._groups[command.group].ended[command.column][command.row] = self._clock()
        elif isinstance(command, Hedge):
            self._hedged[command.group, command.column, command.row] = self._clock()
        elif isinstance(command, Admit):
            self._groups[command.group] = _Times(command, len(self._graph.columns), self._clock())
        elif isinstance(command, Discard):
            del self._groups[command.group]

    def on_event(self, event: Event) -> None:
        """Add a record for an attempt that has ended."""
        if type(event) is Done:
            self._ended(event, _DONE, event.usage)
        elif isinstance(event, Resized):
            self._ended(event, _DONE, None)
            self._groups[event.group].resize(event.rows)
        elif isinstance(event, Failed):
            self._errors[self._count] = f"{event.failure.error}: {event.failure.message}"
            self._ended(event, _FAILED, event.usage)
        elif isinstance(event, Cancelled):
            self._ended(event, _CANCELLED, None)
        elif isinstance(event, HedgeEnded):
            self._one_ended(event)
        elif isinstance(event, Due):
            times = self._groups.get(event.group)  # None: its row was dropped while it waited
            if times is not None:
                times.due[event.column, event.row] = self._clock()
        elif isinstance(event, Committed | CommitFailed):
            del self._groups[event.group]

    def traces(self) -> Traces:
        """Return the traces so far."""
        return Traces(self._graph, bytes(self._records), dict(self._errors))

    def _ended(self, event: Done | Resized | Failed | Cancelled, outcome: int, usage: Usage | None) -> None:
        now, began = self._clock(), self._began
        column, row = event.column, event.row
        times = self._groups[event.group]
        ended = times.ended
        started = ended[column][row]
        ended[column][row] = ended[column][WHOLE] = now
        queued = times.due.pop((column, row), None) if times.due else None
        if queued is None:
            queued = times.admitted
            for need, whole in self._awaited[column]:
                over = ended[need][WHOLE if whole else row]
                if over > queued:  # noqa: PLR1730 - max() takes ten times as long
                    queued = over
        if column < self._traced:
            self._add(event, (queued - began, started - began, now - began), outcome, usage)

    def _one_ended(self, event: HedgeEnded) -> None:
        """Add a record for one of the two requests of a cell; the other is recorded when the cell ends."""
        now, began, ended = self._clock(), self._began, self._groups[event.group].ended[event.column]
        started = self._hedged.pop((event.group, event.column, event.row))
        if event.won:
            started, ended[event.row] = ended[event.row], started
        if event.failure is not None:
            self._errors[self._count] = f"{event.failure.error}: {event.failure.message}"
        outcome = _CANCELLED if event.failure is None else _FAILED
        self._add(event, (started - began, started - began, now - began), outcome, event.usage)

    def _add(
        self,
        event: Done | Resized | Failed | Cancelled | HedgeEnded,
        times: tuple[float, float, float],
        outcome: int,
        usage: Usage | None,
    ) -> None:
        """Add a record; `times`: when the attempt was queued, started and finished, since the run began."""
        row = event.row
        self._records += _pack(
            event.column,
            event.group,
            WHOLE if row == WHOLE else self._groups[event.group].start + row,
            *times,
            outcome,
            0 if usage is None else usage.prompt_tokens,
            0 if usage is None else usage.completion_tokens,
        )
        self._count += 1


def _awaited(graph: Graph, child: int) -> list[tuple[int, bool]]:
    """Return the columns that a column waits for, each with whether it waits for all of its rows."""
    column = graph.columns[child]
    return [
        (need.id, column.whole or need.whole)
        for need in graph.columns
        if child in need.whole_children or child in need.cell_children
    ]


class Traces:
    """All attempts of a run, in the order in which they ended."""

    def __init__(self, graph: Graph, records: bytes, errors: dict[int, str]) -> None:
        """Take records in the layout of `_RECORD`, and errors by the number of their record."""
        self._graph = graph
        self._records = records
        self._errors = errors

    def tasks(self) -> list[TaskTrace]:
        """Return a TaskTrace for each attempt."""
        names = [column.name for column in self._graph.columns]
        return [
            TaskTrace(
                column=names[column],
                row_group=row_group,
                row=None if row == WHOLE else row,
                kind="batch" if row == WHOLE else "cell",
                queued=queued,
                started=started,
                finished=finished,
                outcome=_OUTCOMES[outcome],
                error=self._errors.get(i),
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
            )
            for i, (
                column, row_group, row, queued, started, finished, outcome, prompt_tokens, completion_tokens,
            ) in enumerate(_RECORD.iter_unpack(self._records))
        ]  # fmt: skip

    def table(self) -> pa.Table:
        """Return a table with the fields of TaskTrace as columns, as in traces.parquet."""
        import numpy as np  # noqa: PLC0415 - not at import time
        import pyarrow as pa  # noqa: PLC0415 - the same

        known = np.frombuffer(self._records, dtype=_DTYPE)
        whole = known["row"] == WHOLE
        names = pa.array([column.name for column in self._graph.columns], pa.string())
        errors = pa.array([self._errors.get(i) for i in range(len(known))], pa.string())
        return pa.table(
            {
                "column": names.take(pa.array(known["column"], pa.int32())),
                "row_group": pa.array(known["row_group"], pa.int64()),
                "row": pa.array(known["row"], pa.int64(), mask=whole),
                "kind": pa.array(["cell", "batch"]).take(pa.array(whole.astype("i4"), pa.int32())),
                **{name: pa.array(known[name]) for name in ("queued", "started", "finished")},
                "outcome": pa.array(_OUTCOMES).take(pa.array(known["outcome"], pa.uint8())),
                "error": errors,
                **{name: pa.array(known[name], pa.int64()) for name in ("prompt_tokens", "completion_tokens")},
            }
        )

    def lanes(self) -> dict[str, str]:
        """Return the lane of each column; columns without one share "on the spot"."""
        lanes = self._graph.lanes
        return {
            column.name: ON_THE_SPOT if column.lane is None else lanes[column.lane].name
            for column in self._graph.columns
        }
