"""Guards: what would deadlock is refused, and what merely blocks a loop is warned about.

Theory of operation. A thread that runs an event loop and waits for a call stops that loop. That is fatal if the call
needs the loop to go on. Three cases are told apart. The loop is the runtime's own: refused. The loop is blocked
already, for a call on whose behalf we are asking: refused; each call carries its line, the serial numbers of the calls
it descends from, in a context variable, so the question is whether the call that blocks the loop is in our line. Two
loops block each other from unrelated calls: the one that comes second sees the circle and is refused. Anything else
only blocks a loop: one BlockingCallWarning per call site.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from asyncio import _get_running_loop
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING

from .errors import BlockingCallWarning, DeadlockError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterator

    from .loop import LoopThread

GENERATIONS = 128  # how many ancestors a call remembers: calls that start their successor for ever must not grow

serials = count(1)
line: ContextVar[tuple[int, ...]] = ContextVar("line", default=())
blocked: dict[
    AbstractEventLoop, tuple[int, AbstractEventLoop | None]
] = {}  # loop -> the call it waits for, and on which loop
_warned: set[tuple[str, int]] = set()


set_line = line.set


def descend() -> tuple[int, ...]:
    """Return the line of a new call made here; its last number is the call's own."""
    ancestors = line.get()
    return (*ancestors[1 - GENERATIONS :], next(serials)) if ancestors else (next(serials),)


def refuse_own_loop(target: LoopThread, form: str) -> None:
    """Raise DeadlockError if the calling thread runs the target's loop."""
    if target.is_current():
        message = f"{target.name}: this thread runs the loop that would have to do the work. Use `{form}` here"
        raise DeadlockError(message)


def refuse_ancestor(target: LoopThread) -> None:
    """Raise DeadlockError if the target's loop is blocked until a call that we descend from has ended."""
    held = blocked.get(target.loop) if target.loop is not None else None
    if held is not None and held[0] in line.get():
        message = (
            f"{target.name}: its loop is blocked in a synchronous call that waits for the very code which now asks it"
            " for work. Make the blocking call `await rt.submit(...)`"
        )
        raise DeadlockError(message)


@contextlib.contextmanager
def blocking(target: LoopThread, serial: int) -> Iterator[None]:
    """Guard a wait of the calling thread for the call with that serial number; check before anything blocks."""
    if blocked:
        refuse_ancestor(target)
    running = _get_running_loop()
    if running is None:
        yield
        return
    refuse_own_loop(target, "await rt.submit(...)")
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
            message = (
                f"{target.name}: its loop is blocked, waiting (perhaps through others) for the loop of this thread"
            )
            raise DeadlockError(message)
        seen.add(at)
        held = blocked.get(at)
        at = held[1] if held is not None else None


def _report_blocking(target: LoopThread) -> None:
    filename, lineno, depth = call_site()
    message = (
        f"a blocking call on {target.name} stops the event loop that runs in this thread;"
        " in async code write `await rt.submit(...)` instead of `rt.run(...)`"
    )
    if target.settings.strict:
        raise BlockingCallWarning(message)
    if (filename, lineno) not in _warned:
        _warned.add((filename, lineno))
        warnings.warn(message, BlockingCallWarning, stacklevel=depth)


def call_site() -> tuple[str, int, int]:
    """Return file, line and stack level, seen from our caller, of the first frame not ours and not contextlib's."""
    depth, ours = 2, __name__.partition(".")[0] + "."
    frame = sys._getframe(2)  # noqa: SLF001 - the documented way to look at the caller
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith((ours, "contextlib")):
        frame, depth = frame.f_back, depth + 1
    return frame.f_code.co_filename, frame.f_lineno, depth


def _in_ipython_kernel() -> bool:
    """In a notebook a loop always runs, and blocking the cell is what the user means."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def refuse_green_threads() -> None:
    """Raise RuntimeError where gevent or eventlet has replaced threads: a loop there would block every greenlet."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    patched = "gevent" if gevent is not None and gevent.is_module_patched("threading") else None
    patched = "eventlet" if eventlet is not None and eventlet.is_monkey_patched("thread") else patched
    if patched is not None:
        message = (
            f"{patched} has replaced threads by greenlets, so there is no thread for an asyncio loop to run in."
            " Leave threads unpatched (gevent: monkey.patch_all(thread=False)), or run this work in a process without"
            f" {patched}"
        )
        raise RuntimeError(message)
