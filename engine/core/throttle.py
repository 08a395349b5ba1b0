"""Throttle: a lane's adaptive limit and its pace, fed with what becomes of its requests. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from .adaptive_limit import AdaptiveLimit, LimitState
from .events import Cancelled, Failed
from .pace import PaceState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .adaptive_limit import Change, Ticket
    from .events import Done, Resized, Usage
    from .graph import Lane
    from .policy import RetryPolicy

_UNKNOWN: Final = 500.0
"""Tokens that a request is taken to need while no answer has told."""


class Throttle:
    """When a lane may send another request, and how many at once. Times are seconds since the run began."""

    def __init__(self, lane: Lane, retry: RetryPolicy) -> None:
        """Begin with what the lane allows at first."""
        policy = AdaptiveLimit(most=lane.limit, start=min(lane.start or lane.limit, lane.limit))
        self._limit = LimitState(policy, 0.0)
        self._pace = None if lane.pace is None else PaceState(lane.pace, 0.0)
        self._adaptive = lane.start is not None
        self._most = lane.limit
        self._retry = retry
        self._sent: dict[tuple[int, int, int], tuple[Ticket, float]] = {}
        self._tokens = 0
        self._told = 0
        self.woken_at = -math.inf
        """When the shell was told to look at the lane again."""
        self.refused_since: float | None = None
        """Since when every request has been refused for a rate limit."""

    @property
    def limit(self) -> int:
        """How many may be in flight at this moment."""
        return self._limit.limit if self._adaptive else self._most

    @property
    def history(self) -> Sequence[Change]:
        """How the limit came to be what it is."""
        return tuple(self._limit.history) if self._adaptive else ()

    def earliest(self, now: float) -> float:
        """Say when the next request may be sent: `now`, or later."""
        shut = self._limit.opens_at if self._adaptive else now
        return max(now, shut if self._pace is None else max(shut, self._pace.earliest(now)))

    def sent(self, group: int, column: int, row: int, now: float) -> None:
        """Take notice of a request that is sent."""
        estimate = 0.0
        if self._pace is not None:
            estimate = self._tokens / self._told if self._told else _UNKNOWN
            self._pace.sent(now, estimate)
        self._sent[group, column, row] = self._limit.sent(), estimate

    def ended(self, event: Done | Failed | Cancelled | Resized, now: float) -> None:
        """Take notice of what became of it."""
        ticket, estimate = self._sent.pop((event.group, event.column, event.row))
        if type(event) is Cancelled:
            self._limit.withdrawn(ticket)
        elif type(event) is not Failed or not event.failure.retryable:
            self._limit.answered(ticket, now)
            self.refused_since = None
        elif event.failure.rate_limited:
            self._limit.refused(ticket, now, self._retry.asked(event.failure))
            self.refused_since = now if self.refused_since is None else self.refused_since
        else:
            self._limit.troubled(ticket)
        if self._pace is not None:
            self._correct(self._pace, event, estimate, now)

    def _correct(
        self, pace: PaceState, event: Done | Failed | Cancelled | Resized, estimate: float, now: float
    ) -> None:
        usage: Usage | None = getattr(event, "usage", None)
        for _ in range(1, getattr(usage, "requests", 1)):  # an answer that did not obey was asked for again
            pace.sent(now)
        if usage is not None and usage.prompt_tokens:
            tokens = usage.prompt_tokens + usage.completion_tokens
            self._tokens += tokens
            self._told += 1
            pace.corrected(estimate, tokens)
        elif type(event) is Failed and event.failure.rate_limited:
            pace.corrected(estimate, 0)
