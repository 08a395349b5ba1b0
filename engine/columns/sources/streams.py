"""Batches that come once, in a stream: kept in memory while they are few, spooled to the disk otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from .blocks import Blocks, rows_of_block, starts_of
from .schemas import conformed
from .spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterable


def stream_blocks(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Blocks:
    """Take all batches, as tables of a schema."""
    spool = Spool()
    for batch in batches:
        names = [name for name in schema.names if name in batch.schema.names]
        size = rows_of_block(batch)
        for start in range(0, batch.num_rows, size):
            part = conformed(pa.Table.from_batches([batch.select(names).slice(start, size)]), schema)
            spool.append(part.combine_chunks())
    return Blocks(schema, starts_of(spool.sizes), spool.read)
