"""Everything that can go wrong with an endpoint at once: each row ends as a value or as a failure with its cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import rowloop as rl

if TYPE_CHECKING:
    from fake_openai import FakeOpenAI

FAULTS = ("429", "500", "503", "cut", "hang", "garbage", "invalid_json", "trickle")
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}


def recipe(url: str, timeout: float) -> rl.Recipe:
    """Make a recipe whose rows have different prompts; an answer that does not obey the schema is not re-asked."""
    return rl.Recipe(
        models={"m": rl.Model("openai:any", base_url=url, timeout=timeout, max_parallel=128)},
        columns=[
            rl.Uniform("n"),
            rl.Structured("a", model="m", prompt="{{ n }}", schema=SCHEMA, reasks=0),
        ],
        seed=1,
    )


def assert_everything_is_accounted_for(result: rl.Result, server: FakeOpenAI, rows: int) -> None:
    """Check that every row is complete or in the failures table, and that the report agrees with the server."""
    failures = result.failures
    assert result.dataset["a"].notna().all()
    assert result.actual + len(failures) == rows
    assert failures["row"].is_unique
    assert failures["error"].str.startswith("ModelError(").all()
    assert (failures["message"].str.len() > 0).all()
    assert (failures["attempts"] >= 1).all()
    counters = server.counters()
    assert counters.distinct_prompts == rows
    assert counters.repeats == sum(result.report.retries.values()) == result.metadata["retries"]
    assert counters.requests == result.usage.requests
    assert counters.in_flight == 0


def seconds_without_faults(server: FakeOpenAI) -> float:
    """Measure a hundred rows at this moment: an attempt that times out before the server has read it is not counted."""
    elapsed = recipe(server.url, timeout=30).preview(100, progress=False).elapsed
    server.reset()
    return elapsed


def faulty(server: FakeOpenAI, rows: int) -> None:
    """Meet eight faults at ten per cent each. An endpoint that is unreachable has a test of its own."""
    rates: dict[str, Any] = {f"fault_{fault}": 0.1 for fault in FAULTS}
    server.configure(reply=f"schema:{SCHEMA}".replace("'", '"'), retry_after=0.05, seed=3)
    timeout = max(0.5, 2 * seconds_without_faults(server))
    server.configure(**rates)
    retry, never = rl.RetryPolicy(attempts=4, wait=lambda attempt: 0.02 * attempt), rl.ErrorBudget(rate=None)
    result = recipe(server.url, timeout).preview(rows, retry=retry, error_budget=never, progress=False)
    assert result.status == "partial"  # some rows meet a fault with every attempt
    assert_everything_is_accounted_for(result, server, rows)
    assert set(result.report.retries) >= {
        f"ModelError({kind})" for kind in ("rate_limited", "server", "truncated", "timeout", "unreadable")
    }


def test_all_faults_at_once_and_every_row_is_accounted_for(server: FakeOpenAI):
    """A hundred rows."""
    faulty(server, 100)


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_all_faults_at_once_for_five_thousand_rows(server: FakeOpenAI):
    """Fifty times as many."""
    faulty(server, 5000)
