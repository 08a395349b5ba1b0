"""Watchdog: reports a blocked loop and the line that blocks it.

The watchdog is off unless ROWLOOP_DEBUG is 1, or a number of seconds, when the loop starts. Then one daemon thread
posts a callback to the loop again and again. If the loop does not run it in time, the watchdog reports the stack of the
loop's thread, once per episode, and one more line when the loop runs again. A watchdog that is off costs nothing: no
thread, no callback, no check.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from .errors import RuntimeClosedError
from .logs import safe_logger
from .workers import daemon_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import LoopThread

LIMIT = 0.5  # seconds a callback may take; a loop that is busy for longer counts as blocked


def wanted(setting: str | None = None) -> float | None:
    """Return the limit in seconds that ROWLOOP_DEBUG sets; None if the watchdog is off."""
    setting = os.environ.get("ROWLOOP_DEBUG", "") if setting is None else setting
    if setting.lower() in {"", "0", "false", "no", "off"}:
        return None
    with contextlib.suppress(ValueError):
        return float(setting) if float(setting) != 1 else LIMIT
    return LIMIT


def watch(thread: LoopThread) -> None:
    """Start a watchdog for the thread's loop if ROWLOOP_DEBUG turns it on."""
    limit = wanted()
    if limit is not None:
        Watchdog(thread, limit).start()


def report_to_log(message: str) -> None:
    """Log the message as a warning of this module."""
    safe_logger(__name__).warning(message)


class Watchdog:
    """Watches one loop until its thread ends."""

    def __init__(self, thread: LoopThread, limit: float, report: Callable[[str], None] = report_to_log) -> None:
        """Take the loop thread, the limit in seconds, and the function that gets the reports."""
        self._loop = thread
        self._limit = limit
        self._report = report
        self._alive = threading.Event()
        self._watcher = daemon_thread(self._watch, f"rowloop-{thread.name}-watchdog")

    def start(self) -> None:
        """Start to watch."""
        self._watcher.start()

    def _watch(self) -> None:
        self._loop.published.wait()
        with contextlib.suppress(RuntimeClosedError):  # the loop has ended, so its watchdog ends
            while not self._loop.join(0):
                self._check()

    def _check(self) -> None:
        self._alive.clear()
        posted = time.monotonic()
        self._loop.post(self._alive.set)
        if self._alive.wait(self._limit):
            self._loop.join(self._limit)  # one check per limit is enough
            return
        stack = self._loop.stack()
        self._report(f"{self._loop.name}: the loop has been blocked for {self._limit:g} s by\n{stack}")
        while not self._alive.wait(self._limit):
            if self._loop.join(0):
                return
        self._report(f"{self._loop.name}: the loop is back after {time.monotonic() - posted:.1f} s")
