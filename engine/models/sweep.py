"""Sweep: finds what has lasted too long, with one timer for everything that is under way in a column.

All items have the same time, so they expire in the order in which they began: the timer waits for the oldest one. It is
set again when it fires or when the time changes, and not for each item, as a timer per request costs as much as a tenth
of the request.
"""

from __future__ import annotations

import math
from itertools import takewhile
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable

T = TypeVar("T")

_GRAIN: Final = 0.001
"""Loops round the times of their timers: a timer that fires so many seconds early is on time."""


class Sweep(Generic[T]):
    """The items under way on one loop; calls `expire`, from the loop, with each that lasts longer than `seconds`.

    An item that has expired is no longer under way. With infinity nothing expires.
    """

    def __init__(self, seconds: float, expire: Callable[[T], None]) -> None:
        """Start with no item."""
        self.seconds = seconds
        self._expire = expire
        self._began: dict[T, float] = {}
        self._timer: TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many items are under way."""
        return len(self._began)

    def add(self, item: T, began: float, loop: AbstractEventLoop) -> None:
        """Add an item that begins now, at the loop's time `began`."""
        self._began[item] = began
        if self._timer is None:
            self._set_timer(began, loop)

    def remove(self, item: T) -> None:
        """Remove an item that has ended, or has expired already."""
        self._began.pop(item, None)
        if not self._began and self._timer is not None:  # else an idle loop keeps it for as long as it had to run
            self._timer.cancel()
            self._timer = None

    def change(self, seconds: float, loop: AbstractEventLoop) -> None:
        """Change the time, also of the items under way."""
        self.seconds = seconds
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wait(loop)

    def _wait(self, loop: AbstractEventLoop) -> None:
        """Set the timer for the oldest item."""
        for began in self._began.values():
            self._set_timer(began, loop)
            return

    def _set_timer(self, began: float, loop: AbstractEventLoop) -> None:
        if self.seconds < math.inf:
            self._timer = loop.call_at(began + self.seconds, self._sweep, loop)

    def _sweep(self, loop: AbstractEventLoop) -> None:
        self._timer = None
        last = loop.time() + _GRAIN - self.seconds
        expired = [item for item, _ in takewhile(lambda item: item[1] <= last, self._began.items())]
        for item in expired:
            del self._began[item]
        self._wait(loop)
        for item in expired:
            self._expire(item)
