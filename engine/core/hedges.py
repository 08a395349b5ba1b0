"""Hedges: which slow cells get a second request, and the permits of these. Pure; only the tracker changes it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .events import Cancelled, Failed, IllegalEventError

if TYPE_CHECKING:
    from .events import HedgeEnded, Slow
    from .lane_queue import LaneQueue
    from .lanes import Lanes
    from .totals import CellCounts

Task: TypeAlias = tuple[int, int, int]

_SHARE: Final = 0.03
"""The most second requests, as a share of the cells of the column that were sent. The paper that names them, "The Tail
at Scale" (Dean and Barroso, 2013), finds that 2 to 5 % are enough."""
_QUIET: Final = 10.0
"""For so many seconds after a 429 no second request is sent: the endpoint has enough to do."""


class Hedges:
    """The second requests of a run."""

    def __init__(self, lanes: Lanes) -> None:
        """Start with none."""
        self._lanes = lanes
        self._held: dict[Task, tuple[LaneQueue, Any]] = {}
        self._sent: dict[int, int] = {}
        self._refused_at: dict[int, float] = {}
        self.waiting: dict[Task, Slow] = {}
        """The slow cells that wait for a permit; they come before cells that have not been sent."""

    def take(self, event: Slow, lane: LaneQueue | None, count: CellCounts, now: float) -> bool:
        """Take a permit for a second request; return False if none may be sent now, or if the cell has to wait."""
        task = event.group, event.column, event.row
        if task in self._held:
            raise IllegalEventError(f"{event}, but it has a second request already")
        sent = self._sent.get(event.column, 0)
        if sent + 1 > _SHARE * (count.completed + count.failed + count.running) or not self._is_calm(lane, now):
            return False
        assert lane is not None  # noqa: S101 - else it is not calm
        permit = self._lanes.take_permit(lane, now)
        if permit is None:
            self.waiting[task] = event
            return False
        self.waiting.pop(task, None)
        self._sent[event.column] = sent + 1
        self._held[task] = lane, permit
        return True

    def give_back(self, event: HedgeEnded, now: float) -> None:
        """Give the permit of one of the two requests back."""
        held = self._held.pop((event.group, event.column, event.row), None)
        if held is None:
            raise IllegalEventError(f"{event} for a cell that has no second request")
        lane, permit = held
        failure = event.failure
        if failure is not None and failure.rate_limited:
            self.rate_limited(lane, now)
        ended = (
            Cancelled(event.group, event.column, event.row)
            if failure is None
            else Failed(event.group, event.column, event.row, failure, event.usage)
        )
        self._lanes.give_back(lane, permit, ended, now)

    def rate_limited(self, lane: LaneQueue, now: float) -> None:
        """Note a 429 of a lane."""
        self._refused_at[lane.id] = now

    def close(self, now: float) -> None:
        """Give all permits back."""
        for task in list(self._held):
            lane, permit = self._held.pop(task)
            self._lanes.give_back(lane, permit, Cancelled(*task), now)

    def _is_calm(self, lane: LaneQueue | None, now: float) -> bool:
        """Return whether the lane's endpoint works, and has refused nothing lately."""
        if lane is None or lane.permits is None or lane.is_down:
            return False
        permits = lane.permits
        refused = permits.shut or permits.rate_limited_since is not None
        return not refused and now - self._refused_at.get(lane.id, -math.inf) >= _QUIET
