"""Vector: an embedding in the store, as an array of 32-bit floats: four bytes a number, and no object for each."""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self


class Vector(array):  # type: ignore[type-arg] # noqa: PLW1641 - it may change; `array[float]` is no class
    """32-bit floats. Providers make them, the journal keeps their bytes, and a part is their concatenation.

    Everybody else reads a list of floats: functions, templates, validators and observers get `plain(value)`.
    """

    __slots__ = ()

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Self:
        """Take numbers, each rounded to 32 bits; one beyond their range becomes infinite.

        Raises TypeError for anything but numbers.
        """
        return cls("f", numbers)

    @classmethod
    def from_bytes(cls, raw: bytes | memoryview) -> Self:
        """Take little-endian bytes; raises ValueError for a number of bytes that is no multiple of four."""
        vector = cls("f")
        vector.frombytes(raw)
        return vector._little_endian()

    def to_bytes(self) -> bytes:
        """Return little-endian bytes."""
        return self._little_endian().tobytes()

    def _little_endian(self) -> Self:
        if sys.byteorder == "little":
            return self
        swapped = type(self)("f", self)
        swapped.byteswap()
        return swapped

    def __eq__(self, other: object) -> bool:
        """Compare the numbers, also with those of a list."""
        return self.tolist() == other if isinstance(other, list) else bool(super().__eq__(other))


def plain(value: Any) -> Any:
    """Return a value as everybody but the engine reads it: a vector as a list of floats."""
    return value.tolist() if type(value) is Vector else value
