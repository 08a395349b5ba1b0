"""SharedLimit: one limit, one pace and one circuit of an endpoint, for all runs that ask it. Pure.

Theory of operation
    Each run has a `Share`. What one run learns from an answer or a 429 holds for all of them, because there is one
    adaptive limit, one pace and one circuit.

    Permits are divided by max-min fairness. A run that asks is refused permits which are kept for others: for a run
    that has requests waiting, as many as make its requests in flight as many as those of the one that asks, and one
    more if it has sent none for longer. A run without requests waiting keeps nothing, so the others use its share. When
    permits become free, the run that has the fewest in flight of those that were refused is woken. It asks until it is
    refused, and then the next one is woken.

    Slots of the pace are booked: a run that may send holds the next free slot, and books another after it has sent.
    Runs that wait for the pace therefore take turns. A run that does not need its slot gives it back, and the run with
    the latest slot takes it.

    Each run states a `max_parallel` and budgets per minute. No run exceeds its own. Together they keep the largest
    `max_parallel` and the smallest budgets of those that run. What the endpoint has shown outlives the runs, and so
    does what they have used of the budgets: runs that follow each other keep the pace, too.

    A lease that is shared with other processes fits in here: the part that this process holds is one more bound in
    `bound`, which changes when the lease is divided anew; `waiting` and `in_flight` are what to ask for it with.

    Runs may belong to several threads: `lock` is held wherever state changes, and while runs are woken. `wake` must
    not ask for permits at once.

Sources: max-min fairness (Bertsekas and Gallager, Data Networks, 6.5).
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, TypeAlias

from .bounds import Pace
from .circuit import Circuit
from .limits.pace import PaceState
from .run_circuit import RunCircuit
from .throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .events import Cancelled, Done, Failed, Resized
    from .graph import Lane
    from .limits.adaptive_limit import Change
    from .permits import Wake
    from .policy import RetryPolicy
    from .run_circuit import Lock
    from .throttle import Sent

Slot: TypeAlias = tuple[float, float]
"""A booked place in the pace: when the request may be sent, and the tokens that it is estimated to take."""

Join: TypeAlias = "Callable[[Share, float], SharedLimit]"
"""Finds the limit that a share is one of, when its run begins; the share has joined it then."""

_NEVER: Final = math.inf
_LATE: Final = 0.6
"""The most seconds after which a slot is still used: a hundredth of a minute."""


class SharedLimit:
    """The limit of an endpoint, and the runs that share it."""

    def __init__(self, lane: Lane, retry: RetryPolicy, now: float, lock: Lock | None = None) -> None:
        """Start without runs, and without anything learnt."""
        self.lock: Lock = nullcontext() if lock is None else lock
        self.throttle = Throttle(lane, retry, now)
        self.circuit = Circuit() if lane.start is not None else None
        self.requests = self.throttle.requests
        self.shares: list[Share] = []
        self.unshared = True
        """Whether there is one run alone and no pace, so that nothing has to be divided: the fast path."""
        self.idle_since = now
        """When the last run left."""
        self._pace: Pace | None = lane.pace
        self._sent = 0
        self._joined = 0

    @property
    def in_flight(self) -> int:
        """How many requests of all runs are in flight."""
        return self.requests.in_flight

    @property
    def waiting(self) -> int:
        """How many requests of all runs wait for a permit, as far as the runs have reported them."""
        return sum(share.waiting for share in self.shares)

    # Runs come and go. All methods from here on are called with the lock held.

    def join(self, share: Share, now: float) -> None:
        """Add a run, and give it a number."""
        if self.circuit is not None and not self.shares:
            self.circuit.probe_now(now)
        for alone in self.shares if self.unshared else ():  # it has counted nothing so far
            self._sent = alone.latest = self._sent + 1
        self.shares.append(share)
        for member in self.shares:
            member.runs = max(member.runs, len(self.shares))
        self.bound(now)
        self.requests.start_at(min(share.lane.start or share.most, share.most), now)
        self._joined = share.number = self._joined + 1

    def leave(self, share: Share, now: float) -> None:
        """Remove a run that has given back all its permits; the others get its share."""
        self._give_back(share, now)
        self.shares.remove(share)
        self.idle_since = now
        if self.circuit is not None:
            self.circuit.forget(share.number)
        if self.shares:
            self.bound(now)
            self.wake_all(None)

    def bound(self, now: float) -> None:
        """Keep the largest `most` and the smallest budgets of the runs."""
        throttle = self.throttle
        throttle.cap(max(share.most for share in self.shares), now)
        paces = [share.lane.pace for share in self.shares if share.lane.pace is not None]
        pace = Pace(
            min((pace.requests_per_minute for pace in paces if pace.requests_per_minute is not None), default=None),
            min((pace.tokens_per_minute for pace in paces if pace.tokens_per_minute is not None), default=None),
        )
        if throttle.pace is None:
            throttle.pace = PaceState(pace, now) if paces else None
        elif pace != self._pace:
            for share in self.shares:
                self._give_back(share, now)
            throttle.pace.change(pace, now)
        self._pace = pace
        self.unshared = len(self.shares) == 1 and throttle.pace is None

    def wake_all(self, asking: Share | None) -> None:
        """Wake all other runs: the endpoint has changed."""
        for share in self.shares:
            if share is not asking:
                share.blocked = False
                share.wake()

    # Permits

    def earliest(self, share: Share, now: float) -> float:
        """Return when a run may send its next request."""
        shared = len(self.shares) > 1
        at = self.requests.earliest(now) if not shared or self._allows(share) else math.inf
        if self.throttle.pace is not None:
            at = self._paced(self.throttle.pace, share, at, now)
        share.blocked = at == math.inf
        if shared and (at > now or not share.waiting):
            self.offer(now, share)
        return at

    def send(self, share: Share, now: float) -> Sent:
        """Take a permit, and the slot that the run holds."""
        self._sent = share.latest = self._sent + 1
        share.waiting -= 1
        throttle = self.throttle
        if throttle.pace is None:
            return self.requests.sent(now), 0.0
        if share.slot is None:
            throttle.pace.sent(now, throttle.estimate)
            return self.requests.sent(now), throttle.estimate
        (_, tokens), share.slot = share.slot, None
        return self.requests.sent(now), tokens

    def offer(self, now: float, asking: Share) -> None:
        """Wake the run with the fewest requests in flight of those that were refused, if it need not wait any more."""
        if self.requests.earliest(now) == math.inf:
            return
        refused = [share for share in self.shares if share.blocked and share.left > 0 and share is not asking]
        if refused and self._allows(first := min(refused, key=_turn)):
            first.blocked = False
            first.wake()

    def _allows(self, share: Share) -> bool:
        """Return whether a permit is free that is not kept for others."""
        if share.in_flight >= share.most:
            return False
        free, in_flight, latest = self.requests.room, share.in_flight, share.latest
        for other in self.shares:
            if other.waiting and other is not share:
                kept = in_flight - other.in_flight + (other.latest < latest)
                if kept > 0:
                    free -= max(0, min(kept, other.left))
        return free > 0

    # Slots of the pace

    def _paced(self, pace: PaceState, share: Share, at: float, now: float) -> float:
        """Return when a run may send that the limit allows to at `at`: in its slot, which it books if it has none."""
        if at == math.inf or not share.waiting:
            self._give_back(share, now)
            return at
        if at > now:
            return pace.earliest(at)
        if share.slot is not None and share.slot[0] < now - min(_LATE, pace.spacing):
            self._give_back(share, now)
        if share.slot is None:
            estimate = self.throttle.estimate
            share.slot = pace.book(now, estimate), estimate
        return max(at, share.slot[0])

    def _give_back(self, share: Share, now: float) -> None:
        """Free the slot that a run holds and does not use; the run with the latest one gets it, if it is not over."""
        slot, share.slot = share.slot, None
        if slot is None or self.throttle.pace is None:
            return
        latest = max((other for other in self.shares if other.slot is not None), key=_slot, default=None)
        if latest is None or latest.slot is None or latest.slot[0] < slot[0]:
            self.throttle.pace.cancel(slot[1])
        elif slot[0] >= now:
            self.throttle.pace.cancel(slot[1])
            latest.slot = slot[0], latest.slot[1]
            latest.wake()


class Share:
    """The permits of one run for one lane, which it shares with others."""

    __slots__ = (
        "_join", "_kept", "_retry", "_source", "blocked", "circuit", "in_flight", "lane", "latest", "most", "number",
        "runs", "slot", "waiting", "wake",
    )  # fmt: skip

    def __init__(self, lane: Lane, wake: Wake, retry: RetryPolicy, join: Join) -> None:
        """Take the lane, and what finds the limit that it is a share of, when the run begins."""
        self.lane = lane
        self.wake = wake
        self.most = lane.limit
        self.circuit: RunCircuit | None = None
        self.runs = 1
        self.number = 0
        self.waiting = self.in_flight = 0
        self.blocked = False
        """Whether it was refused, and has to be woken."""
        self.latest = 0
        """The number of its latest request among those of all runs."""
        self.slot: Slot | None = None
        self._retry = retry
        self._join = join
        self._source: SharedLimit | None = None
        self._kept: tuple[int, Sequence[Change], float | None] = min(lane.start or lane.limit, lane.limit), (), None

    @property
    def left(self) -> int:
        """How many more requests the run would send if all permits were free."""
        return min(self.waiting, self.most - self.in_flight)

    @property
    def limit(self) -> int:
        """How many may be in flight now, those of other runs included, but no more than the run's own limit."""
        return self._kept[0] if self._source is None else min(self.most, self._source.throttle.limit)

    @property
    def history(self) -> Sequence[Change]:
        """How the limit has changed, also before this run."""
        return self._kept[1] if self._source is None else self._source.throttle.history

    @property
    def rate_limited_since(self) -> float | None:
        """The time since which every request of any run has been rate limited."""
        return self._kept[2] if self._source is None else self._source.throttle.rate_limited_since

    @property
    def shut(self) -> bool:
        """Whether the endpoint refuses everything and does not say for how long."""
        return self._source is not None and self._source.throttle.shut

    def begin(self, now: float) -> None:
        """Join the others."""
        self._source = source = self._join(self, now)
        if source.circuit is not None:
            self.circuit = RunCircuit(source.circuit, now, self.number, source.lock)
            self.circuit.share_with(self)

    def close(self, now: float) -> None:
        """Leave the others; what the run has seen of the endpoint stays as it is."""
        source = self._source
        if source is None:
            return
        with source.lock:
            self._kept = self.limit, self.history, self.rate_limited_since
            self._source = None
            if self.circuit is not None:
                self.circuit.close()
            source.leave(self, now)

    def cap(self, most: int, now: float) -> None:
        """Change how many requests of this run may be in flight."""
        self.most = most
        if self._source is not None:
            with self._source.lock:
                self._source.bound(now)
                self._source.offer(now, self)

    def earliest(self, waiting: int, now: float) -> float:
        """Return when the next of the `waiting` requests may be sent."""
        source = self._source
        if source is None:
            return math.inf
        with source.lock:
            self.waiting = waiting
            if not source.unshared:
                return source.earliest(self, now)
            at = source.requests.earliest(now)
            self.blocked = at == _NEVER
            return at

    def sent(self, now: float) -> Sent:
        """Take a permit for a request that is being sent."""
        source = self._source
        assert source is not None  # noqa: S101 - the run has begun
        with source.lock:
            self.in_flight += 1
            return (source.requests.sent(now), 0.0) if source.unshared else source.send(self, now)

    def ended(self, permit: Sent, event: Done | Resized | Failed | Cancelled, now: float) -> None:
        """Give a permit back, and let all runs learn from how its request ended."""
        source = self._source
        assert source is not None  # noqa: S101 - the run is not over
        with source.lock:
            self.in_flight -= 1
            if source.unshared:
                source.throttle.learn(permit, event, now, self._retry)
                return
            held = source.requests.held(now)
            source.throttle.learn(permit, event, now, self._retry)
            if len(source.shares) > 1:
                if held and not source.requests.held(now):
                    source.wake_all(self)
                source.offer(now, self)

    def others(self) -> tuple[int, int]:
        """Return how many requests of other runs are in flight, and how many wait."""
        source = self._source
        return (0, 0) if source is None else (source.in_flight - self.in_flight, source.waiting - self.waiting)

    def wake_others(self) -> None:
        """Wake the other runs: the circuit has opened or closed."""
        if self._source is not None:
            with self._source.lock:
                self._source.wake_all(self)


def _turn(share: Share) -> tuple[int, int]:
    return share.in_flight, share.latest


def _slot(share: Share) -> float:
    return math.inf if share.slot is None else share.slot[0]
