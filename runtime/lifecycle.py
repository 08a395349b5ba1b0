"""Lifecycle: what becomes of all runtimes when the process forks or ends.

Exit has two phases. While threads can still work (threading's own exit hooks, before worker threads are joined) every
runtime is drained. Plain coroutines can still be run after that, by other exit handlers; the atexit phase stops the
loops for good. The hooks are registered when this module is imported, after those of concurrent.futures, so that ours
run before them.

After a fork the child has one thread. Every runtime drops its loop thread, unclosed, and begins anew with its next
call. What was dropped is kept alive for ever: finalisers of inherited clients and loops would write to, or unregister,
the parent's connections.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - its exit hook must be registered before ours
import os
import threading
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from . import guards

if TYPE_CHECKING:
    from collections.abc import Callable


class Participant(Protocol):
    """A runtime, as forks and the end of the process see it."""

    def begin_anew(self) -> object:
        """Drop the loop thread in a forked child; return it, to be kept alive."""
        ...

    def drain_at_exit(self) -> Callable[[], None]:
        """Start to drain; return a function that waits until it is drained."""
        ...

    def stop_at_exit(self) -> None:
        """Stop the loop."""
        ...


runtimes: WeakSet[Participant] = WeakSet()
inherited: list[object] = []
exiting = False


def drain_all() -> None:
    """Phase one: drain every runtime, all at once."""
    global exiting  # noqa: PLW0603 - the process exits once
    exiting = True
    waits = [runtime.drain_at_exit() for runtime in tuple(runtimes)]
    for wait in waits:
        wait()


def stop_all() -> None:
    """Phase two: stop every loop."""
    for runtime in tuple(runtimes):
        runtime.stop_at_exit()


def forget_all() -> None:
    """Begin anew in a forked child."""
    guards.blocked.clear()
    inherited.extend([runtime.begin_anew() for runtime in tuple(runtimes)])


threading._register_atexit(drain_all)  # type: ignore[attr-defined] # noqa: SLF001 - the only hook that runs before threads are joined
atexit.register(stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_all)
