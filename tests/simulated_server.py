"""A simulated server and a client with retries, in virtual time: how a limit behaves, at little CPU."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from rowloop.engine.core.bounds import AdaptiveLimit
from rowloop.engine.core.events import (
    Cancel,
    Cancelled,
    Commit,
    Committed,
    Done,
    Due,
    Execute,
    Failed,
    Failure,
    Record,
    RunAfter,
    Started,
    Stop,
    Usage,
    Wake,
    Woken,
)
from rowloop.engine.core.limits.adaptive_limit import LimitState, Ticket
from rowloop.engine.core.policy import RetryPolicy

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from rowloop.engine.core.events import Command, Event, Reason
    from rowloop.engine.core.tracker import Tracker

Outcome: TypeAlias = Literal["ok", "429", "500", "cut", "refused", "hangs", "503"]
_KINDS = {"429": "rate_limited", "500": "server", "cut": "truncated", "refused": "connection", "503": "server"}


def room(limit: LimitState, now: float) -> int:
    """Return how many requests a limit allows to be sent now."""
    if limit.earliest(now) > now:
        return 0
    return 1 if limit.shut else limit.limit - limit.in_flight


@dataclass
class Server:
    """Takes `limit(now)` requests at once and `per_minute` in each minute; some fail whatever the load.

    `spread` is the sigma of a lognormal that latencies are multiplied by. `refusal`: seconds until a 429 is there;
    None: as many as an answer takes. A 429 has `retry_after`, or the rest of the minute where its quota is used up.

    In each of the `outages` (from, until) every request fails as `down` says: its connection is refused at once, it
    hangs until its time limit of `timeout` seconds, or it gets a 503 soon.
    """

    rng: random.Random
    latency: float = 0.25
    spread: float = 0.0
    limit: Callable[[float], float] = lambda _: math.inf
    per_minute: float = math.inf
    refusal: float | None = None
    retry_after: float | None = 1.0
    faults: dict[Outcome, float] = field(default_factory=dict)
    outages: Sequence[tuple[float, float]] = ()
    down: Outcome = "refused"
    timeout: float = 2.0
    in_service: int = 0
    minute: int = -1
    used: int = 0

    def take(self, now: float) -> tuple[Outcome, float]:
        """Return how a request ends, and after how many seconds."""
        latency = self.latency * math.exp(self.rng.gauss(0, self.spread) if self.spread else 0)
        if int(now // 60) != self.minute:
            self.minute, self.used = int(now // 60), 0
        if self.is_down(now):
            return self.down, {"refused": 0.002, "hangs": self.timeout}.get(self.down, 0.02)
        if self.in_service >= self.limit(now) or self.used >= self.per_minute:
            return "429", latency if self.refusal is None else self.refusal
        luck = self.rng.random()
        for outcome, share in self.faults.items():
            luck -= share
            if luck < 0:
                return outcome, latency
        self.used += 1
        self.in_service += 1
        return "ok", latency

    def is_down(self, now: float) -> bool:
        """Return whether there is an outage at this time."""
        return any(begins <= now < ends for begins, ends in self.outages)

    def cut_off(self, sent: float, ends: float) -> float | None:
        """Return when an outage that begins meanwhile breaks a request's connection; None if none does."""
        return next((begins for begins, _ in self.outages if sent < begins < ends), None)

    def failure(self, outcome: Outcome, now: float) -> Failure:
        """Return why a request failed."""
        if outcome != "429":
            return Failure("ModelError", outcome, retryable=True, kind=_KINDS.get(outcome, "timeout"))
        wait = 60 - now % 60 if self.used >= self.per_minute and self.retry_after else self.retry_after
        return Failure("ModelError", outcome, retryable=True, retry_after=wait, rate_limited=True, kind="rate_limited")


class Fixed(LimitState):
    """A limit that nothing changes."""

    def __init__(self, limit: int) -> None:
        super().__init__(AdaptiveLimit(most=limit, start=limit), 0.0)

    def rate_limited(self, ticket: Ticket, now: float, retry_after: float | None = None) -> None:  # noqa: ARG002 - see above
        """Ignore it."""
        self.cancelled(ticket)


