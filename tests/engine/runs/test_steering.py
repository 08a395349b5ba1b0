"""Steering a run while it lasts: pause, limits and budgets, from another thread."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import rowloop as rl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fake_openai import FakeOpenAI

ROWS = 40


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so; fail after twenty seconds."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.001)


class Slow:
    """A model whose answers the test lets out, a number at a time."""

    def __init__(self) -> None:
        self.in_flight = self.peak = self.asked = 0
        self.may_end = 0

    async def __call__(self, prompt: str) -> str:
        """Wait for a permit to answer."""
        self.in_flight += 1
        self.asked += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            while self.may_end <= 0:  # noqa: ASYNC110 - it is set in another thread
                await asyncio.sleep(0.001)
            self.may_end -= 1
            return prompt
        finally:
            self.in_flight -= 1

    def recipe(self, **model: Any) -> rl.Recipe:
        """Return a recipe whose one model this is."""
        return rl.Recipe(
            models={"writer": rl.Model(self, **model)},
            columns=[
                rl.Seed(pd.DataFrame({"n": range(ROWS)})),
                rl.Text("text", model="writer", prompt="{{ n }}"),
                rl.Expression("line", "{{ text }}!"),
            ],
        )


@pytest.fixture
def slow() -> Iterator[Slow]:
    """Return a model that answers everything at the end, so that no run is left waiting."""
    slow = Slow()
    yield slow
    slow.may_end = 10**9


def turns_of_the_loop() -> None:
    """Let the shared loop do all that it would do by itself."""
    for _ in range(20):
        rl.run_sync(asyncio.sleep(0.001))


def test_a_paused_run_ends_what_is_in_flight_and_starts_nothing(tmp_path: Path, slow: Slow):
    """Finished row groups are written meanwhile, and the resumed run completes."""
    run = slow.recipe(max_parallel=4).start(tmp_path / "out", row_group_size=4, progress=False)
    until(lambda: slow.in_flight == 4)
    run.pause()
    until(lambda: run.status == run.progress.state == "paused")
    slow.may_end = 4
    until(lambda: run.progress.committed == 4)
    assert run.progress.running == 0
    turns_of_the_loop()
    assert (slow.asked, run.done(), run.status) == (4, False, "paused")
    slow.may_end = 10**9
    run.resume()
    assert run.result(20).status == "complete"
    assert slow.asked == ROWS
    assert slow.peak <= 4


def test_a_paused_run_can_be_cancelled_and_does_not_stall(tmp_path: Path, slow: Slow, caplog: pytest.LogCaptureFixture):
    """Nobody is warned of a run that makes no progress because somebody has paused it."""
    run = slow.recipe(max_parallel=4).start(tmp_path / "out", progress=False, stall_after=0.08, slow_request_after=None)
    run.pause()
    until(lambda: run.status == "paused")
    slow.may_end = 4
    until(lambda: run.progress.running == 0)
    caplog.clear()
    for _ in range(30):
        rl.run_sync(asyncio.sleep(0.01))
    assert not any("no progress" in record.getMessage() for record in caplog.records)
    run.cancel()
    assert run.result(20).status == "cancelled"
    assert slow.asked <= 4


def test_a_limit_is_changed_while_the_run_lasts(tmp_path: Path, slow: Slow):
    """Lowered, it holds once what is in flight has ended; raised, it is used in full, also beyond the first one."""
    run = slow.recipe(max_parallel=4).start(tmp_path / "out", progress=False, row_group_size=2)
    until(lambda: slow.in_flight == 4)
    run.set_limit("writer", 2)
    slow.may_end = 3
    until(lambda: slow.asked == 5)
    turns_of_the_loop()
    assert (slow.in_flight, slow.asked) == (2, 5)
    run.set_limit("writer", 9)
    until(lambda: slow.in_flight == 9)
    turns_of_the_loop()
    assert slow.peak == 9
    slow.may_end = 10**9
    assert run.result(20).status == "complete"


def test_a_limit_that_follows_the_endpoint_stays_below_the_new_one(server: FakeOpenAI, tmp_path: Path):
    """A lane that has begun with many is held to three, and grows again from there when it may."""
    server.configure(latency=0.02)
    recipe = rl.Recipe(
        models={"writer": rl.Model("openai:any", base_url=server.url)},
        columns=[rl.Uniform("n"), rl.Text("text", model="writer", prompt="{{ n }}")],
    )
    run = recipe.start(tmp_path / "out", 600, progress=False)
    server.wait_for(in_flight=12)
    run.set_limit("writer", 3)
    until(lambda: server.counters().in_flight <= 3)
    before = server.counters().answered
    server.wait_for(answered=before + 30)
    assert server.counters().in_flight <= 3
    run.set_limit("writer", 40)
    server.wait_for(in_flight=10)
    result = run.result(40)
    assert result.status == "complete"
    ((_, changes),) = result.limits.items()
    assert "capped" in [change.why for change in changes]


@pytest.mark.parametrize(
    ("model", "limit", "problem"),
    [("wirter", 3, "no column calls this model.*writer"), ("writer", 0, "at least 1"), ("writer", 2.5, "whole number")],
)
def test_a_limit_that_cannot_be_is_refused(tmp_path: Path, slow: Slow, model: str, limit: Any, problem: str):
    """The error comes at once, where the call is made."""
    run = slow.recipe().start(tmp_path / "out", progress=False)
    with pytest.raises(rl.RecipeError, match=problem):
        run.set_limit(model, limit)
    run.cancel()
    run.result(20)


class Gated:
    """A paid model, and a function before it whose cells the test lets through."""

    def __init__(self, server: FakeOpenAI) -> None:
        self.server = server
        self.through = 0
        self.began = 0

    def recipe(self) -> rl.Recipe:
        """Return a recipe: each answer costs more than a dollar."""

        async def gate(n: int) -> int:
            self.began += 1
            while n >= self.through:  # noqa: ASYNC110 - it is set in another thread
                await asyncio.sleep(0.001)
            return n

        price = rl.Price(1e6, 1e6)
        return rl.Recipe(
            models={"m": rl.Model("openai:any", base_url=self.server.url, price=price)},
            columns=[
                rl.Seed(pd.DataFrame({"n": range(ROWS)})),
                rl.cell(gate, max_parallel=8),
                rl.Text("text", model="m", prompt="{{ gate }}"),
            ],
        )


@pytest.fixture
def gated(server: FakeOpenAI) -> Iterator[Gated]:
    """Return a gate that is open at the end."""
    gated = Gated(server)
    yield gated
    gated.through = ROWS


def test_a_spent_budget_that_is_raised_before_the_run_has_drained_costs_no_row(tmp_path: Path, gated: Gated):
    """Cells are in flight when the first answer spends the budget: nothing starts, and then everything does."""
    run = gated.recipe().start(tmp_path / "out", max_cost=0.5, progress=False)
    until(lambda: gated.began == 8)
    gated.through = 1
    until(lambda: run.progress.state == "ending")
    gated.through = 3
    until(lambda: run.progress.running == 6)
    turns_of_the_loop()
    assert (gated.began, gated.server.counters().requests) == (9, 1)
    run.set_budget(max_cost=None)
    until(lambda: run.progress.state == "running")
    gated.through = ROWS
    assert run.result(20).status == "complete"
    assert gated.server.counters().requests == ROWS


def test_a_budget_that_is_spent_in_a_pause_can_be_raised_before_it_ends(tmp_path: Path, gated: Gated):
    """Nothing is in flight any more, and yet no row is lost: a paused run is not over."""
    run = gated.recipe().start(tmp_path / "out", max_cost=0.5, progress=False)
    until(lambda: gated.began == 8)
    gated.through = 1
    until(lambda: run.progress.state == "ending")
    run.pause()
    until(lambda: run.status == "paused")
    gated.through = ROWS
    until(lambda: run.progress.running == 0)
    turns_of_the_loop()
    assert not run.done()
    run.set_budget(max_cost=1e9, max_tokens_total=10**9)
    run.resume()
    assert run.result(20).status == "complete"


def test_a_spent_budget_ends_the_run_when_it_has_drained_and_a_resume_makes_the_rest(tmp_path: Path, gated: Gated):
    """As without a pause: the cells in flight end first, and the pause alone does not save the run."""
    run = gated.recipe().start(tmp_path / "out", max_cost=0.5, progress=False)
    until(lambda: gated.began == 8)
    gated.through = 1
    until(lambda: run.progress.state == "ending")
    run.pause()
    run.resume()
    gated.through = ROWS
    result = run.result(20)
    assert (result.status, result.actual, result.metadata["budget_spent"]) == ("partial", 1, True)
    run.set_budget(max_cost=None)  # too late, and harmless
    again = gated.recipe().build(tmp_path / "out", resume="always", progress=False)
    assert (again.status, gated.server.counters().requests) == ("complete", ROWS)


def test_a_budget_can_be_given_to_a_run_without_one_and_counts_what_was_spent_before(tmp_path: Path, gated: Gated):
    """Two answers have been paid for; a cap below their price ends the run, and one above does not."""
    run = gated.recipe().start(tmp_path / "out", progress=False)
    gated.through = 2
    until(lambda: run.progress.requests == 2)
    cost = run.progress.cost
    assert cost is not None
    run.set_budget(max_cost=cost + 1)
    turns_of_the_loop()
    assert run.progress.state == "running"
    run.set_budget(max_cost=cost)
    until(lambda: run.progress.state == "ending")
    gated.through = ROWS
    assert run.result(20).metadata["budget_spent"] is True
    assert gated.server.counters().requests == 2


@pytest.mark.parametrize("caps", [{"max_cost": 0}, {"max_cost": "ten"}, {"max_tokens_total": 1.5}, {"max_cost": True}])
def test_a_budget_that_cannot_be_is_refused(tmp_path: Path, gated: Gated, caps: Any):
    """With the name of the argument."""
    run = gated.recipe().start(tmp_path / "out", progress=False)
    with pytest.raises(rl.RecipeError, match=f"{next(iter(caps))}: takes a number above 0"):
        run.set_budget(**caps)
    run.cancel()
    run.result(20)


def test_a_cap_on_costs_that_nobody_can_compute_is_refused(tmp_path: Path, slow: Slow):
    """As at the start of a run; a cap on tokens is fine."""
    run = slow.recipe().start(tmp_path / "out", progress=False)
    with pytest.raises(rl.RecipeError, match="the price of model 'writer' is not known"):
        run.set_budget(max_cost=1)
    run.set_budget(max_tokens_total=10**6)
    slow.may_end = 10**9
    assert run.result(20).status == "complete"


def test_any_number_of_threads_may_steer_a_run_at_once(tmp_path: Path, slow: Slow):
    """Whatever they ask, in whatever order, the run completes once it is resumed, and asks for each row once."""
    slow.may_end = 10**9
    run = slow.recipe(max_parallel=4).start(tmp_path / "out", row_group_size=3, progress=False)

    def steer(number: int) -> None:
        for i in range(30):
            run.pause() if (i + number) % 2 else run.resume()
            run.set_limit("writer", 1 + (i + number) % 7)
            run.set_budget(max_tokens_total=10**6 + i)

    threads = [threading.Thread(target=steer, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    run.resume()
    result = run.result(20)
    assert (result.status, slow.asked) == ("complete", ROWS)
    run.pause()
    run.set_limit("writer", 2)
    run.cancel()
    assert run.status == "complete"
