"""The watch: notices that a run stands still, and tasks that take long. Pure: the time is passed in.

It looks at the run now and then and not at every event, so it costs a cell nothing. What was in flight at one look and
still is at a later one has been so at least from the one to the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.events import WHOLE, Failed
from .failures import logger

if TYPE_CHECKING:
    from ..core.events import Event, Record
    from ..core.graph import Graph
    from ..core.store import RowGroup

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..core.events import Due, Execute
    from ..core.graph import Graph
    from ..core.lanes import LaneState
    from ..core.row_groups import Plan

_LOOKS: Final = 8
"""Looks in the shortest of the times to warn after: warnings come at most an eighth of it late."""
_NAMED: Final = 5
_WHOLE_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class View:
    """A run at one moment.

    `over` counts all that has come to an end; `waiting` are the tasks to be tried again; `received` are the bytes that
    have come of answers in flight, by the id of their Execute command.
    """

    over: int
    lanes: Sequence[LaneState]
    in_flight: Sequence[Execute]
    waiting: Sequence[Due] = ()
    writing: Sequence[int] = ()
    received: Mapping[int, int] = field(default_factory=dict)


class Watch:
    """What was seen at the looks so far. None for a time switches its warning off."""

    def __init__(self, graph: Graph, plan: Plan, stall_after: float | None, slow_request_after: float | None) -> None:
        """Take the times to warn after, in seconds."""
        self._graph = graph
        self._plan = plan
        self._stall_after = stall_after
        self._slow_after = slow_request_after
        self._over = -1
        self._progress_at = 0.0
        self._stalls = 0
        self._slow_told_at: float | None = None
        self._since: dict[int, tuple[Execute | Due, float]] = {}

    @property
    def period(self) -> float | None:
        """How many seconds apart the looks should be; None where there is nothing to look for."""
        times = [after for after in (self._stall_after, self._slow_after) if after is not None]
        return min(times) / _LOOKS if times else None

    def look(self, now: float, view: View) -> list[str]:
        """Look at the run and give the warnings that are due."""
        tasks: list[Execute | Due] = [*view.in_flight, *view.waiting]
        self._since = {id(task): self._since.get(id(task), (task, now)) for task in tasks}
        return [*self._stalled(now, view), *self._slow(now, view)]

    def _stalled(self, now: float, view: View) -> Iterable[str]:
        if view.over != self._over:
            self._over, self._progress_at, self._stalls = view.over, now, 0
        stood = now - self._progress_at
        if self._stall_after is not None and stood >= self._stall_after * (self._stalls + 1):
            self._stalls = int(stood / self._stall_after)
            yield "; ".join([f"no progress for {_seconds(stood)}", *self._waited_for(now, view)])

    def _waited_for(self, now: float, view: View) -> Iterable[str]:
        waiting = [self._graph.columns[due.column].lane for due in view.waiting]
        for i, lane in enumerate(view.lanes):
            retries = waiting.count(i)
            if lane.in_flight or lane.ready or retries:
                yield (
                    f"{lane.name}: {lane.in_flight} of at most {lane.limit} in flight, {lane.ready} ready,"
                    f" {retries} waiting to retry"
                )
        if view.writing:
            yield f"row groups that are being written: {', '.join(map(str, view.writing))}"
        if self._since:
            task, since = min(self._since.values(), key=_age)
            state = "in flight" if any(task is run for run in view.in_flight) else "waiting to be tried again"
            yield f"the oldest is {self._place(task)}, {state} for {_seconds(now - since)}"

    def _slow(self, now: float, view: View) -> Iterable[str]:
        """Name the cells that are in flight for long, at most once in the time to warn after."""
        if self._slow_after is None:
            return
        seen = [(run, self._since[id(run)][1]) for run in view.in_flight if run.row != WHOLE]
        slow = sorted(((run, since) for run, since in seen if now - since >= self._slow_after), key=_age)
        if not slow:
            self._slow_told_at = None
        elif self._slow_told_at is None or now - self._slow_told_at >= self._slow_after:
            self._slow_told_at = now
            named = [
                f"{self._lane(run)}, {self._place(run)}, for {_seconds(now - since)}" + _so_far(view.received, run)
                for run, since in slow[:_NAMED]
            ]
            more = [f"and {len(slow) - _NAMED} more"] if len(slow) > _NAMED else []
            yield f"no answer for more than {self._slow_after:g} s: {'; '.join([*named, *more])}"

    def _place(self, task: Execute | Due) -> str:
        column = self._graph.columns[task.column].name
        if task.row == WHOLE:
            return f"column '{column}', row group {task.group}"
        return f"column '{column}', row {self._plan.row(task.group, task.row)}"

    def _lane(self, task: Execute) -> str:
        lane = self._graph.columns[task.column].lane
        return "no lane" if lane is None else self._graph.lanes[lane].name


def _age(seen: tuple[Execute | Due, float]) -> tuple[float, int, int]:
    """Order by when a task was first seen; of those that were seen together, the first row was taken up first."""
    task, since = seen
    return since, task.group, task.row


def _so_far(received: Mapping[int, int], run: Execute) -> str:
    if id(run) not in received:
        return ""
    count = received[id(run)]
    return f", {count:,} bytes so far" if count else ", nothing received so far"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= _WHOLE_SECONDS else f"{seconds:.1f} s"


@dataclass(slots=True)
class LongWaits:
    """Warns, once for each lane, of an endpoint that asks to wait for longer than the policy does."""

    graph: Graph
    longest: float
    _told: set[int | None] = field(default_factory=set)

    def saw(self, event: Event) -> None:
        """Look at what a failed attempt was told."""
        if type(event) is not Failed or (event.failure.retry_after or 0.0) <= self.longest:
            return
        lane = self.graph.columns[event.column].lane
        if lane is not None and lane not in self._told:
            self._told.add(lane)
            asked, name = event.failure.retry_after, self.graph.lanes[lane].name
            problem = (
                "%s asks to wait for %s s before another attempt; it is made after %g s (RetryPolicy.longest_wait)"
            )
            logger.warning(problem, name, f"{asked:,.0f}", self.longest)

    def recorded(self, record: Record, group: RowGroup) -> None:
        """Learn nothing: failed attempts were seen."""
