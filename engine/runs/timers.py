"""Timers: what the loop calls later in a run: retries that are due, lanes that may send again, and periodic checks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..core.events import Due, Woken

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.events import Event, RunAfter, Wake


class Timers:
    """The timers of one run. None fires before `start` or after `close`."""

    def __init__(self, feed: Callable[[Event], None], guard: Callable[[Callable[[], None]], None]) -> None:
        """Take the functions that feed an event to the tracker, and that end the run with what a call raises."""
        self._feed = feed
        self._guard = guard
        self._waits: dict[Due | Woken, asyncio.TimerHandle] = {}
        self._periodic: dict[Callable[[], None], float] = {}
        self._ticks: dict[Callable[[], None], asyncio.TimerHandle] = {}

    @property
    def waiting(self) -> list[Due]:
        """The tasks that wait for a retry."""
        return [event for event in self._waits if type(event) is Due]

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Call a function at this interval while the run lasts."""
        self._periodic[call] = seconds

    def start(self) -> None:
        """Start the periodic calls, on the running loop."""
        self._loop = asyncio.get_running_loop()
        for call in self._periodic:
            self._set_tick(call)

    def run_after(self, command: RunAfter) -> None:
        """Send Due for a task after its delay."""
        self._wait(command.delay, Due(command.group, command.column, command.row))

    def wake(self, command: Wake) -> None:
        """Send Woken for a lane after its delay; replaces an earlier wait of the lane."""
        woken = Woken(command.lane)
        if woken in self._waits:
            self._waits[woken].cancel()
        self._wait(command.delay, woken)

    def cancel_waits(self) -> None:
        """Cancel all retries and wakes; periodic calls continue."""
        for timer in self._waits.values():
            timer.cancel()
        self._waits.clear()

    def close(self) -> None:
        """Cancel everything."""
        self.cancel_waits()
        for tick in self._ticks.values():
            tick.cancel()

    def _wait(self, delay: float, event: Due | Woken) -> None:
        self._waits[event] = self._loop.call_later(delay, self._end_wait, event)

    def _end_wait(self, event: Due | Woken) -> None:
        del self._waits[event]
        self._guard(lambda: self._feed(event))

    def _set_tick(self, call: Callable[[], None]) -> None:
        self._ticks[call] = self._loop.call_later(self._periodic[call], self._tick, call)

    def _tick(self, call: Callable[[], None]) -> None:
        self._guard(call)
        self._set_tick(call)
