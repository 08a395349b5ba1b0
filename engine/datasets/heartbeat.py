"""Heartbeat: the thread that shows others every few seconds that a run works in its directory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ...runtime.logs import safe_logger
from ..core.errors import DatasetGenerationError
from .claim_files import HEARTBEAT

if TYPE_CHECKING:
    from collections.abc import Callable

    from .claim_files import Held

logger = safe_logger()


class Heartbeat:
    """A thread that writes a claim anew every `HEARTBEAT` seconds, from now until `close`."""

    def __init__(self, held: Held) -> None:
        """Start the thread."""
        self._held = held
        self._calls: list[Callable[[], object]] = []
        self._on_lost: Callable[[DatasetGenerationError], object] | None = None
        self._lost: DatasetGenerationError | None = None
        self._warned: set[object] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_ended, name="rowloop-claim", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called at each heartbeat, in the thread. What it raises is logged, the first time."""
        self._calls.append(function)

    def on_lost(self, function: Callable[[DatasetGenerationError], object]) -> None:
        """Have a function called, from any thread, once another process has taken over, also if it already has."""
        with self._lock:
            self._on_lost, lost = function, self._lost
        if lost is not None:
            function(lost)

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _beat_until_ended(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            self._beat()

    def _beat(self) -> None:
        """Write the claim and make the calls, also where one of these fails: the disk is full, say.

        A directory that another process has taken over is left alone.
        """
        for call in (self._held.beat, *self._calls):
            if self._lost is None:
                self._attempt(call)

    def _attempt(self, call: Callable[[], object]) -> None:
        try:
            call()
        except DatasetGenerationError as error:
            self._lose(error)
        except Exception as error:  # noqa: BLE001 - the run may end well all the same
            if call not in self._warned:
                self._warned.add(call)
                logger.warning("a heartbeat in '%s' failed: %s", self._held.directory, error)

    def _lose(self, error: DatasetGenerationError) -> None:
        with self._lock:
            first = self._lost is None
            self._lost, function = error, self._on_lost
        if first and function is not None:
            function(error)
