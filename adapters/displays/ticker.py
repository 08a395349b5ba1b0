"""Ticker: has a display drawn again and again, in a thread, and bounds what that costs."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SHARE = 0.005  # of one core's time that drawing may take; where it takes more, it is done more rarely


class Ticker:
    """Calls `draw` at most every `pause` seconds, in a thread of its own, until its block is left."""

    def __init__(self, draw: Callable[[], None], pause: float) -> None:
        """Take what to call; nothing is called before the first pause is over."""
        self._draw = draw
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rowloop-display", daemon=True)

    def __enter__(self) -> None:
        """Start the thread."""
        self._thread.start()

    def __exit__(self, *_error: object) -> None:
        """End it; `draw` is not called again."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self._pause
        while not self._over.wait(pause):
            before = time.thread_time()
            try:
                self._draw()
            except (OSError, ValueError):
                return  # the terminal has gone or its stream was closed: the run goes on without a display
            pause = max(self._pause, (time.thread_time() - before) / _SHARE)
