"""A table in the order of a run, in blocks: a stretch of it as it is, or its rows put where the order has them.

Rows of a table on the disk that are taken out of order would each cost a row group to read. So they are put in order
once, when the first is asked for: the table is read once from its beginning, the rows that the run takes are dealt out
to buckets of neighbouring positions in a spool, and a bucket is sorted as it is read. What is in memory is a block, a
bucket and the rows that wait to be written, whatever the table's size.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import pyarrow as pa

from .blocks import Blocks, rows_of_block, starts_of
from .spool import Spool

if TYPE_CHECKING:
    from .order import Order

_WAITING_BYTES: Final = 32 * 1024 * 1024
_BLOCKS_IN_BUCKET: Final = 2
_STRETCHES: Final = 4
"""Stretches that are kept, even if a column never takes them."""


class Arranged(Protocol):
    """A table's rows in the order of a run."""

    @property
    def in_memory(self) -> bool:
        """Whether reading takes no time worth a thread."""
        ...

    def read(self, start: int, rows: int) -> pa.Table:
        """Read the rows at a stretch of positions."""
        ...


def arranged(blocks: Blocks, order: Order, most: int) -> Arranged:
    """Put a table in order, as far as the first `most` rows."""
    if order.consecutive:
        return _Stretch(blocks, order.rows.start)
    rows = min(most, len(order.rows))
    return _picked(blocks.load(0), order, rows) if blocks.in_memory else _Dealt(blocks, order, rows)


class Shared:
    """Rows that several columns take: each stretch is read once, and kept until every column has taken it."""

    in_memory = False

    def __init__(self, rows: Arranged, columns: int) -> None:
        """Read nothing yet."""
        self._rows = rows
        self._columns = columns
        self._lock = threading.Lock()
        self._kept: dict[tuple[int, int], tuple[pa.Table, int]] = {}

    def read(self, start: int, rows: int) -> pa.Table:
        """Read the rows at a stretch of positions; others wait, since most of them ask for the same."""
        with self._lock:
            table, left = self._kept.pop((start, rows), (None, self._columns))
            if table is None:
                table = self._rows.read(start, rows)
            if left > 1:
                self._kept[start, rows] = (table, left - 1)
            while len(self._kept) > _STRETCHES:
                self._kept.pop(next(iter(self._kept)))
            return table


class _Stretch:
    """Rows as they are, from some row on."""

    def __init__(self, blocks: Blocks, first: int) -> None:
        self._blocks = blocks
        self._first = first
        self.in_memory = blocks.in_memory

    def read(self, start: int, rows: int) -> pa.Table:
        return self._blocks.read(self._first + start, rows)


def _picked(table: pa.Table, order: Order, rows: int) -> Blocks:
    """Pick the rows of a table in memory, a block of them at a time.

    They are picked from one batch after the other: Arrow's take puts all chunks of a table together first.
    """
    batches = table.to_batches()
    edges = np.array(starts_of([batch.num_rows for batch in batches]))
    size = rows_of_block(table)
    starts = [*range(0, rows, size), rows]

    def load(block: int) -> pa.Table:
        numbers = order.rows_at(np.arange(starts[block], starts[block + 1]))
        sorting = np.argsort(numbers)
        cuts = np.searchsorted(numbers[sorting], edges)
        parts = [
            batches[i].take(numbers[sorting[cuts[i] : cuts[i + 1]]] - edges[i]) for i in np.flatnonzero(np.diff(cuts))
        ]
        return pa.Table.from_batches(parts).take(np.argsort(sorting))

    return Blocks(table.schema, starts, load)


class _Dealt:
    """Rows of a table on the disk, dealt out to buckets once."""

    in_memory = False

    def __init__(self, blocks: Blocks, order: Order, rows: int) -> None:
        self._blocks = blocks
        self._order = order
        size = max(1, _BLOCKS_IN_BUCKET * blocks.rows // max(sum(1 for _ in blocks.bounds()), 1))
        self._starts = [*range(0, rows, size), rows]
        self._spool = Spool()
        self._batches: dict[int, list[int]] | None = None
        self._buckets = Blocks(blocks.schema, self._starts, self._load)

    def read(self, start: int, rows: int) -> pa.Table:
        return self._buckets.read(start, rows)

    def _load(self, bucket: int) -> pa.Table:
        """Sort a bucket. One thread at a time is here."""
        if self._batches is None:
            self._batches = self._deal()
        rows = pa.concat_tables([self._spool.read(batch) for batch in self._batches[bucket]])
        return rows.remove_column(0).take(np.argsort(rows.column(0).to_numpy()))

    def _deal(self) -> dict[int, list[int]]:
        """Read the table once; give the batches of each bucket, whose first column is the rows' positions."""
        self._spool = Spool()
        batches: dict[int, list[int]] = defaultdict(list)
        waiting: dict[int, list[pa.Table]] = defaultdict(list)
        size = 0
        for number, (first, end) in enumerate(self._blocks.bounds()):
            positions = self._order.positions_of(np.arange(first, end))
            taken = np.flatnonzero((positions >= 0) & (positions < self._starts[-1]))
            if len(taken):
                taken = taken[np.argsort(positions[taken])]
                rows = self._blocks.load(number).take(taken)
                size += self._hand_out(rows.add_column(0, "", pa.chunked_array([pa.array(positions[taken])])), waiting)
            if size > _WAITING_BYTES:
                self._write(waiting, batches)
                size = 0
        self._write(waiting, batches)
        return batches

    def _hand_out(self, rows: pa.Table, waiting: dict[int, list[pa.Table]]) -> int:
        """Cut sorted rows at the buckets' edges."""
        edges = np.searchsorted(rows.column(0).to_numpy(), self._starts)
        for bucket in np.flatnonzero(np.diff(edges)):
            waiting[int(bucket)].append(rows.slice(edges[bucket], edges[bucket + 1] - edges[bucket]))
        return rows.nbytes

    def _write(self, waiting: dict[int, list[pa.Table]], batches: dict[int, list[int]]) -> None:
        for bucket, parts in waiting.items():
            batches[bucket].append(len(self._spool.sizes))
            self._spool.append(pa.concat_tables(parts).combine_chunks())
        waiting.clear()
