"""Arrow IPC files: those of the file format are read batch by batch where they are, those of the stream format once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from .blocks import Blocks, rows_of_block, starts_of
from .locations import lost, refuse
from .schemas import chosen, conformed, one_schema
from .spool import from_bytes, to_bytes
from .streams import stream_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .locations import File
    from .reading import Reading

_MAGIC = b"ARROW1"


def arrow_blocks(files: Sequence[File], reading: Reading) -> Blocks:
    """Read where they are the files that can be read anywhere; spool streams, and what is compressed as a whole."""
    try:
        if all(not file.compression and _has_footer(file) for file in files):
            return _random_access(files, reading)
        schemas = {file.shown: _streamed(file).schema for file in files}
        schema = chosen(one_schema(schemas, reading.types), reading.columns)
        return stream_blocks((batch for file in files for batch in _streamed(file)), schema)
    except (OSError, pa.ArrowException) as error:
        refuse(", ".join(file.shown for file in files[:3]), error)


def _has_footer(file: File) -> bool:
    with file.open() as source:
        return source.read(len(_MAGIC)) == _MAGIC


def _streamed(file: File) -> pa.RecordBatchReader:
    if not file.compression and _has_footer(file):
        opened = pa.ipc.open_file(file.open())
        batches: Iterator[pa.RecordBatch] = (opened.get_batch(i) for i in range(opened.num_record_batches))
        return pa.RecordBatchReader.from_batches(opened.schema, batches)
    return pa.ipc.open_stream(file.stream())


def _random_access(files: Sequence[File], reading: Reading) -> Blocks:
    schemas = {file.shown: pa.ipc.open_file(_mapped(file)).schema for file in files}
    schema = chosen(one_schema(schemas, reading.types), reading.columns)
    places: list[tuple[File, int, int, int]] = []
    for file in files:
        opened = pa.ipc.open_file(_mapped(file))
        for number in range(opened.num_record_batches):
            batch = opened.get_batch(number)
            size = rows_of_block(batch)
            places += [(file, number, at, min(size, batch.num_rows - at)) for at in range(0, batch.num_rows, size)]
    return Blocks(schema, starts_of([rows for *_, rows in places]), lambda block: _read(schema, *places[block]))


def _read(schema: pa.Schema, file: File, number: int, start: int, rows: int) -> pa.Table:
    file.check()
    try:
        with _mapped(file) as source:
            batch = pa.ipc.open_file(source).get_batch(number)
            names = [name for name in schema.names if name in batch.schema.names]
            # A copy: to look at the pages of a file that another program has cut off would end the process.
            taken = from_bytes(to_bytes(pa.Table.from_batches([batch.select(names).slice(start, rows)])))
    except (OSError, pa.ArrowException) as error:
        lost(file.shown, error)
    return conformed(taken, schema)


def _mapped(file: File) -> pa.NativeFile:
    """Map a local file, so that only those pages are read that hold what is taken."""
    return pa.memory_map(file.path) if file.local else file.open()
