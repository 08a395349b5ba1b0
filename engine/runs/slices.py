"""Slices: how long the workers of a run may occupy the loop before they let others run."""

from __future__ import annotations

import asyncio
import time
from typing import Final

_SECONDS: Final = 0.005


class Slices:
    """The time slices of one run: all workers share one, and the next begins with the loop's next turn."""

    def __init__(self) -> None:
        """Begin with a slice that is over."""
        self.until = 0.0
        """The end of the current slice, by time.monotonic()."""
        self.cancelling = False
        """Whether the run is being cancelled: a worker that yields must then still report its task as cancelled."""
        self._yielding = False

    async def yield_loop(self) -> None:
        """Let others run; to be called by a worker when the slice is over."""
        if not self._yielding:
            self._yielding = True
            asyncio.get_running_loop().call_soon(self._begin)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if not self.cancelling:
                raise

    def _begin(self) -> None:
        self._yielding = False
        self.until = time.monotonic() + _SECONDS
