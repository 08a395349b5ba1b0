"""Sizes: how many bytes of memory a value takes, about.

A look at the type is enough for text, numbers and bytes. Of nested values a sample is looked at, so that none costs
more than a few hundred looks, however large it is.
"""

from __future__ import annotations

from array import array
from math import isqrt
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Final

from ..core.store import Vector

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

FLAT: Final = frozenset({str, bytes, bytearray, int, float, bool, type(None), array, Vector})
"""The types whose `getsizeof` counts all of a value."""

SMALL: Final = frozenset({int, float, bool, type(None)})
"""The types of values that are not worth counting: what the engine itself keeps of a cell is larger."""

_LOOKS: Final = 256
_FEWEST: Final = 4
_UNKNOWN: Final = 64
"""Bytes of an object that does not report its own size."""


def size_of(value: Any) -> int:
    """Return the size of a value in bytes; 0 for one that is small in any case."""
    if type(value) in SMALL:
        return 0
    return getsizeof(value) if type(value) in FLAT else _nested(value, _LOOKS)


def size_of_all(values: Sequence[Any] | None) -> int:
    """Return the size of the values of a column in bytes, None for a column without values."""
    return 0 if values is None else sum(size_of(value) for value in values if type(value) not in SMALL)


def _nested(value: Any, looks: int) -> int:
    """Return the size of any value, from about so many looks at what is in it."""
    try:
        buffer = int(getattr(value, "nbytes", 0))  # of arrays and tables, also where it is another's
        own = max(buffer, getsizeof(value, _UNKNOWN))
        parts = _parts(value)
        if not parts or looks < _FEWEST:
            return own
        sample = _sample(parts, looks)
        return own + _inside(sample, looks) * len(parts) // len(sample)
    except Exception:  # noqa: BLE001 - whatever a value's own methods raise; it is an estimate
        return _UNKNOWN


def _inside(parts: Sequence[Any], looks: int) -> int:
    """Return the size of the parts of a value: a sample of those that have parts themselves shares the looks."""
    nested = [part for part in parts if type(part) not in FLAT]
    flat = sum(getsizeof(part) for part in parts if type(part) in FLAT)
    sample = _sample(nested, isqrt(looks))
    return flat + sum(_nested(part, looks // 2 // len(sample)) for part in sample) * len(nested) // max(1, len(sample))


def _parts(value: Any) -> Collection[Any]:
    """Return what a value consists of: the keys are part of a dict."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return value
    fields = getattr(value, "__dict__", None)
    return list(fields.values()) if isinstance(fields, dict) else ()


def _sample(parts: Collection[Any], most: int) -> Sequence[Any]:
    """Return at most so many of the parts, from all over."""
    step = -(-len(parts) // most)
    return list(parts)[:: max(1, step)]
