"""Guards: refuse calls that would deadlock, and warn about calls that block an event loop.

Theory of operation. A thread that runs an event loop and waits for a call stops that loop. This is fatal if the call
needs the same loop to finish. The guards refuse three cases with a DeadlockError:

- The loop is the runtime's own.
- The target loop is already blocked by a call that is an ancestor of this one. Each call carries its line, the serial
  numbers of the calls that it descends from, in a context variable. The guard looks for the blocking call in the line.
- Two loops would block each other through unrelated calls. The second wait finds the circle.

Any other call under a running loop only blocks that loop. It causes one BlockingCallWarning per call site.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from asyncio import _get_running_loop
from contextvars import ContextVar
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from itertools import count
from typing import TYPE_CHECKING

from .errors import BlockingCallWarning, DeadlockError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterator
    from types import FrameType

    from .loop import LoopThread

GENERATIONS = 128  # ancestors that a call remembers; an endless chain of calls must not grow without bound

serials = count(1)
line: ContextVar[tuple[int, ...]] = ContextVar("line", default=())
# blocked loop -> the serial number of the call that it waits for, and the loop of that call
blocked: dict[AbstractEventLoop, tuple[int, AbstractEventLoop | None]] = {}
_warned: set[tuple[str, int]] = set()


set_line = line.set


def descend() -> tuple[int, ...]:
    """Return the line of a new call of this context; the last number is the call's own serial."""
    ancestors = line.get()
    return (*ancestors[1 - GENERATIONS :], next(serials)) if ancestors else (next(serials),)


def refuse_own_loop(target: LoopThread, form: str) -> None:
    """Raise DeadlockError if the calling thread runs the target's loop."""
    if target.is_current():
        message = f"{target.name}: this thread runs the loop that must do the work. Use `{form}` here"
        raise DeadlockError(message)


def refuse_ancestor(target: LoopThread) -> None:
    """Raise DeadlockError if an ancestor of the calling code blocks the target's loop."""
    held = blocked.get(target.loop) if target.loop is not None else None
    if held is not None and held[0] in line.get():
        message = (
            f"{target.name}: its loop is blocked in a synchronous call, which waits for the code that makes this"
            f" call. Write `{_written.awaiting}` instead of the blocking call"
        )
        raise DeadlockError(message)


class _Written(threading.local):
    """How the calling thread's user has written a blocking call, and how async code writes the same."""

    blocking = "rt.run(...)"
    awaiting = "await rt.submit(...)"


_written = _Written()


@contextlib.contextmanager
def written(blocking: str, awaiting: str) -> Iterator[None]:
    """Let the messages of refused and warned calls name what the user wrote, in this thread and block."""
    before = _written.blocking, _written.awaiting
    _written.blocking, _written.awaiting = blocking, awaiting
    try:
        yield
    finally:
        _written.blocking, _written.awaiting = before


@contextlib.contextmanager
def blocking(target: LoopThread, serial: int) -> Iterator[None]:
    """Guard the block, in which the calling thread waits for the call with that serial; refuse before it blocks."""
    if blocked:
        refuse_ancestor(target)
    running = _get_running_loop()
    if running is None:
        yield
        return
    refuse_own_loop(target, _written.awaiting)
    if not _in_ipython_kernel():
        _report_blocking(target)
    outer = blocked.get(running)
    blocked[running] = (serial, target.loop)
    try:
        _refuse_circle(running, target)
        yield
    finally:
        if outer is None:
            blocked.pop(running, None)
        else:
            blocked[running] = outer


def _refuse_circle(start: AbstractEventLoop, target: LoopThread) -> None:
    seen, at = {start}, target.loop
    while at is not None:
        if at in seen:
            message = f"{target.name}: its loop is blocked and waits, perhaps through others, for this thread's loop"
            raise DeadlockError(message)
        seen.add(at)
        held = blocked.get(at)
        at = held[1] if held is not None else None


def _report_blocking(target: LoopThread) -> None:
    filename, lineno, depth = call_site()
    message = (
        f"a blocking call on {target.name} stops the event loop that runs in this thread;"
        f" write `{_written.awaiting}` in async code instead of `{_written.blocking}`"
    )
    if target.settings.strict:
        raise BlockingCallWarning(message)
    if (filename, lineno) not in _warned:
        _warned.add((filename, lineno))
        warnings.warn(message, BlockingCallWarning, stacklevel=depth)


def call_site() -> tuple[str, int, int]:
    """Return file, line and stack level, as the caller counts it, of the first frame outside rowloop and contextlib."""
    depth, ours = 2, __name__.partition(".")[0] + "."
    frame = sys._getframe(2)  # noqa: SLF001 - the documented way to inspect the caller
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith((ours, "contextlib")):
        frame, depth = frame.f_back, depth + 1
    return frame.f_code.co_filename, frame.f_lineno, depth


def in_async_code() -> bool:
    """Return whether an `async def` is among the callers.

    A cell of a notebook counts only if it awaits something itself: the kernel's own coroutines, which run it, do not.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to inspect the callers
    while frame is not None and not frame.f_globals.get("__name__", "").startswith(("IPython.", "ipykernel.")):
        if frame.f_code.co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR):
            return True
        frame = frame.f_back
    return False


def refuse_other_hosts(form: str, instead: str) -> None:
    """Raise RuntimeError where something other than an asyncio loop, such as trio, runs a coroutine."""
    if _get_running_loop() is None:
        message = (
            f"{form} works on asyncio's event loops, and none runs in this thread. Under trio or another framework,"
            f" call `{instead}` in a thread, such as with `await trio.to_thread.run_sync(...)`"
        )
        raise RuntimeError(message)


def _in_ipython_kernel() -> bool:
    """Return whether this is a notebook, where a loop always runs and the user means to block the cell."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def refuse_green_threads() -> None:
    """Raise RuntimeError if gevent or eventlet has replaced threads: a loop would block every greenlet."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    patched = "gevent" if gevent is not None and gevent.is_module_patched("threading") else None
    patched = "eventlet" if eventlet is not None and eventlet.is_monkey_patched("thread") else patched
    if patched is not None:
        message = (
            f"{patched} has replaced threads by greenlets, so no thread can run an asyncio loop. Leave threads"
            " unpatched (gevent: monkey.patch_all(thread=False)), or run this work in a process without"
            f" {patched}"
        )
        raise RuntimeError(message)
