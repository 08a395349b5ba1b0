"""Threads: calls short synchronous functions in threads, many of them per wake-up of the loop.

Workers is the loop's default executor and makes a Future for every job. Threads is for the caller with very many short
functions, whose Futures would cost more than the functions do.

Theory of operation. Calls go through one queue, and results come back on one deque. A thread wakes the loop only if no
wake-up is pending, so many results cost one wake-up, and no Future or task is made for any of them. The first call
starts one thread. Calls that are still queued after a moment show that the functions are slow; then there is a thread
for each queued call, up to the limit. Fast functions keep a few threads, because more would only contend for the GIL.
A thread whose wait for a call has taken the idle time ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

from .workers import daemon_thread

T = TypeVar("T")
Ended: TypeAlias = Callable[[Any, BaseException | None], None]
"""Receives a function's result, or None and its error; called on the loop's thread."""

_MOMENT: Final = 0.002
"""Seconds that a call may be queued before more threads start."""


class Threads:
    """Up to `limit` daemon threads that work for one loop; those without a call for `idle` seconds end."""

    def __init__(
        self, limit: int, name: str = "rowloop-function", *, idle: float | None = None, context: Context | None = None
    ) -> None:
        """Start no thread yet. Results are delivered in `context`, by default an empty one."""
        self._limit = limit
        self._name = name
        self._idle = idle
        self._context = context or Context()
        self._ending = threading.Lock()
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Ended] | None] = queue.SimpleQueue()
        self._results: deque[tuple[Ended, Any, BaseException | None]] = deque()
        self._woken = False
        self._watched = False
        self._threads = 0
        self._closed = False

    def submit(self, function: Callable[..., Any], inputs: Sequence[Any], ended: Ended) -> None:
        """Call a function in a thread, in a copy of the caller's context; once begun, it cannot be stopped."""
        context = contextvars.copy_context()
        self._calls.put((lambda: context.run(function, *inputs), ended))
        if self._threads <= 0:
            self._loop = asyncio.get_running_loop()
            self._start_threads(1)
        elif not self._watched and self._threads < self._limit:
            self._watched = True
            self._loop.call_later(_MOMENT, self._grow)

    async def call(self, function: Callable[..., T], *inputs: object) -> T:
        """Call a function in a thread and wait for it; return its result or raise its error.

        A cancelled wait discards the result. A function that has not begun by then never runs.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        work = partial(_unless_cancelled, future, function, inputs)
        self.submit(work, (), partial(settle, future))
        return await future

    def close(self) -> None:
        """Drop the queued calls; the threads end after the functions that they are running."""
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
            self._start_threads(min(self._calls.qsize(), self._limit - self._threads))

    def _start_threads(self, number: int) -> None:
        for _ in range(number):
            with self._ending:
                self._threads += 1
            daemon_thread(self._serve, f"{self._name}-{self._threads}").start()

    def _next(self) -> tuple[Callable[[], Any], Ended] | None:
        """Wait for a call; return None to the thread that has to end."""
        while True:
            try:
                return self._calls.get(timeout=self._idle)
            except queue.Empty:
                with self._ending:
                    self._threads -= 1
                    # A call that `submit` queues before it sees the new number is seen here.
                    if self._calls.empty():
                        return None
                    self._threads += 1

    def _serve(self) -> None:
        while (call := self._next()) is not None:
            function, ended = call
            try:
                self._results.append((ended, function(), None))
            except BaseException as error:  # noqa: BLE001 - `ended` gets it, on the loop's thread
                self._results.append((ended, None, error))
            del call, function, ended
            if not self._woken:
                self._woken = True
                self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, context=self._context)
        except RuntimeError:
            if not self._closed:  # once closed, a loop that has ended has no caller that waits
                raise

    def _deliver(self) -> None:
        """Deliver the results; on the loop's thread. Lower the flag first: a late result wakes the loop again."""
        self._woken = False
        while self._results:
            ended, value, error = self._results.popleft()
            ended(value, error)


def settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    """Give the result of a function to the task that waits for it, on the loop's thread."""
    if future.done():  # cancelled
        return
    if error is None:
        future.set_result(value)
    elif isinstance(error, (StopIteration, GeneratorExit)):  # a Future refuses one, and its task the other
        raised = RuntimeError(f"the function raised {error!r}")
        raised.__cause__ = error
        future.set_exception(raised)
    else:
        future.set_exception(error)


def _unless_cancelled(future: asyncio.Future[T], function: Callable[..., T], inputs: Sequence[object]) -> T | None:
    return None if future.cancelled() else function(*inputs)
