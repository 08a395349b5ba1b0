"""Ticker: redraws a display at intervals, in a thread, and limits the CPU time that drawing takes."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SHARE = 0.005  # of one core's time; where drawing would take more, the pauses get longer


class Ticker:
    """Calls `draw` at most every `pause` seconds, in its own thread, until the `with` block ends."""

    def __init__(self, draw: Callable[[], None], pause: float) -> None:
        """Store the function; the first call comes after the first pause."""
        self._draw = draw
        self._pause = pause
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rowloop-display", daemon=True)

    def __enter__(self) -> None:
        """Start the thread."""
        self._thread.start()

    def __exit__(self, *_error: object) -> None:
        """End the thread; `draw` is not called again."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self._pause
        while not self._stopped.wait(pause):
            started = time.thread_time()
            try:
                self._draw()
            except (OSError, ValueError):
                return  # the terminal is gone or its stream is closed: the run continues without a display
            pause = max(self._pause, (time.thread_time() - started) / _SHARE)
