"""Policies: what to do about failures and costs, decided from facts alone.

All are frozen values with pure functions, but for `Outcomes`: what an error budget remembers of one column.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import tenacity
from pydantic import Field, field_validator

from .events import BudgetLow
from .spec import spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .events import Failure, Usage
    from .permits import PermitsOf

Place: TypeAlias = tuple[int, int]
"""A row group and a row."""

Wait: TypeAlias = Callable[[int], float]
"""From the number of the attempt that failed (1, 2, ...) to seconds until the next."""


CostOf: TypeAlias = "Callable[[Usage], float | None]"
"""From the usage of an attempt to its cost in US dollars, None if that is not known."""

_LOW: Final = (0.75, 0.9)
"""The shares of a budget at which a run warns."""

_NO_RETRYING = tenacity.Retrying()
_BACKOFF = tenacity.wait_random_exponential(multiplier=0.5, max=30)


def tenacity_wait(strategy: tenacity.wait.wait_base) -> Wait:
    """Use one of tenacity's wait strategies, which look at nothing but the attempt's number here."""

    def wait(attempt: int) -> float:
        state = tenacity.RetryCallState(_NO_RETRYING, None, (), {})
        state.attempt_number = attempt
        return strategy(state)

    return wait


@spec
class RetryPolicy:
    """Which failed attempts are followed by another, and when.

    A retryable failure gets up to `attempts` attempts in all, `wait` apart; full jitter by default, as in "Exponential
    Backoff And Jitter" (AWS architecture blog). A wait that an endpoint asks for with Retry-After is observed, up to
    `longest_wait` seconds, plus up to a tenth so that waiting cells do not all return at once; an endpoint that asks
    for no wait gets the ordinary one. A rate limit delays a task and does not drop it: rate-limited attempts are not
    counted. Once a task has waited `give_up_after` seconds since it was first rate limited, it fails after one last
    attempt (None: it never gives up).

    `wait` is one of tenacity's wait strategies, or a function from the number of the attempt that failed (1, 2, ...) to
    seconds.
    """

    attempts: int = Field(default=6, ge=1, strict=True)
    wait: Wait = Field(default_factory=lambda: tenacity_wait(_BACKOFF))
    longest_wait: float = Field(default=120.0, ge=0)
    give_up_after: float | None = Field(default=None, ge=0)

    @field_validator("wait", mode="before")
    @classmethod
    def _waited(cls, wait: object) -> object:
        return tenacity_wait(wait) if isinstance(wait, tenacity.wait.wait_base) else wait

    def delay(self, failure: Failure, attempts: int, counted: int, waited: float = 0.0) -> float | None:
        """Return the seconds until the next attempt, None for no further one.

        `attempts` have failed so far, `counted` of them for other reasons than a rate limit. The first that was rate
        limited was `waited` seconds ago.
        """
        if not failure.retryable:
            return None
        if not failure.rate_limited:
            return None if counted >= self.attempts else self._next(failure, attempts)
        left = math.inf if self.give_up_after is None else self.give_up_after - waited
        return min(self._next(failure, attempts), left) if left > 0 else None

    def asked(self, failure: Failure) -> float | None:
        """Return the seconds that the endpoint asks to wait, at most `longest_wait`; None where it asks for no wait."""
        if failure.retry_after is None or not failure.retry_after > 0:
            return None
        return min(failure.retry_after, self.longest_wait)

    def _next(self, failure: Failure, attempts: int) -> float:
        asked = self.asked(failure)
        if asked is None:
            return self.wait(attempts)
        return asked * (1 + random.random() / 10)  # noqa: S311 - jitter


@spec
class ErrorBudget:
    """The share of failures among a column's latest outcomes at which the run is ended early.

    It looks at the last `window` outcomes of one column, so that the successes of others hide nothing, and never before
    there are that many. Only failures that no retry can mend count. `rate=None` switches it off.

    A run of which nothing has succeeded is judged sooner: once a column has `without_success` outcomes, and as many of
    its first cells have failed, in the order of rows. None: such a run is judged like any other.

    Refusals often arrive sooner than answers. Until a column's first success, cells of earlier rows in flight therefore
    count as outcomes that are no failures; failures that overtook a cell in flight are forgotten at the first success.
    """

    window: int = Field(default=50, ge=1, strict=True)
    rate: float | None = Field(default=0.5, ge=0, le=1)
    without_success: int | None = Field(default=10, ge=1, strict=True)

    def exceeded(self, outcomes: int, failures: int) -> bool:
        """Return whether the share of failures among so many outcomes is too large."""
        return self.rate is not None and failures > 0 and failures / outcomes >= self.rate

    def spent(self, outcomes: int, failures: int, in_flight: int = 0) -> bool:
        """Return whether `failures` among the last `outcomes` (at most `window`) are too many."""
        return outcomes >= self.window and self.exceeded(outcomes + in_flight, failures)

    def hopeless(self, outcomes: int, failures: int, first: int) -> bool:
        """Return whether it is spent for a run without any success; `first`: the failures before a cell in flight."""
        enough = self.without_success is not None and min(outcomes, first) >= self.without_success
        return enough and self.exceeded(outcomes, failures)


class Outcomes:
    """The latest outcomes of one column's tasks, as far as an error budget needs them."""

    __slots__ = ("_budget", "_failures", "_places", "ended", "failed_at")

    def __init__(self, budget: ErrorBudget) -> None:
        """Start with none."""
        self._budget = budget
        self.ended = 0
        """How many tasks have ended, well or not."""
        self.failed_at: deque[int] = deque()
        """Which of the latest were failures that count, by their number."""
        self._failures = 0
        self._places: list[Place] = []
        """Where the first failures were, as many as a window has."""

    def add_failure(self, place: Place, *, counts: bool) -> None:
        """Add the outcome of a task that failed for good."""
        self.ended += 1
        self._failures += 1
        if counts:
            self.failed_at.append(self.ended)
        if len(self._places) < self._budget.window:
            self._places.append(place)

    def have_first_success(self) -> bool:
        """Return whether the last outcome is the first success, after failures only."""
        return self._failures == self.ended - 1

    def forget_overtaking(self, in_flight: Sequence[Place]) -> None:
        """At the first success: forget the failures, if some of them overtook a cell in flight."""
        if self._overtaken(in_flight):
            self.failed_at.clear()
            self.ended, self._failures = 1, 0

    @property
    def are_bad(self) -> bool:
        """Whether the share of failures among the latest is too large; forgets those that are not among the latest."""
        failed_at = self.failed_at
        while failed_at and failed_at[0] <= self.ended - self._budget.window:
            failed_at.popleft()
        return self._budget.exceeded(self._latest, len(failed_at))

    def exhausted(self, in_flight: Sequence[Place], *, nothing_succeeded: bool) -> Exhausted | None:
        """Return what has spent the budget, where the outcomes are bad; None if it is not spent.

        `in_flight`: where cells of the column are in flight, ascending.
        """
        latest, failures = self._latest, len(self.failed_at)
        overtaken = self._overtaken(in_flight) if self._failures == self.ended else 0
        spent = self._budget.spent(latest, failures, overtaken)
        if nothing_succeeded and not spent:
            first = sum(not in_flight or place < in_flight[0] for place in self._places)
            spent = self._budget.hopeless(latest, failures, first)
        return Exhausted(failures, latest) if spent else None

    @property
    def _latest(self) -> int:
        return min(self.ended, self._budget.window)

    def _overtaken(self, in_flight: Sequence[Place]) -> int:
        """Count the cells in flight before the last of the first failures."""
        return bisect(in_flight, max(self._places))


