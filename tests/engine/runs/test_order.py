"""Order and concurrency: when cells start, how many run at once, and which are retried."""

from __future__ import annotations

import asyncio
import threading
import time
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import rowloop as rl
from rowloop.engine.core.events import Admit, Commit, Done, Execute, Started
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.row_groups import Plan
from rowloop.engine.core.tracker import Tracker

if TYPE_CHECKING:
    from pathlib import Path

    from fake_openai import FakeOpenAI
    from rowloop.engine.columns.functions import Function
    from rowloop.runtime import Runtime


def numbered(rows: int) -> rl.Seed:
    """Return a seed dataset with the number of each row."""
    return rl.Seed(pd.DataFrame({"row": range(rows)}))


def now() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()


# When cells start


def test_a_cell_starts_when_its_own_inputs_are_there_not_when_its_parent_column_ends():
    """Row 0's first cell waits for row 1's second: a run that worked column by column would never end."""

    async def end_to_end() -> rl.Result:
        second_of_row_1 = asyncio.Event()

        @rl.cell
        async def first(row: int) -> int:
            if row == 0:
                await asyncio.wait_for(second_of_row_1.wait(), 10)
            return row

        @rl.cell
        async def second(first: int) -> int:
            if first == 1:
                second_of_row_1.set()
            return first

        return await asyncio.to_thread(rl.Recipe(columns=[numbered(2), first, second]).preview, 2, progress=False)

    result = asyncio.run(end_to_end())
    assert (result.status, result.dataset["second"].tolist()) == ("complete", [0, 1])


def test_a_batch_column_and_its_children_wait_for_the_whole_row_group_and_for_no_other(virtual_runtime: Runtime):
    """A batch function gets every live row of its group at once, when the last one is ready."""
    calls: list[tuple[float, list[int]]] = []

    @rl.cell
    async def slow(row: int) -> int:
        await asyncio.sleep(row)
        return row

    @rl.batch
    async def whole(slow: pd.Series[int]) -> list[int]:
        calls.append((now(), slow.tolist()))
        return slow.tolist()

    @rl.cell
    async def after(whole: int) -> float:
        return now() - whole

    result = rl.Recipe(columns=[numbered(6), slow, whole, after]).preview(
        6, row_group_size=3, runtime=virtual_runtime, progress=False
    )
    assert [(round(time, 3), rows) for time, rows in calls] == [(2.0, [0, 1, 2]), (5.0, [3, 4, 5])]
    assert result.dataset["after"].round(3).tolist() == [2, 1, 0, 2, 1, 0]


def test_seeds_and_samplers_come_before_cells():
    """Before the first cell of a row group starts, columns without needs are filled for all its rows."""

    @rl.cell(max_parallel=1)
    async def cell(row: int) -> int:
        return row

    columns = [cell, rl.Uniform("u"), numbered(4), rl.Category("c", ["x"])]
    traces = rl.Recipe(columns=columns, seed=1).preview(4, row_group_size=2, trace=True, progress=False).task_traces
    for group in (0, 1):
        of_group = [trace for trace in traces if trace.row_group == group]
        first_cell = min(trace.started for trace in of_group if trace.column == "cell")
        fills = [trace for trace in of_group if trace.column != "cell"]
        assert sorted(trace.column for trace in fills) == ["c", "row", "u"]
        assert all(trace.finished <= first_cell for trace in fills)


@pytest.mark.parametrize("kind", ["preview", "build"])
def test_a_small_row_group_can_commit_before_an_earlier_one_and_the_rows_come_out_in_order(kind: str, tmp_path: Path):
    """The cells of the first group end when the last one has been written."""
    written: list[int] = []
    last_written = threading.Event()

    def on_part(part: Any) -> None:
        written.append(part.row_group)
        if part.row_group == 1:
            last_written.set()

    @rl.cell
    def cell(row: int) -> int:
        assert row == 3 or last_written.wait(10)
        return row

    recipe = rl.Recipe(columns=[numbered(4), cell])
    if kind == "preview":
        result = recipe.preview(4, row_group_size=3, on_part=on_part, progress=False)
    else:
        result = recipe.build(tmp_path, 4, row_group_size=3, on_part=on_part, progress=False)
    assert written == [1, 0]
    assert result.dataset["cell"].tolist() == [0, 1, 2, 3]
    assert [part["row_group"] for part in result.metadata["parts"]] == [0, 1]


