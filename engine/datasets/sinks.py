"""Sinks: where finished row groups go. Preview and build differ in nothing else.

The work is done in one writer thread, never on the loop.
"""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import DatasetGenerationError
from ..core.events import Restored
from ..telemetry.spending import Spending
from .directory import METADATA, flush, part_name, remove_dataset, swap_data, write_atomically
from .journal_writer import Journaling
from .parts import Part, read_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

    from ..core.events import Tally
    from ..core.store import RowGroup
    from ..telemetry.failures import FailedCell
    from ..telemetry.traces import Traces
    from .claim import Claim
    from .metadata import Metadata
    from .parts import OnPart
    from .tables import Tables

T = TypeVar("T")


class Sink(Protocol):
    """What a run writes to."""

    @property
    def kind(self) -> Literal["build", "preview"]:
        """What a run that writes here is called."""
        ...

    @property
    def path(self) -> Path | None:
        """The directory, where there is one."""
        ...

    @property
    def parts(self) -> list[Part]:
        """What has been committed so far."""
        ...

    @property
    def finished(self) -> bool:
        """Whether an earlier run has made all there is to be made."""
        ...

    @property
    def failures(self) -> list[FailedCell]:
        """The failures of earlier runs that still are."""
        ...

    @property
    def spent(self) -> Spending:
        """What earlier runs have spent."""
        ...

    @property
    def rewritten(self) -> bool:
        """Whether the rows are what after_generation has made of them already."""
        ...

    @property
    def journaling(self) -> Journaling | None:
        """What keeps values until they are in a part, where there is such a thing."""
        ...

    async def begin(self, tables: Tables) -> None:
        """Make ready for a run."""
        ...

    async def restore(self, group: RowGroup) -> Restored:
        """Put what an earlier run had of a row group into it."""
        ...

    async def commit(self, group: RowGroup, rows: Sequence[int], tally: Tally) -> None:
        """Take the rows at these offsets; they are safe when this returns."""
        ...

    def discard(self, group: int, tally: Tally | None) -> None:
        """Take note of a row group of which nothing is to be written."""
        ...

    async def rewrite(self, change: Callable[[pa.Table], pa.Table], row_group_size: int) -> None:
        """Put a changed table in the place of all that has been committed."""
        ...

    async def describe(self, metadata: Metadata, failures: pd.DataFrame, traces: Traces | None = None) -> None:
        """Keep the metadata, the failures table and the traces."""
        ...

    def close(self) -> None:
        """Let go of the writer thread."""
        ...

    def table(self) -> pa.Table:
        """Give all rows in order."""
        ...


class MemorySink:
    """Keeps the tables: what a preview writes to."""

    kind: Literal["build", "preview"] = "preview"
    path: Path | None = None
    finished: bool = False
    rewritten: bool = False
    journaling: Journaling | None = None

    def __init__(self, on_part: OnPart | None = None) -> None:
        """Start empty; `on_part` is called with each part."""
        self.parts: list[Part] = []
        self.failures: list[FailedCell] = []
        self.spent = Spending()
        self._on_part = on_part
        self._kept: dict[int, pa.Table] = {}
        self._schema: pa.Schema | None = None
        self._writer = ThreadPoolExecutor(1, "rowloop-writer")

    async def begin(self, tables: Tables) -> None:
        """Take what makes tables."""
        self._tables = tables

    async def restore(self, group: RowGroup) -> Restored:
        """Put nothing back: there is no earlier run."""
        return Restored(group.id, [], {}, [])

    def discard(self, group: int, tally: Tally | None) -> None:
        """Keep nothing."""

    async def commit(self, group: RowGroup, rows: Sequence[int], tally: Tally) -> None:  # noqa: ARG002 - a build's
        """Keep the rows as a table."""
        table = await _in(self._writer, lambda: self._tables.table(group, rows))
        self._kept[group.id] = table
        part = Part(group.id, group.start, table.num_rows)
        self.parts.append(part)
        await _announce(self._writer, self._on_part, part)

    async def rewrite(self, change: Callable[[pa.Table], pa.Table], row_group_size: int) -> None:
        """Keep the changed table, cut into parts as a build would."""
        table = await _in(self._writer, lambda: change(self.table()))
        pieces = _pieces(table, row_group_size)
        self._kept = {i: piece for i, (_, piece) in enumerate(pieces)}
        self._schema = table.schema
        self.parts = [Part(i, start, piece.num_rows) for i, (start, piece) in enumerate(pieces)]

    async def describe(self, metadata: Metadata, failures: pd.DataFrame, traces: Traces | None = None) -> None:
        """Keep nothing: the result has them."""

    def close(self) -> None:
        """Let go of the writer thread."""
        self._writer.shutdown()

    def table(self) -> pa.Table:
        """Give all rows in order, in the schema that came out in the end."""
        kept = [table for _, table in sorted(self._kept.items())]
        schema = self._schema or self._tables.schema
        return pa.concat_tables([table.cast(schema) for table in kept]) if kept else schema.empty_table()


