"""Call: the handle of one coroutine that was submitted to a runtime.

Theory of operation. The submitting thread makes the Call and queues it. The loop begins it as one task and finishes
it exactly once. Each waiting thread waits on one raw lock, which `_finish` releases. A lock is cheaper than a
Future's condition variable. Its time limit returns a bool, so a TimeoutError that the coroutine itself raises is
never mistaken for "not ready yet". The task runs `_drive`, which delivers the outcome itself, so no done-callback is
scheduled. It catches BaseException: SystemExit and KeyboardInterrupt reach the caller and do not stop the loop.

A task that is cancelled before its first step never enters its coroutine, and `_drive` could not deliver. So where
tasks do not start eagerly, `_drive` first runs up to a suspension inside its try block, and then the task gets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from _thread import get_ident
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from inspect import isawaitable
from types import CoroutineType, coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import awaiting
from .errors import RuntimeClosedError, shown
from .guards import blocking, descend, set_line
from .waiting import taken_lock, waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from .loop import LoopThread

T = TypeVar("T")

EAGER = sys.version_info >= (3, 12)
_NOTHING: Any = None
_eager_task: Callable[..., asyncio.Task[None]]
if sys.version_info >= (3, 12):
    _eager_task = partial(asyncio.Task, eager_start=True)
else:
    _eager_task = asyncio.Task


class Call(Generic[T]):
    """One submitted coroutine: wait for it in any thread, await it on any loop, cancel it from anywhere."""

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_context",
        "_coro",
        "_done",
        "_stopped_by",
        "_timeout",
        "_timer",
        "error",
        "finish_at_exit",
        "serial",
        "submitted",
        "task",
        "thread",
        "value",
        "waited_by",
    )

    def __init__(self, thread: LoopThread, coro: Coroutine[Any, Any, T], timeout: float | None = None) -> None:
        """Take the coroutine and copy the caller's context; `LoopThread.submit` queues the call."""
        if type(coro) is not CoroutineType or timeout is not None:
            _refuse_wrong(coro, timeout)
        self.thread = thread
        self._coro: Coroutine[Any, Any, T] | None = coro
        self._timeout = timeout
        self._context = copy_context()
        line = descend()
        self.serial = line[-1]
        self._context.run(set_line, line)
        self.submitted = False
        self.finish_at_exit = False
        self.waited_by: int | None = None
        self._done = False
        self.value: T = _NOTHING  # valid once the call is done without an error
        self.error: BaseException | None = None  # valid once the call is done
        self.task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopped_by: str | None = None
        self._callbacks: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        """Name the coroutine, the runtime and the state."""
        state = "running" if not self._done else "failed" if self.error is not None else "done"
        return f"<Call {self.name} on {self.thread.name}: {state}>"

    @property
    def name(self) -> str:
        """The coroutine's qualified name."""
        return getattr(self._coro, "__qualname__", None) or repr(self._coro)

    def done(self) -> bool:
        """Return whether the coroutine has ended, its cleanup included."""
        return self._done

    def result(self, timeout: float | None = None) -> T:
        """Wait for the coroutine; return its result or raise its error.

        Raise TimeoutError after `timeout` seconds without an outcome. The coroutine keeps running then, as with any
        future.
        """
        self._wait_guarded(timeout)
        error = self.error
        if error is None:
            return self.value
        try:
            raise error
        finally:
            del error, self  # the traceback holds this frame, and the call the error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait like `result`; return the coroutine's error, or None."""
        self._wait_guarded(timeout)
        return self.error

    def _wait_guarded(self, timeout: float | None) -> None:
        if self._done:
            return
        with blocking(self.thread, self.serial):
            if not self.wait(timeout):
                message = f"{self.name} on {self.thread.name} is not done after {timeout:g} s; it keeps running"
                raise TimeoutError(message)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the coroutine has ended; return False after `timeout` seconds without an outcome."""
        if self._done:
            return True
        self.waited_by = get_ident()
        lock = taken_lock()
        self.when_done(lock.release)
        return waiter().wait(lock, timeout)

    def cancel(self, message: str | None = None) -> bool:
        """Request the coroutine's cancellation, from any thread; return False if it has already ended."""
        if self._done:
            return False
        try:
            self.thread.post(self.cancel_here, message)
        except RuntimeClosedError as error:
            self.fail(error)
        return True

    def future(self) -> Future[T]:
        """Return a concurrent.futures.Future of the outcome; cancelling it cancels the call."""
        future: Future[T] = Future()
        future.add_done_callback(lambda ended: self.cancel() if ended.cancelled() else None)
        self.when_done(lambda: self._settle(future))
        return future

    def __await__(self) -> Generator[Any, None, T]:
        """Wait on the running loop, the runtime's own or another."""
        return awaiting.outcome(self).__await__()

    async def joined(self) -> T:
        """Wait on the running loop without owning the call: cancelling the wait leaves the coroutine running."""
        return await awaiting.outcome(self, owned=False)

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once: on the loop's thread, or here and now if the call is already done."""
        self._callbacks.append(callback)
        if self._done:
            self._run_callbacks()

    def forget(self, callback: Callable[[], None]) -> None:
        """Take back a callback of `when_done`, unless it has been called."""
        with contextlib.suppress(ValueError):  # the loop's thread has taken it
            self._callbacks.remove(callback)

    # The methods below run on the loop's thread, except `fail` once that thread is gone.

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the task. An error here fails this call only."""
        coro = self._coro
        if self._done or coro is None:
            return
        driver = None
        try:
            self.thread.calls.add(self)
            if EAGER and loop.get_task_factory() is None:
                driver = self._drive(coro)
                task = _eager_task(driver, loop=loop, context=self._context, name=self.name)
            else:
                driver = self._drive(coro, primed=True)
                driver.send(None)
                task = loop.create_task(driver, name=self.name, context=self._context)
            if self.done():
                return
            self.task = task
            if self._timeout is not None:
                self._timer = loop.call_later(self._timeout, self._expire)
        except BaseException as error:  # noqa: BLE001 - a task factory may raise anything; the caller gets it
            self._finish(_NOTHING, error)
            coro.close()
            if driver is not None:
                driver.close()
        finally:
            del self  # as in _drive

    async def _drive(self, coro: Coroutine[Any, Any, T], *, primed: bool = False) -> None:
        try:
            if primed:
                await _pause()
            value = await coro
        except BaseException as error:  # noqa: BLE001 - every kind of exception goes to the caller
            if error.__traceback__ is not None:
                error.__traceback__ = error.__traceback__.tb_next  # this frame would make a reference cycle
            coro.close()  # has an effect only if the coroutine has not begun
            self._finish(_NOTHING, self._translate(error))
        else:
            self._finish(value, None)
        finally:
            del self, coro  # a traceback may hold this frame, as the caller of an eagerly started coroutine

    def _translate(self, error: BaseException) -> BaseException:
        """Return the error that names the reason, if it was the runtime that cancelled the task."""
        if self._stopped_by is None or not isinstance(error, asyncio.CancelledError):
            return error
        translated: BaseException
        if self._stopped_by == "timeout":
            translated = TimeoutError(
                f"{self.name} on {self.thread.name} did not end within {self._timeout:g} s and was cancelled"
            )
        else:
            translated = RuntimeClosedError(f"{self.name} was cancelled: {self.thread.name} is being closed")
        translated.__cause__ = error
        return translated

    def _finish(self, value: T, error: BaseException | None) -> None:
        if self._done:
            return
        self._done = True
        self.value = value
        self.error = error
        self.task = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.thread.calls.discard(self)
        if self._callbacks:
            self._run_callbacks()

    def fail(self, error: BaseException) -> None:
        """End the call with an error: the loop does not run its coroutine, or no longer does."""
        coro, begun = self._coro, self.task is not None
        self._finish(_NOTHING, error)
        if coro is not None and not begun:
            with contextlib.suppress(ValueError, RuntimeError):  # it runs right now, or refuses to end
                coro.close()

    def disown(self, error: BaseException) -> None:
        """End the call in a forked child, whose copy of the task never runs."""
        self._done = True
        self.error = error
        self._run_callbacks()

    def close(self) -> None:
        """Cancel the task because the runtime closes; the caller gets RuntimeClosedError."""
        self._stopped_by = "close"
        if self.task is not None:
            self.task.cancel(f"{self.thread.name} is being closed")

    def _expire(self) -> None:
        self._stopped_by = "timeout"
        if self.task is not None:
            self.task.cancel()

    def cancel_here(self, message: str | None = None) -> None:
        """Cancel the task; `cancel` does this from any thread."""
        if self._done:
            return
        self._stopped_by = None
        if self.task is not None:
            self.task.cancel(message)
        else:
            self.fail(asyncio.CancelledError(*([] if message is None else [message])))

    def _run_callbacks(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.pop()
            except IndexError:  # another thread took the last callback
                return
            callback()

    def _settle(self, future: Future[T]) -> None:
        if self.thread.inherited:  # a thread that does not exist in the child may hold its lock
            return
        if isinstance(self.error, asyncio.CancelledError):
            future.cancel()
        elif not future.set_running_or_notify_cancel():
            return
        elif self.error is not None:
            future.set_exception(self.error)
        else:
            future.set_result(self.value)


def _refuse_wrong(coro: object, timeout: float | None) -> None:
    """Raise if `coro` is not a coroutine, or `timeout` not a number of seconds."""
    if isinstance(coro, asyncio.Future):
        message = f"{coro!r} already belongs to a loop; pass the coroutine itself, or await the future there"
        raise ValueError(message)  # noqa: TRY004 - the type may be right on another loop
    if not asyncio.iscoroutine(coro):
        hint = (
            "call it"
            if callable(coro)
            else "wrap it in an `async def` that awaits it"
            if isawaitable(coro)
            else "pass one"
        )
        message = f"expected a coroutine, as `async def` functions return, not {shown(coro)}: {hint}"
        raise TypeError(message)
    if timeout is not None and not timeout >= 0:
        message = f"timeout must be None or a number of seconds of at least 0, not {shown(timeout)}"
        raise ValueError(message)


@coroutine
def _pause() -> Generator[None, None, None]:
    """Suspend once."""
    yield
