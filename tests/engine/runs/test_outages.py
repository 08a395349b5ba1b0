"""Outages of an endpoint, in whole runs: rows wait, none is dropped, and what cannot wait any longer can be resumed."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import rowloop as rl

if TYPE_CHECKING:
    from pathlib import Path

    from fake_openai import FakeOpenAI

ONCE = rl.RetryPolicy(attempts=1)


def recipe(server: FakeOpenAI, *columns: Any, **model: Any) -> rl.Recipe:
    """Make a recipe with one request a row, and perhaps other columns."""
    return rl.Recipe(
        models={"m": rl.Model("openai:any", base_url=server.url, **model)},
        columns=[rl.Uniform("n"), rl.Text("a", model="m", prompt="{{ n }}"), *columns],
        seed=1,
    )


def after_answers(server: FakeOpenAI, answers: int, *calls: Any) -> threading.Thread:
    """Call functions one after the other once the server has given so many answers."""

    def work() -> None:
        server.wait_for(answered=answers, timeout=30)
        for call in calls:
            call()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("attempts", [1, pytest.param(6, marks=pytest.mark.stress)])
def test_an_outage_drops_no_row(server: FakeOpenAI, attempts: int, caplog: pytest.LogCaptureFixture):
    """The server stops for two seconds: every row is there, and the report, the lane and the log show what happened."""
    server.configure(latency=0.02)
    thread = after_answers(server, 100, lambda: server.refuse_for(2.0))
    retry = rl.RetryPolicy(attempts=attempts)
    result = recipe(server, max_parallel=8).preview(600, retry=retry, progress=False)
    thread.join()
    assert (result.status, len(result.dataset), result.report.dropped) == ("complete", 600, 0)
    (outage,) = result.report.outages
    assert outage.lane.startswith("openai:any")
    assert (outage.outages, outage.open) == (1, False)
    assert outage.seconds == pytest.approx(2.0, abs=1.5)
    assert "  outage    openai:any at " in str(result.report)
    assert "rows waited, none was dropped for it" in str(result.report)
    begun, ended = (text for text in caplog.messages if re.search(r" is down; | answers again", text))
    assert re.match(r"openai:any at \S+ is down; its rows wait, .*; its last refusal: .* could not be reached", begun)
    assert re.match(rf"openai:any at \S+ answers again, after {outage.seconds:.1f} s; its rows continue", ended)


@pytest.mark.stress
@pytest.mark.timeout(150)
def test_three_thousand_rows_with_an_outage_of_20_s_take_25_s_longer(server: FakeOpenAI):
    """No row is dropped, though each has one attempt."""
    server.configure(latency=0.05)
    began = time.monotonic()
    recipe(server).preview(3000, progress=False)
    plain = time.monotonic() - began
    server.reset()
    thread = after_answers(server, 1000, lambda: server.refuse_for(20.0))
    began = time.monotonic()
    result = recipe(server).preview(3000, retry=ONCE, progress=False)
    took = time.monotonic() - began
    thread.join()
    assert (len(result.dataset), result.report.dropped) == (3000, 0)
    assert 20 <= took <= plain + 25


@pytest.mark.stress
def test_5xx_for_a_time_are_an_outage(server: FakeOpenAI):
    """The server answers twenty requests in a row with 503; no row is dropped."""
    server.configure(latency=0.02)
    thread = after_answers(
        server,
        100,
        lambda: server.configure(fault_503=1.0),
        lambda: server.wait_for(requests=server.counters().requests + 20, timeout=30),
        lambda: server.configure(fault_503=0.0),
    )
    result = recipe(server, max_parallel=8).preview(600, retry=ONCE, progress=False)
    thread.join()
    assert (len(result.dataset), result.report.dropped) == (600, 0)
    assert [outage.outages for outage in result.report.outages] == [1]


@pytest.mark.stress
def test_a_server_that_comes_and_goes_drops_no_row(server: FakeOpenAI):
    """It stops three times."""
    server.configure(latency=0.02)
    rounds = [
        step
        for answers in (100, 250, 400)
        for step in (lambda n=answers: server.wait_for(answered=n, timeout=30), lambda: server.refuse_for(1.0))
    ]
    thread = after_answers(server, 1, *rounds)
    result = recipe(server, max_parallel=8).preview(600, retry=ONCE, progress=False)
    thread.join()
    assert (len(result.dataset), result.report.dropped) == (600, 0)
    assert result.report.outages[0].outages == 3


@pytest.mark.stress
def test_an_outage_that_lasts_ends_the_run_and_it_can_be_resumed(server: FakeOpenAI, tmp_path: Path):
    """The run ends after `outage_after`, with that reason; no row is dropped, and a plain resume makes the rest."""
    server.configure(latency=0.02)
    thread = after_answers(server, 150, server.stop)
    made, path = recipe(server, max_parallel=8), tmp_path / "data"
    options: dict[str, Any] = {"row_group_size": 100, "progress": False}
    began = time.monotonic()
    result = made.build(path, 600, retry=ONCE, outage_after=1.5, **options)
    assert 1.5 <= time.monotonic() - began < 20
    thread.join()
    assert (result.status, result.report.dropped, len(result.failures)) == ("partial", 0, 0)
    assert 0 < result.actual < 600
    assert (result.reason or "").startswith("outage_after: openai:any at ")
    assert "it was still down at the end" in str(result.report)
    server.start()
    resumed = made.build(path, 600, resume="always", **options)
    assert (resumed.status, resumed.actual, resumed.report.dropped) == ("complete", 600, 0)
    assert server.counters().distinct_prompts == 600


def test_an_outage_that_leaves_no_row_is_named_in_the_error(server: FakeOpenAI, tmp_path: Path):
    """No row is whole yet, so the run fails; what was answered is in the journal, and a resume asks for the rest."""
    server.configure(latency=0.02)
    thread = after_answers(server, 100, server.stop)

    @rl.batch
    def size(a: list[str]) -> list[int]:
        return [len(a)] * len(a)

    made, path = recipe(server, size, max_parallel=8), tmp_path / "data"
    named = r"no row was completed; outage_after: openai:any at .* has been down for 1 s"
    with pytest.raises(rl.DatasetGenerationError, match=named):
        made.build(path, 300, outage_after=1.0, progress=False)
    thread.join()
    server.start()
    resumed = made.build(path, 300, resume="always", progress=False)
    assert (resumed.status, resumed.actual) == ("complete", 300)
    assert server.counters().distinct_prompts == 300


def test_an_endpoint_that_never_answered_fails_the_run_as_ever(server: FakeOpenAI):
    """No circuit opens before the first success: rows with 503 are dropped, and where nobody listens nothing begins."""
    server.configure(fault_503=1.0)
    with pytest.raises(rl.DatasetGenerationError, match=r"no row was completed.*503"):
        recipe(server).preview(30, retry=ONCE, progress=False)
    server.stop()
    with pytest.raises(rl.ModelError, match="could not be reached"):
        recipe(server).preview(30, retry=ONCE, progress=False)
    server.start()


@pytest.mark.parametrize("kind", ["model", "column"])
def test_what_runs_in_this_process_has_no_outage(kind: str, caplog: pytest.LogCaptureFixture):
    """A function that cannot connect any more, after 100 successes: its rows are dropped."""

    def value(n: float) -> str:
        if len(rows) >= 100:
            raise ConnectionError("nobody there")
        rows.append(n)
        return "fine"

    rows: list[float] = []
    model = rl.Model(lambda prompt: value(float(prompt)))
    made = rl.Text("t", model="m", prompt="{{ n }}") if kind == "model" else rl.cell(value, name="t")
    models = {"m": model} if kind == "model" else {}
    result = rl.Recipe(models=models, columns=[rl.Uniform("n"), made]).preview(
        140, retry=ONCE, progress=False, error_budget=rl.ErrorBudget(rate=None)
    )
    assert (result.status, result.actual, result.report.dropped) == ("partial", 100, 40)
    assert result.report.outages == []
    assert "is down" not in caplog.text


def test_progress_has_the_outage_while_it_lasts(server: FakeOpenAI, tmp_path: Path):
    """The snapshot names the lane; the run goes on when the server is back."""
    server.configure(latency=0.02)
    thread = after_answers(server, 100, server.stop)
    run = recipe(server, max_parallel=8).start(tmp_path / "data", 600, retry=ONCE, progress=False)
    thread.join()
    until = time.monotonic() + 30
    while not (down := run.progress.down) and time.monotonic() < until:
        threading.Event().wait(0.01)
    ((lane, seconds),) = down.items()
    assert lane.startswith("openai:any at ")
    assert 0 <= seconds < 30
    server.start()
    assert run.result(timeout=50).report.dropped == 0
    assert run.progress.down == {}
