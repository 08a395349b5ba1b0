"""Throttle: permits of one run for one lane, from an adaptive limit and a pace. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from .bounds import AdaptiveLimit
from .circuit import Circuit
from .events import Cancelled, Failed
from .limits.adaptive_limit import LimitState
from .limits.pace import PaceState
from .permits import FixedLimit
from .run_circuit import RunCircuit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .events import Done, Resized, Usage
    from .graph import Lane
    from .limits.adaptive_limit import Change, Ticket
    from .permits import PermitsOf, Wake
    from .policy import RetryPolicy

_UNKNOWN: Final = 500.0
"""The estimate of a request's tokens until an answer has reported its own."""


Sent: TypeAlias = "tuple[Ticket, float]"
"""A request in flight, and the tokens that it was estimated to take."""


class Throttle:
    """When a lane may send another request, and how many at once."""

    def __init__(self, lane: Lane, retry: RetryPolicy, now: float = 0.0) -> None:
        """Start with what the lane allows at first; `retry` caps the waits that an endpoint asks for."""
        policy = AdaptiveLimit(most=lane.limit, start=min(lane.start or lane.limit, lane.limit))
        self.requests = LimitState(policy, now)
        self.pace = None if lane.pace is None else PaceState(lane.pace, now)
        self.adaptive = lane.start is not None
        self.circuit: RunCircuit | None = None
        self._retry = retry
        self._tokens = 0
        self._counted = 0
        self.rate_limited_since: float | None = None

    @property
    def limit(self) -> int:
        """How many may be in flight now."""
        return self.requests.limit

    @property
    def history(self) -> Sequence[Change]:
        """How the limit has changed; empty without an adaptive limit."""
        return tuple(self.requests.history) if self.adaptive else ()

    @property
    def shut(self) -> bool:
        """Whether the endpoint refuses everything and does not say for how long."""
        return self.requests.shut

    @property
    def runs(self) -> int:
        """One: nobody else has these permits."""
        return 1

    @property
    def estimate(self) -> float:
        """The tokens that a request is estimated to take."""
        return self._tokens / self._counted if self._counted else _UNKNOWN

    def begin(self, now: float) -> None:
        """Begin with a closed circuit, where there is an endpoint."""
        self.circuit = RunCircuit(Circuit(), now) if self.adaptive else None

    def close(self, now: float) -> None:
        """Keep everything: nobody else needs it."""

    def cap(self, most: int, now: float) -> None:
        """Change how many may ever be in flight."""
        self.requests.cap(most, now)
        if not self.adaptive:
            self.requests.limit = most

    def earliest(self, waiting: int, now: float) -> float:  # noqa: ARG002 - nobody else wants the permits
        """Return when the next request may be sent: `now`, later, or infinity while as many as may be are in flight."""
        at = self.requests.earliest(now)
        return at if self.pace is None else self.pace.earliest(at)

    def sent(self, now: float) -> Sent:
        """Count a request that is being sent."""
        tokens = 0.0
        if self.pace is not None:
            tokens = self.estimate
            self.pace.sent(now, tokens)
        return self.requests.sent(now), tokens

    def ended(self, permit: Sent, event: Done | Resized | Failed | Cancelled, now: float) -> None:
        """Let the limit and the pace learn from how a request ended."""
        self.learn(permit, event, now, self._retry)

    def learn(self, permit: Sent, event: Done | Resized | Failed | Cancelled, now: float, retry: RetryPolicy) -> None:
        """Learn from how a request ended whose run has this policy."""
        ticket, tokens = permit
        if type(event) is Cancelled:
            self.requests.cancelled(ticket)
        elif type(event) is not Failed or not event.failure.retryable:
            self.requests.answered(ticket, now)
            self.rate_limited_since = None
        elif event.failure.rate_limited:
            self._rate_limited(ticket, retry.asked(event.failure), now)
        else:
            self.requests.failed(ticket)
        if self.pace is not None:
            self._correct(self.pace, tokens, event, now)

    def _rate_limited(self, ticket: Ticket, asked: float | None, now: float) -> None:
        if self.adaptive:
            self.requests.rate_limited(ticket, now, asked)
        else:
            self.requests.cancelled(ticket)
        if self.rate_limited_since is None:
            self.rate_limited_since = now

    def _correct(
        self, pace: PaceState, estimate: float, event: Done | Resized | Failed | Cancelled, now: float
    ) -> None:
        """Correct the pace by the tokens and requests that a cell took; a rate-limited request took no tokens."""
        usage: Usage | None = getattr(event, "usage", None)
        for _ in range(1, getattr(usage, "requests", 1)):  # a cell may ask again until the answer obeys its schema
            pace.sent(now)
        if usage is not None and usage.prompt_tokens:
            tokens = usage.prompt_tokens + usage.completion_tokens
            self._tokens += tokens
            self._counted += 1
            pace.correct(estimate, tokens)
        elif type(event) is Failed and event.failure.rate_limited:
            pace.correct(estimate, 0)


def own_permits(retry: RetryPolicy) -> PermitsOf:
    """Give each lane permits of its own: a Throttle where the limit adapts or there is a pace, else a fixed limit."""

    def permits_of(lane: Lane, _: Wake) -> Throttle | FixedLimit:
        if lane.start is None and lane.pace is None:
            return FixedLimit(lane.limit)
        return Throttle(lane, retry)

    return permits_of
