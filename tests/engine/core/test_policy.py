"""Policies: what to do about failures, decided from facts alone."""

from __future__ import annotations

import math
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import tenacity
from hypothesis import given

from rowloop.engine.core.events import Failure
from rowloop.engine.core.policy import ErrorBudget, RetryPolicy, tenacity_wait

FLAKY = Failure("ServerError", "try again", retryable=True)
BROKEN = Failure("ValueError", "broken for good")
LIMITED = Failure("RateLimitError", "too many", retryable=True, rate_limited=True)
DOUBLING = RetryPolicy(attempts=3, wait=lambda attempt: 2.0**attempt, longest_wait=60)


def asked(seconds: float) -> Failure:
    """Give a failure whose endpoint asked for a wait."""
    return Failure("ServerError", "later", retryable=True, retry_after=seconds)


def test_what_no_retry_can_mend_is_not_retried() -> None:
    """A failure that is not retryable gets no second attempt."""
    assert DOUBLING.delay(BROKEN, 1, 1) is None


def test_attempts_are_counted_and_run_out() -> None:
    """Three attempts are three: two waits, and the end."""
    assert [DOUBLING.delay(FLAKY, n, n) for n in (1, 2, 3)] == [2.0, 4.0, None]


def test_one_attempt_means_no_retry() -> None:
    """`attempts=1` switches retries off."""
    assert RetryPolicy(attempts=1).delay(FLAKY, 1, 1) is None


def test_a_rate_limit_delays_and_does_not_drop() -> None:
    """Rate-limited attempts are not counted, and however many there were, another follows."""
    assert DOUBLING.delay(LIMITED, 5, 0) == 32.0
    assert DOUBLING.delay(LIMITED, 9, 3) == 512.0


@pytest.mark.parametrize("waited", [0.0, 59.9, 1e9])
def test_a_rate_limit_never_drops_a_task_by_default(waited: float) -> None:
    """Without `give_up_after` there is another attempt, however long the task has waited."""
    assert DOUBLING.delay(LIMITED, 5, 0, waited) == 32.0


def test_a_rate_limit_delays_until_give_up_after_and_then_drops() -> None:
    """The waits go on for a minute, the last of them only to its end, and the attempt after that is the last."""
    patient = replace(DOUBLING, give_up_after=60)
    assert patient.delay(LIMITED, 1, 0, 0.0) == 2.0
    assert patient.delay(LIMITED, 5, 0, 50.0) == 10.0
    assert patient.delay(LIMITED, 6, 0, 60.0) is None


def test_give_up_after_concerns_rate_limits_only() -> None:
    """A server error that follows them is retried as often as any other."""
    patient = replace(DOUBLING, give_up_after=60)
    assert patient.delay(FLAKY, 3, 1, 100.0) == 8.0
    assert patient.delay(FLAKY, 5, 3, 0.0) is None


@pytest.mark.parametrize(("said", "asked"), [(10, 10), (86_400, 60), (0, None), (-1, None), (math.nan, None)])
def test_what_the_endpoint_asks_for_is_capped(said: float, asked: float | None) -> None:
    """An absurd Retry-After is `longest_wait`, and one for no wait is none."""
    assert DOUBLING.asked(Failure("ModelError", "later", retryable=True, retry_after=said)) == asked
    assert DOUBLING.asked(LIMITED) is None


def test_the_endpoints_wish_is_honoured() -> None:
    """Retry-After is kept to, and spread by up to a tenth so that the waiting do not come at once."""
    delays = {DOUBLING.delay(asked(10), 1, 1) for _ in range(50)}
    assert all(delay is not None and 10 <= delay <= 11 for delay in delays)
    assert len(delays) > 1


def test_an_absurd_wish_is_capped() -> None:
    """An endpoint that asks for a day gets `longest_wait`."""
    delay = DOUBLING.delay(asked(86_400), 1, 1)
    assert delay is not None
    assert 60 <= delay <= 66


@pytest.mark.parametrize("seconds", [0.0, -5.0, math.nan])
def test_a_wish_for_no_wait_gets_the_ordinary_one(seconds: float) -> None:
    """Retry-After: 0, or a date that is past, does not make us hammer at the endpoint."""
    assert DOUBLING.delay(asked(seconds), 1, 1) == 2.0


def test_a_wish_does_not_buy_attempts() -> None:
    """Retry-After says when, not how often."""
    assert DOUBLING.delay(asked(1), 3, 3) is None


@given(st.integers(1, 10_000))
def test_the_default_wait_is_bounded(attempt: int) -> None:
    """However often a cell was rate-limited, the next attempt comes within half a minute."""
    delay = RetryPolicy().delay(LIMITED, attempt, 0)
    assert delay is not None
    assert 0 <= delay <= 30


def test_the_default_wait_is_jittered_and_grows() -> None:
    """Full jitter: any time up to a bound that doubles."""
    policy = RetryPolicy()
    for attempt in (1, 2, 3):
        delays = [policy.wait(attempt) for _ in range(200)]
        assert max(delays) <= 0.5 * 2 ** (attempt - 1)
        assert len(set(delays)) > 100


def test_tenacitys_strategies_compose() -> None:
    """Any wait strategy of tenacity serves, sums of them as well."""
    wait = tenacity_wait(tenacity.wait_fixed(1) + tenacity.wait_incrementing(start=0, increment=2))
    assert [wait(n) for n in (1, 2, 3)] == [1, 3, 5]


def test_the_budget_waits_for_a_full_window() -> None:
    """Nine failures of nine do not spend a budget over ten outcomes; the tenth does."""
    budget = ErrorBudget(window=10, rate=0.5)
    assert not budget.spent(9, 9)
    assert budget.spent(10, 10)


def test_by_default_a_column_is_judged_over_fifty_outcomes_and_never_before() -> None:
    """Half of the last fifty failures spend it."""
    budget = ErrorBudget()
    assert not budget.spent(49, 49)
    assert not budget.spent(50, 24)
    assert budget.spent(50, 25)


def test_a_run_without_any_success_is_judged_after_ten_outcomes() -> None:
    """Nine are not enough, nor are ten of which one is behind a cell in flight; None waits for the window."""
    assert not ErrorBudget().hopeless(9, 9, 9)
    assert not ErrorBudget().hopeless(10, 10, 9)
    assert ErrorBudget().hopeless(10, 10, 10)
    assert not ErrorBudget().hopeless(20, 9, 20)
    assert not ErrorBudget(without_success=None).hopeless(40, 40, 40)
    assert not ErrorBudget(rate=None).hopeless(40, 40, 40)


def test_the_budget_is_spent_at_its_rate() -> None:
    """Five of ten are half."""
    budget = ErrorBudget(window=10, rate=0.5)
    assert not budget.spent(10, 4)
    assert budget.spent(10, 5)


def test_a_budget_without_a_rate_is_never_spent() -> None:
    """`rate=None` switches early shutdown off."""
    assert not ErrorBudget(window=10, rate=None).spent(10, 10)


def test_a_budget_of_nothing_is_spent_by_a_failure_only() -> None:
    """`rate=0` forgives no failure, and is not spent by successes."""
    assert not ErrorBudget(window=10, rate=0.0).spent(10, 0)
    assert ErrorBudget(window=10, rate=0.0).spent(10, 1)


@given(st.integers(1, 1000), st.data())
def test_shares_are_exact(window: int, data: st.DataObject) -> None:
    """A rate that is written as a share is reached by that share, not by one failure more."""
    failures = data.draw(st.integers(1, window))
    budget = ErrorBudget(window, rate=failures / window)
    assert budget.spent(window, failures)
    assert not budget.spent(window, failures - 1)
