"""Watchdog: notices a loop that is blocked, and says which line blocks it.

Off unless the environment says ROWLOOP_DEBUG=1 (or a number of seconds) when the loop starts; then one daemon thread
asks the loop for a sign of life, and when none comes in time it reports the stack of the loop's thread: once per
episode, and once more, in a line, when the loop is back. When it is off there is no thread, no callback and no check
anywhere.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from .errors import RuntimeClosedError
from .workers import daemon_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import LoopThread

LIMIT = 0.5  # seconds a callback may take before the loop counts as blocked


def wanted(setting: str | None = None) -> float | None:
    """Return the limit in seconds that ROWLOOP_DEBUG asks for; None if it asks for nothing."""
    setting = os.environ.get("ROWLOOP_DEBUG", "") if setting is None else setting
    if setting.lower() in {"", "0", "false", "no", "off"}:
        return None
    with contextlib.suppress(ValueError):
        return float(setting) if float(setting) != 1 else LIMIT
    return LIMIT


def watch(thread: LoopThread) -> None:
    """Start a watchdog for the thread's loop if ROWLOOP_DEBUG asks for one."""
    limit = wanted()
    if limit is not None:
        Watchdog(thread, limit).start()


def report_to_log(message: str) -> None:
    """Warn, in the log of this module."""
    logging.getLogger(__name__).warning(message)


class Watchdog:
    """Watches one loop until its thread has ended."""

    def __init__(self, thread: LoopThread, limit: float, report: Callable[[str], None] = report_to_log) -> None:
        """Count the loop as blocked after `limit` seconds."""
        self._loop = thread
        self._limit = limit
        self._report = report
        self._alive = threading.Event()
        self._watcher = daemon_thread(self._watch, f"rowloop-{thread.name}-watchdog")

    def start(self) -> None:
        """Begin to watch."""
        self._watcher.start()

    def _watch(self) -> None:
        self._loop.published.wait()
        with contextlib.suppress(RuntimeClosedError):  # the loop has ended, and so does its watchdog
            while not self._loop.join(0):
                self._look()

    def _look(self) -> None:
        self._alive.clear()
        asked = time.monotonic()
        self._loop.post(self._alive.set)
        if self._alive.wait(self._limit):
            self._loop.join(self._limit)  # a look per limit is enough
            return
        stack = self._loop.stack()
        self._report(f"{self._loop.name}: the loop has been blocked for {self._limit:g} s by\n{stack}")
        while not self._alive.wait(self._limit):
            if self._loop.join(0):
                return
        self._report(f"{self._loop.name}: the loop is back after {time.monotonic() - asked:.1f} s")
