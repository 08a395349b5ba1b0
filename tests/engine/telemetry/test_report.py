"""The report: its numbers, against a real server and on a virtual clock, and its text."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import jsonschema_rs
import msgspec
import pytest

import rowloop as rl
from emulator import Terminal
from rowloop.adapters.displays.wording import finished_rows, totals
from rowloop.engine.core.events import Done, Due, Failed, Failure, Record, Usage
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.row_groups import Plan
from rowloop.engine.core.store import Store
from rowloop.engine.datasets.directory import METADATA
from rowloop.engine.datasets.metadata import json_schema
from rowloop.engine.datasets.reading import read_result
from rowloop.engine.telemetry.metrics import RequestObserver
from rowloop.engine.telemetry.report import Report
from rowloop.engine.telemetry.report_parts import LaneReport, Load, ModelReport, OutageReport, SlowCell
from rowloop.engine.telemetry.spending import Spent
from virtual_run import VirtualRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fake_openai import FakeOpenAI
    from rowloop.engine.telemetry.progress import Display


@pytest.fixture
def requests() -> RequestObserver:
    """Observe a column of one model in groups of ten rows."""
    graph = compile_graph([Node("a", lane=Lane("openai:m", 4))])
    return RequestObserver(graph, Plan(100, 10), {0: "m"})


def test_retries_are_counted_by_the_error_before_them(requests: RequestObserver):
    """A failure counts when its task is retried, not when it is final."""
    busy, broken = Failure("Busy", "later", retryable=True), Failure("Broken", "never")
    for row, failure in ((1, busy), (2, busy), (2, broken), (3, broken)):
        requests.on_event(Failed(0, 0, row, failure))
        if failure is busy:
            requests.on_event(Due(0, 0, row))
    graph = compile_graph([Node("a")])
    store = Store(graph)
    requests.on_failure(Record(0, 0, 3, broken, 1), store)  # type: ignore[arg-type]
    assert requests.retries == {"Busy": 2}


def test_the_slowest_requests_are_named_slowest_first(requests: RequestObserver):
    """Five of them, failed ones among them, by the run's row numbers."""
    for row in range(10):
        requests.on_event(Done(1, 0, row, Usage(seconds=float(row))))
    requests.on_event(Failed(2, 0, 3, Failure("Timeout", ""), Usage(seconds=100.0)))
    assert requests.slowest() == [
        SlowCell("a", 23, 100.0), SlowCell("a", 19, 9.0), SlowCell("a", 18, 8.0), SlowCell("a", 17, 7.0),
        SlowCell("a", 16, 6.0),
    ]  # fmt: skip


def test_latencies_are_of_answers_and_by_model(requests: RequestObserver):
    """p50 and p95 of a hundred answers of 1 to 100 s; a time-out of 600 s is no answer."""
    for second in range(1, 101):
        requests.on_event(Done(0, 0, second % 10, Usage(seconds=float(second))))
    requests.on_event(Failed(0, 0, 1, Failure("Timeout", ""), Usage(seconds=600.0)))
    (model,) = requests.models({"m": Spent(101, 10, 20, 0.5)})
    assert (model.model, model.requests, model.answers) == ("m", 101, 100)
    assert (model.prompt_tokens, model.completion_tokens, model.cost) == (10, 20, 0.5)
    assert model.latency_p50 == pytest.approx(50, rel=0.05)
    assert model.latency_p95 == pytest.approx(95, rel=0.05)
    assert model.latency_max == 100


def test_where_the_time_went_adds_up(virtually):
    """40 cells of 300 s in a lane of four: four running all the time, the lane full, nothing else."""

    async def slow(row: int) -> int:
        await asyncio.sleep(300)
        return row

    run = VirtualRun(slow, rows=40, parallel=4)
    virtually(run())
    load = run.diagnostics.load(run.elapsed)
    assert load is not None
    assert load.running == {"n": 0, "c0": pytest.approx(4, rel=0.02)}
    assert load.running["c0"] * run.elapsed == pytest.approx(40 * 300, rel=0.02)
    (lane,) = load.lanes
    assert lane.lane == "openai:m0"
    assert (lane.in_flight, lane.ready, lane.full) == pytest.approx((4, 18, 1), rel=0.05)
    assert (load.waiting_to_retry, load.writing) == (0, 0)