class ParquetSink:
    """Writes a part per row group: what a build writes to.

    A part appears under its name whole or not at all: it is written beside, flushed to the disk and renamed. When a
    type had to be widened, earlier parts are written again, one at a time, each in the same way.
    """

    kind: Literal["build", "preview"] = "build"

    def __init__(self, place: Claim, on_part: OnPart | None = None, journaling: Journaling | None = None) -> None:
        """Take a directory that is claimed; `on_part` is called with each part."""
        self.path = place.path
        self.parts = list(place.parts)
        self.failures = [line for failure in place.failures for line in failure.lines]
        self.spent = place.spent
        self.finished = place.finished
        self.rewritten = place.rewritten
        self.journaling = journaling or Journaling(place)
        self._place = place
        self._on_part = on_part
        self._version = 0
        self._writer = ThreadPoolExecutor(1, "rowloop-writer")

    async def begin(self, tables: Tables) -> None:
        """Take what makes tables, and make room: from here on, a dataset that is not gone on with is gone."""
        self._tables = tables
        await _in(self._writer, self._make_room)

    async def restore(self, group: RowGroup) -> Restored:
        """Put what an earlier run had of a row group into it."""
        return await self.journaling.restore(group)

    async def commit(self, group: RowGroup, rows: Sequence[int], tally: Tally) -> None:
        """Write a part. The journal knows before what it will be, and keeps what it has until then.

        One that lacks rows takes the place of no part that has more of them.
        """
        await self.journaling.flush()
        there = [part.rows for part in self.parts if part.row_group == group.id]
        if tally.cut and there and there[0] >= len(rows):
            return
        await self.journaling.mark_writing(group.id, tally, again=bool(there))
        part = await _in(self._writer, lambda: self._write_part(group, rows))
        if not tally.cut:
            await self.journaling.mark_over(group.id, tally, part.rows)
        await _announce(self._writer, self._on_part, part)

    def discard(self, group: int, tally: Tally | None) -> None:
        """Note that nothing is left to be done in a row group. A part that it had before stays, and is not lost."""
        if tally is not None and all(part.row_group != group for part in self.parts):
            self.journaling.over(group, tally)

    async def rewrite(self, change: Callable[[pa.Table], pa.Table], row_group_size: int) -> None:
        """Write the changed table beside the parts, then put it in their place.

        The new parts are whole and on the disk in data.new before anything is touched. Then data is renamed to
        data.old, data.new to data, and data.old is removed: at every moment one of the directories has all rows.
        """
        parts = await _in(self._writer, lambda: self._write_beside(change, row_group_size))
        await self.journaling.mark_rewriting([part.rows for part in parts])
        await _in(self._writer, lambda: swap_data(self.path))
        self.parts = parts

    async def describe(self, metadata: Metadata, failures: pd.DataFrame, traces: Traces | None = None) -> None:
        """Write metadata.json, and failures.parquet and traces.parquet where there are any, and all of the journal."""
        await _in(self._writer, lambda: self._describe(metadata, failures, traces))
        await self.journaling.flush()

    def close(self) -> None:
        """Let go of the threads and the directory."""
        self._writer.shutdown()
        self.journaling.close()

    def table(self) -> pa.Table:
        """Read all rows in order."""
        parts = sorted(self.parts, key=lambda part: part.row_group)
        return read_parts(self.path, parts, self._tables.schema)

    def _make_room(self) -> None:
        place = self._place
        try:
            if place.fresh:
                remove_dataset(self.path)
            (self.path / "data").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetGenerationError(f"there is no making room in '{self.path}': {error}", stage="write") from error
        place.begin()  # after the removal: a crash leaves an old journal without parts, not old parts in a new dataset
        if place.schema is not None:
            self._tables.go_on(place.schema)
            self._version = self._tables.version
            if place.uneven:
                self._widen_parts()

    def _describe(self, metadata: Metadata, failures: pd.DataFrame, traces: Traces | None) -> None:
        if len(failures):
            self._write(pa.Table.from_pandas(failures, preserve_index=False), "failures.parquet", None)
        else:
            (self.path / "failures.parquet").unlink(missing_ok=True)
        if traces is not None:
            self._write(traces.table(), "traces.parquet", None)
        text = metadata.to_json()
        self._write_file(METADATA, None, lambda path: path.write_bytes(text))

    def _write_beside(self, change: Callable[[pa.Table], pa.Table], row_group_size: int) -> list[Part]:
        new = self.path / "data.new"
        table = change(self.table())
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        parts = []
        for i, (start, piece) in enumerate(_pieces(table, row_group_size)):
            self._write(piece, f"data.new/{part_name(i)}", i)
            parts.append(Part(i, start, piece.num_rows, f"data/{part_name(i)}"))
        flush(self.path)
        return parts

    def _write_part(self, group: RowGroup, rows: Sequence[int]) -> Part:
        table = self._tables.table(group, rows)
        if self._version != self._tables.version:
            self._widen_parts()
        file = f"data/{part_name(group.id)}"
        part = Part(group.id, group.start, table.num_rows, file if table.num_rows else None)
        if part.file is None:  # processors left none
            (self.path / file).unlink(missing_ok=True)
        else:
            self._write(table, file, group.id)
        # Here and not on the loop: the next part that is written may have this one widened.
        self.parts = [*(there for there in self.parts if there.row_group != group.id), part]
        return part

    def _widen_parts(self) -> None:
        for part in self.parts:
            if part.file is not None:
                self._write(self._read(part.file).cast(self._tables.schema), part.file, part.row_group)
        self._version = self._tables.version

    def _read(self, file: str) -> pa.Table:
        try:
            return pq.read_table(self.path / file, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise DatasetGenerationError(f"{file} cannot be read: {error}", stage="write") from error

    def _write(self, table: pa.Table, file: str, row_group: int | None) -> None:
        self._write_file(file, row_group, lambda path: pq.write_table(table, path))

    def _write_file(self, file: str, row_group: int | None, write: Callable[[Path], object]) -> None:
        try:
            write_atomically(self.path / file, write)
        except (OSError, pa.ArrowException) as error:
            problem = f"{file} cannot be written: {error}"
            raise DatasetGenerationError(problem, stage="write", row_group=row_group) from error


async def _announce(writer: ThreadPoolExecutor, on_part: OnPart | None, part: Part) -> None:
    """Tell the user of a part, in the writer's thread; raises DatasetGenerationError with what the function raised."""
    if on_part is None:
        return
    try:
        await _in(writer, lambda: on_part(part))
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        raise DatasetGenerationError(problem, stage="on_part", row_group=part.row_group) from error


def _pieces(table: pa.Table, rows: int) -> list[tuple[int, pa.Table]]:
    """Cut a table into pieces of so many rows: (first row, piece)."""
    return [(start, table.slice(start, rows)) for start in range(0, table.num_rows, rows)]


async def _in(writer: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(writer, work)