# Refused at construction


def needing(name: str, need: str) -> Function:
    """Make a cell column that needs another."""
    return rl.cell(name=name)(eval(f"lambda {need}: {need}"))  # noqa: S307 - a parameter of that name


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ([needing("a", "b"), needing("b", "a")], "columns.a: columns need each other in a circle: a -> b -> a"),
        (
            [needing("d", "c"), needing("a", "b"), needing("b", "c"), needing("c", "a")],
            "columns.c: columns need each other in a circle: c -> a -> b -> c",
        ),
        ([needing("a", "a")], "columns.a: columns need each other in a circle: a -> a"),
        (
            [rl.Uniform("score"), rl.Expression("line", "{{ scor }}")],
            "columns.line: needs the unknown column 'scor'; did you mean 'score'?",
        ),
        ([rl.Uniform("score"), needing("f", "scores")], "columns.f: needs the unknown column 'scores'; did you mean"),
        ([rl.Uniform("score"), rl.Uniform("score")], "columns.score: there are two columns of this name; rename one"),
        ([numbered(1), rl.Uniform("row")], "columns.row: there are two columns of this name; rename one"),
    ],
)
def test_circles_unknown_columns_and_duplicate_names_are_refused_at_construction_with_the_path(
    columns: list[Any], says: str
):
    """With a RecipeError."""
    with pytest.raises(rl.RecipeError) as caught:
        rl.Recipe(columns=columns)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize("field", ["prompt", "system"])
def test_an_unknown_column_in_a_prompt_is_refused_at_construction(field: str):
    """Also one in the system prompt."""
    prompts: dict[str, Any] = {"prompt": "hello", field: "about {{ topics }}"}
    with pytest.raises(rl.RecipeError, match=r"columns\.text: needs the unknown column 'topics'; did you mean 'topic'"):
        rl.Recipe(
            models={"m": rl.Model("openai:m")},
            columns=[rl.Category("topic", ["x"]), rl.Text("text", model="m", **prompts)],
        )


def test_a_need_of_a_column_that_a_processor_has_dropped_is_refused_at_construction():
    """Columns may need it, as they are worked before; a later processor may not."""
    columns = [rl.Uniform("u"), rl.Expression("line", "{{ u }}")]
    assert rl.Recipe(columns=columns, processors=[rl.DropColumns(["u"])]).preview(2, progress=False).actual == 2
    with pytest.raises(rl.RecipeError, match="SchemaTransform: unknown column 'u'"):
        rl.Recipe(columns=columns, processors=[rl.DropColumns(["u"]), rl.SchemaTransform({"x": "{{ u }}"})])


def test_a_column_added_later_is_checked_as_well_and_leaves_the_recipe_as_it_was():
    """The decorator refuses it on its own line."""
    recipe = rl.Recipe(columns=[rl.Uniform("score")])
    with pytest.raises(rl.RecipeError, match="needs the unknown column 'scores'"):

        @recipe.column
        def grade(scores: float) -> float:
            return scores

    assert recipe.columns == ["score"]


# Batch and stateful columns


