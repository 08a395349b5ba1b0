"""Plain data: the limits within which a recipe's values can be walked, sent as JSON and written.

Each distinct list and mapping is visited once, however often it is repeated: a few lines of aliases can stand for
billions of values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .errors import RecipeError, writable

if TYPE_CHECKING:
    from collections.abc import Iterator

DEEPEST: Final = 100
"""The most levels of lists and mappings in each other."""

MOST_REPEATED: Final = 100_000
"""The most values that may be there only because a list or a mapping appears in several places."""

_CONTAINERS = (dict, list, tuple)
_INTEGERS = range(-(2**63), 2**64)


class _Size(NamedTuple):
    """Of one value: its levels, its values when repetitions are written out, and those of them that are repeated."""

    levels: int = 0
    values: int = 1
    repeated: int = 0


_SCALAR = _Size()


def check_plain(value: object, path: str, *, finite: bool = True, text: bool = True) -> None:
    """Raise RecipeError with the path of the first value that cannot be walked, sent or written.

    `finite=False` leaves fractions unchecked, `text=False` text.
    """
    _Walk(finite=finite, text=text).size_of(value, path, 0)


def check_walkable(value: object, path: str) -> None:
    """Raise RecipeError with the path of a value that cannot be walked, whatever its scalars are."""
    _Walk(finite=False, text=False, scalars=False).size_of(value, path, 0)


class _Walk:
    """Visits each list and mapping once."""

    def __init__(self, *, finite: bool, text: bool, scalars: bool = True) -> None:
        self._scalars = scalars
        self._finite = finite
        self._text = text
        self._sizes: dict[int, _Size | None] = {}

    def size_of(self, value: object, path: str, depth: int) -> _Size:
        if not isinstance(value, _CONTAINERS):
            self._check_scalar(value, path, within=depth > 0)
            return _SCALAR
        known = self._sizes.get(id(value), ...)
        if known is None:
            raise RecipeError(writable(path), "contains itself")
        if depth + (known.levels if isinstance(known, _Size) else 0) >= DEEPEST:
            raise RecipeError(writable(path)[:200], f"is nested deeper than {DEEPEST} levels")
        if isinstance(known, _Size):
            return known._replace(repeated=known.values)
        self._sizes[id(value)] = None
        size = self._sum(value, path, depth)
        self._sizes[id(value)] = size
        return size

    def _sum(self, container: Any, path: str, depth: int) -> _Size:
        levels, values, repeated = 0, 1, 0
        for name, part in _parts(container):
            if isinstance(name, int):  # before it is written
                self._check_scalar(name, path, within=True)
            below = f"{path}.{name}".strip(".")
            if isinstance(container, dict):
                self._check_scalar(name, below, within=True)
            size = self.size_of(part, below, depth + 1)
            levels, values, repeated = max(levels, size.levels), values + size.values, repeated + size.repeated
            if repeated > MOST_REPEATED:
                raise RecipeError(writable(path), f"repeats more than {MOST_REPEATED:,} values")
        return _Size(levels + 1, values, repeated)

    def _check_scalar(self, value: object, path: str, *, within: bool) -> None:
        if not self._scalars:
            return
        if isinstance(value, int) and value not in _INTEGERS:
            raise RecipeError(writable(path), "is a whole number of more than 64 bits")
        if self._finite and within and isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(writable(path), f"is {value}, which JSON cannot hold")
        if within and isinstance(value, bytes | bytearray):
            raise RecipeError(writable(path), "is bytes, which JSON cannot hold")
        if self._text and isinstance(value, str):
            _check_text(value, path)


def _parts(container: Any) -> Iterator[tuple[object, object]]:
    """Yield each part with its key, its `name` if that is text, or its number."""
    if isinstance(container, dict):
        yield from list(container.items())
        return
    for i, part in enumerate(container):
        name = part.get("name") if isinstance(part, dict) else None
        yield (name if isinstance(name, str) else i), part


def _check_text(text: str, path: str) -> None:
    """Refuse text that can neither be sent nor written."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        problem = f"has {half!r}, half of a character (a lone surrogate), which can be neither sent nor written"
        raise RecipeError(writable(path), problem) from None
