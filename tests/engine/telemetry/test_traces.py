"""Traces: one record for each attempt, with times that hold together, in memory, on disk and in Perfetto's format."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rowloop as rl
from rowloop.engine.core.errors import ModelError
from rowloop.engine.core.policy import RetryPolicy
from rowloop.engine.telemetry.chrome_trace import export
from rowloop.engine.telemetry.traces import TaskTrace
from virtual_run import VirtualRun

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Google's "Trace Event Format", as far as slices and names go
TRACE_EVENTS = jsonschema_rs.validator_for(
    {
        "type": "object",
        "required": ["traceEvents"],
        "properties": {
            "displayTimeUnit": {"enum": ["ms", "ns"]},
            "traceEvents": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["ph", "name", "pid", "tid"],
                    "properties": {
                        "ph": {"enum": ["X", "M"]},
                        "name": {"type": "string"},
                        "pid": {"type": "integer"},
                        "tid": {"type": "integer"},
                        "args": {"type": "object"},
                    },
                    "if": {"properties": {"ph": {"const": "X"}}},
                    "then": {
                        "required": ["ts", "dur", "args"],
                        "properties": {"ts": {"type": "number"}, "dur": {"type": "number", "minimum": 0}},
                    },
                    "else": {
                        "required": ["args"],
                        "properties": {
                            "name": {"enum": ["process_name", "thread_name"]},
                            "args": {"required": ["name"], "properties": {"name": {"type": "string"}}},
                        },
                    },
                },
            },
        },
    }
)


def recipe(*, broken: int | None = None) -> rl.Recipe:
    """Make a table of three columns; one row of the second can be broken."""

    async def twice(n: int) -> int:
        await asyncio.sleep(0.001)
        if n == broken:
            raise ValueError("this row is broken")
        return 2 * n

    return rl.Recipe(
        columns=[rl.Seed(pd.DataFrame({"n": range(40)})), rl.cell(twice), rl.Expression("text", "<{{ twice }}>")]
    )


@pytest.mark.parametrize("engine", ["async", "sequential"])
@pytest.mark.parametrize("kind", ["preview", "build"])
def test_preview_and_build_trace_alike(tmp_path: Path, kind: str, engine: Any):
    """Every attempt of either kind of run, on either engine, has one trace, and barriers have none."""
    options: Any = {"trace": True, "progress": False, "row_group_size": 5, "engine": engine}
    made = recipe(broken=7)
    result = made.preview(12, **options) if kind == "preview" else made.build(tmp_path / "out", 12, **options)
    seen = Counter((trace.column, trace.kind, trace.outcome) for trace in result.task_traces)
    assert seen == {
        ("n", "batch", "done"): 3,
        ("twice", "cell", "done"): 11,
        ("twice", "cell", "failed"): 1,
        ("text", "cell", "done"): 11,
    }
    (failed,) = [trace for trace in result.task_traces if trace.outcome == "failed"]
    assert (failed.row, failed.row_group, failed.error) == (7, 1, "ValueError: this row is broken")
    assert sorted(trace.row for trace in result.task_traces if trace.column == "twice" and trace.row is not None) == [
        *range(12)
    ]
    _assert_times_hold(result.task_traces)


def _assert_times_hold(traces: Sequence[TaskTrace]) -> None:
    """Check that attempts are queued, start and finish in this order, and that traces are sorted by their ends."""
    assert all(0 <= trace.queued <= trace.started <= trace.finished for trace in traces)
    assert [trace.finished for trace in traces] == sorted(trace.finished for trace in traces)
    assert all((trace.row is None) == (trace.kind == "batch") for trace in traces)


def test_a_task_trace_is_frozen():
    """Its fields cannot be changed."""
    trace = recipe().preview(1, trace=True, progress=False).task_traces[0]
    assert isinstance(trace, rl.TaskTrace)
    with pytest.raises(dataclasses.FrozenInstanceError):
        trace.column = "another"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variable", "option", "traced"),
    [
        ("1", None, True), ("true", None, True), ("0", None, False), ("", None, False), (None, None, False),
        ("1", False, False), (None, True, True), ("0", True, True),
    ],
)  # fmt: skip
def test_the_environment_turns_traces_on_if_the_option_is_not_given(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, option: bool | None, traced: bool  # noqa: FBT001 - a table
):  # fmt: skip
    """ROWLOOP_TRACE=1 is for runs without trace=."""
    monkeypatch.delenv("ROWLOOP_TRACE", raising=False)
    if variable is not None:
        monkeypatch.setenv("ROWLOOP_TRACE", variable)
    result = (
        recipe().preview(2, progress=False) if option is None else recipe().preview(2, progress=False, trace=option)
    )
    assert bool(result.task_traces) is traced


def test_without_traces_nothing_is_kept_and_an_export_names_the_option(tmp_path: Path):
    """No traces.parquet, an empty list, and an error that names the option."""
    result = recipe().build(tmp_path / "out", 4, progress=False, trace=False)
    assert result.task_traces == []
    assert not (tmp_path / "out/.rowloop/traces.parquet").exists()
    with pytest.raises(rl.RecipeError, match="trace=True"):
        result.export_trace(tmp_path / "trace.json")


def test_the_file_and_the_list_have_the_same_traces(tmp_path: Path):
    """traces.parquet, read back, is result.task_traces, field by field."""
    result = recipe(broken=3).build(tmp_path / "out", 8, progress=False, trace=True)
    frame = pd.read_parquet(tmp_path / "out/.rowloop/traces.parquet")
    listed = pd.DataFrame([dataclasses.asdict(trace) for trace in result.task_traces])
    listed["row"] = listed["row"].astype("float64")
    assert list(frame.columns) == [field.name for field in dataclasses.fields(TaskTrace)]
    for name in frame.columns:
        got, want = frame[name].tolist(), listed[name].tolist()
        assert all(a == b or (pd.isna(a) and pd.isna(b)) for a, b in zip(got, want, strict=True)), name


def test_a_failed_run_keeps_its_traces(tmp_path: Path):
    """They are on the disk, to find out why it failed."""

    def broken(n: int) -> int:
        raise ValueError(f"no {n}")

    made = rl.Recipe(columns=[rl.Seed(pd.DataFrame({"n": range(3)})), rl.cell(broken, on_error="raise")])
    with pytest.raises(rl.DatasetGenerationError):
        made.build(tmp_path / "out", 3, progress=False, trace=True)
    frame = pd.read_parquet(tmp_path / "out/.rowloop/traces.parquet")
    assert "ValueError: no" in frame["error"].dropna().iloc[0]


def test_times_are_relative_to_the_run(virtually, monkeypatch: pytest.MonkeyPatch):
    """Two at a time, 2 s each, the first try of row 1 fails and waits 10 s: when each was queued, started and ended."""
    monkeypatch.setattr("rowloop.engine.telemetry.traces.TraceObserver.__init__.__defaults__", (_virtual_time,))
    tries: Counter[int] = Counter()

    async def flaky(row: int) -> int:
        await asyncio.sleep(2)
        tries[row] += 1
        if row == 1 and tries[row] == 1:
            raise ModelError("busy", kind="server", retryable=True)
        return row

    async def main() -> list[TaskTrace]:
        run = VirtualRun(
            flaky, rows=4, row_group_size=4, parallel=2, retry=RetryPolicy(wait=lambda _: 10.0), trace=True
        )
        await run()
        assert run.diagnostics.traces is not None
        return run.diagnostics.traces.tasks()

    times: dict[int | None, list[Any]] = defaultdict(list)
    for trace in virtually(main()):
        if trace.kind == "cell":
            seen = [round(at, 6) for at in (trace.queued, trace.started, trace.finished)]
            times[trace.row].append((*seen, trace.outcome, trace.error))
    assert times == {
        0: [(0, 0, 2, "done", None)],
        1: [(0, 0, 2, "failed", "ModelError(server): busy"), (12, 12, 14, "done", None)],
        2: [(0, 2, 4, "done", None)],
        3: [(0, 2, 4, "done", None)],
    }


def _virtual_time() -> float:
    return asyncio.get_running_loop().time()


def test_cancelled_attempts_are_traced_as_such(virtually):
    """A cancellation cuts attempts short: they are there, with the outcome "cancelled"."""

    async def slow(row: int) -> int:
        await asyncio.sleep(1000)
        return row

    async def main() -> list[TaskTrace]:
        run = VirtualRun(slow, rows=6, parallel=3, trace=True)
        task = asyncio.create_task(run())
        await asyncio.sleep(5)
        run.scheduler.halt()
        await task
        assert run.diagnostics.traces is not None
        return run.diagnostics.traces.tasks()

    outcomes = Counter(trace.outcome for trace in virtually(main()) if trace.kind == "cell")
    assert outcomes == {"cancelled": 3}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_column_that_changes_the_number_of_rows_is_traced():
    """After a column made five rows of two, the next column has five traces."""

    @rl.batch(allow_resize=True)
    def exploded(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.loc[[0, 0, 0, 1, 1]].assign(exploded=range(5)).reset_index(drop=True)

    async def after(exploded: int) -> int:
        await asyncio.sleep(0)
        return exploded

    made = rl.Recipe(columns=[rl.Seed(pd.DataFrame({"n": range(2)})), exploded, rl.cell(after)])
    result = made.preview(2, trace=True, progress=False)
    assert result.actual == 5
    seen = Counter((trace.column, trace.kind, trace.outcome) for trace in result.task_traces)
    assert seen == {("n", "batch", "done"): 1, ("exploded", "batch", "done"): 1, ("after", "cell", "done"): 5}
    _assert_times_hold(result.task_traces)


def test_tokens_are_those_of_the_attempt():
    """A trace has the tokens that the model reports; other columns have none."""

    def model(prompt: str) -> str:
        return prompt.upper()

    made = rl.Recipe(
        models={"m": rl.Model(model)}, columns=[rl.Uniform("n"), rl.Text("t", model="m", prompt="{{ n }}")]
    )
    result = made.preview(3, trace=True, progress=False)
    by_column: Counter[str] = Counter()
    for trace in result.task_traces:
        by_column[trace.column] += trace.prompt_tokens + trace.completion_tokens
    assert by_column["t"] == result.usage.prompt_tokens + result.usage.completion_tokens
    assert by_column["n"] == 0


seconds = st.floats(0, 1e6, allow_nan=False).map(lambda value: round(value, 7))
attempts = st.builds(
    lambda column, start, length, outcome: TaskTrace(
        column=column, row_group=0, row=1, kind="cell", queued=start, started=start, finished=start + length,
        outcome=outcome, error=None, prompt_tokens=1, completion_tokens=2,
    ),
    st.sampled_from(["a", "b", "c"]),
    st.one_of(seconds, st.integers(0, 5).map(float)),
    st.one_of(st.just(0.0), st.floats(1e-7, 100), st.integers(0, 3).map(float)),
    st.sampled_from(["done", "failed", "cancelled"]),
)  # fmt: skip


@given(tasks=st.lists(attempts, max_size=60))
def test_an_export_is_valid_and_no_two_slices_of_a_track_overlap(
    tmp_path_factory: pytest.TempPathFactory, tasks: list[TaskTrace]
):
    """For any attempts: the format is valid, each attempt is there once, and a track shows one at a time."""
    path = tmp_path_factory.getbasetemp() / "trace.json"
    export(path, tasks, {"a": "lane 1", "b": "lane 1", "c": "lane 2"})
    _assert_valid(json.loads(path.read_text()), len(tasks))


def _assert_valid(exported: dict[str, Any], count: int) -> None:
    TRACE_EVENTS.validate(exported)
    slices = [event for event in exported["traceEvents"] if event["ph"] == "X"]
    assert len(slices) == count
    assert all(math.isfinite(event["ts"]) and event["ts"] >= 0 for event in slices)
    named = {(event["name"], event["pid"], event["tid"]) for event in exported["traceEvents"] if event["ph"] == "M"}
    tracks: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for event in slices:
        start = round(event["ts"] * 1000)
        tracks[event["pid"], event["tid"]].append((start, start + round(event["dur"] * 1000)))
    for (pid, tid), track in tracks.items():
        assert ("thread_name", pid, tid) in named
        assert ("process_name", pid, 0) in named
        for (_, end), (start, _) in zip(sorted(track), sorted(track)[1:], strict=False):
            assert end <= start


def test_a_real_run_exports(tmp_path: Path):
    """The export of a build: lanes are processes, their permits are threads, and no more of those than permits."""

    async def one(n: int) -> int:
        await asyncio.sleep(0.002)
        return n

    made = rl.Recipe(columns=[rl.Seed(pd.DataFrame({"n": range(30)})), rl.cell(one, max_parallel=3)])
    result = made.build(tmp_path / "out", 30, progress=False, trace=True)
    result.export_trace(tmp_path / "trace.json")
    exported = json.loads((tmp_path / "trace.json").read_text())
    _assert_valid(exported, len(result.task_traces))
    names = {
        event["pid"]: event["args"]["name"] for event in exported["traceEvents"] if event["name"] == "process_name"
    }
    (lane,) = [pid for pid, name in names.items() if name == "function one"]
    assert len({event["tid"] for event in exported["traceEvents"] if event["ph"] == "X" and event["pid"] == lane}) <= 3


def test_slices_meet_exactly_where_times_are_rounded(tmp_path: Path):
    """One attempt starts when another ends, between two nanoseconds: in the file they do not overlap by one."""
    times = [(0.6e-9, 1.4e-9), (1.4e-9, 5e-9), (5e-9, 6.6e-9)]
    tasks = [TaskTrace("a", 0, i, "cell", 0.0, *ends, "done", None, 0, 0) for i, ends in enumerate(times)]
    export(tmp_path / "trace.json", tasks, {"a": "lane"})
    exported = json.loads((tmp_path / "trace.json").read_text())
    assert {event["tid"] for event in exported["traceEvents"] if event["ph"] == "X"} == {1}
    _assert_valid(exported, 3)


def test_a_cell_is_queued_when_its_own_inputs_are_there():
    """Not when the previous column has ended: a row of the second column waits from the end of the same row's first."""

    async def first(n: int) -> int:
        await asyncio.sleep(0.002)
        return n

    async def second(first: int) -> int:
        await asyncio.sleep(0.01)
        return first

    columns = [rl.Seed(pd.DataFrame({"n": range(8)})), rl.cell(first, max_parallel=1), rl.cell(second, max_parallel=1)]
    traces = rl.Recipe(columns=columns).preview(8, trace=True, progress=False).task_traces
    ended = {trace.row: trace.finished for trace in traces if trace.column == "first"}
    queued = {trace.row: trace.queued for trace in traces if trace.column == "second"}
    assert queued == ended
    assert len(set(queued.values())) == 8
