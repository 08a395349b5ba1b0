"""The heap: memory that was freed goes back to the system while large values come and go.

The C library keeps what is freed between other objects, up to as much again as is in use. glibc gives whole pages back
when it is asked to; other C libraries have no such call, and are not asked.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY: Final = 32 * 1024**2
"""Bytes of values after which it is worth some milliseconds."""


class Heap:
    """Counts the bytes that pass through it, and trims the heap now and then."""

    def __init__(self) -> None:
        """Start at zero."""
        self._bytes = 0

    def passed(self, size: int) -> None:
        """Count the bytes of values that were written; to be called in a thread that may take its time."""
        self._bytes += size
        if self._bytes >= _EVERY:
            self._bytes = 0
            _trim()(0)


@cache
def _trim() -> Callable[[int], object]:
    """Return glibc's `malloc_trim`, or what does nothing."""
    try:
        trim: Callable[[int], Any] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; Windows has no library without a name
        return int
    return trim
