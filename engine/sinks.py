"""Sinks: where finished row groups go. Preview and build differ in nothing else.

The work is done in one writer thread, never on the loop.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import DatasetGenerationError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import pandas as pd

    from .metadata import Metadata, PartMetadata
    from .processing import Tables
    from .store import RowGroup
    from .traces import Traces

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """One committed row group: its number, the run's row number of its first row, and how many rows are left of it."""

    row_group: int
    start: int
    rows: int
    file: str | None = None
    """Its path from the dataset's directory; None in a preview."""


OnPart: TypeAlias = "Callable[[Part], object]"


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

    async def commit(self, group: RowGroup, rows: Sequence[int]) -> None:
        """Take the rows at these offsets; they are safe when this returns."""
        ...

    async def begin(self, tables: Tables) -> None:
        """Make ready for a run."""
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

    def __init__(self, on_part: OnPart | None = None) -> None:
        """Start empty; `on_part` is called with each part."""
        self.parts: list[Part] = []
        self._on_part = on_part
        self._kept: dict[int, pa.Table] = {}
        self._schema: pa.Schema | None = None
        self._writer = ThreadPoolExecutor(1, "rowloop-writer")

    async def begin(self, tables: Tables) -> None:
        """Take what makes tables."""
        self._tables = tables

    async def commit(self, group: RowGroup, rows: Sequence[int]) -> None:
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

    def __init__(self, path: Path, on_part: OnPart | None = None) -> None:
        """Take a directory that `prepare_directory` has looked at; `on_part` is called with each part."""
        self.path = path
        self._on_part = on_part
        self.parts: list[Part] = []
        self._version = 0
        self._writer = ThreadPoolExecutor(1, "rowloop-writer")

    async def begin(self, tables: Tables) -> None:
        """Take what makes tables, and make room: from here on, an earlier dataset in the directory is gone."""
        self._tables = tables
        await _in(self._writer, self._make_room)

    async def commit(self, group: RowGroup, rows: Sequence[int]) -> None:
        """Write a part."""
        part = await _in(self._writer, lambda: self._write_part(group, rows))
        self.parts.append(part)
        await _announce(self._writer, self._on_part, part)

    async def rewrite(self, change: Callable[[pa.Table], pa.Table], row_group_size: int) -> None:
        """Write the changed table beside the parts, then put it in their place.

        The new parts are whole and on the disk in data.new before anything is touched. Then data is renamed to
        data.old, data.new to data, and data.old is removed: at every moment one of the directories has all rows.
        """
        self.parts = await _in(self._writer, lambda: self._rewrite(change, row_group_size))

    async def describe(self, metadata: Metadata, failures: pd.DataFrame, traces: Traces | None = None) -> None:
        """Write metadata.json, and failures.parquet and traces.parquet where there are any."""
        await _in(self._writer, lambda: self._describe(metadata, failures, traces))

    def close(self) -> None:
        """Let go of the writer thread."""
        self._writer.shutdown()

    def table(self) -> pa.Table:
        """Read all rows in order."""
        parts = sorted(self.parts, key=lambda part: part.row_group)
        return read_parts(self.path, parts, self._tables.schema)

    def _make_room(self) -> None:
        remove_dataset(self.path)
        (self.path / "data").mkdir(parents=True, exist_ok=True)

    def _describe(self, metadata: Metadata, failures: pd.DataFrame, traces: Traces | None) -> None:
        if len(failures):
            self._write(pa.Table.from_pandas(failures, preserve_index=False), "failures.parquet", None)
        if traces is not None:
            self._write(traces.table(), "traces.parquet", None)
        text = metadata.to_json()
        self._write_file("metadata.json", None, lambda path: path.write_bytes(text))

    def _rewrite(self, change: Callable[[pa.Table], pa.Table], row_group_size: int) -> list[Part]:
        data, new, old = (self.path / name for name in ("data", "data.new", "data.old"))
        table = change(self.table())
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        parts = []
        for i, (start, piece) in enumerate(_pieces(table, row_group_size)):
            self._write(piece, f"data.new/{_part_name(i)}", i)
            parts.append(Part(i, start, piece.num_rows, f"data/{_part_name(i)}"))
        data.rename(old)
        new.rename(data)
        _flush(self.path)
        shutil.rmtree(old)
        return parts

    def _write_part(self, group: RowGroup, rows: Sequence[int]) -> Part:
        table = self._tables.table(group, rows)
        if self._version != self._tables.version:
            self._widen_parts()
        if not table.num_rows:  # processors left none
            return Part(group.id, group.start, 0)
        file = f"data/{_part_name(group.id)}"
        self._write(table, file, group.id)
        return Part(group.id, group.start, table.num_rows, file)

    def _widen_parts(self) -> None:
        for part in self.parts:
            if part.file is not None:
                table = pq.read_table(self.path / part.file, partitioning=None)
                self._write(table.cast(self._tables.schema), part.file, part.row_group)
        self._version = self._tables.version

    def _write(self, table: pa.Table, file: str, row_group: int | None) -> None:
        self._write_file(file, row_group, lambda path: pq.write_table(table, path))

    def _write_file(self, file: str, row_group: int | None, write: Callable[[Path], object]) -> None:
        try:
            write_atomically(self.path / file, write)
        except (OSError, pa.ArrowException) as error:
            problem = f"{file} cannot be written: {error}"
            raise DatasetGenerationError(problem, stage="write", row_group=row_group) from error


def read_parts(path: Path, parts: Iterable[Part | PartMetadata], schema: pa.Schema) -> pa.Table:
    """Read the parts of a dataset as one table, in the order given; `schema` is that of a dataset without any."""
    tables = [pq.read_table(path / part.file, partitioning=None) for part in parts if part.file is not None]
    return pa.concat_tables(tables) if tables else schema.empty_table()


async def _announce(writer: ThreadPoolExecutor, on_part: OnPart | None, part: Part) -> None:
    """Tell the user of a part, in the writer's thread; raises DatasetGenerationError with what the function raised."""
    if on_part is None:
        return
    try:
        await _in(writer, lambda: on_part(part))
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        raise DatasetGenerationError(problem, stage="on_part", row_group=part.row_group) from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it appears whole or not at all, and stays after a power cut."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def _flush(directory: Path) -> None:
    """Have the names in a directory on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _part_name(i: int) -> str:
    return f"part-{i:05d}.parquet"


def _pieces(table: pa.Table, rows: int) -> list[tuple[int, pa.Table]]:
    """Cut a table into pieces of so many rows: (first row, piece)."""
    return [(start, table.slice(start, rows)) for start in range(0, table.num_rows, rows)]


def prepare_directory(path: Path, *, overwrite: bool) -> None:
    """See that a run can write to `path`, before anything is paid for; raises RecipeError. Removes nothing."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".rowloop-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        problem = f"cannot write to '{path}' ({error.strerror}); choose another directory"
        raise RecipeError("path", problem) from error
    there = {entry.name for entry in path.iterdir()}
    if not there:
        return
    if "metadata.json" not in there:
        raise RecipeError("path", f"'{path}' holds something else ({min(there)}); choose an empty or new directory")
    if not overwrite:
        raise RecipeError("path", f"'{path}' holds a dataset already; choose another directory, or say overwrite=True")


def remove_dataset(path: Path) -> None:
    """Remove what a run writes, and nothing else; metadata.json goes last, as it marks the directory as ours."""
    for part in (path / "data").glob("part-*.parquet"):
        part.unlink()
    for name in ("failures.parquet", "traces.parquet", "metadata.json"):
        (path / name).unlink(missing_ok=True)


async def _in(writer: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(writer, work)
