"""Lifecycle: what all runtimes do when the process forks or ends.

Exit has two phases. Phase one drains every runtime while threads can still work: threading runs its own exit hooks
before it joins worker threads. After that, such threads and other exit handlers can still make calls. Phase two, in
atexit, drains those and stops the loops. The hooks are registered when this module is imported, after those of
concurrent.futures, because hooks run in the reverse order.

After a fork the child has one thread. Every runtime drops its loop thread without closing it, and starts a new one
with its next call. The dropped threads stay referenced for ever: finalisers of inherited clients and loops would
write to the parent's connections, or unregister them.
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
    """A runtime, as a fork and the end of the process see it."""

    def renew(self) -> object:
        """Drop the loop thread in a forked child; return it, so that it stays referenced."""
        ...

    def drain_at_exit(self, *, patient: bool) -> Callable[[], None]:
        """Start to drain; return a function that waits until the runtime is drained."""
        ...

    def stop_at_exit(self) -> None:
        """Stop the loop."""
        ...


runtimes: WeakSet[Participant] = WeakSet()
inherited: list[object] = []
exiting = False


def drain_all() -> None:
    """Phase one: drain all runtimes at the same time."""
    global exiting  # noqa: PLW0603 - the process exits once
    exiting = True
    waits = [runtime.drain_at_exit(patient=True) for runtime in tuple(runtimes)]
    for wait in waits:
        wait()


def stop_all() -> None:
    """Phase two: stop every loop."""
    for runtime in tuple(runtimes):
        runtime.stop_at_exit()


def forget_all() -> None:
    """Drop all loop threads in a forked child."""
    guards.blocked.clear()
    inherited.extend([runtime.renew() for runtime in tuple(runtimes)])


threading._register_atexit(drain_all)  # type: ignore[attr-defined] # noqa: SLF001 - the only hook that runs before threads are joined
atexit.register(stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_all)
