"""How a call is awaited: from any event loop, the runtime's own included.

The awaiting task suspends on a future of its own loop, which the end of the call resolves. If the awaiting task is
cancelled, so is the call, and the task leaves when the call's cleanup is done, at most a grace later: what `await
coro` on one loop would do. If the call was cancelled by somebody else, the awaiting task was not, and a CancelledError
would tell its TaskGroup or asyncio.timeout a lie; it gets CallCancelledError instead. A loop that was closed, or has
stopped for longer than the grace, can never be told; the runtime looks for such loops now and then, and cancels what
they were waiting for.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from . import guards
from .errors import CallCancelledError, RuntimeClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import LoopThread

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

LOOK_EVERY = 0.25  # seconds between two looks at an awaiting loop


class Awaited(Protocol[T_co]):
    """A call, as the task that awaits it sees it."""

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


async def outcome(call: Awaited[T]) -> T:
    """Wait for `call` on the running loop, and return or raise its outcome."""
    if not call.done():
        if guards.blocked:
            guards.refuse_ancestor(call.thread)
        await _ended(call)
    if not call.done():  # the runtime gave it up
        raise call.thread.closed_error()
    error = call.exception()
    if isinstance(error, asyncio.CancelledError):
        message = f"{call.name} on {call.thread.name} was cancelled, though the task that awaits it was not"
        raise CallCancelledError(*([f"{message}: {error}"] if error.args else [message])) from error
    return call.result()


async def _ended(call: Awaited[Any]) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    call.when_done(lambda: _tell(call, ended))
    if loop is not call.thread.loop:
        with contextlib.suppress(RuntimeClosedError):
            call.thread.post(_watch, call, ended, 0.0)
    try:
        await ended
    except BaseException as error:  # cancelled, or this coroutine is being closed
        call.cancel(*[str(arg) for arg in error.args[:1]])
        if isinstance(error, asyncio.CancelledError):
            await _cleaned_up(call, loop)
            _prefer_failure(call, error)
        raise


async def _cleaned_up(call: Awaited[Any], loop: asyncio.AbstractEventLoop) -> None:
    """Wait for the end of a cancelled call, at most the grace; a second cancellation leaves at once."""
    ended = loop.create_future()
    call.when_done(lambda: _tell(call, ended))
    await asyncio.wait([ended], timeout=call.thread.settings.grace)


def _prefer_failure(call: Awaited[Any], cancelled: BaseException) -> None:
    """Raise what the call's cleanup raised, as a plain await would."""
    error = call.exception() if call.done() else None
    if error is not None and not isinstance(error, (asyncio.CancelledError, RuntimeClosedError)):
        raise error from cancelled


def _tell(call: Awaited[Any], ended: asyncio.Future[None]) -> None:
    if call.thread.inherited:  # and so is the loop that awaits it: waking it would wake the parent's
        return
    with contextlib.suppress(RuntimeError):  # that loop is closed: nobody is waiting there any more
        ended.get_loop().call_soon_threadsafe(_resolve, ended)


def _resolve(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _watch(call: Awaited[Any], ended: asyncio.Future[None], stopped_for: float) -> None:
    """Look at the awaiting loop, on the runtime's own; cancel the call once nobody can be waiting there."""
    loop, own = ended.get_loop(), call.thread.loop
    if call.done() or ended.done() or own is None:
        return
    stopped_for = 0.0 if loop.is_running() else stopped_for + LOOK_EVERY
    if loop.is_closed():
        call.cancel_here("the loop that awaited it is closed")
    elif stopped_for > call.thread.settings.grace:
        call.cancel_here("the loop that awaited it has stopped")
    else:
        own.call_later(LOOK_EVERY, _watch, call, ended, stopped_for)
