"""ParquetSink: the sink of a build, a Parquet file per row group.

A part appears under its name whole or not at all: it is written beside, flushed to the disk and renamed. When a type
has to be widened, earlier parts are rewritten one at a time, each in the same way.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from ...runtime.one_thread import OneThread
from ..core.errors import DatasetGenerationError
from .directory import (
    DATA_NEW,
    FAILURES,
    METADATA,
    TRACES,
    flush,
    part_name,
    remove_dataset,
    swap_data,
    write_atomically,
)
from .heap import Heap
from .journal_records import Over
from .parts import Note, Part, checksum_of, note_of, read_parts, stamp_of, with_note
from .sinks import announce, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

    from ..core.events import Restored, Tally
    from ..core.store import RowGroup
    from ..telemetry.traces import Traces
    from .claim import Claim
    from .journal_writer import JournalWriter
    from .metadata import Metadata
    from .parts import OnPart
    from .tables import Tables

_MOST_ENCODED: Final = 16 * 1024**2
_MOST_ROWS: Final = 1024**2
"""The most bytes and rows of a row group inside a file; the number of rows is pyarrow's own."""


class ParquetSink:
    """Writes the row groups of one run into a claimed directory."""

    kind: Literal["build", "preview"] = "build"

    def __init__(self, claim: Claim, journal: JournalWriter, on_part: OnPart | None = None) -> None:
        """Take the directory and its journal; `on_part` is called with each part."""
        self.path = claim.place.path
        self.parts = list(claim.past.found.parts)
        self._claim = claim
        self._journal = journal
        self._on_part = on_part
        self._version = 0
        self._heap = Heap()
        self._writer = OneThread("rowloop-writer")

    async def begin(self, tables: Tables) -> None:
        """Take the tables' maker and prepare the directory: a dataset that is not resumed is removed here."""
        self._tables = tables
        await self._writer.call(self._prepare)

    async def restore(self, group: RowGroup) -> Restored:
        """Put the values of an earlier run into a row group."""
        known, update = await self._journal.restore(group), self._claim.update
        return known if update is None else await self._writer.call(lambda: update.restore(group, known))

    async def commit(self, group: RowGroup, rows: Sequence[int], tally: Tally) -> None:
        """Write a part. The journal notes it before, and keeps the row group's entries until it is written.

        A part that lacks rows replaces no part that has as many or more.
        """
        await self._journal.flush()
        there = [part.rows for part in self.parts if part.row_group == group.id]
        if tally.cut and there and there[0] >= len(rows):
            return
        await self._journal.mark_writing(group.id, tally, again=bool(there))
        part = await self._writer.call(lambda: self._write_part(group, rows, tally))
        await self._journal.settle()
        await announce(self._writer, self._on_part, part)

    def discard(self, group: int, tally: Tally | None) -> None:
        """Note that nothing is left to do in a row group. A part of an earlier run stays."""
        if tally is not None and all(part.row_group != group for part in self.parts):
            self._journal.post_discarded(group, tally)

    async def rewrite(self, change: Callable[[pa.Table], pa.Table], row_group_size: int) -> None:
        """Write the changed table beside the parts, then replace them by it.

        The new parts are complete and on the disk in data.new before anything is touched. Then data is renamed to
        data.old, data.new to data, and data.old is removed: at every moment one of the directories has all rows.
        """
        parts = await self._writer.call(lambda: self._write_beside(change, row_group_size))
        await self._journal.mark_rewriting([part.rows for part in parts])
        await self._writer.call(lambda: swap_data(self.path))
        self.parts = parts

    async def describe(self, metadata: Metadata, failures: pd.DataFrame, traces: Traces | None = None) -> Metadata:
        """Write metadata.json, failures.parquet and traces.parquet where there are any, and flush the journal.

        Where nothing is left to do, metadata.json keeps what a later run needs of the journal, and the journal goes
        when the sink is closed.
        """
        kept = await self._journal.retire() if metadata.status == "complete" else None
        metadata = msgspec.structs.replace(metadata, kept=kept)
        await self._writer.call(lambda: self._describe(metadata, failures, traces))
        await self._journal.flush(shrinking=kept is None and metadata.status != "running")
        self._claim.place.journal.remove_when_closed(removed=kept is not None)
        return metadata

    def close(self) -> None:
        """End the threads and release the directory."""
        self._writer.close()
        if self._claim.update is not None:
            self._claim.update.close()
        self._journal.close()
        self._claim.place.close()

    def table(self) -> pa.Table:
        """Read all rows in order."""
        parts = sorted(self.parts, key=lambda part: part.row_group)
        return read_parts(self.path, parts, self._tables.schema)

    def _prepare(self) -> None:
        claim, found = self._claim, self._claim.past.found
        try:
            if claim.is_new:
                remove_dataset(self.path)
            (self.path / "data").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetGenerationError(f"cannot clear '{self.path}': {error}", stage="write") from error
        claim.begin()  # after the removal: a crash must not leave old parts in a new dataset
        if claim.update is not None:
            claim.update.prepare()
        if found.schema is not None:
            self._version = self._tables.version
            self._tables.resume(found.schema)
            if found.uneven or self._version != self._tables.version:
                self._widen_parts()

    def _describe(self, metadata: Metadata, failures: pd.DataFrame, traces: Traces | None) -> None:
        if len(failures):
            self._write(pa.Table.from_pandas(failures, preserve_index=False), FAILURES, None)
        else:
            (self.path / FAILURES).unlink(missing_ok=True)
        if traces is not None:
            self._write(traces.table(), TRACES, None)
        if self._claim.update is not None and metadata.reason is None and metadata.status in {"complete", "partial"}:
            self._claim.update.finish()  # before metadata.json says that nothing is left to do
        text = metadata.to_json()
        self._write_file(METADATA, None, lambda path: path.write_bytes(text))

    def _write_beside(self, change: Callable[[pa.Table], pa.Table], row_group_size: int) -> list[Part]:
        new = self.path / DATA_NEW
        table = change(self.table())
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        parts = []
        for i, (start, piece) in enumerate(cut(table, row_group_size)):
            self._write(with_note(piece, self._note(i, None)), f"{DATA_NEW}/{part_name(i)}", i)
            checksum = checksum_of(self.path / DATA_NEW / part_name(i))
            parts.append(Part(i, start, piece.num_rows, f"data/{part_name(i)}", checksum))
        flush(new.parent)
        return parts

    def _write_part(self, group: RowGroup, rows: Sequence[int], tally: Tally) -> Part:
        table = self._tables.table(group, rows)
        if self._version != self._tables.version:
            self._widen_parts()
            table = self._tables.conform(table)
        self._heap.passed(table.nbytes)
        file = f"data/{part_name(group.id)}"
        part = Part(group.id, group.start, table.num_rows, file if table.num_rows else None)
        if part.file is None:  # processors removed all rows
            (self.path / file).unlink(missing_ok=True)
        else:
            self._write(with_note(table, self._note(group.id, tally)), file, group.id)
            part = replace(part, checksum=checksum_of(self.path / file))
        # Here and not on the loop: the next part to be written may have to widen this one.
        self.parts = [*(there for there in self.parts if there.row_group != group.id), part]
        if not tally.cut:
            stamp = None if part.file is None else stamp_of(self.path / part.file)
            self._journal.post_over(group.id, Over(tally, part.rows, part.checksum, stamp))
        return part

    def _widen_parts(self) -> None:
        """Write all parts anew in the latest schema, which the values of a part may change once more.

        Until that is done, the journal has no checksums of them.
        """
        self._journal.forget_checksums([part.row_group for part in self.parts])
        while True:
            version = self._tables.version
            self.parts = [part if part.file is None else self._widened(part, part.file) for part in self.parts]
            if version == self._tables.version:
                break
        files = {part.row_group: (part.checksum, part.file) for part in self.parts}
        self._journal.post_checksums(
            {group: (sum_, stamp_of(self.path / file)) for group, (sum_, file) in files.items() if sum_ and file}
        )
        self._version = version

    def _widened(self, part: Part, file: str) -> Part:
        table = self._read(file)
        note = note_of(table.schema)
        self._write(with_note(self._tables.conform(table), note), file, part.row_group)
        return replace(part, checksum=checksum_of(self.path / file))

    def _note(self, number: int, tally: Tally | None) -> Note:
        facts = self._claim.facts
        return Note(
            dataset=facts.dataset,
            row_group=number,
            tally=tally,
            seed=facts.seed,
            row_group_size=facts.row_group_size,
            engine=facts.engine,
            targets=facts.targets,
            fingerprint=facts.fingerprint,
        )

    def _read(self, file: str) -> pa.Table:
        try:
            return pq.read_table(self.path / file, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise DatasetGenerationError(f"cannot read {file}: {error}", stage="write") from error

    def _write(self, table: pa.Table, file: str, row_group: int | None) -> None:
        # The writer keeps what it has encoded in memory until one of the file's own row groups is whole.
        rows = max(1, _MOST_ENCODED * table.num_rows // max(1, table.nbytes))
        rows = min(rows, _MOST_ROWS)
        self._write_file(file, row_group, lambda path: pq.write_table(table, path, row_group_size=rows))

    def _write_file(self, file: str, row_group: int | None, write: Callable[[Path], object]) -> None:
        try:
            write_atomically(self.path / file, write, self._claim.place.check)
        except (OSError, pa.ArrowException) as error:
            problem = f"cannot write {file}: {error}"
            raise DatasetGenerationError(problem, stage="write", row_group=row_group) from error