@dataclass
class Ran:
    """How a run went. `answers` has the time, the outcome and the limit at each answer."""

    seconds: float = 0.0
    done: int = 0
    dropped: int = 0
    answers: list[tuple[float, Outcome, int]] = field(default_factory=list)

    def share(self, outcome: Outcome, since: float = 0.0, until: float = math.inf) -> float:
        """Give the share of an outcome among the answers in some time."""
        then = [found for time, found, _ in self.answers if since <= time < until]
        return then.count(outcome) / max(1, len(then))

    def limits(self, since: float = 0.0, until: float = math.inf) -> list[int]:
        """Give the limits at the answers in some time, sorted."""
        return sorted(limit for time, _, limit in self.answers if since <= time < until)


def plain_loop(server: Server, rows: int, most: int) -> Ran:
    """Work rows as a plain loop does: each waits a random, doubling time after a 429, and is not in flight then."""
    ran, serial, in_flight, now = Ran(), itertools.count(), 0, 0.0
    ready = deque((row, 1) for row in range(rows))
    events: list[tuple[float, int, Outcome | None, int, int]] = []
    while ran.done < rows:
        while ready and in_flight < most:
            row, attempt = ready.popleft()
            outcome, seconds = server.take(now)
            in_flight += 1
            heapq.heappush(events, (now + seconds, next(serial), outcome, row, attempt))
        now, _, sent, row, attempt = heapq.heappop(events)
        if sent is None:
            ready.append((row, attempt))
            continue
        in_flight -= 1
        ran.answers.append((now, sent, most))
        if sent == "ok":
            server.in_service -= 1
            ran.done += 1
        else:
            wait = server.rng.uniform(0, min(30, 0.5 * 2 ** (attempt - 1)))
            heapq.heappush(events, (now + wait, next(serial), None, row, attempt + 1))
    ran.seconds = now
    return ran


class Client:
    """Works rows as the tracker does: a permit for a request, none while waiting, retries before other rows."""

    def __init__(self, limit: LimitState, server: Server, rows: int) -> None:
        self.limit = limit
        self.server = server
        self.retry = RetryPolicy(wait=lambda n: server.rng.uniform(0, min(30, 0.5 * 2 ** (n - 1))))
        self.ran = Ran()
        self.rows = rows
        self.ready = deque(range(rows))
        self.attempts = [(0, 0)] * rows
        self.events: list[tuple[float, int, int, Outcome | None, Ticket | None]] = []
        self.serial = 0
        self.opening = -math.inf

    def run(self, until: float = math.inf) -> Ran:
        """Work to the end, or until then."""
        ran, now = self.ran, 0.0
        while ran.done + ran.dropped < self.rows and now < until:
            self.send(now)
            now, _, row, outcome, ticket = heapq.heappop(self.events)
            if outcome is not None and ticket is not None:
                self.end(now, row, outcome, ticket)
                ran.answers.append((now, outcome, self.limit.limit))
            elif row >= 0:
                self.ready.appendleft(row)
        ran.seconds = now
        return ran

    def send(self, now: float) -> None:
        """Send as much as may be sent, or look again when the lane opens."""
        while self.ready and room(self.limit, now):
            outcome, seconds = self.server.take(now)
            self.later(now + seconds, self.ready.popleft(), outcome, self.limit.sent(now))
        opening = self.limit.earliest(now)
        if self.ready and now < opening < math.inf and opening != self.opening:
            self.opening = opening
            self.later(self.opening, -1)

    def end(self, now: float, row: int, outcome: Outcome, ticket: Ticket) -> None:
        """End an attempt."""
        if outcome == "ok":
            self.server.in_service -= 1
            self.limit.answered(ticket, now)
            self.ran.done += 1
            return
        failure = self.server.failure(outcome, now)
        if failure.rate_limited:
            self.limit.rate_limited(ticket, now, self.retry.asked(failure))
        else:
            self.limit.failed(ticket)
        tried, counted = self.attempts[row]
        self.attempts[row] = tried, counted = tried + 1, counted + (not failure.rate_limited)
        delay = self.retry.delay(failure, tried, counted)
        if delay is not None and self.limit.shut and failure.rate_limited:
            delay = 0.0
        if delay is None:
            self.ran.dropped += 1
        else:
            self.later(now + delay, row)

    def later(self, time: float, row: int, outcome: Outcome | None = None, ticket: Ticket | None = None) -> None:
        """Have something happen."""
        self.serial += 1
        heapq.heappush(self.events, (time, self.serial, row, outcome, ticket))


