"""Sinks: where finished row groups go. Preview and build differ in nothing else.

The work is done in one writer thread, never on the loop.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import DatasetGenerationError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

    from .frames import Frames
    from .metadata import Metadata
    from .store import RowGroup

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """One committed row group: its number, the run's row number of its first row, and how many rows are left of it."""

    row_group: int
    start: int
    rows: int
    file: str | None = None


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

    def begin(self, frames: Frames) -> None:
        """Make ready for a run."""
        ...

    def describe(self, metadata: Metadata, failures: pd.DataFrame) -> None:
        """Keep the metadata and the failures table."""
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

    def __init__(self) -> None:
        """Start empty."""
        self.parts: list[Part] = []
        self._tables: dict[int, pa.Table] = {}
        self._writer = ThreadPoolExecutor(1, "rowloop-writer")

    def begin(self, frames: Frames) -> None:
        """Take the schema."""
        self._frames = frames

    async def commit(self, group: RowGroup, rows: Sequence[int]) -> None:
        """Keep the rows as a table."""
        table = await _in(self._writer, lambda: self._frames.table(group, rows))
        self._tables[group.id] = table
        self.parts.append(Part(group.id, group.start, len(rows)))

    def describe(self, metadata: Metadata, failures: pd.DataFrame) -> None:
        """Keep nothing: the result has both."""

    def close(self) -> None:
        """Let go of the writer thread."""
        self._writer.shutdown()

    def table(self) -> pa.Table:
        """Give all rows in order, in the schema that came out in the end."""
        schema = self._frames.schema
        tables = [table.cast(schema) for _, table in sorted(self._tables.items())]
        return pa.concat_tables(tables) if tables else schema.empty_table()


class ParquetSink:
    """Writes a part per row group: what a build writes to.

    A part appears under its name whole or not at all: it is written beside, flushed to the disk and renamed. When a
    type had to be widened, earlier parts are written again, one at a time, each in the same way.
    """

    kind: Literal["build", "preview"] = "build"

    def __init__(self, path: Path) -> None:
        """Take a directory that `prepare_directory` has looked at."""
        self.path = path
        self.parts: list[Part] = []
        self._version = 0
        self._writer = ThreadPoolExecutor(1, "rowloop-writer")

    def begin(self, frames: Frames) -> None:
        """Take the schema, and make room: from here on, an earlier dataset in the directory is gone."""
        self._frames = frames
        remove_dataset(self.path)
        (self.path / "data").mkdir(parents=True, exist_ok=True)

    async def commit(self, group: RowGroup, rows: Sequence[int]) -> None:
        """Write a part."""
        part = await _in(self._writer, lambda: self._write_part(group, rows))
        self.parts.append(part)

    def describe(self, metadata: Metadata, failures: pd.DataFrame) -> None:
        """Write metadata.json, and failures.parquet where there are any."""
        if len(failures):
            table = pa.Table.from_pandas(failures, preserve_index=False)
            write_atomically(self.path / "failures.parquet", lambda path: pq.write_table(table, path))
        text = metadata.to_json()
        write_atomically(self.path / "metadata.json", lambda path: path.write_bytes(text))

    def close(self) -> None:
        """Let go of the writer thread."""
        self._writer.shutdown()

    def table(self) -> pa.Table:
        """Read all rows in order."""
        parts = sorted(self.parts, key=lambda part: part.row_group)
        tables = [pq.read_table(self.path / str(part.file), partitioning=None) for part in parts]
        return pa.concat_tables(tables) if tables else self._frames.schema.empty_table()

    def _write_part(self, group: RowGroup, rows: Sequence[int]) -> Part:
        table = self._frames.table(group, rows)
        if self._version != self._frames.version:
            self._widen_parts()
        file = f"data/part-{group.id:05d}.parquet"
        self._write(table, file, group.id)
        return Part(group.id, group.start, len(rows), file)

    def _widen_parts(self) -> None:
        for part in self.parts:
            table = pq.read_table(self.path / str(part.file), partitioning=None)
            self._write(table.cast(self._frames.schema), str(part.file), part.row_group)
        self._version = self._frames.version

    def _write(self, table: pa.Table, file: str, row_group: int) -> None:
        try:
            write_atomically(self.path / file, lambda path: pq.write_table(table, path))
        except (OSError, pa.ArrowException) as error:
            problem = f"{file} cannot be written: {error}"
            raise DatasetGenerationError(problem, stage="write", row_group=row_group) from error


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
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


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
    for name in ("failures.parquet", "metadata.json"):
        (path / name).unlink(missing_ok=True)


async def _in(writer: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(writer, work)
