"""Several runs that share permits, in one pure time: whatever they do, no permit is lost and nobody waits in vain."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
    Halted,
    RunAfter,
    Started,
    Stop,
    Usage,
    Wake,
    Woken,
)
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.policy import ErrorBudget, Policies, RetryPolicy
from rowloop.engine.core.row_groups import Plan
from rowloop.engine.core.tracker import Tracker
from shared_permits import RealPermits, SharedPermits

if TYPE_CHECKING:
    from rowloop.engine.core.events import Command, Event

LIMITED = Failure("ModelError", "too many", retryable=True, rate_limited=True, retry_after=2.0)
ANSWERED = Usage()
PATIENT = RetryPolicy(3, lambda _: 0.1, longest_wait=5)


@dataclass
class Member:
    """One of the runs that share a source: its tracker, and what is in flight."""

    tracker: Tracker
    running: list[Execute] = field(default_factory=list)
    stopped: bool = False


class Runs:
    """Several runs in one time: whatever a command leads to happens later, in an order drawn at random."""

    def __init__(
        self,
        lane: Lane | list[Lane],
        rows: list[int],
        seed: int = 0,
        share: float = 0.0,
        kind: type[RealPermits | SharedPermits] = RealPermits,
    ) -> None:
        """Give each run a tracker with one column in its lane; `share` of the requests are rate limited at first."""
        self.rng = random.Random(seed)  # noqa: S311 - no secret
        self.rate_limited = share
        lanes = lane if isinstance(lane, list) else [lane] * len(rows)
        self.source = kind(lanes[0], PATIENT)
        policies = Policies(PATIENT, ErrorBudget(rate=None), permits=self.source)
        graphs = [compile_graph([Node("c", lane=lane)]) for lane in lanes]
        self.members = [
            Member(Tracker(graph, Plan(count), policies)) for graph, count in zip(graphs, rows, strict=True)
        ]
        for i, member in enumerate(self.members):
            member.tracker.on_permits(lambda lane, i=i: self.later(0.0, i, Woken(lane)))
        self.numbers = itertools.count()
        self.events: list[tuple[float, int, int, Event]] = []
        self.now = 0.0
        self.sent: list[tuple[float, int]] = []
        """When which run sent a request."""

    @property
    def in_flight(self) -> list[int]:
        """How many requests of each run are in flight."""
        return [len(member.running) for member in self.members]

    def later(self, delay: float, run: int, event: Event) -> None:
        """Have something happen."""
        heapq.heappush(self.events, (self.now + delay, next(self.numbers), run, event))

    def start(self, run: int) -> None:
        """Begin a run."""
        self.feed(run, Started())

    def feed(self, run: int, event: Event) -> list[Command]:
        """Hand over what happened, and follow the commands."""
        member = self.members[run]
        if isinstance(event, Done | Failed | Cancelled):
            member.running.remove(Execute(event.group, event.column, event.row))
        commands = member.tracker.handle(event, self.now)
        for command in commands:
            self.follow(run, command)
        return commands

    def follow(self, run: int, command: Command) -> None:
        """Do what is said, and see that all runs together stay within the limit."""
        member = self.members[run]
        match command:
            case Execute(group, column, row):
                member.running.append(command)
                self.sent.append((self.now, run))
                assert sum(self.in_flight) <= self.source.throttle.limit, "more in flight than the source allows"
                limited = self.rng.random() < self.rate_limited * (self.now < 60)
                ends: Event = Failed(group, column, row, LIMITED) if limited else Done(group, column, row, ANSWERED)
                self.later(self.rng.uniform(0.5, 1.5), run, ends)
            case RunAfter(delay, group, column, row):
                self.later(delay, run, Due(group, column, row))
            case Wake(delay, lane):
                self.later(delay, run, Woken(lane))
            case Commit(group):
                self.later(0.0, run, Committed(group))
            case Stop():
                member.stopped = True
                member.tracker.close(self.now)

    def step(self) -> None:
        """Let the next thing happen."""
        self.now, _, run, event = heapq.heappop(self.events)
        if not self.members[run].stopped:
            self.feed(run, event)
        if isinstance(self.source, RealPermits) and not (self.events and self.events[0][0] <= self.now):
            self.check(self.source)

    def check(self, source: RealPermits) -> None:
        """Check that nobody waits in vain: not for a permit that is free, nor without a timer."""
        hungry = [share for share in source.shares if share.left > 0]
        timers = {run for _, _, run, event in self.events if isinstance(event, Woken)}
        for share in hungry:
            if not share.blocked:
                assert source.made.index(share) in timers, "a run waits for a time, but has no timer"
        refused = [share for share in hungry if share.blocked]
        if refused and len(refused) == len(hungry):
            assert source.throttle.requests.room <= 0, "a run waits for a permit that is free"
        assert source.in_flight == sum(share.in_flight for share in source.shares) == sum(self.in_flight)

    def cancel(self, run: int) -> None:
        """Halt a run, and cancel what it has in flight."""
        assert Cancel() in self.feed(run, Halted("cancelled"))
        for command in list(self.members[run].running):
            self.feed(run, Cancelled(command.group, command.column, command.row))
        self.events = [item for item in self.events if item[2] != run or not isinstance(item[3], Done | Failed)]
        heapq.heapify(self.events)

    def break_off(self, run: int) -> None:
        """Let a run's shell fail: it closes the tracker, and nothing more is handed over."""
        self.members[run].tracker.close(self.now)
        self.members[run].running.clear()
        self.members[run].stopped = True

    def until(self, time: float) -> None:
        """Let everything happen until then."""
        while self.events and self.events[0][0] <= time:
            self.step()
        self.now = time

    def finish(self) -> None:
        """Let everything happen; every run ends, and the source has its permits back."""
        while self.events:
            self.step()
        assert all(member.stopped for member in self.members), "a run waits for permits that nobody holds"
        assert self.source.in_flight == 0
