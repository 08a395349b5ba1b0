"""LoopThread: one daemon thread that runs one event loop, from the first call to the end.

Theory of operation. A LoopThread lives once: NEW -> RUNNING -> DRAINING -> CLOSED. The thread makes the loop itself
and publishes it from a callback of the running loop. (A flag that is set before run_forever would show racing first
callers a loop that does not run.) All first callers wait for this one attempt. If it fails, each of them gets the
error, and the Runtime makes a new LoopThread for its next call. After a fork the child also makes a new one. It drops
the inherited loop without closing it: parent and child share the selector, and closing would unregister the parent's
sockets.

Calls go through a deque. A submitter that finds the flag `_waking` down raises it and wakes the loop, so many
submissions cost one wake-up. The loop lowers the flag before it empties the deque, so no call is left behind. An
interrupt between raising and waking would leave the flag up for ever. It can only surface inside
call_soon_threadsafe, and the failure of that lowers the flag. Builds without a GIL do not guarantee the order of the
two writes; there every call wakes the loop.

A submitter may lose the race against the end of the loop. Its call is then still in the deque after the state became
CLOSED. Both sides empty the deque in that case, and fail the calls that they find.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import traceback
from _thread import get_ident
from collections import deque
from contextvars import Context
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .errors import RuntimeClosedError
from .generators import Generators
from .resources import Resources
from .waiting import Gate
from .workers import Workers, daemon_thread

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

ONE_WAKE_UP = getattr(sys, "_is_gil_enabled", lambda: True)()


class State(Enum):
    """The one-way life of a loop thread."""

    NEW = "new"
    RUNNING = "running"
    DRAINING = "draining"
    CLOSED = "closed"


class Settings(NamedTuple):
    """The settings of a runtime; times in seconds."""

    name: str
    grace: float  # how long a caller that gives up waits for the cleanup of its call
    exit_budget: float  # how long closing may take in total
    strict: bool  # whether a blocking call that stops another loop is an error
    factory: Callable[[], AbstractEventLoop]


class Submission(Protocol):
    """A call, as the loop thread that runs it sees it."""

    submitted: bool
    finish_at_exit: bool
    task: asyncio.Task[None] | None

    @property
    def name(self) -> str:
        """The coroutine's name."""
        ...

    @property
    def waited_by(self) -> int | None:
        """The identity of the last thread that began to wait for the call."""
        ...

    def begin(self, loop: AbstractEventLoop) -> None:
        """Start the task."""
        ...

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the call is done."""
        ...

    def close(self) -> None:
        """Cancel the task because the runtime closes."""
        ...

    def fail(self, error: BaseException) -> None:
        """End the call with an error without running its coroutine any further."""
        ...

    def disown(self, error: BaseException) -> None:
        """End the call with an error in a forked child, which must not touch the parent's task."""
        ...


