"""Threads for the synchronous functions of one run, cheap enough for one call per cell.

Calls go through one queue and results come back on one deque; a thread wakes the loop only when it has not been woken
already, so that many results cost one wake-up and no Future or task is made for any of them. There is one thread at
first. Where calls are still queued after a moment, the functions are slow, and there come to be as many threads as
calls: fast functions would only get in each other's way.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

T = TypeVar("T")
Ended: TypeAlias = Callable[[Any, BaseException | None], None]
"""Called in the loop's thread with what a function returned, or with what it raised."""

_MOMENT: Final = 0.002
"""Seconds that a call may be queued before more threads are started."""


class Threads:
    """Up to `most` daemon threads, used from one loop."""

    def __init__(self, most: int, name: str = "rowloop-function") -> None:
        """Start no thread yet."""
        self._most = most
        self._name = name
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Ended] | None] = queue.SimpleQueue()
        self._results: deque[tuple[Ended, Any, BaseException | None]] = deque()
        self._woken = False
        self._watched = False
        self._threads = 0
        self._closed = False

    def submit(self, function: Callable[..., Any], inputs: Sequence[Any], ended: Ended) -> None:
        """Call a function in a thread, in a copy of the caller's context. It cannot be stopped once it runs."""
        context = contextvars.copy_context()
        self._calls.put((lambda: context.run(function, *inputs), ended))
        if not self._threads:
            self._loop = asyncio.get_running_loop()
            self._start_threads(1)
        elif not self._watched and self._threads < self._most:
            self._watched = True
            self._loop.call_later(_MOMENT, self._grow)

    async def call(self, function: Callable[..., T], *inputs: object) -> T:
        """Call a function and wait for it.

        Cancelling the wait throws the result away when it comes; a function that has not begun by then never does.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def ended(value: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(value)
            elif isinstance(error, StopIteration):  # a Future cannot carry it
                future.set_exception(RuntimeError(f"the function raised {error!r}"))
            else:
                future.set_exception(error)

        self.submit(lambda: None if future.cancelled() else function(*inputs), (), ended)
        return await future

    def close(self) -> None:
        """Let the threads end when they have done what they are doing; what is still queued is not begun."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()
        for _ in range(self._threads):
            self._calls.put(None)

    def _grow(self) -> None:
        """Start a thread for each call that is still queued."""
        self._watched = False
        if not self._closed:
            self._start_threads(min(self._calls.qsize(), self._most - self._threads))

    def _start_threads(self, number: int) -> None:
        for _ in range(number):
            self._threads += 1
            threading.Thread(target=self._serve, name=f"{self._name}-{self._threads}", daemon=True).start()

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            function, ended = call
            try:
                self._results.append((ended, function(), None))
            except BaseException as error:  # noqa: BLE001 - it is judged in the loop's thread
                self._results.append((ended, None, error))
            del call, function, ended
            if not self._woken:
                self._woken = True
                self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            if not self._closed:  # else the loop is gone, and with it everyone who could wait
                raise

    def _deliver(self) -> None:
        """Hand out results, in the loop's thread. The flag falls first: a result that comes late wakes us again."""
        self._woken = False
        while self._results:
            ended, value, error = self._results.popleft()
            ended(value, error)
