"""Lanes: all lanes of a run, and which of their ready tasks may start now.

Plain data; only the tracker changes it.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from .events import Cancelled, IllegalEventError, Wake
from .lane_queue import LaneQueue
from .row_groups import READY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .events import Command, Done, Failed, Failure, Resized
    from .graph import Graph
    from .lane_queue import LaneState
    from .limits.adaptive_limit import Change
    from .permits import Permits, PermitsOf
    from .row_groups import GroupState
    from .run_circuit import RunCircuit


class Lanes:
    """All lanes of a run, and those among them that have something to start."""

    __slots__ = ("_outage_after", "_touched", "congested", "metered", "on_permits", "queues", "undecided")

    def __init__(self, graph: Graph, permits_of: PermitsOf, outage_after: float | None = None) -> None:
        """Ask for the permits of each lane. `outage_after`: the seconds of an outage that are waited for; None: any."""
        self._outage_after = math.inf if outage_after is None else outage_after
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
        self.undecided: list[LaneQueue] = []
        """The lanes that have undecided tasks."""
        self.congested = 0
        """How many lanes have as many tasks waiting as they can take at once, or more."""
        self._touched: list[LaneQueue] = []
        self.on_permits: Callable[[int], None] = _ignore

    def begin(self, now: float) -> None:
        """Begin to ask for permits."""
        for lane, _ in self.metered:
            lane.begin(now)

    @staticmethod
    def wait(lane: LaneQueue | None, failure: Failure, wait: float) -> float:
        """Return how long a task waits by itself before it is tried again: not at all in a lane that sends probes."""
        shut = failure.rate_limited and lane is not None and lane.permits is not None and lane.permits.shut
        return 0.0 if shut or (lane is not None and lane.is_down) else wait

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
        """Add a ready task to a lane, before the others of its column; behind them during an outage.

        Each probe is another task then: one that always fails must not hide that the outage is over.
        """
        self.put(lane, group, column, row)
        if not lane.is_down:
            lane.queues[column].rotate(1)

    def release(self, lane: LaneQueue, event: Done | Resized | Failed | Cancelled, now: float) -> bool:
        """Give back the permit of a task that has ended; return whether an outage excuses the attempt."""
        lane.in_flight -= 1
        excused = False
        if lane.permits is not None:
            task = event.group, event.column, event.row
            permit, request = lane.held.pop(task)
            lane.permits.ended(permit, event, now)
            if lane.circuit is not None and request is not None:
                excused = lane.circuit.ended(request, event, now, lane.in_flight, lane.waiting)
        if not lane.touched:
            self.touch(lane)
        return excused

    def take_permit(self, lane: LaneQueue, now: float) -> object:
        """Take a permit for a second request of a task in flight; None if there is none at this moment."""
        permits = lane.permits
        if permits is None:
            return None
        if permits.earliest(lane.waiting + 1, now) > now:
            permits.earliest(lane.waiting, now)  # the request is not sent later either
            return None
        lane.in_flight += 1
        permit: object = permits.sent(now)
        return permit

    def give_back(self, lane: LaneQueue, permit: object, event: Failed | Cancelled, now: float) -> None:
        """Give back the permit of one of two requests for a task; the task itself has another."""
        lane.in_flight -= 1
        if lane.permits is not None:
            lane.permits.ended(permit, event, now)
        if not lane.touched:
            self.touch(lane)

    def suspend(self, lane: LaneQueue | None, event: Failed, attempts: int) -> bool:
        """Return whether a task that has failed for the last time is undecided, as its endpoint may be down."""
        if lane is None or lane.undecided is None or not lane.undecided.may_be(event.failure):
            return False
        if not lane.undecided.tasks:
            self.undecided.append(lane)
        lane.undecided.add(event, attempts)
        return True

    def decided(self, others_due: int) -> tuple[list[tuple[Failed, int]], bool]:
        """Take out the undecided tasks about which something is known now, and return whether they are excused.

        `others_due`: how many tasks wait for another attempt, with the undecided ones.
        """
        others_due -= sum(len(lane.undecided.tasks) for lane in self.undecided if lane.undecided is not None)
        for lane in self.undecided:
            assert lane.undecided is not None  # noqa: S101 - else it were not in the list
            alone = not (lane.in_flight or lane.waiting or others_due > 0)
            excused = lane.undecided.are_excused(alone=alone)
            if excused is not None:
                tasks, lane.undecided.tasks = lane.undecided.tasks, []
                self.undecided.remove(lane)
                return tasks, excused
        return [], False

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
                if lane.circuit is not None and lane.circuit.since is not None:
                    self._probe(lane, lane.circuit, now, run, out)
                else:
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
            self._send(lane, permits, now, run)
        if lane.waiting and at < math.inf and at != lane.wakes_at:
            lane.wakes_at = at
            out.append(Wake(at - now, lane.id))

    def _send(
        self, lane: LaneQueue, permits: Permits[Any], now: float, run: Callable[[GroupState, int, int], None]
    ) -> bool:
        """Start the next task; return False if its row is gone."""
        task = self._take(lane)
        if task is None:
            return False
        group, column, row = task
        lane.in_flight += 1
        key = group.id, column, row
        lane.held[key] = permits.sent(now), None if lane.circuit is None else lane.circuit.sent(key, now)
        run(group, column, row)
        return True

    def _probe(
        self,
        lane: LaneQueue,
        circuit: RunCircuit,
        now: float,
        run: Callable[[GroupState, int, int], None],
        out: list[Command],
    ) -> None:
        """Send a probe if one is due, and ask for the timer of the next, or of the end of an outage that is too long.

        Nothing else of the lane wants a permit meanwhile.
        """
        permits, at = lane.permits, circuit.earliest(now)
        assert permits is not None  # noqa: S101 - a lane with a circuit has them
        while lane.waiting and at <= now:
            at = permits.earliest(lane.waiting, now)
            if at <= now and self._send(lane, permits, now, run):
                at = circuit.earliest(now)
        if not lane.waiting or circuit.earliest(now) > now:
            permits.earliest(0, now)
        at = min(at if lane.waiting else math.inf, self.gives_up_at(lane))
        if at < math.inf and at != lane.wakes_at:
            lane.wakes_at = at
            out.append(Wake(max(0.0, at - now), lane.id))

    def gives_up_at(self, lane: LaneQueue) -> float:
        """Return when the outage of a lane has been waited for long enough; infinity if there is none."""
        circuit = lane.circuit
        return math.inf if circuit is None or circuit.since is None else circuit.since + self._outage_after

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

    def states(self, began: float, now: float) -> list[LaneState]:
        """Describe the lanes of a run that began at `began`, as they are now."""
        return [lane.state(began, now) for lane in self.queues]

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
                permit, _ = lane.held.pop((group, column, row))
                permits.ended(permit, Cancelled(group, column, row), now)
            permits.earliest(0, now)
            permits.close(now)

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
