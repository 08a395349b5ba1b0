"""Budgets warn when three quarters and nine tenths of them are spent, once each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rowloop as rl
from rowloop.engine.core.events import BudgetLow, Done, Started, Usage
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.policy import CostBudget, Policies
from rowloop.engine.core.row_groups import Plan
from rowloop.engine.core.tracker import Tracker

if TYPE_CHECKING:
    from pathlib import Path

    from fake_openai import FakeOpenAI


def recipe(url: str) -> rl.Recipe:
    """Make a recipe that asks one thing at a time, at a dollar for each token of an answer."""
    model = rl.Model("openai:m", base_url=url, price=rl.Price(0.0, 1e6), max_parallel=1)
    return rl.Recipe(models={"m": model}, columns=[rl.Text("t", model="m", prompt="Say something")])


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings about budgets so far, and forget them."""
    texts = [record.getMessage() for record in caplog.records if "is spent: " in record.getMessage()]
    caplog.clear()
    return [text for text in texts if re.match(r"\d+ % of max_", text)]


def test_three_quarters_and_nine_tenths_of_max_cost_are_warned_about_once_each(
    server: FakeOpenAI, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Each warning has what is spent, the limit and what is left; a run that resumes warns of what is spent already."""
    result = recipe(server.url).build(tmp_path, 200, max_cost=400, progress=False)
    first, second = warnings_of(caplog)
    for warning, least in ((first, 75), (second, 90)):
        found = re.fullmatch(r"(\d+) % of max_cost is spent: \$([\d.]+) of \$400\.00, \$([\d.]+) left", warning)
        assert found is not None, warning
        assert least <= int(found[1]) < least + 15
        assert float(found[2]) + float(found[3]) == pytest.approx(400)
    cost = result.usage.cost
    assert cost is not None
    assert cost >= 400
    recipe(server.url).build(tmp_path, 200, max_cost=cost / 0.8, resume="always", progress=False)
    assert warnings_of(caplog)[0].startswith("80 % of max_cost is spent: ")


def test_the_budget_of_tokens_warns_as_well(server: FakeOpenAI, caplog: pytest.LogCaptureFixture):
    """In tokens."""
    recipe(server.url).preview(200, max_tokens_total=1000, progress=False)
    first, second = warnings_of(caplog)
    assert re.fullmatch(r"7\d % of max_tokens_total is spent: 7\d\d of 1,000 tokens, 2\d\d left", first)
    assert re.fullmatch(r"9\d % of max_tokens_total is spent: 9\d\d of 1,000 tokens, \d+ left", second)


@given(st.lists(st.integers(0, 40), max_size=60))
def test_no_warning_comes_twice_and_none_is_left_out_unless_the_budget_is_spent_at_once(answers: list[int]):
    """Whatever the answers cost: one warning for each share that is passed, and none once the budget is spent."""
    budget = CostBudget(max_cost=None, max_tokens=100, prices={})
    graph = compile_graph([Node("a", lane=Lane("l", 100))])
    run = Tracker(graph, Plan(100), Policies(cost=budget))
    run.handle(Started())
    spent, warned = 0, []
    for row, tokens in enumerate(answers):
        low = [c for c in run.handle(Done(0, 0, row, Usage(0, tokens))) if isinstance(c, BudgetLow)]
        passed = spent < 75 <= spent + tokens or spent < 90 <= spent + tokens
        spent += tokens
        assert [(c.option, c.spent, c.limit) for c in low] == [("max_tokens_total", spent, 100)] * (
            passed and spent < 100
        )
        warned += low
    assert len(warned) <= 2
