"""Waiting: how a thread waits for a call, on one raw lock or in short slices.

A lock acquired without a time limit costs one futex. Three kinds of threads need more:

- The main thread runs the signal handlers. A signal that arrives between Python's last check and the futex would stay
  unnoticed until the wait ends, and on Windows a blocked lock hides Ctrl-C altogether.
- A worker thread of anyio (a sync FastAPI handler) must notice that its host scope was cancelled.
- A worker thread of the runtime's own must free its place in the pool while it waits.

The kind of a thread never changes, so each thread determines it once.
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

SLICE = 0.1  # seconds; the longest delay until a signal or a cancelled anyio scope is noticed


class Waiter:
    """Waits as an ordinary thread does: nothing can interrupt it."""

    def wait(self, lock: LockType, seconds: float | None) -> bool:
        """Acquire the lock; return False after `seconds` without success."""
        if seconds is None:
            return lock.acquire()
        return lock.acquire(timeout=min(max(seconds, 0.0), threading.TIMEOUT_MAX))

    def take(self, queue: SimpleQueue[T]) -> T:
        """Wait for the next item of a queue and return it."""
        return queue.get()


class SlicedWaiter(Waiter):
    """Wakes ten times a second: Python delivers signals then, and `look` can end the wait by raising."""

    def __init__(self, look: Callable[[], object]) -> None:
        """Take the function that is called between two slices."""
        self._look = look

    def wait(self, lock: LockType, seconds: float | None) -> bool:
        """Acquire the lock in slices; an exception from `look` ends the wait."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            left = SLICE if end is None else min(SLICE, end - time.monotonic())
            if lock.acquire(timeout=max(left, 0.0)):
                return True
            if end is not None and time.monotonic() >= end:
                return False
            self._look()

    def take(self, queue: SimpleQueue[T]) -> T:
        """Wait for the next item of a queue in slices; an exception from `look` ends the wait."""
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
        """Acquire the lock; another worker may run meanwhile."""
        with self._pool.waiting():
            return super().wait(lock, seconds)

    def take(self, queue: SimpleQueue[T]) -> T:
        """Wait for the next item of a queue; another worker may run meanwhile."""
        with self._pool.waiting():
            return super().take(queue)


class Gate:
    """Opens once, and then lets every waiter through.

    Each waiter has its own lock. A single lock, passed from waiter to waiter, would be lost if one of them were
    interrupted while holding it.
    """

    def __init__(self) -> None:
        """Start closed."""
        self._open = False
        self._locks: list[LockType] = []

    def open(self) -> None:
        """Let all waiters through, now and later."""
        self._open = True
        while self._locks:
            with contextlib.suppress(IndexError):  # another thread opens the gate at the same time
                self._locks.pop().release()

    def is_open(self) -> bool:
        """Return whether the gate is open."""
        return self._open

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the gate is open; return False after `seconds` without success."""
        if self.is_open():
            return True
        lock = taken_lock()
        self._locks.append(lock)
        if self.is_open():  # it opened meanwhile, perhaps before this lock was in the list
            return True
        return waiter().wait(lock, seconds)


def taken_lock() -> LockType:
    """Return an acquired lock for one waiter: the next acquire blocks until another thread releases it."""
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
    """Return the waiter of the calling thread."""
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
    """Do nothing; between two slices Python runs its signal handlers."""


def _anyio_check() -> Callable[[], object] | None:
    """Return anyio's check_cancelled if the calling thread is one of anyio's workers."""
    if "anyio" not in sys.modules:
        return None
    check: Callable[[], object] = importlib.import_module("anyio.from_thread").check_cancelled
    with contextlib.suppress(RuntimeError):  # anyio raises it on threads that are not its own
        check()
        return check
    return None
