"""Several runs of one process at one endpoint, as the server sees them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import openai
import pytest
from pydantic import SecretStr

import rowloop as rl
from rowloop.runtime import Runtime

if TYPE_CHECKING:
    from fake_openai import FakeOpenAI

KEY = "not-a-real-key"


def recipe(server: FakeOpenAI, **model: Any) -> rl.Recipe:
    """Make a recipe of one model column, with its own alias."""
    made = rl.Model("openai:any", base_url=server.url, **model)
    return rl.Recipe(models={"m": made}, columns=[rl.Uniform("n"), rl.Text("t", model="m", prompt="{{ n }}")])


def test_six_runs_at_once_have_64_requests_in_flight_together(server: FakeOpenAI, tmp_path: Any) -> None:
    """The server never has more, and uses all; the report and the progress of each run have the number of runs."""
    server.configure(latency=0.1)
    made = recipe(server, max_parallel=64)
    runs = [made.start(tmp_path / str(i), rows=200, progress=False) for i in range(6)]
    results = [run.result(timeout=120) for run in runs]
    assert [result.status for result in results] == ["complete"] * 6
    assert 56 <= server.counters().peak <= 64
    assert max(run.progress.shared.get(lane, 1) for run in runs for lane in run.progress.shared) == 6
    loads = [result.report.load for result in results]
    assert max(lane.runs for load in loads if load is not None for lane in load.lanes) == 6
    assert any("64 at once, shared by 6 runs" in str(result.report) for result in results)


@pytest.mark.stress
def test_six_runs_at_once_keep_one_pace_in_two_runtimes(server: FakeOpenAI, tmp_path: Any) -> None:
    """1,200 a minute: a hundred requests take at least 4.4 s, whichever thread's loop sends them."""
    server.configure(latency=0.01)
    made = recipe(server, max_parallel=64, requests_per_minute=1200)
    began = time.monotonic()
    with Runtime() as another:
        options: list[dict[str, Any]] = [{}, {"runtime": another}] * 3
        runs = [made.start(tmp_path / str(i), rows=17, progress=False, **option) for i, option in enumerate(options)]
        results = [run.result(timeout=120) for run in runs]
    assert [result.status for result in results] == ["complete"] * 6
    assert server.counters().requests == 102
    assert time.monotonic() - began >= (102 - 13) / 20


def test_small_runs_one_after_the_other_keep_the_pace(server: FakeOpenAI) -> None:
    """600 a minute, and six may go at once: thirty rows take at least 2.3 s, though no run has more than three."""
    made = recipe(server, requests_per_minute=600)
    began = time.monotonic()
    for _ in range(10):
        assert made.preview(3, progress=False).status == "complete"
    assert time.monotonic() - began >= (30 - 7) / 10


def test_a_client_of_the_users_own_shares_by_its_address_and_key(server: FakeOpenAI, tmp_path: Any) -> None:
    """Two factories, and a model without one, have eight requests in flight together."""
    server.configure(latency=0.05)
    clients = [
        rl.Model("openai:any", client=lambda: openai.AsyncOpenAI(base_url=server.url, api_key=KEY), max_parallel=8)
        for _ in range(2)
    ]
    models = [*clients, rl.Model("openai:any", base_url=server.url, api_key=SecretStr(KEY), max_parallel=8)]
    column = rl.Text("t", model="m", prompt="{{ n }}")
    recipes = [rl.Recipe(models={"m": model}, columns=[rl.Uniform("n"), column]) for model in models]
    runs = [made.start(tmp_path / str(i), rows=40, progress=False) for i, made in enumerate(recipes)]
    assert [run.result(timeout=120).status for run in runs] == ["complete"] * 3
    assert server.counters().peak <= 8


@pytest.mark.stress
def test_a_run_that_begins_during_an_outage_waits_as_the_other_does(server: FakeOpenAI, tmp_path: Any) -> None:
    """It does not fail because the endpoint cannot be reached: the process knows that it has worked."""
    server.configure(latency=0.02)
    made = recipe(server, max_parallel=8)
    first = made.start(tmp_path / "a", rows=400, progress=False)
    server.wait_for(answered=50, timeout=30)
    server.refuse_for(3.0)
    until = time.monotonic() + 20
    while not first.progress.down and time.monotonic() < until:
        first.wait(0.02)
    second = made.start(tmp_path / "b", rows=50, progress=False)
    results = [run.result(timeout=60) for run in (first, second)]
    assert [(result.status, result.report.dropped) for result in results] == [("complete", 0)] * 2