def test_the_report_of_a_real_run_agrees_with_the_server(server: FakeOpenAI):
    """Requests, tokens, retries by kind and latencies, counted on both sides."""
    server.configure(latency=0.05, jitter=0.1, fault_500=0.1, fault_429=0.1, retry_after=0.01, seed=4)
    recipe = rl.Recipe(
        models={"m": rl.Model("openai:fast", base_url=server.url)},
        columns=[rl.Uniform("n"), rl.Text("a", model="m", prompt="{{ n }}")],
        seed=1,
    )
    report = recipe.preview(150, progress=False, retry=rl.RetryPolicy(wait=lambda _: 0.01)).report
    counters = server.counters()
    (model,) = report.models
    assert report.requests == model.requests == counters.requests
    assert model.answers == counters.by_status[200] == 150
    assert (report.prompt_tokens, report.completion_tokens) == (counters.prompt_tokens, counters.completion_tokens)
    assert sorted(report.retries.values()) == sorted([counters.by_fault["500"], counters.by_fault["429"]])
    assert 0.05 <= model.latency_p50 < model.latency_p95 <= model.latency_max
    assert [cell.seconds for cell in report.slowest] == sorted((c.seconds for c in report.slowest), reverse=True)
    assert report.slowest[0].seconds == model.latency_max
    assert report.load is not None
    assert report.load.running["a"] > 1


def test_the_report_quotes_the_last_refusal(server: FakeOpenAI):
    """Where a model had any; in the endpoint's words."""
    recipe = rl.Recipe(
        models={"m": rl.Model("openai:m", base_url=server.url)},
        columns=[rl.Text("a", model="m", prompt="Hello")],
    )
    retry = rl.RetryPolicy(wait=lambda _: 0.01)
    server.configure(fault_429=1.0, fault_attempts=1, retry_after=0)
    report = recipe.preview(3, progress=False, retry=retry).report
    assert "answered 429 Too Many Requests: Rate limit reached" in str(report.models[0].last_refusal)
    assert f"refusal   the last of {report.models[0].model}: openai:m at {server.url} answered 429" in str(report)
    server.configure(fault_429=0)
    report = recipe.preview(3, progress=False, retry=retry).report
    assert report.models[0].last_refusal is None
    assert "refusal" not in str(report)


def test_the_report_reads_well():
    """All of its lines, and no line without content."""
    report = Report(
        status="partial", target=1000, actual=990, dropped=10, elapsed=100.0, requests=1200, prompt_tokens=50_000,
        completion_tokens=70_000, retries={"ModelError(server)": 150, "ModelError(rate_limited)": 50},
        failures={"ModelError(length)": 10},
        models=[ModelReport("m", 1200, 1000, 50_000, 70_000, 1.234, 5.678, 9.0, 0.1525)],
        slowest=[SlowCell("a", 7, 9.0), SlowCell("a", 9, 8.5)],
        load=Load({"n": 0.0, "a": 31.5}, [LaneReport("openai:m", 31.5, 200.0, 0.97, 32, 2)], 2.5, 0.01, 0.12),
        cost=0.1525, known_cost=0.1525,
    )  # fmt: skip
    assert str(report).splitlines() == [
        "partial: 990 of 1,000 rows, 10 dropped, 100.0 s (9.9 rows/s), 1,200 requests, 50,000 + 70,000 tokens, $0.1525",
        "  failures  10: 10 x ModelError(length)",
        "  retries   200: 150 x ModelError(server), 50 x ModelError(rate_limited)",
        "  model     m: 1,000 answers to 1,200 requests, p50 1.23 s, p95 5.68 s, $0.1525",
        "  slowest   a, row 7: 9 s; a, row 9: 8.5 s",
        "  in flight a 31.5, waiting to retry 2.5",
        "  lane      openai:m: full 97% of the time, 200.0 ready on average, 32 at once, cut 2 times by rate limits",
        "  time      event loop busy 12%, writing 1%",
    ]
    outages = [OutageReport("openai:m", 1, 20.3, open=False), OutageReport("openai:n", 3, 900.0, open=True)]
    first, second = str(msgspec.structs.replace(report, outages=outages)).splitlines()[1:3]
    assert first == "  outage    openai:m was down for 20.3 s; rows waited, none was dropped for it"
    assert second == (
        "  outage    openai:n was down for 900 s in 3 outages; rows waited, none was dropped for it;"
        " it was still down at the end"
    )
    partly = msgspec.structs.replace(report, cost=None)
    assert partly.headline.endswith(", 50,000 + 70,000 tokens, $0.1525 + unpriced")
    assert msgspec.structs.replace(partly, known_cost=None).headline.endswith(" tokens")
    empty = Report(
        status="complete", target=5, actual=5, dropped=0, elapsed=0.0, requests=0, prompt_tokens=0,
        completion_tokens=0, retries={}, failures={}, models=[], slowest=[], load=None,
    )  # fmt: skip
    assert str(empty) == "complete: 5 of 5 rows, 0.0 s (0.0 rows/s)"


