"""Shared: the runtime of everybody who does not name one, and what is called on it.

`default()` is that runtime, `run_sync(coro)` its blocking call, and `client(factory, ...)` the one client of its kind
on the loop that runs here, or on the default one's.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from . import lifecycle
from .runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

T = TypeVar("T")
P = ParamSpec("P")

_default: Runtime | None = None
_lock = threading.Lock()


def default() -> Runtime:
    """Return the runtime that everybody shares; a new one if the last was closed."""
    global _default  # noqa: PLW0603 - it is the process-wide one
    runtime = _default
    if runtime is None or runtime.is_closed:
        with _lock:
            if _default is None or (_default.is_closed and not lifecycle.exiting):
                _default = Runtime()
            runtime = _default
    return runtime


def _renew_lock() -> None:
    """Let go, in a forked child, what another thread of the parent's may have held."""
    global _lock  # noqa: PLW0603 - as above
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def run_sync(coro: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """Run `coro` on the default runtime and wait for it; see Runtime.run."""
    return default().run(coro, timeout)


def client(factory: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the one `factory(*args, **kwargs)` of this loop: a client to be shared, and closed with the runtime.

    For synchronous code, and without await for async code that runs on a runtime's loop.
    """
    runtime = Runtime.current() or default()
    key = ("client", factory, _frozen(args), _frozen(kwargs))
    return runtime.construct(lambda: factory(*args, **kwargs), key)


def _frozen(value: Any) -> Hashable:
    """Return a hashable stand-in of arguments; equal for equal arguments of equal type."""
    if isinstance(value, dict):
        return (dict, frozenset((key, _frozen(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return (type(value), tuple(map(_frozen, value)))
    try:
        hash(value)
    except TypeError as error:
        message = f"client() shares by arguments, and {value!r} is not hashable; use rt.enter(factory, key=...)"
        raise TypeError(message) from error
    return (type(value), value)
