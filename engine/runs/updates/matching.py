"""Matching: which earlier row each row of a table is, by what the values of its cells follow from. Pure arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_SHIFT: Final = np.uint64(29)

NONE: Final = -1


def digests_of(values: Iterable[Any]) -> NDArray[np.uint64]:
    """Return a 64-bit digest of each value; whole floats are the integers that they equal."""
    return np.fromiter((_digest(value) for value in values), dtype=np.uint64)


def numbers(rows: int) -> NDArray[np.uint64]:
    """Return a digest of each row's number."""
    return np.arange(1, rows + 1, dtype=np.uint64) * _ODD


def combined(columns: Sequence[NDArray[np.uint64]], rows: int) -> NDArray[np.uint64]:
    """Return one digest a row for the digests of several columns."""
    found = np.full(rows, _ODD, dtype=np.uint64)
    for column in columns:
        found = (found ^ column) * _ODD
        found ^= found >> _SHIFT
    return found


@dataclass(slots=True)
class Rows:
    """The rows of one earlier table. `keys`, by column, digest what a cell follows from; `there`: it has a value.

    Columns have the names of today's recipe; an earlier column that is none of today's is left out.
    """

    size: int
    keys: Mapping[str, NDArray[np.uint64]]
    there: Mapping[str, NDArray[np.bool_]]
    used: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        """Have used none."""
        self.used = np.zeros(self.size, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Assigned:
    """For each of today's rows, the earlier table (by its place in the list) and its row there; NONE for no row."""

    table: NDArray[np.int32]
    row: NDArray[np.int64]


def assign(columns: Sequence[str], keys: Mapping[str, NDArray[np.uint64]], tables: Sequence[Rows]) -> Assigned:
    """Find an earlier row for each row, of those that have a value to keep; each earlier row is used once at most.

    `columns` that belong together, the last made first: a row that keeps more is preferred. The row of the same number
    is preferred to others.
    """
    size = len(next(iter(keys.values())))
    found = Assigned(np.full(size, NONE, dtype=np.int32), np.full(size, NONE, dtype=np.int64))
    for table in tables:
        table.used[:] = False
    for column in columns:
        for number, table in enumerate(tables):
            if column in table.keys:
                _same_rows(found, keys[column], table, column, number)
        for number, table in enumerate(tables):
            if column in table.keys:
                _moved_rows(found, keys[column], table, column, number)
    return found


def kept(assigned: Assigned, column: str, keys: NDArray[np.uint64], tables: Sequence[Rows]) -> NDArray[np.bool_]:
    """Return in which rows the cell of a column is kept, as far as its own key decides."""
    found = np.zeros(len(keys), dtype=np.bool_)
    for number, table in enumerate(tables):
        if column in table.keys:
            mine = np.flatnonzero(assigned.table == number)
            rows = assigned.row[mine]
            found[mine] = table.there[column][rows] & (table.keys[column][rows] == keys[mine])
    return found


def _same_rows(found: Assigned, keys: NDArray[np.uint64], table: Rows, column: str, number: int) -> None:
    size = min(len(keys), table.size)
    free = (found.table[:size] == NONE) & table.there[column][:size] & ~table.used[:size]
    _take(found, table, number, *[np.flatnonzero(free & (table.keys[column][:size] == keys[:size]))] * 2)


def _moved_rows(found: Assigned, keys: NDArray[np.uint64], table: Rows, column: str, number: int) -> None:
    old, new = np.flatnonzero(table.there[column] & ~table.used), np.flatnonzero(found.table == NONE)
    if not (len(old) and len(new)):
        return
    old = old[np.argsort(table.keys[column][old], kind="stable")]
    new = new[np.argsort(keys[new], kind="stable")]
    there, wanted = table.keys[column][old], keys[new]
    first, end = np.searchsorted(there, wanted, "left"), np.searchsorted(there, wanted, "right")
    place = first + np.arange(len(new)) - np.searchsorted(wanted, wanted, "left")  # the n-th of equal ones
    fits = place < end
    _take(found, table, number, new[fits], old[place[fits]])


def _take(found: Assigned, table: Rows, number: int, new: NDArray[np.int64], old: NDArray[np.int64]) -> None:
    found.table[new], found.row[new] = number, old
    table.used[old] = True


def _digest(value: Any) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    try:
        body = msgspec.msgpack.encode(value, enc_hook=str)
    except (OverflowError, UnicodeError, TypeError, ValueError):
        body = repr(value).encode("utf-8", "backslashreplace")
    return int.from_bytes(hashlib.blake2b(body, digest_size=8).digest(), "little")