def priced_and_not(url: str, **price: rl.Price) -> rl.Recipe:
    """Make a recipe of two columns of one model, and a third of another one; `price` has prices by alias."""
    return rl.Recipe(
        models={
            alias: rl.Model(f"openai:{name}", base_url=url, price=price.get(alias))
            for alias, name in (("big", "gpt-5"), ("small", "gpt-5-mini"))
        },
        columns=[
            rl.Uniform("n"),
            rl.Text("a", model="big", prompt="{{ n }}"),
            rl.Text("b", model="big", prompt="Say it again: {{ a }}"),
            rl.Text("c", model="small", prompt="{{ b }}"),
        ],
        seed=1,
    )


def test_costs_are_reported_where_prices_are_known(server: FakeOpenAI, tmp_path: Path):
    """Per column, per model and in all, the same in result, metadata and report, and when read back from the disk."""
    prices = {"big": rl.Price(1.0, 10.0), "small": rl.Price(0.0, 0.5)}
    server.configure(fault_500=0.1, seed=4)
    recipe = priced_and_not(server.url, **prices)
    result = recipe.build(tmp_path / "out", 40, progress=False, retry=rl.RetryPolicy(wait=lambda _: 0.01))
    columns, models, written = result.usage_by_column, result.usage_by_model, result.metadata
    assert (list(columns), list(models)) == (["a", "b", "c"], ["big", "small"])
    for alias, spent in models.items():
        assert spent.cost == pytest.approx(prices[alias].of(spent.prompt_tokens, spent.completion_tokens))
    assert models["big"].requests == columns["a"].requests + columns["b"].requests > 80
    assert columns["a"].cost
    assert columns["b"].cost
    assert columns["c"].cost
    assert result.usage.cost == pytest.approx(columns["a"].cost + columns["b"].cost + columns["c"].cost)
    assert written["cost"] == result.report.cost == result.usage.cost
    assert {column["name"]: column["cost"] for column in written["columns"]} == {
        "n": None,
        **{name: spent.cost for name, spent in columns.items()},
    }
    assert [model.cost for model in result.report.models] == [models["big"].cost, models["small"].cost]
    assert f", ${result.usage.cost:.4f}\n" in str(result.report)
    jsonschema_rs.validator_for(json_schema()).validate(written)
    again = read_result(tmp_path / "out")
    assert (again.usage, again.usage_by_column, again.usage_by_model) == (result.usage, columns, models)
    assert again.report.headline == result.report.headline


def test_metadata_of_rowloop_0_1_is_read(server: FakeOpenAI, tmp_path: Path):
    """Its columns have no known cost and no cached tokens; what they have is what was known."""
    prices = {"big": rl.Price(1.0, 10.0), "small": rl.Price(0.0, 0.5)}
    result = priced_and_not(server.url, **prices).build(tmp_path / "out", 5, progress=False)
    written = result.metadata
    for column in written["columns"]:
        del column["known_cost"], column["cached_tokens"]
    (tmp_path / "out" / METADATA).write_bytes(msgspec.json.encode(written))
    again = read_result(tmp_path / "out")
    assert again.usage == result.usage
    assert again.usage.known_cost == again.usage.cost


def test_a_cost_that_is_not_known_is_none_and_not_zero(server: FakeOpenAI, tmp_path: Path):
    """Another server's gpt-5-mini has no price: then there is no total, and the report has the known part."""
    result = priced_and_not(server.url, big=rl.Price(1.0, 10.0)).build(tmp_path / "out", 10, progress=False)
    unpriced = priced_and_not(server.url).preview(10, progress=False)
    known = result.usage_by_model["big"].cost
    assert known is not None
    assert known > 0
    assert result.usage_by_model["small"].cost is None
    assert (result.usage.cost, result.metadata["cost"]) == (None, None)
    assert result.report.headline.endswith(f" tokens, ${known:.4f} + unpriced")
    assert read_result(tmp_path / "out").report.headline == result.report.headline
    assert unpriced.report.headline.endswith(" tokens")
    assert (unpriced.usage.cost, unpriced.metadata["cost"]) == (None, None)
    assert "$" not in str(unpriced.report)


def test_the_environments_address_is_not_openais_own(server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch):
    """With OPENAI_BASE_URL, a model that is called gpt-5-mini is not charged at OpenAI's prices."""
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    recipe = rl.Recipe(
        models={"m": "openai:gpt-5-mini"}, columns=[rl.Uniform("n"), rl.Text("a", model="m", prompt="{{ n }}")]
    )
    assert recipe.preview(3, progress=False).usage.cost is None


def two_looks() -> tuple[list[rl.ProgressSnapshot], Display]:
    """Return a display that looks once at the beginning and once at the end, and what it has seen."""
    seen: list[rl.ProgressSnapshot] = []

    @contextmanager
    def display(look: Callable[[], rl.ProgressSnapshot]) -> Iterator[None]:
        seen.append(look())
        yield
        seen.append(look())

    return seen, display


