"""Arrival: how many bytes of an answer a task has received, for warnings about slow requests.

A transport sets the function that counts. It is called only when someone asks, so a request costs almost nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

_awaited: dict[asyncio.Task[Any], Arrival] = {}


class Arrival:
    """The answer that the current task awaits inside this block. `count` returns the bytes received so far."""

    __slots__ = ("_task", "count")

    def __enter__(self) -> Self:
        """Start with no bytes."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it is awaited
        self.count: Callable[[], int] = int
        self._task = task
        _awaited[task] = self
        return self

    def __exit__(self, *_error: object) -> None:
        """Forget the count."""
        del _awaited[self._task]


def received(task: asyncio.Task[Any]) -> int | None:
    """Return the bytes of the answer that a task awaits, None if it awaits no answer whose bytes are counted."""
    arrival = _awaited.get(task)
    return None if arrival is None else arrival.count()
