"""LaneQueue: the ready tasks of the columns that share one limit, and the permits of those in flight.

Plain data; only the tracker changes it, through `lanes`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .permits import FixedLimit
from .undecided import Undecided

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .circuit import Request
    from .events import Failed
    from .graph import Lane
    from .permits import Permits
    from .row_groups import GroupState
    from .run_circuit import RunCircuit


@dataclass(frozen=True, slots=True)
class LaneState:
    """A lane at one moment: how many tasks are in flight, the most there may be, and how many are ready to start.

    `rate_limited_since`: the second of the run since which every request has been rate limited; `open_since`: since
    which the endpoint has not worked. `outages`: how many there were, with this one, and `down` the seconds of all.
    `runs`: the most runs that have shared the limit at a time, with this one.
    """

    name: str
    limit: int
    in_flight: int
    ready: int
    rate_limited_since: float | None = None
    open_since: float | None = None
    outages: int = 0
    down: float = 0.0
    runs: int = 1


class LaneQueue:
    """One lane: the ready tasks of its columns, and the permits of those in flight."""

    __slots__ = (
        "circuit", "enough", "held", "id", "in_flight", "limit", "name", "permits", "queues", "touched", "turn",
        "undecided", "waiting", "wakes_at",
    )  # fmt: skip

    def __init__(self, id_: int, lane: Lane, columns: Iterable[int], permits: Permits[Any] | FixedLimit) -> None:
        """Take the columns that share the lane."""
        self.id = id_
        self.name = lane.name
        self.permits: Permits[Any] | None = None if isinstance(permits, FixedLimit) else permits
        """None where the limit is fixed: the lane then counts by itself."""
        self.circuit: RunCircuit | None = None
        """None before the run begins, and for what is no endpoint: models in this process, and Python functions."""
        self.undecided: Undecided | None = None
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
        self.held: dict[tuple[int, int, int], tuple[object, Request | None]] = {}
        """The permits of the tasks in flight, by row group, column and row, with what the circuit noted of them."""

    def begin(self, now: float) -> None:
        """Begin to ask for permits."""
        if self.permits is not None:
            self.permits.begin(now)
            self.circuit = self.permits.circuit
            self.undecided = None if self.circuit is None else Undecided(self.circuit)

    def state(self, began: float, now: float) -> LaneState:
        """Describe the lane of a run that began at `began`."""
        if self.permits is None:
            return LaneState(self.name, self.limit, self.in_flight, self.waiting)
        since, circuit = self.permits.rate_limited_since, self.circuit
        since = None if since is None else max(0.0, since - began)
        state = LaneState(self.name, self.permits.limit, self.in_flight, self.waiting, since, runs=self.permits.runs)
        if circuit is None or not circuit.outages:
            return state
        open_since = None if circuit.since is None else circuit.since - began
        return replace(state, open_since=open_since, outages=circuit.outages, down=circuit.lasted(now))

    def counts(self, event: Failed, *, excused: bool) -> int:
        """Return for how many attempts a failed one counts: less than none, if an outage has excused earlier ones."""
        forgiven = 0 if self.circuit is None else self.circuit.forgiven((event.group, event.column, event.row))
        return (not excused) - forgiven

    @property
    def is_down(self) -> bool:
        """Whether the endpoint does not work at this time."""
        return self.circuit is not None and self.circuit.since is not None