def test_snapshots_have_the_cost(server: FakeOpenAI):
    """Run.progress has the cost so far; the last snapshot agrees with the result."""
    seen, display = two_looks()
    recipe = priced_and_not(server.url, big=rl.Price(1.0, 10.0), small=rl.Price(1.0, 2.0))
    result = recipe.preview(5, progress=display)
    assert [snapshot.cost for snapshot in seen] == [0.0, result.usage.cost]
    assert result.usage.cost
    assert totals(seen[-1])[2] == f"${result.usage.cost:.4f}"


def test_a_snapshot_names_the_option_that_ends_the_run(server: FakeOpenAI):
    """Once the tokens are spent, the snapshot has the result's reason and rows."""
    seen, display = two_looks()
    recipe = priced_and_not(server.url, big=rl.Price(1.0, 10.0), small=rl.Price(1.0, 2.0))
    result = recipe.preview(300, progress=display, max_tokens_total=2000, row_group_size=10)
    assert [snapshot.ending for snapshot in seen] == [None, "max_tokens_total"]
    assert (result.reason or "").startswith("max_tokens_total")
    assert finished_rows(seen[-1]) == result.actual < 300
    assert seen[-1].share < 1


INTERRUPTED = """
import asyncio, logging, sys
import rowloop as rl

logging.basicConfig(format="%(message)s", level=logging.INFO)

async def slow(n: float) -> float:
    await asyncio.sleep(0.02 if n < 0.7 else 3600)
    return n

recipe = rl.Recipe(columns=[rl.Uniform("n"), rl.cell(slow, max_parallel=20)], seed=1)
try:
    recipe.build(sys.argv[1], 2000, row_group_size=10)
except KeyboardInterrupt:
    print("was interrupted")
"""


@pytest.mark.outside
def test_after_ctrl_c_the_report_is_the_last_line_and_the_display_is_gone(tmp_path: Path):
    """KeyboardInterrupt on a real terminal: the final line, a report with the status, the caller's own words."""
    with Terminal(["-c", INTERRUPTED, str(tmp_path / "out")], columns=200) as window:
        window.wait_until(lambda text: "20 running" in text)
        window.child.sendintr()
        assert window.wait_until_end() == 0
        lines = [line for line in window.everything if line and line != "^C"]
    final = re.fullmatch(r".*/out: (\d+)/2000 rows in [\d.]+s, ended early: cancelled.*", lines.pop(0))
    assert final is not None
    assert lines[0].startswith(f"cancelled: {final[1]} of 2,000 rows")
    assert lines[0].startswith("cancelled: ")
    assert lines[-1] == "was interrupted"
    text = "".join(lines)  # the terminal breaks a line that holds a path wherever it ends
    assert text.count("  written to") == text.count("  to resume: build(") == 1
    assert not any(line.startswith(("cancelled", "Traceback")) for line in lines[1:])
    assert sum("written to" in line for line in lines) == 1


def test_a_snapshot_names_the_run_and_the_columns_that_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run is called as its directory, or as what it is a preview of; the cells of a sampler do not count."""

    async def double(n: float) -> float:
        return 2 * n

    seen: list[rl.ProgressSnapshot] = []

    @contextmanager
    def display(look: Callable[[], rl.ProgressSnapshot]) -> Iterator[None]:
        yield
        seen.append(look())

    monkeypatch.chdir(tmp_path)
    recipe = rl.Recipe(columns=[rl.Uniform("n"), rl.cell(double)], seed=1)
    recipe.build("data/out", 5, progress=display)
    recipe.preview(5, progress=display)
    assert [snapshot.name for snapshot in seen] == ["data/out", "preview of double"]
    assert [column.counts for column in seen[0].columns] == [False, True]
    assert [(snapshot.share, snapshot.left, snapshot.ending) for snapshot in seen] == [(1.0, 0, None)] * 2


def test_a_snapshot_of_a_run_is_frozen_and_adds_up():
    """Run.progress gives a ProgressSnapshot with named fields at any time; the last one agrees with the result."""

    async def same(n: float) -> float:
        await asyncio.sleep(0.001)
        if n < 0.3:
            raise ValueError("too small")
        return n

    recipe = rl.Recipe(columns=[rl.Uniform("n"), rl.cell(same)], seed=1)
    seen, display = two_looks()
    result = recipe.preview(100, progress=display, error_budget=rl.ErrorBudget(rate=None))
    first, last = seen
    assert (first.target, first.committed, first.cells, first.cells_over) == (100, 0, 200, 0)
    assert (last.committed, last.dropped) == (result.actual, result.dropped)
    assert [(c.name, c.completed, c.failed, c.skipped, c.running) for c in last.columns] == [
        ("n", 100, 0, 0, 0), ("same", result.actual, result.dropped, 0, 0)
    ]  # fmt: skip
    assert last.cells_over == last.cells == 200
    assert result.dropped > 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        last.target = 5  # type: ignore[misc]
