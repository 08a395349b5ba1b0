"""Arrivals: how many bytes of an answer have come, for whoever wonders about a request that takes long.

A transport says how to count while it waits; it is counted when someone looks, so that a request pays next to nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

_awaited: dict[asyncio.Task[Any], Arrival] = {}


class Arrival:
    """The answer that the current task awaits inside this block. `count` gives the bytes that have come of it."""

    __slots__ = ("_task", "count")

    def __enter__(self) -> Self:
        """Begin to wait: nothing has come."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it is awaited
        self.count: Callable[[], int] = int
        self._task = task
        _awaited[task] = self
        return self

    def __exit__(self, *_error: object) -> None:
        """Wait no longer."""
        del _awaited[self._task]


def received(task: asyncio.Task[Any]) -> int | None:
    """Give the bytes of the answer that a task awaits; None where it awaits none, or none whose bytes are counted."""
    arrival = _awaited.get(task)
    return None if arrival is None else arrival.count()
