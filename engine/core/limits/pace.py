"""The pace: when a request may be sent so that a lane stays within so many requests and tokens per minute. Pure.

Theory of operation
    Both budgets are enforced by spacing, not by counting in windows: a request takes its share of the minute, and the
    next one may go when that time is over (GCRA, the leaky bucket as a meter). A hundredth of the minute's requests may
    go at once, so that a late timer costs nothing. No minute then has more than 1.01 times the requests, nor more
    tokens than the budget and one request's: what a server's own bucket allows.

    The tokens of a request are estimated when it is sent, and corrected when its answer reports them. A request that is
    larger than the whole budget could never be sent: `Pace.refusal` gives the reason, and the caller fails it.

    The budgets that a server reports (x-ratelimit-*) matter only with a 429: the provider then reads them as the time
    to wait.
"""

from __future__ import annotations

from typing import Protocol

_MINUTE = 60.0


class Budgets(Protocol):
    """How many requests per minute, and how many tokens; None: any number."""

    @property
    def requests_per_minute(self) -> float | None: ...  # noqa: D102 - the class describes it

    @property
    def tokens_per_minute(self) -> float | None: ...  # noqa: D102


class PaceState:
    """The pace of one lane at one moment. Times are seconds of any clock that does not go back."""

    def __init__(self, pace: Budgets, now: float) -> None:
        """Start with both budgets whole."""
        self._per_request, self._per_token, self._ahead = _spacing(pace)
        self._requests_from = self._tokens_from = now

    def change(self, pace: Budgets, now: float) -> None:
        """Take other budgets. What was sent before stays counted, but keeps nobody waiting longer than it did."""
        per_request, per_token, self._ahead = _spacing(pace)
        self._requests_from = now + _rescaled(self._requests_from - now, self._per_request, per_request)
        self._tokens_from = now + _rescaled(self._tokens_from - now, self._per_token, per_token)
        self._per_request, self._per_token = per_request, per_token

    @property
    def spacing(self) -> float:
        """The seconds between two requests, but for tokens."""
        return self._per_request

    def earliest(self, now: float) -> float:
        """Return the time at which the next request may be sent: `now`, or later."""
        return max(now, self._requests_from - self._ahead, self._tokens_from)

    def sent(self, now: float, tokens: float = 0) -> None:
        """Count a request that is being sent, of about so many tokens."""
        self._requests_from = max(self._requests_from, now) + self._per_request
        self._tokens_from = max(self._tokens_from, now) + tokens * self._per_token

    def book(self, now: float, tokens: float = 0) -> float:
        """Count a request in advance, and return when it may be sent: `now`, or later."""
        at = self.earliest(now)
        self.sent(at, tokens)
        return at

    def cancel(self, tokens: float = 0) -> None:
        """Take back the latest booking: the request will not be sent."""
        self._requests_from -= self._per_request
        self._tokens_from -= tokens * self._per_token

    def correct(self, estimated: float, tokens: float) -> None:
        """Replace the estimate of a request's tokens by what it took."""
        self._tokens_from += (tokens - estimated) * self._per_token


def _spacing(pace: Budgets) -> tuple[float, float, float]:
    """Return the seconds that a request and a token take, and how many seconds of requests may go at once."""
    requests, tokens = pace.requests_per_minute, pace.tokens_per_minute
    ahead = _MINUTE / 100 if requests and requests > 100 else 0.0  # noqa: PLR2004 - a hundredth is one then
    return _MINUTE / requests if requests else 0.0, _MINUTE / tokens if tokens else 0.0, ahead


def _rescaled(seconds: float, before: float, after: float) -> float:
    """Return how long to wait for what was sent at another spacing."""
    return min(seconds, seconds * after / before) if seconds > 0 and before else seconds
