"""Awaiting: how a task of any event loop, the runtime's own included, awaits a call.

The awaiting task suspends on a future of its own loop; the end of the call resolves that future.

If the awaiting task is cancelled, the call is cancelled too. The task leaves when the call's cleanup has finished, at
most a grace later, as with `await coro` on one loop. If another party cancels the call, the awaiting task itself is not
cancelled. A CancelledError would then mislead its TaskGroup or asyncio.timeout, so it gets CallCancelledError instead.

A task can also await a call that it does not own: what happens to the task is then no concern of the call.

A loop that is closed, or stopped for longer than the grace, can no longer be notified. The runtime polls the awaiting
loops and cancels the calls that such a loop owns.

Polling also wakes a loop that is asleep. A signal handler that schedules its work with `call_soon` does not wake the
loop that it interrupted: the kernel of a notebook does so (ipykernel#881), and an interrupt would stay unnoticed until
the call ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from _thread import get_ident
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from . import guards
from .errors import CallCancelledError, RuntimeClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import LoopThread

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

POLL_EVERY = 0.25  # seconds between two checks of an awaiting loop


class Awaited(Protocol[T_co]):
    """A call, as the task that awaits it sees it."""

    waited_by: int | None
    """The identity of the last thread that began to wait for the call."""

    @property
    def thread(self) -> LoopThread:
        """The loop thread that runs the call."""
        ...

    @property
    def name(self) -> str:
        """The coroutine's name."""
        ...

    def done(self) -> bool:
        """Return whether the coroutine has ended."""
        ...

    def result(self) -> T_co:
        """Return the result of a call that is done, or raise its error."""
        ...

    def exception(self) -> BaseException | None:
        """Return the error of a call that is done, or None."""
        ...

    def cancel(self, message: str | None = None) -> bool:
        """Request cancellation from any thread."""
        ...

    def cancel_here(self, message: str | None = None) -> None:
        """Cancel the call; on its loop's thread."""
        ...

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the call is done."""
        ...

    def forget(self, callback: Callable[[], None]) -> None:
        """Take back a callback of `when_done`."""
        ...


async def outcome(call: Awaited[T], *, owned: bool = True) -> T:
    """Wait for `call` on the running loop; return its result or raise its error.

    Cancelling the wait for a call that is `owned` cancels the call.
    """
    if not call.done():
        _refuse_other_hosts(call, owned=owned)
        if guards.blocked:
            guards.refuse_ancestor(call.thread)
        call.waited_by = get_ident()
        await _ended(call, owned=owned)
    if not call.done():  # the runtime gave up on its loop
        raise call.thread.closed_error()
    error = call.exception()
    if isinstance(error, asyncio.CancelledError):
        message = f"{call.name} on {call.thread.name} was cancelled, but the task that awaits it was not"
        raise CallCancelledError(*([f"{message}: {error}"] if error.args else [message])) from error
    return call.result()


def _refuse_other_hosts(call: Awaited[Any], *, owned: bool) -> None:
    try:
        guards.refuse_other_hosts(f"awaiting {call.name}", "result()")
    except RuntimeError:
        if owned:
            call.cancel()
        raise


async def _ended(call: Awaited[Any], *, owned: bool) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def notify() -> None:
        _notify(call, ended)

    call.when_done(notify)
    if loop is not call.thread.loop:
        with contextlib.suppress(RuntimeClosedError):
            call.thread.post(_watch, call, ended, 0.0, owned)
    try:
        await ended
    except BaseException as error:  # this task is cancelled, or this coroutine is being closed
        if not owned:
            call.forget(notify)
            raise
        call.cancel(*[str(arg) for arg in error.args[:1]])
        if isinstance(error, asyncio.CancelledError):
            await _cleaned_up(call, loop)
            _prefer_failure(call, error)
        raise


async def _cleaned_up(call: Awaited[Any], loop: asyncio.AbstractEventLoop) -> None:
    """Wait for the end of a cancelled call, at most the grace; a second cancellation ends the wait at once."""
    ended = loop.create_future()
    call.when_done(lambda: _notify(call, ended))
    await asyncio.wait([ended], timeout=call.thread.settings.grace)


def _prefer_failure(call: Awaited[Any], cancelled: BaseException) -> None:
    """Raise an error of the call's cleanup, as a plain await would."""
    error = call.exception() if call.done() else None
    if error is not None and not isinstance(error, (asyncio.CancelledError, RuntimeClosedError)):
        raise error from cancelled


def _notify(call: Awaited[Any], ended: asyncio.Future[None]) -> None:
    if call.thread.inherited:  # the awaiting loop is inherited too: waking it would wake the parent
        return
    with contextlib.suppress(RuntimeError):  # that loop is closed: no task waits there any more
        ended.get_loop().call_soon_threadsafe(_resolve, ended)


def _resolve(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _watch(call: Awaited[Any], ended: asyncio.Future[None], stopped_for: float, owned: bool) -> None:  # noqa: FBT001 - `post` and `call_later` take no keywords
    """Poll the awaiting loop, from the runtime's own: wake it, or cancel its own call if it is gone."""
    loop, own = ended.get_loop(), call.thread.loop
    if call.done() or ended.done() or own is None:
        return
    running, closed = loop.is_running(), loop.is_closed()
    if running:
        with contextlib.suppress(RuntimeError):  # it was closed a moment ago
            loop.call_soon_threadsafe(_nothing)
    stopped_for = 0.0 if running else stopped_for + POLL_EVERY
    if owned and (closed or stopped_for > call.thread.settings.grace):
        call.cancel_here(f"the loop that awaited it {'is closed' if closed else 'has stopped'}")
    elif not closed:
        own.call_later(POLL_EVERY, _watch, call, ended, stopped_for, owned)


def _nothing() -> None:
    """Do nothing; between two steps of a loop Python runs its signal handlers."""