def test_batch_columns_get_the_active_rows_only():
    """Dropped rows are in no frame, and the values go to the right rows."""
    seen: list[list[int]] = []

    @rl.cell
    async def picky(row: int) -> int:
        if row % 3 == 0:
            raise ValueError(row)
        return row

    @rl.batch(needs=["picky", "row"])
    def frame_sum(frame: pd.DataFrame) -> pd.Series[int]:
        seen.append(frame.index.tolist())
        return frame["picky"] + frame["row"]

    result = rl.Recipe(columns=[numbered(6), picky, frame_sum]).preview(6, progress=False)
    assert seen == [[0, 1, 2, 3]]
    assert result.dataset["frame_sum"].tolist() == [2, 4, 8, 10]


@pytest.mark.parametrize("sync", [False, True], ids=["async", "thread"])
def test_a_stateful_batch_column_runs_one_row_group_at_a_time_in_row_order(sync: bool):  # noqa: FBT001 - a parameter
    """Its inputs are ready in the opposite order, and its running number has no gaps."""
    last_of: list[int] = [0]

    @rl.cell(max_parallel=100)
    async def backwards(row: int) -> int:
        await asyncio.sleep((11 - row) / 500)
        return row

    def count(rows: list[int]) -> list[int]:
        first = last_of[0]
        last_of[0] = -1  # whoever comes in between counts wrong
        return [first + i + 1 for i in range(len(rows))]

    @rl.batch(stateful=True, name="number")
    async def on_the_loop(backwards: pd.Series[int]) -> list[int]:
        numbers = count(backwards.tolist())
        await asyncio.sleep(0.005)
        last_of[0] = numbers[-1]
        return numbers

    @rl.batch(stateful=True, name="number")
    def in_a_thread(backwards: pd.Series[int]) -> list[int]:
        numbers = count(backwards.tolist())
        time.sleep(0.005)  # others have the time to come in between
        last_of[0] = numbers[-1]
        return numbers

    recipe = rl.Recipe(columns=[numbered(12), backwards, in_a_thread if sync else on_the_loop])
    result = recipe.preview(12, row_group_size=3, progress=False)
    assert result.dataset["number"].tolist() == list(range(1, 13))


def test_a_failed_row_group_passes_its_turn_on_and_a_retried_one_keeps_it():
    """State continues from the last success."""
    calls: list[int] = []

    @rl.batch(stateful=True)
    def number(row: pd.Series[int]) -> list[int]:
        calls.append(int(row.iloc[0]))
        if calls == [0]:
            raise ConnectionError
        if calls[-1] == 2:
            raise ValueError
        return row.tolist()

    soon = rl.RetryPolicy(wait=lambda _: 0.01)
    result = rl.Recipe(columns=[numbered(6), number]).preview(6, row_group_size=2, retry=soon, progress=False)
    assert calls == [0, 0, 2, 4]
    assert (result.dataset["row"].tolist(), result.dropped) == ([0, 1, 4, 5], 2)


def test_a_cell_column_cannot_be_stateful():
    """Its calls run concurrently, in no fixed order."""
    why = "stateful is for batch functions, because the cells of a column run concurrently"
    with pytest.raises(rl.RecipeError, match=why):
        rl.Recipe(columns=[numbered(1)]).column(name="total", stateful=True)(lambda row: row)


# Lanes


def two_models(server: FakeOpenAI, **parallel: int) -> rl.Recipe:
    """Call a model by each of the names, about the same row; `name=4` is its max_parallel."""
    models = {
        alias: rl.Model(f"openai:{alias}", base_url=server.url, max_parallel=most) for alias, most in parallel.items()
    }
    columns = [rl.Text(f"by_{alias}", model=alias, prompt=f"{alias}: {{{{ row }}}}") for alias in models]
    return rl.Recipe(models=models, columns=[numbered(60), *columns])


def test_never_more_than_max_parallel_requests_of_a_model_are_in_flight(server: FakeOpenAI):
    """Counted at the server; all permits are used."""
    server.configure(latency=0.02, fault_500=0.1, fault_attempts=1)
    retry = rl.RetryPolicy(wait=lambda _: 0.01)
    two_models(server, one=3, two=7).preview(60, row_group_size=9, retry=retry, progress=False)
    assert server.counters().peak_by_model == {"one": 3, "two": 7}


