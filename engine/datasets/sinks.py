"""Sinks: where finished row groups are written. A preview and a build differ in their sink only.

The work is done in one writer thread, never on the loop. The sink of a build is in parquet_sink.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import pyarrow as pa

from ...runtime.errors import CALLBACK_ERRORS
from ...runtime.one_thread import OneThread
from ..core.errors import DatasetGenerationError
from ..core.events import Restored
from .parts import Part
from .tables import conformed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

    from ..core.events import Tally
    from ..core.store import RowGroup
    from ..telemetry.traces import Traces
    from .metadata import Metadata
    from .parts import OnPart
    from .tables import Tables

T = TypeVar("T")


class RowGroupSink(Protocol):
    """The part of a sink that the scheduler uses: one row group at a time."""

    async def restore(self, group: RowGroup) -> Restored:
        """Put the values of an earlier run into a row group."""
        ...

    async def commit(self, group: RowGroup, rows: Sequence[int], tally: Tally) -> None:
        """Write the rows at these offsets; they are safe when this returns."""
        ...

    def discard(self, group: int, tally: Tally | None) -> None:
        """Note a row group without rows to write; `tally` is None where something is left to do in it."""
        ...


class Sink(RowGroupSink, Protocol):
    """What a run writes to."""

    @property
    def kind(self) -> Literal["build", "preview"]:
        """The kind of run that writes here."""
        ...

    @property
    def path(self) -> Path | None:
        """The directory; None for a sink in memory."""
        ...

    @property
    def parts(self) -> list[Part]:
        """The parts committed so far, also by earlier runs."""
        ...

    async def begin(self, tables: Tables) -> None:
        """Prepare for a run whose row groups `tables` turns into tables."""
        ...

    async def rewrite(self, change: Callable[[pa.Table], pa.Table], row_group_size: int) -> None:
        """Replace everything committed by a changed table."""
        ...

    async def describe(self, metadata: Metadata, failures: pd.DataFrame, traces: Traces | None = None) -> Metadata:
        """Keep the metadata, the failures table and the traces; return the metadata with what the sink has added."""
        ...

    def close(self) -> None:
        """End the threads and release the directory."""
        ...

    def table(self) -> pa.Table:
        """Return all rows in order."""
        ...


class MemorySink:
    """The sink of a preview: keeps the tables in memory."""

    kind: Literal["build", "preview"] = "preview"
    path: Path | None = None

    def __init__(self, on_part: OnPart | None = None) -> None:
        """Start empty; `on_part` is called with each part."""
        self.parts: list[Part] = []
        self._on_part = on_part
        self._kept: dict[int, pa.Table] = {}
        self._schema: pa.Schema | None = None
        self._writer = OneThread("rowloop-writer")

    async def begin(self, tables: Tables) -> None:
        """Take the tables' maker."""
        self._tables = tables

    async def restore(self, group: RowGroup) -> Restored:
        """Restore nothing, as there is no earlier run."""
        return Restored(group.id, [], {}, [])

    def discard(self, group: int, tally: Tally | None) -> None:
        """Keep nothing."""

    async def commit(self, group: RowGroup, rows: Sequence[int], tally: Tally) -> None:  # noqa: ARG002 - a build's
        """Keep the rows as a table."""
        table = await self._writer.call(lambda: self._tables.table(group, rows))
        self._kept[group.id] = table
        part = Part(group.id, group.start, table.num_rows)
        self.parts.append(part)
        await announce(self._writer, self._on_part, part)

    async def rewrite(self, change: Callable[[pa.Table], pa.Table], row_group_size: int) -> None:
        """Keep the changed table, cut into parts as in a build."""
        table = await self._writer.call(lambda: change(self.table()))
        pieces = cut(table, row_group_size)
        self._kept = {i: piece for i, (_, piece) in enumerate(pieces)}
        self._schema = table.schema
        self.parts = [Part(i, start, piece.num_rows) for i, (start, piece) in enumerate(pieces)]

    async def describe(self, metadata: Metadata, failures: pd.DataFrame, traces: Traces | None = None) -> Metadata:  # noqa: ARG002 - a build's
        """Keep nothing: the result has them."""
        return metadata

    def close(self) -> None:
        """End the writer thread."""
        self._writer.close()

    def table(self) -> pa.Table:
        """Return all rows in order, in the final schema."""
        kept = [table for _, table in sorted(self._kept.items())]
        if self._schema is None:
            kept = conformed(self._tables, kept)
        return pa.concat_tables(kept) if kept else (self._schema or self._tables.schema).empty_table()


async def announce(writer: OneThread, on_part: OnPart | None, part: Part) -> None:
    """Call `on_part` in the writer's thread; raises DatasetGenerationError with what it raised."""
    if on_part is not None:
        await writer.call(lambda: _call(on_part, part))


def _call(on_part: OnPart, part: Part) -> None:
    try:
        on_part(part)
    except CALLBACK_ERRORS as error:
        problem = f"{type(error).__name__}: {error}"
        raise DatasetGenerationError(problem, stage="on_part", row_group=part.row_group) from error


def cut(table: pa.Table, rows: int) -> list[tuple[int, pa.Table]]:
    """Cut a table into pieces of this many rows: (first row, piece)."""
    return [(start, table.slice(start, rows)) for start in range(0, table.num_rows, rows)]
