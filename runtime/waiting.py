"""How a thread waits for a call: on one raw lock, cheaply; in slices where it must look around meanwhile.

A lock acquired without a time limit costs one futex. Three kinds of threads need more. The main thread runs the signal
handlers: a signal that arrives between Python's last look at its signals and the futex would stay unnoticed for as
long as the wait lasts, and on Windows a blocked lock hides Ctrl-C altogether. A worker thread of anyio (a sync FastAPI
handler) must notice that its host scope was cancelled. A worker of our own must give its place in the pool away while
it waits. Which kind a thread is never changes, so it is found out once per thread.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import time
from _thread import allocate_lock
from queue import Empty
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from queue import SimpleQueue

T = TypeVar("T")

SLICE = 0.1  # seconds; how late, at worst, a signal and a cancelled anyio scope are noticed


class Waiter:
    """The way of waiting of an ordinary thread: nothing can interrupt it."""

    def wait(self, lock: LockType, seconds: float | None) -> bool:
        """Acquire the lock; return False if that takes longer than `seconds`."""
        if seconds is None:
            return lock.acquire()
        return lock.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))

    def take(self, queue: SimpleQueue[T]) -> T:
        """Take the next item of a queue."""
        return queue.get()


class SlicedWaiter(Waiter):
    """Wakes ten times a second, so that signals are delivered and `look` can raise what must end the wait."""

    def __init__(self, look: Callable[[], object]) -> None:
        """Take what to look at between two slices."""
        self._look = look

    def wait(self, lock: LockType, seconds: float | None) -> bool:
        """Acquire the lock in slices; whatever `look` raises ends the wait."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            left = SLICE if end is None else min(SLICE, end - time.monotonic())
            if lock.acquire(timeout=max(left, 0.0)):
                return True
            if end is not None and time.monotonic() >= end:
                return False
            self._look()

    def take(self, queue: SimpleQueue[T]) -> T:
        """Take the next item of a queue; whatever `look` raises ends the wait."""
        while True:
            try:
                return queue.get(timeout=SLICE)
            except Empty:
                self._look()


class Pool(Protocol):
    """What a waiting worker thread needs from its pool."""

    def waiting(self) -> AbstractContextManager[None]:
        """Free the calling thread's place in the pool for the length of the block."""
        ...


class WorkerWaiter(Waiter):
    """Frees its place in the pool while it waits, so that another worker can run."""

    def __init__(self, pool: Pool) -> None:
        """Take the pool that the thread belongs to."""
        self._pool = pool

    def wait(self, lock: LockType, seconds: float | None) -> bool:
        """Acquire the lock with the place in the pool given away."""
        with self._pool.waiting():
            return super().wait(lock, seconds)

    def take(self, queue: SimpleQueue[T]) -> T:
        """Take the next item of a queue, with the place in the pool given away."""
        with self._pool.waiting():
            return super().take(queue)


class Gate:
    """Opens once, and lets everybody through.

    Every waiter has a lock of its own: one shared lock, taken and handed on, would be lost with whoever is interrupted
    in between.
    """

    def __init__(self) -> None:
        """Begin closed."""
        self._open = False
        self._locks: list[LockType] = []

    def open(self) -> None:
        """Let everybody through, now and from now on."""
        self._open = True
        while self._locks:
            with contextlib.suppress(IndexError):  # another thread, opening it too, was faster
                self._locks.pop().release()

    def is_open(self) -> bool:
        """Say whether it has been opened."""
        return self._open

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is open; return False if that takes longer than `seconds`."""
        if self.is_open():
            return True
        lock = taken_lock()
        self._locks.append(lock)
        if self.is_open():  # opened meanwhile, perhaps without having seen this lock
            return True
        return waiter().wait(lock, seconds)


def taken_lock() -> LockType:
    """Return a lock for one waiter: acquired, so that the next acquire waits until somebody releases it."""
    lock = allocate_lock()
    lock.acquire()
    return lock


class _Here(threading.local):
    waiter: Waiter | None = None


_here = _Here()
_plain = Waiter()


def adopt(pool: Pool) -> None:
    """Record that the calling thread is a worker of `pool`."""
    _here.waiter = WorkerWaiter(pool)


def waiter() -> Waiter:
    """Return the way the calling thread waits."""
    found = _here.waiter
    if found is None:
        found = _here.waiter = _find()
    return found


def _find() -> Waiter:
    check = _anyio_check()
    if check is not None:
        return SlicedWaiter(check)
    if threading.current_thread() is threading.main_thread():
        return SlicedWaiter(_nothing)
    return _plain


def _nothing() -> None:
    """Only give Python a moment to run its signal handlers."""


def _anyio_check() -> Callable[[], object] | None:
    """Return anyio's check_cancelled if the calling thread is one of anyio's workers."""
    if "anyio" not in sys.modules:
        return None
    check: Callable[[], object] = importlib.import_module("anyio.from_thread").check_cancelled
    with contextlib.suppress(RuntimeError):  # what anyio raises on threads that are not its own
        check()
        return check
    return None