class LoopThread:
    """One thread, one loop, one life."""

    def __init__(self, settings: Settings) -> None:
        """Prepare the thread; `start` starts it."""
        self.settings = settings
        self.name = settings.name
        self.state = State.NEW
        self.loop: AbstractEventLoop | None = None
        self.workers: Workers | None = None
        self.calls: set[Submission] = set()  # begun and not ended; used on the loop's thread only
        self.resources = Resources()
        self.generators = Generators(self.post)
        self.inherited = False  # whether this is a forked child's copy of the parent's
        self.refusing = False  # whether queued calls are refused
        self.holding = False  # whether calls that may finish at exit have to wait for the end of the draining
        self.cause: BaseException | None = None  # the error that ended it; None if it was closed
        self._thread = daemon_thread(self._main, f"rowloop-{settings.name}")
        self._starts: deque[Submission] = deque()
        self._held: list[Submission] = []
        self._context = Context()  # empty; one per loop, because two threads cannot enter one context
        self._waking = False
        self._stopping = False
        self.published = Gate()  # open once the loop runs, or once it is known that it never will
        self._ended = Gate()

    # Any thread.

    def start(self) -> None:
        """Start the thread; `wait_started` reports the outcome."""
        self._thread.start()

    @property
    def begun(self) -> bool:
        """Whether `start` has been called."""
        return self._thread.ident is not None

    @property
    def failed_to_start(self) -> bool:
        """Whether the thread ended before its loop ran."""
        return self.loop is None and self.state is State.CLOSED

    def wait_started(self) -> None:
        """Wait until the loop runs; raise the error that prevents it."""
        self.published.wait()
        if self.loop is None and self.cause is not None:
            raise self.cause

    def is_current(self) -> bool:
        """Return whether the calling thread is the loop's, and the loop runs in it."""
        return self._thread.ident == get_ident() and self.loop is asyncio._get_running_loop()  # noqa: SLF001 - None, not an error

    def submit(self, call: Submission) -> None:
        """Queue `call`; the loop begins calls in the order of submission."""
        call.submitted = True
        self._starts.append(call)
        if not (self._waking and ONE_WAKE_UP):
            self._waking = True
            try:
                self.loop.call_soon_threadsafe(self._begin_calls, context=self._context)  # type: ignore[union-attr] # it runs
            except BaseException:
                self._waking = False
                if self.state is not State.CLOSED:
                    raise
        if self.state is State.CLOSED:
            self._refuse_queued()

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Run `callback` soon on the loop; raise RuntimeClosedError if the loop has ended."""
        if self.loop is None or self.state is State.CLOSED:
            raise self.closed_error()
        try:
            self.loop.call_soon_threadsafe(callback, *args, context=Context())
        except RuntimeError as error:  # the loop was closed a moment ago
            raise self.closed_error() from error

    def closed_error(self) -> RuntimeClosedError:
        """Return the error that reports why the loop cannot do the work."""
        if self.inherited:
            return RuntimeClosedError(
                f"this began on {self.name} before the process forked, and belongs to the parent process"
            )
        if self.cause is None:
            return RuntimeClosedError(f"{self.name} is closed and runs nothing any more")
        error = RuntimeClosedError(f"the loop thread of {self.name} died of {self.cause!r}")
        error.__cause__ = self.cause
        return error

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread; return False after `seconds` without it."""
        return self._ended.wait(seconds)

    def stack(self) -> str:
        """Return the current stack of the loop's thread, in the form of a traceback."""
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - the only way to inspect another thread
        return "".join(traceback.format_stack(frame)) if frame is not None else "  (the thread has ended)\n"

    def stop_if_idle(self) -> None:
        """End the loop and the thread if no task is left; wait briefly for the end."""
        if self.loop is not None and self.state is not State.CLOSED and not asyncio.all_tasks(self.loop):
            self.refusing = True
            with contextlib.suppress(RuntimeClosedError):
                self.post(self.stop_here)
                self.join(0.5)

    def give_up(self) -> None:
        """Fail all calls from another thread: the loop is blocked, and no caller may wait for it."""
        self.state = State.CLOSED
        for call in (*self.calls, *self._held):
            call.fail(self.closed_error())
        self._refuse_queued()

    def disown(self) -> None:
        """Leave everything to the parent, in a forked child: close and wake nothing, and fail the calls."""
        self.inherited = True
        self.state = State.CLOSED
        for call in (*self.calls, *self._held, *self._starts):
            call.disown(self.closed_error())

    # The loop's thread.

    def _main(self) -> None:
        loop = None
        try:
            loop = self.settings.factory()
            asyncio.set_event_loop(loop)
            self.workers = Workers(self._thread.name)
            loop.set_default_executor(self.workers)
            loop.call_soon(self._publish, loop)
            self._serve(loop)
        except BaseException as error:  # noqa: BLE001 - every caller gets it
            self.cause = error
        self.give_up()
        asyncio.set_event_loop(None)
        if loop is not None:
            loop.close()
        if self.loop is None:
            self.published.open()
        self._ended.open()

    def _serve(self, loop: AbstractEventLoop) -> None:
        """Run the loop until `stop_here`; a task that raises SystemExit or calls loop.stop() does not end it."""
        while not self._stopping:
            loop.call_soon(self.generators.watch)
            with contextlib.suppress(SystemExit, KeyboardInterrupt):  # the task that raised it keeps it
                loop.run_forever()

    def _publish(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.state = State.RUNNING
        self.published.open()

    def stop_here(self) -> None:
        """End the loop and the thread; call this on the loop."""
        self._stopping = True
        if self.loop is not None:
            self.loop.stop()

    def reopen(self, *, drained: bool) -> None:
        """Take calls as before the draining at exit; one that has not drained everything is not repeated."""
        assert self.loop is not None  # noqa: S101 - this runs on it
        self.resources = Resources()
        self.workers = Workers(self._thread.name)
        self.loop.set_default_executor(self.workers)
        self.state = State.RUNNING if drained else State.DRAINING
        self.holding = False
        held, self._held = self._held, []
        for call in held:
            call.begin(self.loop)

    def _begin_calls(self) -> None:
        self._waking = False
        starts, loop = self._starts, self.loop
        for _ in range(len(starts)):  # calls that arrive meanwhile have their own wake-up
            call = starts.popleft()
            if self.refusing:
                call.fail(self.closed_error())
            elif self.holding and call.finish_at_exit:
                self._held.append(call)
            else:
                call.begin(loop)  # type: ignore[arg-type] # it runs: this is its callback
            del call  # an idle loop must not keep a result alive

    def _refuse_queued(self) -> None:
        with contextlib.suppress(IndexError):  # the other side took the last call
            while True:
                self._starts.popleft().fail(self.closed_error())
