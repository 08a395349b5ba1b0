"""Lanes: the ready tasks of the columns that share a limit, taken from each column in turn.

Plain data; only the tracker changes it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .row_groups import READY
from .throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .graph import Column, Lane
    from .policy import RetryPolicy
    from .row_groups import GroupState


@dataclass(frozen=True, slots=True)
class LaneState:
    """A lane at one moment: how many tasks are in flight, of how many at most, and how many are ready to be.

    `shut`: seconds until the next may be sent, where there is room. `refused_since`: the second of the run since which
    all have been refused for a rate limit.
    """

    name: str
    limit: int
    in_flight: int
    ready: int
    shut: float = 0.0
    refused_since: float | None = None


class LaneQueue:
    """The ready tasks of one lane."""

    __slots__ = ("enough", "id", "in_flight", "limit", "queues", "throttle", "touched", "turn", "waiting")

    def __init__(self, id_: int, lane: Lane, columns: Iterable[Column], retry: RetryPolicy) -> None:
        """Take the columns that share the lane."""
        self.id = id_
        self.throttle = None if lane.start is None and lane.pace is None else Throttle(lane, retry)
        self.limit = lane.limit if self.throttle is None else self.throttle.limit
        self.enough = lane.limit
        """So many waiting tasks are enough, however many it can take at this moment."""
        self.in_flight = 0
        self.waiting = 0
        self.touched = False
        self.queues: dict[int, deque[tuple[GroupState, int, int]]] = {column.id: deque() for column in columns}
        self.turn: deque[int] = deque()

    def put(self, group: GroupState, column: int, row: int) -> None:
        """Add a task behind its column's others."""
        queue = self.queues[column]
        if not queue:
            self.turn.append(column)
        queue.append((group, column, row))
        self.waiting += 1

    def put_first(self, group: GroupState, column: int, row: int) -> None:
        """Add a task before its column's others."""
        self.put(group, column, row)
        self.queues[column].rotate(1)

    def take(self) -> tuple[GroupState, int, int] | None:
        """Give the next task, or None: its row was dropped while it waited, which does not cost its column the turn."""
        queue = self.queues[self.turn[0]]
        task = group, column, row = queue.popleft()
        self.waiting -= 1
        ready = group.state[column][row] == READY
        if not queue:
            self.turn.popleft()
        elif ready:
            self.turn.rotate(-1)
        return task if ready else None

    @property
    def refused_since(self) -> float | None:
        """Give the second of the run since which all tasks have been refused for a rate limit."""
        return None if self.throttle is None else self.throttle.refused_since
