"""Limits and budgets, end to end, against a server that has its own limit and counts requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import rowloop as rl

if TYPE_CHECKING:
    from pathlib import Path

    from fake_openai import FakeOpenAI

QUIET: Any = {"progress": False}


def recipe(url: str, **model: Any) -> rl.Recipe:
    """Make a recipe of one model column."""
    return rl.Recipe(
        models={"m": rl.Model("openai:any", base_url=url, **model)},
        columns=[rl.Uniform("n"), rl.Text("t", model="m", prompt="{{ n }}")],
        seed=1,
    )


def test_a_hidden_limit_is_found_and_its_history_is_on_the_result(server: FakeOpenAI):
    """A server that accepts forty requests at once gets about forty at once, and few are refused.

    test_adaptive_limit.py checks how exactly, and for how long, in virtual time; here others share the machine.
    """
    server.configure(latency=0.02, limit=40)
    result = recipe(server.url).preview(1200, **QUIET)
    counted = server.counters().by_status
    assert result.status == "complete"
    assert counted[200] == 1200
    assert 0 < counted[429] < 0.25 * 1200
    (changes,) = result.limits.values()
    assert changes[0].why == "started"
    assert 20 <= changes[-1].limit <= 60
    assert result.report.load is not None
    assert result.report.load.lanes[0].cuts > 0


def test_an_absurd_retry_after_is_capped_and_named(server: FakeOpenAI, caplog: pytest.LogCaptureFixture):
    """The endpoint asks for a day: the run waits no longer than its policy allows, and logs that once."""
    server.configure(fault_429=1.0, fault_attempts=1, retry_after=86_400)
    result = recipe(server.url).preview(5, retry=rl.RetryPolicy(longest_wait=0.05), **QUIET)
    assert result.status == "complete"
    (warning,) = [record.getMessage() for record in caplog.records if "asks to wait" in record.getMessage()]
    assert "asks to wait 86,400 s before the next attempt; rowloop waits 0.05 s" in warning


def test_a_request_larger_than_the_budget_of_a_minute_fails_clearly(server: FakeOpenAI):
    """It would wait for ever."""
    made = recipe(server.url, tokens_per_minute=100, max_tokens=90).replace_model("m", max_tokens=101)
    with pytest.raises(rl.EarlyShutdownError, match=r"more than tokens_per_minute=100 allows in all; shorten"):
        made.preview(1, **QUIET)
    assert server.counters().requests == 0


def test_a_budget_ends_the_run_and_a_larger_one_resumes_it(server: FakeOpenAI, tmp_path: Path):
    """No request is sent once it is spent; result, report and metadata show it; a resumed run counts earlier costs."""
    price = rl.Price(0.0, 1e6)  # a dollar for each token of an answer
    server.configure(latency=0.01)
    made = recipe(server.url, price=price, max_parallel=4)
    result = made.build(tmp_path / "out", 200, max_cost=300, **QUIET)
    asked = server.counters().requests
    assert result.status == "partial"
    assert result.usage.requests == asked < 200
    assert result.metadata["budget_spent"] is True
    assert "max_cost or max_tokens_total is spent" in str(result.report)
    cost = result.usage.cost
    assert cost is not None
    assert 300 <= cost < 300 + 4 * cost / asked * 4  # at most what was in flight comes on top
    again = made.build(tmp_path / "out", 200, max_cost=300, resume="always", **QUIET)
    assert server.counters().requests == asked
    assert (again.status, again.actual) == ("partial", result.actual)
    last = made.build(tmp_path / "out", 200, resume="always", **QUIET)
    assert (last.status, last.actual) == ("complete", 200)
    assert server.counters().requests <= 200 + 4


def test_tokens_have_a_budget_too(server: FakeOpenAI):
    """Of all models together."""
    server.configure(latency=0.01)
    result = recipe(server.url, max_parallel=2).preview(100, max_tokens_total=200, **QUIET)
    assert result.status == "partial"
    assert result.usage.prompt_tokens + result.usage.completion_tokens >= 200
    assert result.usage.requests < 50


def test_a_cost_that_cannot_be_computed_is_refused_before_any_request(server: FakeOpenAI):
    """The model without a price is named."""
    with pytest.raises(rl.RecipeError, match=r"max_cost: the price of model 'm' is not known"):
        recipe(server.url).preview(1, max_cost=1, **QUIET)
