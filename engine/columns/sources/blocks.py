"""A table as blocks of rows: one block is read at a time, and the last ones read stay in memory."""

from __future__ import annotations

import bisect
import itertools
import threading
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Column: TypeAlias = "pa.ChunkedArray[Any]"

BLOCK_BYTES: Final = 4 * 1024 * 1024
"""About how large a block is."""
MOST_ROWS: Final = 16_384
"""The most rows of a block."""
IN_MEMORY_BYTES: Final = 32 * 1024 * 1024
"""A table up to this size is read once and kept; a larger one is read as a run needs it."""

_KEPT: Final = 2


class Blocks:
    """A table that is read in blocks, from any thread.

    `starts` has the first row of each block and, last, the number of rows; `load` reads a block by its number; `size`
    is about how many bytes there are. Where `in_memory` is true there is one block, and reading it costs nothing.
    `parsed`: the whole file was parsed to make this, into a spool.
    """

    def __init__(
        self,
        schema: pa.Schema,
        starts: Sequence[int],
        load: Callable[[int], pa.Table],
        *,
        size: int = 0,
        parsed: bool = False,
    ) -> None:
        """Read nothing yet."""
        self.schema = schema
        self.size = size
        self.parsed = parsed
        self.in_memory = False
        self._starts = starts
        self._load = load
        self._lock = threading.Lock()
        self._kept: dict[int, pa.Table] = {}

    @property
    def rows(self) -> int:
        """How many rows the table has."""
        return self._starts[-1]

    def read(self, start: int, rows: int) -> pa.Table:
        """Read a stretch of rows; it lies within the table."""
        stop = start + rows
        first = max(bisect.bisect_right(self._starts, start) - 1, 0)
        parts: list[pa.Table] = []
        for number in range(first, len(self._starts) - 1):
            if self._starts[number] >= stop:
                break
            begin = max(start - self._starts[number], 0)
            parts.append(self._block(number).slice(begin, stop - self._starts[number] - begin))
        return pa.concat_tables([self.schema.empty_table(), *parts])

    def bounds(self) -> Iterator[tuple[int, int]]:
        """Return the first row of each block, and that of the next."""
        return itertools.pairwise(self._starts)

    def load(self, number: int) -> pa.Table:
        """Read a block, which does not stay in memory."""
        with self._lock:
            return self._load(number)

    def __iter__(self) -> Iterator[pa.Table]:
        """Read all blocks in order, each once."""
        return (self.load(number) for number in range(len(self._starts) - 1))

    def whole(self) -> pa.Table:
        """Read all rows."""
        return pa.concat_tables([self.schema.empty_table(), *self])

    def _block(self, number: int) -> pa.Table:
        with self._lock:
            block = self._kept.pop(number, None)
            if block is None:
                block = self._load(number)
            self._kept[number] = block
            while len(self._kept) > _KEPT:
                self._kept.pop(next(iter(self._kept)))
            return block


def in_memory(table: pa.Table) -> Blocks:
    """Wrap a table that is in memory."""
    blocks = Blocks(table.schema, [0, table.num_rows], lambda _: table, size=table.nbytes)
    blocks.in_memory = True
    return blocks


def starts_of(sizes: Sequence[int]) -> list[int]:
    """Return the first row of each block, and the number of rows, from the blocks' sizes."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    return starts


def rows_of_block(sample: pa.Table | pa.RecordBatch) -> int:
    """Return the number of rows that make a block, where they are like those of the sample."""
    return max(1, min(MOST_ROWS, BLOCK_BYTES * sample.num_rows // max(sample.nbytes, 1)))


def settled(blocks: Blocks) -> Blocks:
    """Read a small table into memory; a larger one stays where it is."""
    if blocks.in_memory or blocks.size > IN_MEMORY_BYTES:
        return blocks
    parts: list[pa.Table] = []
    size = 0
    for part in blocks:
        size += part.nbytes
        if size > IN_MEMORY_BYTES:
            return blocks
        parts.append(part)
    return in_memory(pa.concat_tables([blocks.schema.empty_table(), *parts]).combine_chunks())
