"""Lanes: the ready tasks of the columns that share a limit, and which of them may start now.

Plain data; only the tracker changes it.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .events import Cancelled, IllegalEventError, Wake
from .permits import FixedLimit
from .row_groups import READY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .adaptive_limit import Change
    from .events import Command, Done, Failed, Failure, Resized
    from .graph import Graph, Lane
    from .permits import Permits, PermitsOf
    from .row_groups import GroupState


@dataclass(frozen=True, slots=True)
class LaneState:
    """A lane at one moment: how many tasks are in flight, the most there may be, and how many are ready to start.

    `rate_limited_since`: the second of the run since which every request has been rate limited.
    """

    name: str
    limit: int
    in_flight: int
    ready: int
    rate_limited_since: float | None = None


class LaneQueue:
    """One lane: the ready tasks of its columns, and the permits of those in flight."""

    __slots__ = (
        "enough", "held", "id", "in_flight", "limit", "name", "permits", "queues", "touched", "turn", "waiting",
        "wakes_at",
    )  # fmt: skip

    def __init__(self, id_: int, lane: Lane, columns: Iterable[int], permits: Permits[Any] | FixedLimit) -> None:
        """Take the columns that share the lane."""
        self.id = id_
        self.name = lane.name
        self.permits: Permits[Any] | None = None if isinstance(permits, FixedLimit) else permits
        """None where the limit is fixed: the lane then counts by itself."""
        self.limit = permits.limit
        self.enough = lane.limit
        """So many waiting tasks are enough, however few may be in flight at this moment."""
        self.in_flight = 0
        self.waiting = 0
        self.touched = False
        self.wakes_at = -math.inf
        """The time for which the shell has a timer to look at the lane again."""
        self.queues: dict[int, deque[tuple[GroupState, int, int]]] = {column: deque() for column in columns}
        self.turn: deque[int] = deque()
        self.held: dict[tuple[int, int, int], object] = {}
        """The permits of the tasks in flight, by row group, column and row."""

    def state(self, began: float) -> LaneState:
        """Describe the lane of a run that began at `began`."""
        if self.permits is None:
            return LaneState(self.name, self.limit, self.in_flight, self.waiting)
        since = self.permits.rate_limited_since
        since = None if since is None else max(0.0, since - began)
        return LaneState(self.name, self.permits.limit, self.in_flight, self.waiting, since)


class Lanes:
    """All lanes of a run, and those among them that have something to start."""

    __slots__ = ("_touched", "congested", "metered", "on_permits", "queues")

    def __init__(self, graph: Graph, permits_of: PermitsOf) -> None:
        """Ask for the permits of each lane."""
        self.queues = [
            LaneQueue(
                i,
                lane,
                (column.id for column in graph.columns if column.lane == i),
                permits_of(lane, functools.partial(self._wake, i)),
            )
            for i, lane in enumerate(graph.lanes)
        ]
        self.metered = [(lane, lane.permits) for lane in self.queues if lane.permits is not None]
        """The lanes whose permits are not a fixed limit, with these."""
        self.congested = 0
        """How many lanes have as many tasks waiting as they can take at once, or more."""
        self._touched: list[LaneQueue] = []
        self.on_permits: Callable[[int], None] = _ignore

    @staticmethod
    def wait(lane: LaneQueue | None, failure: Failure, wait: float) -> float:
        """Return how long a task waits by itself before it is tried again: not at all in a lane that sends probes."""
        shut = failure.rate_limited and lane is not None and lane.permits is not None and lane.permits.shut
        return 0.0 if shut else wait

    def put(self, lane: LaneQueue, group: GroupState, column: int, row: int) -> None:
        """Add a ready task to a lane, behind the others of its column."""
        queue = lane.queues[column]
        if not queue:
            lane.turn.append(column)
        queue.append((group, column, row))
        lane.waiting += 1
        if lane.waiting == lane.enough:
            self.congested += 1
        if not lane.touched:
            self.touch(lane)

    def put_first(self, lane: LaneQueue, group: GroupState, column: int, row: int) -> None:
        """Add a ready task to a lane, before the others of its column."""
        self.put(lane, group, column, row)
        lane.queues[column].rotate(1)

    def release(self, lane: LaneQueue, event: Done | Resized | Failed | Cancelled, now: float) -> None:
        """Give back the permit of a task that has ended."""
        lane.in_flight -= 1
        if lane.permits is not None:
            lane.permits.ended(lane.held.pop((event.group, event.column, event.row)), event, now)
        if not lane.touched:
            self.touch(lane)

    def touch(self, lane: LaneQueue) -> None:
        """Have a lane looked at when lanes are filled next."""
        lane.touched = True
        self._touched.append(lane)

    def touch_all(self) -> None:
        """Have all lanes looked at, after a time in which none was filled."""
        for lane in self.queues:
            if not lane.touched:
                self.touch(lane)

    def cap(self, id_: int, limit: int, now: float) -> None:
        """Change how many tasks of a lane may be in flight; raises IllegalEventError for what no lane can have."""
        if not 0 <= id_ < len(self.queues) or limit < 1:
            raise IllegalEventError(f"lane {id_} cannot have the limit {limit}")
        lane = self.queues[id_]
        self.congested += (lane.waiting >= limit) - (lane.waiting >= lane.enough)
        lane.enough = limit
        if lane.permits is None:
            lane.limit = limit
        else:
            lane.permits.cap(limit, now)
        if not lane.touched:
            self.touch(lane)

    def fill(self, now: float, run: Callable[[GroupState, int, int], None], out: list[Command]) -> None:
        """Run what the lanes in which something has changed have permits for, and ask for the timers they need."""
        for lane in self._touched:
            lane.touched = False
            if lane.permits is not None:
                self._fill_metered(lane, lane.permits, now, run, out)
                continue
            while lane.waiting and lane.in_flight < lane.limit:
                task = self._take(lane)
                if task is not None:
                    lane.in_flight += 1
                    run(*task)
        self._touched.clear()

    def _fill_metered(
        self,
        lane: LaneQueue,
        permits: Permits[Any],
        now: float,
        run: Callable[[GroupState, int, int], None],
        out: list[Command],
    ) -> None:
        while (at := permits.earliest(lane.waiting, now)) <= now and lane.waiting:
            task = self._take(lane)
            if task is not None:
                group, column, row = task
                lane.in_flight += 1
                lane.held[group.id, column, row] = permits.sent(now)
                run(group, column, row)
        if lane.waiting and at < math.inf and at != lane.wakes_at:
            lane.wakes_at = at
            out.append(Wake(at - now, lane.id))

    def _take(self, lane: LaneQueue) -> tuple[GroupState, int, int] | None:
        """Take the next task of the column whose turn it is; None if its row is gone, and the column keeps the turn."""
        if lane.waiting == lane.enough:
            self.congested -= 1
        queue = lane.queues[lane.turn[0]]
        task = group, column, row = queue.popleft()
        lane.waiting -= 1
        ready = group.state[column][row] == READY
        if not queue:
            lane.turn.popleft()
        elif ready:
            lane.turn.rotate(-1)
        return task if ready else None

    def states(self, began: float) -> list[LaneState]:
        """Describe the lanes of a run that began at `began`, as they are now."""
        return [lane.state(began) for lane in self.queues]

    def limits(self, began: float) -> dict[str, Sequence[Change]]:
        """Return how the limits that follow an endpoint have changed since `began`, by the lane's name."""
        histories = {lane.name: permits.history for lane, permits in self.metered}
        return {name: _changes_since(history, began) for name, history in histories.items() if history}

    def stop(self, now: float) -> None:
        """Report to the permits that nothing more will be sent."""
        for _, permits in self.metered:
            permits.earliest(0, now)

    def close(self, now: float) -> None:
        """Give back all permits that are still held: the run is over, however it ended."""
        for lane, permits in self.metered:
            for group, column, row in list(lane.held):
                permits.ended(lane.held.pop((group, column, row)), Cancelled(group, column, row), now)
        self.stop(now)

    def _wake(self, lane: int) -> None:
        self.on_permits(lane)


def _changes_since(history: Sequence[Change], began: float) -> list[Change]:
    """Return how a limit has changed since a run began, in seconds of that run; it started with what the limit was."""
    first = max((i for i, change in enumerate(history) if change.time < began), default=0)
    changes = [change._replace(time=max(0.0, change.time - began)) for change in history[first:]]
    if history and history[first].time < began:
        changes[0] = changes[0]._replace(why="started")
    return changes


def _ignore(_: int) -> None:
    """Do nothing: no shell listens yet."""
