"""Stalls: warnings about slow requests, a run without progress, and an endpoint that asks for a long wait.

The watch is pure: the time is passed in. It inspects the run at intervals and not at every event, so it costs a cell
nothing. A task that is in flight at two successive inspections was in flight for at least the time between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ...runtime.logs import safe_logger
from ..core.events import WHOLE, Failed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..core.events import Due, Event, Execute
    from ..core.graph import Graph
    from ..core.lane_queue import LaneState
    from ..core.row_groups import Plan

logger = safe_logger()

_INSPECTIONS: Final = 8
"""Inspections in the shortest of the times to warn after: a warning comes at most an eighth of it late."""
_NAMED: Final = 5
_WHOLE_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class View:
    """A run at one moment.

    `over` counts everything that has ended. `waiting` are the tasks that wait for a retry. `received` has the bytes
    received of answers in flight, by the id of their Execute command. `refusals` has the endpoint's last refusal, by
    lane.
    """

    over: int
    lanes: Sequence[LaneState]
    in_flight: Sequence[Execute]
    waiting: Sequence[Due] = ()
    writing: Sequence[int] = ()
    received: Mapping[int, int] = field(default_factory=dict)
    began: float = 0.0
    """When the run began, by the clock of the inspections."""
    refusals: Mapping[int, str] = field(default_factory=dict)
    paused: bool = False


class Watch:
    """Compares a run with itself at earlier inspections. None for a time switches its warning off."""

    def __init__(self, graph: Graph, plan: Plan, stall_after: float | None, slow_request_after: float | None) -> None:
        """Take the times to warn after, in seconds."""
        self._graph = graph
        self._plan = plan
        self._stall_after = stall_after
        self._slow_after = slow_request_after
        self._over = -1
        self._progress_at = 0.0
        self._stalls = 0
        self._slow_warned_at: float | None = None
        self._since: dict[int, tuple[Execute | Due, float]] = {}

    @property
    def period(self) -> float | None:
        """The seconds between inspections; None if both warnings are off."""
        times = [after for after in (self._stall_after, self._slow_after) if after is not None]
        return min(times) / _INSPECTIONS if times else None

    def inspect(self, now: float, view: View) -> list[str]:
        """Inspect the run and return the warnings that are due."""
        tasks: list[Execute | Due] = [*view.in_flight, *view.waiting]
        self._since = {id(task): self._since.get(id(task), (task, now)) for task in tasks}
        return [*self._stalled(now, view), *self._slow(now, view)]

    def _stalled(self, now: float, view: View) -> Iterable[str]:
        if view.over != self._over or view.paused:
            self._over, self._progress_at, self._stalls = view.over, now, 0
        stalled = now - self._progress_at
        if self._stall_after is not None and stalled >= self._stall_after * (self._stalls + 1):
            self._stalls = int(stalled / self._stall_after)
            yield "; ".join([f"no progress for {_seconds(stalled)}", *self._waited_for(now, view)])

    def _waited_for(self, now: float, view: View) -> Iterable[str]:
        waiting = [self._graph.columns[due.column].lane for due in view.waiting]
        for i, lane in enumerate(view.lanes):
            retries = waiting.count(i)
            if lane.in_flight or lane.ready or retries:
                yield (
                    f"{lane.name}: {lane.in_flight} of at most {lane.limit} in flight, {lane.ready} ready,"
                    f" {retries} waiting to retry"
                )
                if lane.open_since is not None:
                    down = _seconds(now - view.began - lane.open_since)
                    yield f"its endpoint has been down for {down}; its rows wait, and single requests probe it"
                if i in view.refusals:
                    yield f"its last refusal: {view.refusals[i]}"
        if view.writing:
            yield f"row groups being written: {', '.join(map(str, view.writing))}"
        if self._since:
            task, since = min(self._since.values(), key=_age)
            state = "in flight" if any(task is run for run in view.in_flight) else "waiting to retry"
            yield f"the oldest is {self._location(task)}, {state} for {_seconds(now - since)}"

    def _slow(self, now: float, view: View) -> Iterable[str]:
        """Name the slow cells, at most once per time to warn after."""
        if self._slow_after is None:
            return
        seen = [(run, self._since[id(run)][1]) for run in view.in_flight if run.row != WHOLE]
        slow = sorted(((run, since) for run, since in seen if now - since >= self._slow_after), key=_age)
        if not slow:
            self._slow_warned_at = None
        elif self._slow_warned_at is None or now - self._slow_warned_at >= self._slow_after:
            self._slow_warned_at = now
            named = [
                f"{self._lane(run)}, {self._location(run)}, for {_seconds(now - since)}" + _so_far(view.received, run)
                for run, since in slow[:_NAMED]
            ]
            more = [f"and {len(slow) - _NAMED} more"] if len(slow) > _NAMED else []
            yield f"no answer for more than {self._slow_after:g} s: {'; '.join([*named, *more])}"

    def _location(self, task: Execute | Due) -> str:
        column = self._graph.columns[task.column].name
        if task.row == WHOLE:
            return f"column '{column}', row group {task.group}"
        return f"column '{column}', row {self._plan.row(task.group, task.row)}"

    def _lane(self, task: Execute) -> str:
        lane = self._graph.columns[task.column].lane
        return "no lane" if lane is None else self._graph.lanes[lane].name


def _age(seen: tuple[Execute | Due, float]) -> tuple[float, int, int]:
    """Order by the time of the first inspection that saw a task, then by row: earlier rows started earlier."""
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
    """Warns, once per lane, of an endpoint that asks for a longer wait than the retry policy allows; an observer."""

    graph: Graph
    longest: float
    _warned: set[int | None] = field(default_factory=set)

    def on_event(self, event: Event) -> None:
        """Check the wait that a failed attempt was asked for."""
        if type(event) is not Failed or (event.failure.retry_after or 0.0) <= self.longest:
            return
        lane = self.graph.columns[event.column].lane
        if lane is not None and lane not in self._warned:
            self._warned.add(lane)
            asked, name = event.failure.retry_after, self.graph.lanes[lane].name
            problem = "%s asks to wait %s s before the next attempt; rowloop waits %g s (RetryPolicy.longest_wait)"
            logger.warning(problem, name, f"{asked:,.0f}", self.longest)