class Exhausted(NamedTuple):
    """What has spent an error budget: so many failures among the latest outcomes of a column."""

    failures: int
    outcomes: int
    column: int = -1


@dataclass(frozen=True, slots=True)
class CostBudget:
    """What all attempts of a dataset together may cost, in US dollars and in tokens; None for any amount.

    `prices` are functions from the usage of an attempt to its cost, by column. `dollars` and `tokens` are spent
    already. An attempt of unknown cost counts as much as the mean of those of its column whose cost is known: `known`
    has their number and their cost.
    """

    max_cost: float | None
    max_tokens: int | None
    prices: Mapping[int, CostOf]
    dollars: float = 0.0
    tokens: int = 0
    known: Mapping[int, tuple[int, float]] = field(default_factory=dict)

    @property
    def spent(self) -> bool:
        """Whether no further request may be sent."""
        too_dear = self.max_cost is not None and self.dollars >= self.max_cost
        return too_dear or (self.max_tokens is not None and self.tokens >= self.max_tokens)

    def is_near(self, share: float) -> bool:
        """Return whether this share of a limit has been spent."""
        dear = self.max_cost is not None and self.dollars >= share * self.max_cost
        return dear or (self.max_tokens is not None and self.tokens >= share * self.max_tokens)

    def crossed(self, before: CostBudget | None = None) -> list[BudgetLow]:
        """Return a warning for each limit of which 75 or 90 % have been spent since `before`, unless one is reached."""
        if self.spent:
            return []
        dollars, tokens = (0.0, 0) if before is None else (before.dollars, before.tokens)
        low: list[BudgetLow] = []
        if self.max_cost is not None and _crosses(dollars, self.dollars, self.max_cost):
            low.append(BudgetLow("max_cost", self.dollars, self.max_cost))
        if self.max_tokens is not None and _crosses(tokens, self.tokens, self.max_tokens):
            low.append(BudgetLow("max_tokens_total", self.tokens, self.max_tokens))
        return low

    def paid(self, column: int, usage: Usage) -> CostBudget:
        """Return the budget after an attempt."""
        tokens = self.tokens + usage.prompt_tokens + usage.completion_tokens
        if column not in self.prices:
            return replace(self, tokens=tokens)
        cost, known = self.prices[column](usage), self.known
        attempts, sum_of_known = known.get(column, (0, 0.0))
        if cost is None:
            cost = sum_of_known / attempts if attempts else 0.0
        else:
            known = {**known, column: (attempts + 1, sum_of_known + cost)}
        return replace(self, dollars=self.dollars + cost, tokens=tokens, known=known)


def _crosses(before: float, after: float, limit: float) -> bool:
    return any(before < share * limit <= after for share in _LOW)


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies of one run. `permits`: the source of each lane's permits; by default each lane has its own.

    `outage_after`: how many seconds an outage of an endpoint may last before the run ends early; None: any number.
    """

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    errors: ErrorBudget = field(default_factory=ErrorBudget)
    cost: CostBudget | None = None
    permits: PermitsOf | None = None
    outage_after: float | None = 600.0
