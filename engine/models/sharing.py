"""Sharing: one limit, pace and circuit per endpoint, key and model, for all runs of this process.

A connected model states which these are by a `limit_key`; a model without one, and a validator, shares nothing.

A limit outlives its runs for some minutes, so that runs which follow each other keep their pace and need not learn
anew. A lock keeps the threads of several runtimes apart. A child process that was forked starts without limits.

Where other processes share an endpoint as well, this is where a lease of its limit would arrive: `SharedLimit.bound`
divides it among the runs of this process, as it divides the whole now.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

from ..core.permits import FixedLimit
from ..core.shared_limit import Share, SharedLimit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..core.graph import Lane
    from ..core.permits import PermitsOf, Wake
    from ..core.policy import RetryPolicy

Clock: TypeAlias = "weakref.ref[asyncio.AbstractEventLoop] | None"
"""None for the clock that all event loops have, else the one loop that has another (a virtual one, in tests)."""

_KEPT: Final = 300.0
"""Seconds for which a limit is kept after its last run."""
_MOST: Final = 256
"""The most limits that are kept without a run."""
_SECRET: Final = secrets.token_bytes(32)


@runtime_checkable
class Sharing(Protocol):
    """A connected model whose requests have a limit in common with those of others."""

    @property
    def limit_key(self) -> bytes:
        """What `limit_key` makes of the address, the key and the model's name."""
        ...


def limit_key(*parts: str) -> bytes:
    """Identify what has a limit of its own, such as an address, a key and a model, without containing any of them."""
    return hashlib.blake2b(json.dumps(parts).encode(), key=_SECRET, digest_size=16).digest()


def limit_keys(models: Iterable[tuple[str, object]]) -> dict[str, bytes]:
    """Return the key of each lane, from pairs of a lane's name and a connected model in it.

    Aliases of one model with several keys are in one lane: it shares its limit with runs that have the same ones.
    """
    found: dict[str, set[str]] = {}
    for lane, model in models:
        if isinstance(model, Sharing):
            found.setdefault(lane, set()).add(model.limit_key.hex())
    return {lane: limit_key(*sorted(keys)) for lane, keys in found.items()}


class SharedLimits:
    """The limits of this process."""

    def __init__(self) -> None:
        """Start without any."""
        self._lock = threading.Lock()
        self._limits: dict[tuple[Clock, bytes], SharedLimit] = {}

    def __len__(self) -> int:
        """Return how many limits are kept."""
        return len(self._limits)

    def permits_of(self, retry: RetryPolicy, keys: Mapping[str, bytes]) -> PermitsOf:
        """Return the source of permits of one run. `keys` has the keys of its lanes by the time it begins."""

        def join(share: Share, now: float) -> SharedLimit:
            key = keys.get(share.lane.name)
            if key is not None:
                return self._join(key, share, retry, now)
            alone = SharedLimit(share.lane, retry, now)
            alone.join(share, now)
            return alone

        def permits_of(lane: Lane, wake: Wake) -> Share | FixedLimit:
            if lane.start is None and lane.pace is None:
                return FixedLimit(lane.limit)
            return Share(lane, wake, retry, join)

        return permits_of

    def in_use(self, key: bytes) -> bool:
        """Return whether an endpoint has answered in a run that has not ended: the run waits for it if it is down."""
        shared = self._limits.get((_clock(), limit_key(key.hex())))
        return shared is not None and bool(shared.shares) and shared.circuit is not None and shared.circuit.has_worked

    def clear(self) -> None:
        """Forget everything, after a fork and between tests; runs that last keep what they have."""
        self._lock = threading.Lock()
        self._limits = {}

    def _join(self, key: bytes, share: Share, retry: RetryPolicy, now: float) -> SharedLimit:
        clock = _clock()
        with self._lock:
            self._forget_old(clock, now)
            shared = self._limits.pop((clock, key), None)
            if shared is None:
                shared = SharedLimit(share.lane, retry, now, threading.Lock())
            self._limits[clock, key] = shared  # the latest comes last
            with shared.lock:
                shared.join(share, now)
        return shared

    def _forget_old(self, clock: Clock, now: float) -> None:
        """Forget the limits without a run that are too old or too many. The lock is held: no run can join meanwhile."""
        idle = [(key, shared) for key, shared in self._limits.items() if not shared.shares]
        for i, ((of, key), shared) in enumerate(idle):
            too_many = len(idle) - i >= _MOST
            gone = of is not None and of() is None
            if too_many or gone or (of == clock and shared.idle_since < now - _KEPT):
                del self._limits[of, key]


def _clock() -> Clock:
    """Identify the clock of the running loop."""
    loop = asyncio.get_running_loop()
    return None if abs(loop.time() - time.monotonic()) < 1 else weakref.ref(loop)


shared_limits: Final = SharedLimits()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=shared_limits.clear)
