"""OneThread: a thread that does one piece of work after the other, for coroutines.

Files and databases are worked on in order, by one thread each. An executor of concurrent.futures refuses work once the
main thread has ended, while threads that the interpreter joins, and exit handlers, may still have a run to finish. This
thread is a daemon and works until it is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from .threads import settle
from .workers import daemon_thread, run_into

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class OneThread:
    """Does work in order. The thread starts with the first piece of work."""

    def __init__(self, name: str) -> None:
        """Start nothing yet."""
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = False

    def post(self, work: Callable[[], object]) -> None:
        """Queue work whose result nobody waits for, from any thread; it must not raise.

        Raise RuntimeError once the thread is closed.
        """
        if self._closed:
            message = f"{self._name} is closed"
            raise RuntimeError(message)
        self._work.put(work)
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = daemon_thread(self._serve, self._name)
                    self._thread.start()

    def run(self, function: Callable[[], T]) -> T:
        """Queue work, from another thread, and wait for it there; return its result or raise its error."""
        future: Future[T] = Future()
        self.post(lambda: run_into(future, function))
        return future.result()

    async def call(self, function: Callable[[], T]) -> T:
        """Queue work, in a copy of the caller's context; return its result or raise its error.

        A cancelled wait discards the result. Work that has not begun by then is never done.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            value: Any = None
            error: BaseException | None = None
            if future.cancelled():
                return
            try:
                value = context.run(function)
            except BaseException as raised:  # noqa: BLE001 - the caller gets it
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the caller
                loop.call_soon_threadsafe(settle, future, value, error)

        self.post(work)
        return await future

    def close(self) -> None:
        """Do what is queued, end the thread and wait for its end."""
        self._closed = True
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # an idle thread must not keep a result alive