class Tracked:
    """A tracker whose first lane is served by the simulated server, in virtual time."""

    def __init__(self, tracker: Tracker, server: Server) -> None:
        self.tracker = tracker
        self.server = server
        self.ran = Ran()
        self.sent: list[float] = []
        """When each request was sent."""
        self.dropped: list[Record] = []
        self.reason: Reason | None = None
        self.in_flight: dict[tuple[int, int, int], Outcome] = {}
        self.due: list[tuple[float, int, Event]] = []
        self.serial = itertools.count()
        self.wake: tuple[float, int] | None = None

    def run(self) -> None:
        """Work until Stop, and keep its reason."""
        commands, now = self.tracker.handle(Started(), 0.0), 0.0
        while True:
            for command in commands:
                if isinstance(command, Stop):
                    self.ran.seconds, self.ran.dropped = now, len(self.dropped)
                    self.ran.done = self.tracker.totals.committed
                    self.reason = command.reason
                    return
                self.carry_out(command, now)
            assert self.due, "nothing is in flight, no timer waits, and there is no Stop"
            now, serial, event = heapq.heappop(self.due)
            if isinstance(event, Woken) and (now, serial) != self.wake:
                commands = []  # a later Wake has replaced this one
                continue
            self.note(event, now)
            commands = self.tracker.handle(event, now)

    def carry_out(self, command: Command, now: float) -> None:
        """Do what the tracker asks for."""
        match command:
            case Execute(group, column, row):
                self.send(group, column, row, now)
            case RunAfter(delay, group, column, row):
                self.later(now + delay, Due(group, column, row))
            case Wake(delay, lane):
                self.wake = now + delay, self.later(now + delay, Woken(lane))
            case Commit(group):
                self.later(now, Committed(group))
            case Record():
                self.dropped.append(command)
            case Cancel():
                self.due = [entry for entry in self.due if not isinstance(entry[2], Done | Failed)]
                heapq.heapify(self.due)
                for task in self.in_flight:
                    self.later(now, Cancelled(*task))

    def send(self, group: int, column: int, row: int, now: float) -> None:
        """Send a request, which an outage may break."""
        outcome, seconds = self.server.take(now)
        broken = self.server.cut_off(now, now + seconds) if outcome == "ok" and self.server.down != "503" else None
        self.sent.append(now)
        if broken is not None:
            self.server.in_service -= 1
            outcome, seconds = (
                self.server.down,
                broken - now + (self.server.timeout if self.server.down == "hangs" else 0),
            )
        self.in_flight[group, column, row] = outcome
        at = now + seconds
        failed = outcome != "ok"
        event: Event = Done(group, column, row, Usage(5, 5, seconds))
        if failed:
            event = Failed(group, column, row, self.server.failure(outcome, at))
        self.later(at, event)

    def note(self, event: Event, now: float) -> None:
        """Note how a request ended."""
        if isinstance(event, Done | Failed | Cancelled):
            outcome = self.in_flight.pop((event.group, event.column, event.row))
            self.server.in_service -= outcome == "ok"
            self.ran.answers.append((now, outcome, self.tracker.lanes[0].limit))

    def later(self, time: float, event: Event) -> int:
        """Have an event happen, and return its number."""
        serial = next(self.serial)
        heapq.heappush(self.due, (time, serial, event))
        return serial
