"""Shared: the default runtime of the process, and the functions that use it.

`default()` returns that runtime and `run_sync(coro)` is its blocking call. `client(factory, ...)` returns the shared
client of the loop that runs the calling code, or of the default runtime.
"""

from __future__ import annotations

import os
import threading
from asyncio import _get_running_loop
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from . import guards, lifecycle
from .errors import shown
from .hosts import host_client
from .runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Iterator

T = TypeVar("T")
P = ParamSpec("P")

_MOST_PARTS: Final = 250
"""So many are also less deep than Python can follow."""
_default: Runtime | None = None
_lock = threading.Lock()


def default() -> Runtime:
    """Return the runtime that the whole process shares; a new one if the last was closed."""
    global _default  # noqa: PLW0603 - one per process
    runtime = _default
    if runtime is None or runtime.is_closed:
        with _lock:
            if _default is None or (_default.is_closed and not lifecycle.exiting):
                _default = Runtime()
            runtime = _default
    return runtime


def _renew_lock() -> None:
    """Replace the lock in a forked child: another thread of the parent may have held it."""
    global _lock  # noqa: PLW0603 - as above
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def run_sync(coro: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """Run `coro` on the default runtime and wait for it; see Runtime.run."""
    return default().run(coro, timeout)


def client(factory: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the shared client `factory(*args, **kwargs)`, for equal arguments the same one, without await.

    It belongs to the loop that runs the calling code: in async code to the running loop, a runtime's or any other, and
    in synchronous code to the default runtime's. The loop closes it at its end.
    """
    _check_factory(factory)
    key = ("client", factory, _frozen(args), _frozen(kwargs))
    runtime, loop = Runtime.current(), _get_running_loop()
    if runtime is None and loop is not None and guards.in_async_code():
        made: T = host_client(loop, lambda: factory(*args, **kwargs), key)
        return made
    return (runtime or default()).construct(lambda: factory(*args, **kwargs), key)


def _check_factory(factory: object) -> None:
    if not callable(factory):
        message = f"client() takes a function or a class that makes the client, not {shown(factory)}"
        raise TypeError(message)


def _frozen(value: Any, parts: Iterator[int] | None = None) -> Hashable:
    """Return a hashable key for arguments; keys are equal for equal arguments of equal type.

    `parts` counts the values in it: a few lists that are repeated, or hold themselves, have no end.
    """
    parts = parts or iter(range(_MOST_PARTS))
    if next(parts, None) is None:
        message = f"client() shares by its arguments, but these have more than {_MOST_PARTS} values"
        raise TypeError(f"{message}; use rt.enter(factory, key=...)")
    if isinstance(value, dict):
        return (dict, frozenset((key, _frozen(item, parts)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return (type(value), tuple(_frozen(item, parts) for item in value))
    try:
        hash(value)
    except TypeError as error:
        found = shown(value)
        message = f"client() shares by its arguments, but {found} is not hashable; use rt.enter(factory, key=...)"
        raise TypeError(message) from error
    return (type(value), value)
