"""Runtime: a background event loop that synchronous and asynchronous code of every thread can share.

A Runtime is a name and its settings; the loop thread is made by the first call, and made anew after a fork or a failed
start.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
import traceback
import warnings
from asyncio import _get_running_loop
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import guards, lifecycle, watchdog
from .call import Call
from .draining import Ending
from .errors import RuntimeClosedError
from .loop import LoopThread, Settings, State
from .streams import Entered, Items

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Coroutine, Hashable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from .resources import Resources

T = TypeVar("T")

RUNNING = State.RUNNING
_by_loop: dict[int, Runtime] = {}  # those in use: one that nobody holds is still to be drained at exit


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of uvloop's loops where uvloop is installed, else of asyncio's.

    Called on import: an import in the loop's thread could be cut short by a fork, and its lock be held in the child
    for ever.
    """
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return factory


new_loop = _fastest_loop()


class Runtime:
    """A persistent background event loop.

    `grace`: seconds a caller that gives up (time-out, Ctrl-C) waits for the cleanup of what it cancelled.
    `exit_budget`: seconds that closing, and interpreter exit, may take. `strict`: raise, not warn, where a blocking
    call stops another loop. `loop_factory` makes the loop, in its thread; uvloop's is taken where it is installed.
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
        """Name the runtime and its state."""
        return f"<Runtime {self.name}: {'closed' if self._closed else self.thread.state.value}>"

    @property
    def name(self) -> str:
        """The name that threads, warnings and errors show."""
        return self._settings.name

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, or its loop thread died."""
        return self._closed or (self.thread.state is State.CLOSED and not self.thread.failed_to_start)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running event loop; started if need be."""
        loop = self._running_thread().loop
        if loop is None:
            raise RuntimeClosedError(f"{self.name} has no loop")
        return loop

    @staticmethod
    def current() -> Runtime | None:
        """Return the runtime whose loop is running in this thread, or None."""
        loop = _get_running_loop()
        runtime = _by_loop.get(id(loop)) if loop is not None else None
        return runtime if runtime is not None and runtime.thread.loop is loop else None

    def run(self, coro: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run `coro` on the loop and wait for it; return what it returns, raise what it raises.

        After `timeout` seconds it is cancelled; TimeoutError is raised when its cleanup is done, or a grace later.
        A KeyboardInterrupt (or whatever a signal handler raises) cancels it and surfaces after its cleanup.
        """
        call: Call[T] | None = None
        try:
            thread = self.thread
            if thread.state is not RUNNING:
                thread = self._running_thread()
            call = Call(thread, coro, timeout)
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

    def submit(self, coro: Coroutine[Any, Any, T]) -> Call[T]:
        """Have `coro` run on the loop; return its call at once. `await rt.submit(coro)` is the async form of `run`."""
        call: Call[T] | None = None
        try:
            thread = self.thread
            if thread.state is not RUNNING:
                thread = self._running_thread()
            call = Call(thread, coro)
            thread.submit(call)
        except BaseException as error:
            _abandon(call, coro, error)
            raise
        return call

    def iterate(self, source: AsyncIterable[T], prefetch: int = 8) -> Items[T]:
        """Iterate over an async generator, which one task runs at most `prefetch` items ahead.

        The result is also a context manager: when its `with` block ends, the generator's cleanup has run.
        """
        if prefetch < 1:
            message = f"prefetch must be at least 1, not {prefetch!r}"
            raise ValueError(message)
        thread = self._running_thread()
        guards.refuse_own_loop(thread, "async for item in source")
        return Items(thread, self.submit, source, prefetch)

    def context(self, manager: AbstractAsyncContextManager[T]) -> Entered[T]:
        """Return a context manager for `with`, which enters and leaves `manager` in one task of the loop."""
        return Entered(self._running_thread(), self.submit, manager)

    def enter(self, factory: Callable[[], Any], *, key: Hashable = None, idle: float | None = None) -> Any:
        """Return the resource of `key` (if not given, the factory), shared by all calls until the runtime closes.

        `factory` returns an async context manager, an object with aclose() or close(), or a coroutine giving one. It
        is called on the loop, once. With `idle` the resource is closed when nobody has leased it for that many
        seconds.
        """
        return self.run(self.aenter(factory, key=key, idle=idle))

    async def aenter(self, factory: Callable[[], Any], *, key: Hashable = None, idle: float | None = None) -> Any:
        """Do what `enter` does, for code that runs on the loop."""
        return await self._here("aenter").enter(factory, factory if key is None else key, idle)

    def lease(
        self, factory: Callable[[], Any], *, key: Hashable = None, idle: float | None = None
    ) -> AbstractAsyncContextManager[Any]:
        """Return an async context manager that keeps the resource of `key` open for the length of its block."""
        return self._here("lease").lease(factory, factory if key is None else key, idle)

    def leave(self, key: Hashable) -> None:
        """Close the resource of `key` (or of that factory) now, not at the runtime's end."""
        self.run(self.aleave(key))

    async def aleave(self, key: Hashable) -> None:
        """Do what `leave` does, for code that runs on the loop."""
        await self._here("aleave").leave(key)

    def construct(self, factory: Callable[[], T], key: Hashable) -> T:
        """Return the resource of `key`, made on the loop without being awaited; for sync and async code alike."""
        if self.thread.is_current():
            made: T = self.thread.resources.construct(factory, key)
            return made
        return self.run(self._construct(factory, key))

    def close(self) -> None:
        """Cancel what runs, close what is open, end the thread.

        Takes the exit budget at most; for any thread but the loop's own. Callers still waiting get RuntimeClosedError.
        Raises an ExceptionGroup of what closing the resources raised.
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
            _finish(thread, Ending(thread, final=True))
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
            message = f"`{form}` is for code that runs on the loop of {self.name}; elsewhere use `enter`"
            raise RuntimeError(message)
        return self.thread.resources

    def _running_thread(self) -> LoopThread:
        """Return the running loop thread, started if need be; raise what keeps it from running."""
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

    # Called by lifecycle.

    def begin_anew(self) -> LoopThread:
        """Forget the loop thread and all that lives on it, in a forked child; return it, to be kept alive."""
        inherited = self.thread
        _by_loop.pop(id(inherited.loop), None)
        inherited.disown()
        self._lock = threading.Lock()
        self.thread = LoopThread(self._settings)
        return inherited

    def drain_at_exit(self) -> Callable[[], None]:
        """Begin to drain; return what waits for the end of it and reports what is left."""
        thread = self.thread
        if self._closed or thread.state is not RUNNING:
            return lambda: None
        ending = Ending(thread, final=False)
        return lambda: _report(thread, ending)

    def stop_at_exit(self) -> None:
        """End the loop, unless something on it refuses to end: then it is left as it is, and dies with the process."""
        if not self._closed:
            self.drain_at_exit()()  # if it was started after phase one
            self._closed = True
            self.thread.stop_if_idle()


def _finish(thread: LoopThread, ending: Ending) -> None:
    ending.wait()
    for leftover in ending.leftovers:
        warnings.warn(f"{thread.name} is closed, but {leftover}", RuntimeWarning, stacklevel=3)
    if ending.failures:
        message = f"closing the resources of {thread.name} failed"
        raise ExceptionGroup(message, ending.failures)


def _report(thread: LoopThread, ending: Ending) -> None:
    ending.wait()
    for leftover in ending.leftovers:
        print(f"{thread.name}: at exit, {leftover}", file=sys.stderr)  # noqa: T201 - it is too late for logging
    for failure in ending.failures:
        print("".join(traceback.format_exception(failure)), file=sys.stderr)  # noqa: T201 - as above


def _abandon(call: Call[Any] | None, coro: object, error: BaseException) -> None:
    """Leave nothing behind when a caller is interrupted: cancel, and wait for the cleanup, at most the grace."""
    if call is None or not call.submitted:
        if asyncio.iscoroutine(coro):
            coro.close()
        return
    call.cancel()
    thread = call.thread
    if not call.wait(thread.settings.grace):
        error.add_note(
            f"{call.name} on {thread.name} did not end within the grace; its loop is here:\n{thread.stack()}"
        )


def _gave_up(call: Call[Any]) -> TimeoutError:
    """Say why nothing came of a time limit even a grace later."""
    thread = call.thread
    return TimeoutError(
        f"{call.name} on {thread.name} neither ended within its time limit nor, cancelled, within the grace of"
        f" {thread.settings.grace:g} s after it. The loop is blocked, or the coroutine refuses to end. The loop is"
        " here:\n"
        f"{thread.stack()}"
    )