def test_aliases_of_one_model_share_its_lane_and_the_least_limit_counts(server: FakeOpenAI):
    """The endpoint does not distinguish the names."""
    server.configure(latency=0.02)
    models = {
        "hot": rl.Model("openai:m", base_url=server.url, max_parallel=5, temperature=1.0),
        "cold": rl.Model("openai:m", base_url=server.url, max_parallel=30, temperature=0.0),
    }
    columns = [rl.Text(alias, model=alias, prompt=f"{alias} {{{{ row }}}}") for alias in models]
    rl.Recipe(models=models, columns=[numbered(20), *columns]).preview(20, progress=False)
    assert server.counters().peak == 5


def test_a_lane_that_cools_down_delays_no_cell_of_another(virtual_runtime: Runtime):
    """One model asks for a wait of ten minutes on every first attempt; the other's cells are done at once."""
    tried: set[str] = set()

    async def limited(prompt: str) -> str:
        if prompt not in tried:
            tried.add(prompt)
            raise rl.ModelError("later", kind="rate_limited", retryable=True, retry_after=100.0)
        return str(now())

    async def free(_prompt: str) -> str:
        return str(now())

    recipe = rl.Recipe(
        models={"limited": rl.Model(limited, max_parallel=2), "free": rl.Model(free, max_parallel=2)},
        columns=[
            numbered(20),
            rl.Text("late", model="limited", prompt="{{ row }}"),
            rl.Text("prompt", model="free", prompt="{{ row }}"),
            rl.Expression("soon", "{{ prompt }}", dtype="float64"),
        ],
    )
    frame = recipe.preview(20, row_group_size=5, runtime=virtual_runtime, progress=False).dataset
    assert frame["soon"].max() < 1
    assert frame["late"].astype(float).between(100, 111).all()


def test_columns_that_share_a_lane_get_even_shares(server: FakeOpenAI):
    """At every moment the server has had about as many requests for the one as for the other."""
    server.configure(record=200, latency=0.002)
    recipe = rl.Recipe(
        models={"m": rl.Model("openai:m", base_url=server.url, max_parallel=4)},
        columns=[
            numbered(60),
            rl.Text("left", model="m", prompt="left {{ row }}"),
            rl.Text("right", model="m", prompt="right {{ row }}"),
        ],
    )
    recipe.preview(60, progress=False)
    shares: Counter[str] = Counter()
    for request in server.requests():
        shares[request.json()["messages"][0]["content"].partition(" ")[0]] += 1
        assert abs(shares["left"] - shares["right"]) <= 5
    assert shares == {"left": 60, "right": 60}


def test_no_row_group_starves(virtual_runtime: Runtime):
    """Cells start in the order of the rows: no more cells overtake one than are in flight."""
    started: list[int] = []

    @rl.cell(max_parallel=4)
    async def cell(row: int) -> int:
        started.append(row)
        await asyncio.sleep(row * 7 % 5)
        return row

    rl.Recipe(columns=[numbered(60), cell]).preview(60, row_group_size=6, runtime=virtual_runtime, progress=False)
    assert all(abs(place - row) <= 4 for place, row in enumerate(started))


# Retryable failures

SOON = rl.RetryPolicy(attempts=3, wait=lambda _: 0.005)


