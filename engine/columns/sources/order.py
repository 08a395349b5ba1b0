"""The order in which a run takes a table's rows: a slice of them, as they are or shuffled.

Shuffled is a keyed permutation: a Feistel network over the row numbers, which gives the row at any position, and the
position of any row, from the key alone. No list of rows is kept, every order is about as likely as any other, and where
a row comes does not depend on how many rows a run makes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Numbers: TypeAlias = "NDArray[np.int64]"
Words: TypeAlias = "NDArray[np.uint64]"

NOT_TAKEN: Final = -1

_ROUNDS: Final = 6


@dataclass(frozen=True)
class Order:
    """`rows` are those of the table that are taken; with a `key` they are shuffled."""

    rows: range
    key: str | None = None
    _shuffle: Permutation | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        """Make the permutation."""
        if self.key is not None:
            object.__setattr__(self, "_shuffle", Permutation(len(self.rows), self.key))

    @property
    def consecutive(self) -> bool:
        """Whether the rows are a stretch of the table, as it is."""
        return self.key is None and (self.rows.step == 1 or len(self.rows) < 2)  # noqa: PLR2004 - one row has no order

    def rows_at(self, positions: Numbers) -> Numbers:
        """Return the table's rows at these positions."""
        if self._shuffle is not None:
            positions = self._shuffle.forwards(positions)
        return positions * self.rows.step + self.rows.start

    def positions_of(self, rows: Numbers) -> Numbers:
        """Return the positions of the table's rows, NOT_TAKEN for those that are left out."""
        steps, rest = np.divmod(rows - self.rows.start, self.rows.step)
        taken = (rest == 0) & (steps >= 0) & (steps < len(self.rows))
        positions = np.full(len(rows), NOT_TAKEN, dtype=np.int64)
        there = steps[taken]
        positions[taken] = there if self._shuffle is None else self._shuffle.backwards(there)
        return positions


class Permutation:
    """A permutation of 0 .. size - 1 that follows from a key."""

    def __init__(self, size: int, key: str) -> None:
        """Derive the keys of the rounds."""
        self._size = size
        self._half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        seed = hashlib.blake2b(f"rowloop order {key}".encode(), digest_size=8 * _ROUNDS).digest()
        self._keys = np.frombuffer(seed, "<u8")

    def forwards(self, numbers: Numbers) -> Numbers:
        """Permute."""
        return self._walk(numbers, self._encrypt)

    def backwards(self, numbers: Numbers) -> Numbers:
        """Undo the permutation."""
        return self._walk(numbers, self._decrypt)

    def _walk(self, numbers: Numbers, step: Callable[[Words], Words]) -> Numbers:
        """Step on until all are in range: the network permutes up to four times as many numbers as there are."""
        found = step(numbers.astype(np.uint64))
        outside = np.flatnonzero(found >= self._size)
        while len(outside):
            found[outside] = step(found[outside])
            outside = outside[found[outside] >= self._size]
        return found.astype(np.int64)

    def _encrypt(self, words: Words) -> Words:
        left, right = words >> self._half, words & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right + key) & self._mask)
        return (left << self._half) | right

    def _decrypt(self, words: Words) -> Words:
        left, right = words >> self._half, words & self._mask
        for key in self._keys[::-1]:
            left, right = right ^ (_mixed(left + key) & self._mask), left
        return (left << self._half) | right


def _mixed(words: Words) -> Words:
    """Spread every bit over all others (splitmix64's finalizer)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
