"""Workers: the loop's default executor; threads that wait for the loop do not count against its bound.

Theory of operation. `asyncio.to_thread`, DNS look-ups and file work on the loop all use one executor. A plain
ThreadPoolExecutor is wrong here in three ways:

- It is bounded. Blocking work may call back into the loop, which starts more blocking work; nesting deeper than the
  pool deadlocks. Here a thread that waits for the loop frees its place, and another thread starts.
- The interpreter joins its threads at exit without a limit, so one stuck thread hangs the process. Here threads are
  daemons.
- CPython 3.12.0 and 3.12.1 cannot start threads during interpreter shutdown, but cleanup may need one then. There one
  idle thread is kept in reserve.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .waiting import adopt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P = ParamSpec("P")
T = TypeVar("T")

BOUND = min(32, (os.cpu_count() or 1) + 4)  # what asyncio's own default executor allows
THREADS_REFUSED_AT_EXIT = (3, 12) <= sys.version_info < (3, 12, 2)


def daemon_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """Make a daemon thread with an empty context; on free-threaded 3.14 threads otherwise inherit their creator's."""
    if sys.version_info >= (3, 14):
        return threading.Thread(target=target, name=name, daemon=True, context=Context())
    return threading.Thread(target=target, name=name, daemon=True)


class Workers(ThreadPoolExecutor):
    """An executor of daemon threads. It is a ThreadPoolExecutor by type only, because event loops accept no other."""

    def __init__(self, name: str, bound: int = BOUND) -> None:
        """Start no thread yet, except where Python refuses to start one at exit."""
        super().__init__(max_workers=1)  # starts no thread; only the type is used
        self._name = name
        self._bound = bound
        self._ready = threading.Condition(threading.Lock())
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._alive: set[threading.Thread] = set()
        self._busy: set[threading.Thread] = set()
        self._waiting: set[threading.Thread] = set()  # busy, but blocked in a wait for the loop
        self._closed = False
        self._when_idle: list[Callable[[], object]] = []
        if THREADS_REFUSED_AT_EXIT:
            with self._ready, contextlib.suppress(RuntimeError):  # the interpreter is already shutting down
                self._start_one()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue `fn(*args, **kwargs)` for the next free thread."""
        future: Future[T] = Future()
        with self._ready:
            if self._closed:
                message = f"the worker threads of {self._name} have been shut down"
                raise RuntimeError(message)
            self._jobs.append((future, lambda: fn(*args, **kwargs)))
            self._grow()
            self._ready.notify()
        return future

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Free the calling worker's place for another thread for the length of the block."""
        thread = threading.current_thread()
        with self._ready:
            self._waiting.add(thread)
            self._grow()
        try:
            self._notify_if_idle()
            yield
        finally:
            with self._ready:
                self._waiting.discard(thread)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - its parent's
        """Accept no more jobs; the threads end after the queued jobs."""
        with self._ready:
            self._closed = True
            dropped = list(self._jobs) if cancel_futures else []
            if cancel_futures:
                self._jobs.clear()
            self._ready.notify_all()
        for future, _ in dropped:
            future.cancel()
        if wait:
            for thread in tuple(self._alive):
                thread.join()

    def when_idle(self, callback: Callable[[], object]) -> None:
        """Call `callback` once, as soon as no thread is busy; in the thread that notices it."""
        with self._ready:
            self._when_idle.append(callback)
        self._notify_if_idle()

    def busy(self) -> list[str]:
        """Name the threads that run a job and do not wait for the loop."""
        with self._ready:
            return [thread.name for thread in self._busy - self._waiting]

    def _notify_if_idle(self) -> None:
        with self._ready:
            if self._busy - self._waiting:
                return
            callbacks, self._when_idle = self._when_idle, []
        for callback in callbacks:
            callback()

    def _grow(self) -> None:
        idle = len(self._alive) - len(self._busy)
        if len(self._jobs) > idle and len(self._alive) - len(self._waiting) < self._bound:
            try:
                self._start_one()
            except RuntimeError:  # out of threads, or at interpreter shutdown: the existing threads must do
                if not self._alive:
                    raise

    def _start_one(self) -> None:
        thread = daemon_thread(self._work, f"{self._name}-worker")
        self._alive.add(thread)
        try:
            thread.start()
        except BaseException:
            self._alive.discard(thread)
            raise

    def _work(self) -> None:
        adopt(self)
        while (job := self._next()) is not None:
            future, work = job
            if future.set_running_or_notify_cancel():
                run_into(future, work)
            del job, future, work  # an idle thread must not keep a result alive
            with self._ready:
                self._busy.discard(threading.current_thread())
            if self._when_idle:
                self._notify_if_idle()

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        thread = threading.current_thread()
        with self._ready:
            while not self._jobs and not self._closed:
                self._ready.wait()
            if self._jobs:
                self._busy.add(thread)
                return self._jobs.popleft()
            self._alive.discard(thread)
            return None


def run_into(future: Future[Any], work: Callable[[], Any]) -> None:
    """Call a function and give its result or its error to a future."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - the future carries it to the caller
        future.set_exception(error)
    else:
        future.set_result(result)
