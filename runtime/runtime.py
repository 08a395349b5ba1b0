"""Runtime: a background event loop that synchronous and asynchronous code of every thread can share.

A Runtime is a name and its settings. The first call makes the loop thread; after a fork or a failed start the next call
makes a new one.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from asyncio import _get_running_loop
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import guards, lifecycle, watchdog
from .call import Call
from .draining import Ending
from .errors import RuntimeClosedError, shown
from .loop import LoopThread, Settings, State
from .streams import Entered, Items

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Coroutine, Hashable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from .resources import Resources

T = TypeVar("T")

RUNNING = State.RUNNING
_by_loop: dict[int, Runtime] = {}  # runtimes in use; the exit hook must drain one that has no other reference


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of uvloop's loops if uvloop is installed, else of asyncio's.

    This runs on import. A fork could interrupt an import in the loop's thread, and the child would find the import lock
    held for ever.
    """
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return factory


new_loop = _fastest_loop()


class Runtime:
    """A persistent background event loop.

    `grace`: seconds that a caller who gives up (time-out, Ctrl-C) waits for the cleanup of the cancelled call.
    `exit_budget`: seconds that closing, and interpreter exit, may take. `strict`: a blocking call that stops another
    loop raises BlockingCallWarning instead of warning. `loop_factory` makes the loop, in the loop's thread; the default
    is uvloop's if uvloop is installed.
    """

    def __init__(
        self,
        name: str = "rowloop",
        *,
        grace: float = 2.0,
        exit_budget: float = 5.0,
        strict: bool = False,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] = new_loop,
    ) -> None:
        """Take the settings; the first call starts the thread."""
        self._settings = Settings(name, grace, exit_budget, strict, loop_factory)
        self._closed = False
        self._lock = threading.Lock()
        self.thread = LoopThread(self._settings)
        lifecycle.runtimes.add(self)

    def __repr__(self) -> str:
        """Show the name and the state."""
        return f"<Runtime {self.name}: {'closed' if self._closed else self.thread.state.value}>"

    @property
    def name(self) -> str:
        """The name in threads, warnings and errors."""
        return self._settings.name

    @property
    def is_closed(self) -> bool:
        """Whether the runtime is closed, or its loop thread died."""
        return self._closed or (self.thread.state is State.CLOSED and not self.thread.failed_to_start)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running event loop; the first access starts it."""
        loop = self._running_thread().loop
        if loop is None:
            raise RuntimeClosedError(f"{self.name} has no loop")
        return loop

    @staticmethod
    def current() -> Runtime | None:
        """Return the runtime whose loop runs in this thread, or None."""
        loop = _get_running_loop()
        runtime = _by_loop.get(id(loop)) if loop is not None else None
        return runtime if runtime is not None and runtime.thread.loop is loop else None

    def run(self, coro: Coroutine[Any, Any, T], timeout: float | None = None, *, finish_at_exit: bool = False) -> T:
        """Run `coro` on the loop and wait for it; return its result or raise its error.

        After `timeout` seconds the coroutine is cancelled; TimeoutError is raised after its cleanup, at most a grace
        later. A KeyboardInterrupt, or another exception of a signal handler, cancels the coroutine and surfaces after
        its cleanup.

        When the process exits, calls are cancelled soon. With `finish_at_exit`, one that a thread waits for which the
        interpreter joins (any thread but the main one, unless it is a daemon) runs to its end first.
        """
        call: Call[T] | None = None
        try:
            thread = self.thread
            if thread.state is not RUNNING:
                thread = self._running_thread()
            call = Call(thread, coro, timeout)
            call.finish_at_exit = finish_at_exit
            limit = None if timeout is None else timeout + thread.settings.grace
            if _get_running_loop() is None and not guards.blocked:
                thread.submit(call)
                ended = call.wait(limit)
            else:
                with guards.blocking(thread, call.serial):
                    thread.submit(call)
                    ended = call.wait(limit)
            if not ended:
                call.cancel()
        except BaseException as interrupt:
            _abandon(call, coro, interrupt)
            raise
        error = call.error if ended else _gave_up(call)
        if error is None:
            return call.value
        try:
            raise error
        finally:
            del error, call  # the traceback holds this frame

    def submit(self, coro: Coroutine[Any, Any, T], *, finish_at_exit: bool = False) -> Call[T]:
        """Start `coro` on the loop; return its call at once. `await rt.submit(coro)` is the async form of `run`."""
        call: Call[T] | None = None
        try:
            thread = self.thread
            if thread.state is not RUNNING:
                thread = self._running_thread()
            call = Call(thread, coro)
            call.finish_at_exit = finish_at_exit
            thread.submit(call)
        except BaseException as error:
            _abandon(call, coro, error)
            raise
        return call

    def iterate(self, source: AsyncIterable[T], prefetch: int = 8) -> Items[T]:
        """Return an iterator over an async generator, which one task runs at most `prefetch` items ahead.

        The result is also a context manager. At the end of its `with` block the generator's cleanup has run.
        """
        if prefetch < 1:
            message = f"prefetch must be at least 1, not {shown(prefetch)}"
            raise ValueError(message)
        thread = self._running_thread()
        guards.refuse_own_loop(thread, "async for item in source")
        return Items(thread, self.submit, source, prefetch)

    def context(self, manager: AbstractAsyncContextManager[T]) -> Entered[T]:
        """Return a context manager for `with`, which enters and leaves `manager` in one task of the loop."""
        return Entered(self._running_thread(), self.submit, manager)

    def enter(self, factory: Callable[[], Any], *, key: Hashable = None, idle: float | None = None) -> Any:
        """Return the resource of `key` (default: the factory); all calls share it until the runtime closes.

        `factory` is called once, on the loop. It returns an async context manager, an object with aclose() or close(),
        or a coroutine that returns one of these. With `idle`, the resource is closed after that many seconds without a
        lease.
        """
        return self.run(self.aenter(factory, key=key, idle=idle))

    async def aenter(self, factory: Callable[[], Any], *, key: Hashable = None, idle: float | None = None) -> Any:
        """Do the same as `enter`, in code that runs on the loop."""
        return await self._here("aenter").enter(factory, factory if key is None else key, idle)

    def lease(
        self, factory: Callable[[], Any], *, key: Hashable = None, idle: float | None = None
    ) -> AbstractAsyncContextManager[Any]:
        """Return an async context manager that keeps the resource of `key` open for the length of its block."""
        return self._here("lease").lease(factory, factory if key is None else key, idle)

    def leave(self, key: Hashable) -> None:
        """Close the resource of `key`, which may be the factory, before the runtime closes."""
        self.run(self.aleave(key))

    async def aleave(self, key: Hashable) -> None:
        """Do the same as `leave`, in code that runs on the loop."""
        await self._here("aleave").leave(key)

    def construct(self, factory: Callable[[], T], key: Hashable) -> T:
        """Return the resource of `key`, made on the loop without awaiting, in sync and async code alike."""
        if self.thread.is_current():
            made: T = self.thread.resources.construct(factory, key)
            return made
        return self.run(self._construct(factory, key))

    def close(self) -> None:
        """Cancel all calls, close all resources and generators, and end the thread, within the exit budget.

        Any thread except the loop's own can call this. Callers that still wait get RuntimeClosedError. Raise an
        ExceptionGroup of the errors of the resources.
        """
        thread = self.thread
        guards.refuse_own_loop(thread, "await asyncio.to_thread(rt.close)")
        with self._lock:
            first, self._closed = not self._closed, True
        _by_loop.pop(id(thread.loop), None)
        if not thread.begun or thread.state is State.CLOSED:
            return
        if first:
            thread.wait_started()
            Ending(thread, final=True).finish()
        else:
            thread.join(self._settings.exit_budget)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the runtime."""
        self.close()

    async def _construct(self, factory: Callable[[], T], key: Hashable) -> T:
        made: T = self.thread.resources.construct(factory, key)
        return made

    def _here(self, form: str) -> Resources:
        if not self.thread.is_current():
            message = f"`{form}` works only in code that runs on the loop of {self.name}; use `enter` elsewhere"
            raise RuntimeError(message)
        return self.thread.resources

    def _running_thread(self) -> LoopThread:
        """Return the running loop thread; start it if necessary, and raise the error that prevents it."""
        guards.refuse_green_threads()
        with self._lock:
            thread = self.thread
            if thread.failed_to_start:
                thread = self.thread = LoopThread(self._settings)
            if self._closed or thread.state is State.CLOSED:
                raise thread.closed_error()
            if not thread.begun:
                thread.start()
                watchdog.watch(thread)
        thread.wait_started()
        _by_loop[id(thread.loop)] = self
        return thread

    # Lifecycle calls the methods below.

    def renew(self) -> LoopThread:
        """Drop the loop thread and everything on it in a forked child; return it, so that it stays referenced."""
        inherited = self.thread
        _by_loop.pop(id(inherited.loop), None)
        inherited.disown()
        self._lock = threading.Lock()
        self.thread = LoopThread(self._settings)
        return inherited

    def drain_at_exit(self, *, patient: bool) -> Callable[[], None]:
        """Start to drain; return a function that waits for the end and reports what is left.

        A `patient` draining awaits the calls that may finish at exit. After a Ctrl-C, phase two does not.
        """
        thread = self.thread
        if self._closed or thread.state is not RUNNING:
            return lambda: None
        return Ending(thread, final=False, patient=patient).report

    def stop_at_exit(self) -> None:
        """End the loop; a loop with work that refuses to end is left alone and dies with the process."""
        if not self._closed:
            self.drain_at_exit(patient=False)()  # what has begun after phase one
            self._closed = True
            self.thread.stop_if_idle()


def _abandon(call: Call[Any] | None, coro: object, error: BaseException) -> None:
    """Cancel the call of an interrupted caller and wait for its cleanup, at most the grace."""
    if call is None or not call.submitted:
        if asyncio.iscoroutine(coro):
            coro.close()
        return
    call.cancel(str(error) or type(error).__name__)
    thread = call.thread
    if not call.wait(thread.settings.grace):
        error.add_note(
            f"{call.name} on {thread.name} did not end within the grace; the stack of its loop:\n{thread.stack()}"
        )


def _gave_up(call: Call[Any]) -> TimeoutError:
    """Return the error of a call that has not ended a grace after its time limit."""
    thread = call.thread
    return TimeoutError(
        f"{call.name} on {thread.name} did not end within its time limit; it was cancelled, and did not end within the"
        f" grace of {thread.settings.grace:g} s either. The loop is blocked, or the coroutine refuses to end. The stack"
        f" of the loop:\n{thread.stack()}"
    )
