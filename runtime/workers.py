"""Workers: the loop's default executor, whose threads do not count against its bound while they wait for the loop.

Theory of operation. `asyncio.to_thread`, DNS look-ups and file work of everything that runs on the loop go through one
executor. A plain ThreadPoolExecutor is wrong here in three ways. It is bounded, so blocking work that calls back into
the loop, which starts more blocking work, deadlocks as soon as the nesting is deeper than the pool. Its threads are
joined at interpreter exit without a limit, so one stuck thread hangs the process. And CPython 3.12.0 and 3.12.1 cannot
start threads once the interpreter shuts down, although cleanup that runs then may need one. So: daemon threads; a
thread that waits for the loop hands its place to another; one idle thread is kept in reserve where starting one at
exit would be refused.
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
    """Make a daemon thread whose context is empty, also where threads inherit their creator's (free-threaded 3.14)."""
    if sys.version_info >= (3, 14):
        return threading.Thread(target=target, name=name, daemon=True, context=Context())
    return threading.Thread(target=target, name=name, daemon=True)


class Workers(ThreadPoolExecutor):
    """An executor of daemon threads; a ThreadPoolExecutor in name, because event loops accept nothing else."""

    def __init__(self, name: str, bound: int = BOUND) -> None:
        """Start no thread yet, but where that would be refused when it is needed."""
        super().__init__(max_workers=1)  # starts no thread; nothing of it is used but its type
        self._name = name
        self._bound = bound
        self._ready = threading.Condition(threading.Lock())
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._alive: set[threading.Thread] = set()
        self._busy: set[threading.Thread] = set()
        self._waiting: set[threading.Thread] = set()  # busy, but waiting for the loop
        self._closed = False
        self._when_idle: list[Callable[[], object]] = []
        if THREADS_REFUSED_AT_EXIT:
            with self._ready, contextlib.suppress(RuntimeError):  # it is too late already
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
        """Give the calling worker's place to another thread for the length of the block."""
        thread = threading.current_thread()
        with self._ready:
            self._waiting.add(thread)
            self._grow()
        try:
            self._tell_if_idle()
            yield
        finally:
            with self._ready:
                self._waiting.discard(thread)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - its parent's
        """Take no more jobs; let the threads end after those that are queued."""
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
        """Have `callback` called once, as soon as no thread is busy; in whichever thread sees it."""
        with self._ready:
            self._when_idle.append(callback)
        self._tell_if_idle()

    def busy(self) -> list[str]:
        """Name the threads that are carrying out a job and do not wait for the loop."""
        with self._ready:
            return [thread.name for thread in self._busy - self._waiting]

    def _tell_if_idle(self) -> None:
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
            except RuntimeError:  # no more threads, or the interpreter is going away: the ones there are must do
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
                _carry_out(future, work)
            del job, future, work  # an idle thread must keep no result alive
            with self._ready:
                self._busy.discard(threading.current_thread())
            if self._when_idle:
                self._tell_if_idle()

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


def _carry_out(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - the future carries it to whoever asked
        future.set_exception(error)
    else:
        future.set_result(result)