def asking(server: FakeOpenAI, rows: int, **model: Any) -> rl.Recipe:
    """Ask the server about each row."""
    return rl.Recipe(
        models={"m": rl.Model("openai:m", base_url=server.url, **model)},
        columns=[numbered(rows), rl.Text("text", model="m", prompt="Write about {{ row }}.")],
    )


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("408", "timeout"),
        ("409", "server"),
        ("425", "server"),
        ("429", "rate_limited"),
        ("500", "server"),
        ("502", "server"),
        ("503", "server"),
        ("cut", "truncated"),
        ("disconnect", "connection"),
        ("hang", "timeout"),
        ("garbage", "unreadable"),
    ],
)
def test_transient_failures_are_retried(server: FakeOpenAI, fault: str, error: str):
    """Each row meets the fault once, and no row is lost; the repeats at the server are the retries reported."""
    server.configure(**{f"fault_{fault}": 1.0}, fault_attempts=1, retry_after=0)
    result = asking(server, 6, timeout=0.3 if fault == "hang" else 30).preview(6, retry=SOON, progress=False)
    assert (result.status, result.dropped, len(result.failures)) == ("complete", 0, 0)
    assert result.metadata["retries"] == server.counters().repeats == 6
    assert result.report.retries == {f"ModelError({error})": 6}


def test_an_endpoint_that_goes_away_for_a_moment_costs_no_row(server: FakeOpenAI):
    """Connections are cut in the middle of requests, and refused for a while."""
    server.configure(latency=30.0)
    endless = rl.RetryPolicy(attempts=1000, wait=lambda _: 0.02)
    call = threading.Thread(target=lambda: results.append(recipe.preview(8, retry=endless, progress=False)))
    results: list[rl.Result] = []
    recipe = asking(server, 8)
    call.start()
    server.wait_for(in_flight=8)
    server.stop()
    server.configure(latency=0.0)
    server.start()
    call.join(20)
    (result,) = results
    assert result.status == "complete"
    assert set(result.report.retries) == {"ModelError(connection)"}
    assert result.metadata["retries"] >= 8
    assert server.counters().requests == 16


@pytest.mark.parametrize(("fault", "status"), [("400", 400), ("422", 422)])
def test_permanent_failures_are_not_retried(server: FakeOpenAI, fault: str, status: int):
    """One request for each row, and each failure is recorded with the endpoint's message."""
    server.configure(**{f"fault_{fault}": 0.5}, seed=1)
    never = rl.ErrorBudget(rate=None)
    result = asking(server, 12).preview(12, error_budget=never, retry=SOON, progress=False)
    counters = server.counters()
    assert (counters.requests, counters.repeats, result.metadata["retries"]) == (12, 0, 0)
    assert len(result.failures) == counters.by_status[status] == result.dropped > 0
    assert (result.failures["attempts"] == 1).all()
    assert result.failures["message"].str.contains(f"answered {status} ").all()


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ("401", "check the key, and that it may use this model"),
        ("403", "check the key, and that it may use this model"),
        ("404", "check the model's name and base_url"),
    ],
)
@pytest.mark.parametrize("kind", ["preview", "build"])
def test_401_403_and_404_stop_the_run_at_once_with_what_to_fix(
    server: FakeOpenAI, fault: str, advice: str, kind: str, tmp_path: Path
):
    """Ten thousand more would fail for the same reason: only the requests in flight were sent."""
    server.configure(**{f"fault_{fault}": 1.0})
    recipe = asking(server, 100, max_parallel=3)
    with pytest.raises(rl.DatasetGenerationError, match=f"column 'text', row group 0: .*{advice}") as caught:
        recipe.preview(100, progress=False) if kind == "preview" else recipe.build(tmp_path, 100, progress=False)
    assert isinstance(caught.value.__cause__, rl.ModelError)
    assert caught.value.__cause__.fatal
    assert server.counters().requests <= 3


def test_rate_limits_delay_and_never_drop(server: FakeOpenAI):
    """However often an endpoint refuses: none of these counts as an attempt."""
    server.configure(fault_429=1.0, fault_attempts=8, retry_after=0)
    result = asking(server, 3).preview(3, retry=SOON, progress=False)
    assert (result.status, result.metadata["retries"]) == ("complete", 24)
    assert server.counters().requests == 27


def test_attempts_run_out_and_the_failure_has_their_number(server: FakeOpenAI):
    """Failures other than rate limits have a fixed number of attempts."""
    server.configure(fault_500=1.0)
    with pytest.raises(rl.EarlyShutdownError, match="500"):
        asking(server, 2).preview(2, retry=SOON, progress=False)
    assert server.counters().requests == 6


