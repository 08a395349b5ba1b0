"""The pace: requests and tokens per minute, enforced by spacing."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

import rowloop as rl
from rowloop.engine.core.bounds import Pace
from rowloop.engine.core.limits.pace import PaceState


def send(pace: Pace, tokens: list[float]) -> list[float]:
    """Send requests of so many tokens, each as early as may be; give the times."""
    state, now, times = PaceState(pace, 0.0), 0.0, []
    for each in tokens:
        now = state.earliest(now)
        state.sent(now, each)
        times.append(now)
    return times


@pytest.mark.parametrize("per_minute", [1, 3, 60, 600, 30_000])
def test_no_minute_has_more_requests_than_allowed(per_minute: int):
    """In any 60 s there are at most 1.01 times as many, and over ten minutes as many as may be."""
    times = send(Pace(requests_per_minute=per_minute), [0] * (3 * per_minute))
    most = round(1.01 * per_minute)
    assert all(later - sooner >= 60 - 1e-6 for sooner, later in zip(times, times[most:], strict=False))
    assert times[-1] <= 180


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=300))
def test_no_minute_has_more_tokens_than_allowed(tokens: list[float]):
    """In any 60 s there are at most the budget and one request more, and no time is wasted."""
    times = send(Pace(tokens_per_minute=1000), tokens)
    for begin, start in enumerate(times):
        in_minute = [count for time, count in zip(times[begin:], tokens[begin:], strict=True) if time < start + 60]
        assert sum(in_minute[:-1]) <= 1000 + 1e-6
    assert times[-1] == pytest.approx(sum(tokens[:-1]) * 60 / 1000)


def test_without_budgets_nothing_waits():
    """`Pace()` is no pace at all."""
    assert send(Pace(), [10**9] * 5) == [0.0] * 5
    assert Pace().refusal(10**12) is None


def test_a_request_larger_than_the_budget_fails_clearly():
    """It says what it takes, what is allowed and what to do; one as large as the budget goes."""
    refusal = Pace(tokens_per_minute=1000).refusal(1200.4)
    assert refusal is not None
    assert "about 1200 tokens" in refusal
    assert "tokens_per_minute=1000" in refusal
    assert Pace(tokens_per_minute=1000).refusal(1000) is None


@given(st.lists(st.tuples(st.floats(1, 900), st.floats(1, 900)), min_size=1, max_size=50))
def test_an_estimate_is_corrected_by_the_answer(requests: list[tuple[float, float]]):
    """Once all answers are there it is as if their tokens had been known, as far as no time went by unused."""
    state, now = PaceState(Pace(tokens_per_minute=1000), 0.0), 0.0
    for estimated, _ in requests:
        now = state.earliest(now)
        state.sent(now, estimated)
    for estimated, tokens in requests:
        state.correct(estimated, tokens)
    assert state.earliest(now) == pytest.approx(max(now, sum(tokens for _, tokens in requests) * 0.06), abs=1e-6)


def test_time_that_was_not_used_is_not_saved_up():
    """An hour of nothing does not allow an hour's requests at once."""
    state = PaceState(Pace(requests_per_minute=60), 0.0)
    state.sent(3600.0)
    assert state.earliest(3600.0) == 3601.0


@pytest.mark.parametrize("field", ["requests_per_minute", "tokens_per_minute"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "many"])
def test_an_impossible_budget_is_refused(field: str, value: float):
    """The error names the field."""
    with pytest.raises(rl.RecipeError, match=f"Pace.{field}"):
        Pace(**{field: value})
