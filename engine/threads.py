"""Threads for the synchronous functions of one run, cheap enough for one call per cell.

A call costs two appends and its share of a wake-up: threads put their results on one deque and wake the loop only when
it has not been woken already. `loop.run_in_executor` makes a Future, a lock and a wake-up for every call.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Threads:
    """Up to `most` daemon threads, started when there is work and none is idle. Used from one loop."""

    def __init__(self, most: int, name: str = "rowloop-function") -> None:
        """Start no thread yet."""
        self._most = most
        self._name = name
        self._calls: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._results: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._woken = False
        self._busy = 0
        self._threads = 0
        self._closed = False

    async def call(self, function: Callable[..., T], *args: object) -> T:
        """Call a function in a thread, with the caller's context variables.

        Cancelling the wait does not stop the function: its result is thrown away when it comes.
        """
        loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()
        self._calls.put((future, lambda: context.run(function, *args)))
        self._busy += 1
        if self._busy > self._threads < self._most:
            self._threads += 1
            threading.Thread(target=self._serve, name=f"{self._name}-{self._threads}", daemon=True).start()
        return await future

    def close(self) -> None:
        """Let the threads end when they have done what they are doing."""
        self._closed = True
        for _ in range(self._threads):
            self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            try:
                self._results.append((future, function(), None))
            except BaseException as error:  # noqa: BLE001 - it is raised where the call is awaited
                self._results.append((future, None, error))
            del call, future, function
            if not self._woken:
                self._woken = True
                self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            if not self._closed:  # the loop is gone, and so is everyone who could wait
                raise

    def _deliver(self) -> None:
        """Hand out results, in the loop's thread. The flag falls first: a result that comes late wakes us again."""
        self._woken = False
        while self._results:
            future, value, error = self._results.popleft()
            self._busy -= 1
            if future.cancelled():
                continue
            if error is None:
                future.set_result(value)
            elif isinstance(error, StopIteration):
                future.set_exception(RuntimeError(f"the function raised {error!r}"))
            else:
                future.set_exception(error)
