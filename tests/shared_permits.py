"""Permits that several runs share: those of the engine, and others made from outside, with nothing but the protocol."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rowloop.engine.core.circuit import Circuit
from rowloop.engine.core.policy import RetryPolicy
from rowloop.engine.core.run_circuit import RunCircuit
from rowloop.engine.core.shared_limit import Share as RealShare
from rowloop.engine.core.shared_limit import SharedLimit
from rowloop.engine.core.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rowloop.engine.core.events import Cancelled, Done, Failed, Resized
    from rowloop.engine.core.graph import Lane
    from rowloop.engine.core.limits.adaptive_limit import Change
    from rowloop.engine.core.permits import Wake
    from rowloop.engine.core.throttle import Sent


class RealPermits(SharedLimit):
    """The engine's own shared limit as a source of permits."""

    def __init__(self, lane: Lane, retry: RetryPolicy | None = None) -> None:
        super().__init__(lane, retry or RetryPolicy(), 0.0)
        self.retry = retry or RetryPolicy()
        self.made: list[RealShare] = []

    def __call__(self, lane: Lane, wake: Wake) -> RealShare:
        """Give a run its share, which joins when the run begins."""
        self.made.append(RealShare(lane, wake, self.retry, self.joined))
        return self.made[-1]

    def joined(self, share: RealShare, now: float) -> RealPermits:
        """Let a share join."""
        self.join(share, now)
        return self


class SharedPermits:
    """The permits of one lane for all runs that ask: none exceeds the limit together, and each gets a fair share.

    A permit is kept for a run that has requests waiting and fewer in flight than the one that asks, or as many and has
    sent none for longer.
    """

    def __init__(self, lane: Lane, retry: RetryPolicy | None = None) -> None:
        """Take the lane that the runs share."""
        self.throttle = Throttle(lane, retry or RetryPolicy())
        self.shares: list[Share] = []
        self.sent = 0

    def __call__(self, _: Lane, wake: Wake) -> Share:
        """Give a run its share."""
        self.shares.append(Share(self, wake))
        return self.shares[-1]

    @property
    def in_flight(self) -> int:
        """How many requests of all runs are in flight."""
        return sum(share.in_flight for share in self.shares)

    def allows(self, share: Share) -> bool:
        """Return whether a run may have one of the permits that are free."""
        kept = (
            min(other.waiting, max(0, share.in_flight - other.in_flight + (other.latest < share.latest)))
            for other in self.shares
        )
        return self.throttle.limit - self.in_flight > sum(kept)

    def offer(self, now: float, asking: Share) -> None:
        """Wake the runs that had to wait for others and need not any more, except the one that asks by itself."""
        if self.throttle.earliest(1, now) < math.inf:
            for share in self.shares:
                if share is not asking and share.blocked and share.waiting and self.allows(share):
                    share.blocked = False
                    share.wake()


class Share:
    """The permits of one run."""

    def __init__(self, source: SharedPermits, wake: Wake) -> None:
        self.source = source
        self.wake = wake
        self.blocked = False
        self.waiting = 0
        self.in_flight = 0
        self.latest = 0
        self.circuit: RunCircuit | None = None

    def begin(self, now: float) -> None:
        self.circuit = RunCircuit(Circuit(), now) if self.source.throttle.adaptive else None

    def close(self, now: float) -> None:
        pass

    @property
    def limit(self) -> int:
        return self.source.throttle.limit

    @property
    def history(self) -> Sequence[Change]:
        return self.source.throttle.history

    @property
    def rate_limited_since(self) -> float | None:
        return self.source.throttle.rate_limited_since

    @property
    def runs(self) -> int:
        return len(self.source.shares)

    @property
    def shut(self) -> bool:
        return self.source.throttle.shut

    def cap(self, most: int, now: float) -> None:
        self.source.throttle.cap(most, now)

    def earliest(self, waiting: int, now: float) -> float:
        at = self.source.throttle.earliest(waiting, now) if self.source.allows(self) else math.inf
        self.waiting, self.blocked = waiting, at == math.inf
        if at > now or not waiting:
            self.source.offer(now, self)
        return at

    def sent(self, now: float) -> Sent:
        self.waiting -= 1
        self.in_flight += 1
        self.source.sent = self.latest = self.source.sent + 1
        return self.source.throttle.sent(now)

    def ended(self, permit: Sent, event: Done | Resized | Failed | Cancelled, now: float) -> None:
        self.in_flight -= 1
        self.source.throttle.ended(permit, event, now)
        self.source.offer(now, self)
