"""Parquet files as one table: only the columns that are taken, decoded from the front of a row group as rows are asked.

A row group may be far larger than a block, and nothing in a file leads to a row within it. So the reader stays where it
is after a block, and the next block costs no more than its own rows; going back begins the row group again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from .blocks import BLOCK_BYTES, MOST_ROWS, Blocks, starts_of
from .locations import lost, refuse
from .schemas import chosen, conformed, one_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .locations import File
    from .reading import Reading

_SAMPLE = 256
"""Rows that are decoded to learn how large a row is."""


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group's rows, and the bytes of the columns that are taken."""

    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class _Place:
    """A block: a part of a row group of a file."""

    file: File
    group: int
    part: int


def parquet_blocks(files: Sequence[File], reading: Reading) -> Blocks:
    """Read the footers, and a few rows."""
    footers = [(file, *_footer(file, reading.columns)) for file in files]
    schema = chosen(one_schema({file.shown: given for file, given, _ in footers}, reading.types), reading.columns)
    groups = [(file, number, group) for file, _, sizes in footers for number, group in enumerate(sizes) if group.rows]
    reader = _Reader(schema)
    size = reader.learn_sizes(groups) if groups else 0
    places, sizes = [], []
    for file, number, group in groups:
        for part, start in enumerate(range(0, group.rows, reader.rows)):
            places.append(_Place(file, number, part))
            sizes.append(min(reader.rows, group.rows - start))
    return Blocks(schema, starts_of(sizes), lambda block: reader.read(places[block]), size=size * sum(sizes))


def _footer(file: File, wanted: Sequence[str] | None) -> tuple[pa.Schema, list[_Group]]:
    try:
        with file.open() as source, pq.ParquetFile(source) as parquet:
            groups = [parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups)]
            return parquet.schema_arrow, [_Group(group.num_rows, _size(group, wanted)) for group in groups]
    except (OSError, ValueError, pa.ArrowException) as error:
        refuse(file.shown, error)


def _size(group: pq.RowGroupMetaData, wanted: Sequence[str] | None) -> int:
    """Return the bytes of the columns that are taken, as they are in the pages."""
    chunks = [group.column(i) for i in range(group.num_columns)]
    taken = None if wanted is None else tuple(f"{name}." for name in wanted)
    return sum(
        chunk.total_uncompressed_size for chunk in chunks if not taken or f"{chunk.path_in_schema}.".startswith(taken)
    )


class _Reader:
    """Reads blocks, best one after the other. One thread at a time uses it."""

    def __init__(self, schema: pa.Schema) -> None:
        """Open nothing yet."""
        self.rows = _SAMPLE
        self._schema = schema
        self._open: tuple[File, pq.ParquetFile] | None = None
        self._next: _Place | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def learn_sizes(self, groups: Sequence[tuple[File, int, _Group]]) -> int:
        """Set the number of rows that make a block; give about how many bytes a row has.

        Pages are smaller than what becomes of them where values repeat, and the first rows may be smaller than others:
        the larger of the two estimates counts.
        """
        file, number, _ = groups[0]
        sample = self.read(_Place(file, number, 0))
        self._next = None
        largest = max(group.size // group.rows for _, _, group in groups)
        row = max(1, largest, sample.nbytes // sample.num_rows)
        self.rows = max(1, min(MOST_ROWS, BLOCK_BYTES // row))
        return row

    def read(self, place: _Place) -> pa.Table:
        """Read a block."""
        place.file.check()
        try:
            batch = self._batch(place)
        except (OSError, ValueError, pa.ArrowException) as error:
            self._next = None
            lost(place.file.shown, error)
        return conformed(pa.Table.from_batches([batch]), self._schema)

    def _batch(self, place: _Place) -> pa.RecordBatch:
        at = self._next
        if at is None or (at.file, at.group) != (place.file, place.group) or at.part > place.part:
            names = [name for name in self._schema.names if name in self._parquet(place.file).schema_arrow.names]
            self._batches = self._parquet(place.file).iter_batches(self.rows, row_groups=[place.group], columns=names)
            at = _Place(place.file, place.group, 0)
        for _ in range(at.part, place.part):
            next(self._batches)
        batch = next(self._batches)
        self._next = _Place(place.file, place.group, place.part + 1)
        return batch

    def _parquet(self, file: File) -> pq.ParquetFile:
        if self._open is None or self._open[0] != file:
            if self._open is not None:
                self._open[1].close(force=True)
            self._open = (file, pq.ParquetFile(file.open(), buffer_size=file.buffer, pre_buffer=False))
        return self._open[1]