# Waiting to retry


def test_a_retry_starts_the_moment_it_is_due_and_holds_no_permit_while_it_waits(virtual_runtime: Runtime):
    """A single permit: others use it during the wait, and the retry is next when the wait is over."""
    starts: list[tuple[int, int]] = []

    @rl.cell(max_parallel=1)
    async def cell(row: int) -> int:
        starts.append((round(now()), row))
        if len(starts) == 1:
            raise ConnectionError
        await asyncio.sleep(1)
        return row

    policy = rl.RetryPolicy(wait=lambda _: 10.0)
    recipe = rl.Recipe(columns=[numbered(30), cell])
    result = recipe.preview(30, row_group_size=5, retry=policy, runtime=virtual_runtime, progress=False)
    assert [time for time, row in starts if row == 0] == [0, 10]
    assert sorted(time for time, row in starts if row != 0) == [*range(10), *range(11, 30)]
    assert (result.status, result.metadata["retries"], result.report.retries) == ("complete", 1, {"ConnectionError": 1})


def test_retries_wait_with_jitter(virtual_runtime: Runtime):
    """Cells that fail together are not retried together, and wait longer each time."""
    starts: dict[int, list[float]] = {}

    @rl.cell(max_parallel=100)
    async def cell(row: int) -> int:
        times = starts.setdefault(row, [])
        times.append(now())
        if len(times) < 5:
            raise ConnectionError
        return row

    rl.Recipe(columns=[numbered(100), cell]).preview(100, runtime=virtual_runtime, progress=False)
    waits = [[times[i + 1] - times[i] for times in starts.values()] for i in range(4)]
    assert len({round(wait, 2) for wait in waits[0]}) > 20
    means = [sum(of) / len(of) for of in waits]
    assert means == sorted(means)


def test_retry_after_is_honoured(virtual_runtime: Runtime):
    """Retry-After overrides the policy's own wait, up to its longest."""
    starts: dict[str, list[float]] = {}
    asked = {"0": 5.0, "1": 70.0, "2": 1e9}

    async def limited(prompt: str) -> str:
        times = starts.setdefault(prompt, [])
        times.append(now())
        if len(times) == 1:
            raise rl.ModelError("later", kind="rate_limited", retryable=True, retry_after=asked[prompt])
        return "done"

    recipe = rl.Recipe(
        models={"m": rl.Model(limited)}, columns=[numbered(3), rl.Text("text", model="m", prompt="{{ row }}")]
    )
    assert recipe.preview(3, runtime=virtual_runtime, progress=False).status == "complete"
    waits = {prompt: second - first for prompt, (first, second) in starts.items()}
    assert 5 <= waits["0"] <= 5.5
    assert 70 <= waits["1"] <= 77
    assert 120 <= waits["2"] <= 132


# Memory


def test_a_million_rows_are_planned_in_five_megabytes_and_no_more_than_the_open_row_groups_are_admitted():
    """Nothing is ever committed and cells are done at once, but the number of admitted groups stays bounded."""
    graph = compile_graph(
        [
            Node("topic", strategy="whole"),
            Node("question", ("topic",), lane=Lane("model", 32)),
            Node("answer", ("question",), lane=Lane("model", 32)),
        ]
    )
    tracemalloc.start()
    try:
        tracker = Tracker(graph, Plan(1_000_000, 1000, open_rows=8000))
        events: list[Any] = [Started()]
        admitted = committing = 0
        while events:
            for command in tracker.handle(events.pop()):
                if isinstance(command, Execute):
                    events.append(Done(command.group, command.column, command.row))
                admitted += isinstance(command, Admit)
                committing += isinstance(command, Commit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert admitted == committing == tracker.plan.open_groups == 8
    assert peak < 5 * 2**20
