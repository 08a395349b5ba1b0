"""Whole recipes over real HTTP, with faults: every way to run one, from every kind of caller, and no key anywhere."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel, SecretStr

import rowloop as rl
from rowloop.runtime import BlockingCallWarning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fake_openai import FakeOpenAI

KEY = "sk-do-not-tell-0123456789"
SOON = rl.RetryPolicy(wait=lambda _: 0.005)
ROWS = 40


class Grade(BaseModel):
    """A grade."""

    score: int
    verdict: Literal["good", "bad"]


def everything(url: str) -> rl.Recipe:
    """Return a recipe with every kind of column, each needing some of the others."""

    @rl.cell
    async def words(answer: str) -> int:
        await asyncio.sleep(0)
        return len(answer.split())

    @rl.cell
    def thread(number: int) -> str:
        return f"{number} in {threading.current_thread().name.rpartition('-')[0]}"

    @rl.batch
    def place(words: pd.Series[int], number: pd.Series[int]) -> pd.Series[int]:
        return (words * 1000 + number).rank().astype(int)

    return rl.Recipe(
        models={
            "writer": rl.Model("openai:big", base_url=url, temperature=0.7, max_parallel=8),
            "judge": rl.Model("openai:small", base_url=url, max_parallel=8),
        },
        columns=[
            rl.Seed(pd.DataFrame({"number": range(ROWS), "name": [f"n{i}" for i in range(ROWS)]})),
            rl.Category("topic", ["math", "law"], weights=[2, 1]),
            rl.Uniform("level", 1, 9, decimals=0),
            rl.Text(
                "question", model="writer", prompt="Ask {{ name }} about {{ topic }} at {{ level }}", system="Brief."
            ),
            rl.Text("answer", model="writer", prompt="Answer: {{ question }}"),
            rl.Structured("grade", model="judge", prompt="Grade: {{ answer }}", schema=Grade),
            rl.Expression("line", "{{ number }}: {{ grade.verdict }}"),
            words,
            thread,
            place,
        ],
        seed=7,
    )


def check(frame: pd.DataFrame) -> None:
    """Check every value of `everything` against the row's own inputs."""
    assert list(frame.columns) == [
        *("number", "name", "topic", "level", "question", "answer", "grade", "line", "words", "thread", "place"),
    ]
    assert frame["number"].tolist() == list(range(ROWS))
    assert set(frame["topic"]) == {"math", "law"}
    for row in frame.to_dict("records"):
        assert row["name"] == f"n{row['number']}"
        assert 1 <= row["level"] <= 9
        assert row["question"] == f"Ask {row['name']} about {row['topic']} at {row['level']}"
        assert row["answer"] == f"Answer: {row['question']}"
        assert row["grade"] == Grade.model_validate(row["grade"]).model_dump()
        assert row["line"] == f"{row['number']}: {row['grade']['verdict']}"
        assert row["words"] == 7
        assert row["thread"] == f"{row['number']} in rowloop-function"
    assert frame["place"].tolist()[:9] == list(range(1, 10))


def preview(recipe: rl.Recipe, _path: Path) -> rl.Result:
    """Keep it in memory."""
    return recipe.preview(ROWS, row_group_size=9, retry=SOON, progress=False)


def build(recipe: rl.Recipe, path: Path) -> rl.Result:
    """Block."""
    return recipe.build(path, ROWS, row_group_size=9, retry=SOON, progress=False)


def abuild(recipe: rl.Recipe, path: Path) -> rl.Result:
    """Await."""
    return asyncio.run(recipe.abuild(path, ROWS, row_group_size=9, retry=SOON, progress=False))


def start(recipe: rl.Recipe, path: Path) -> rl.Result:
    """Come back for the result."""
    return recipe.start(path, ROWS, row_group_size=9, retry=SOON, progress=False).result(30)


def start_and_await(recipe: rl.Recipe, path: Path) -> rl.Result:
    """Await a run that was started."""

    async def wait() -> rl.Result:
        return await recipe.start(path, ROWS, row_group_size=9, retry=SOON, progress=False)

    return asyncio.run(wait())


@pytest.mark.parametrize("way", [preview, build, abuild, start, start_and_await])
def test_every_way_to_run_a_recipe_gives_the_same_table_however_the_endpoint_fails(
    server: FakeOpenAI, tmp_path: Path, way: Callable[[rl.Recipe, Path], rl.Result]
):
    """Every value is right, the repeated requests are the reported retries, and the server counted the same tokens."""
    server.configure(
        reply="echo", fault_500=0.1, fault_429=0.1, fault_cut=0.05, fault_disconnect=0.05, fault_garbage=0.05, seed=3
    )
    server.configure(retry_after=0.01, latency=0.002)
    result = way(everything(server.url), tmp_path)
    check(result.dataset)
    counters = server.counters()
    told = result.metadata
    assert result.status == told["status"] == "complete"
    assert counters.repeats == told["retries"] == sum(result.report.retries.values()) > 10
    assert counters.distinct_prompts == 3 * ROWS
    assert counters.requests == result.usage.requests == 3 * ROWS + counters.repeats
    assert counters.requests_by_model == {
        model: sum(column["requests"] for column in told["columns"] if column["name"] in names)
        for model, names in {"big": {"question", "answer"}, "small": {"grade"}}.items()
    }
    assert max(counters.peak_by_model.values()) <= 8
    assert all(column["completed"] == ROWS for column in told["columns"])
    if result.path is not None:
        stored = pq.read_table(tmp_path / "data").to_pandas()
        pd.testing.assert_frame_equal(stored.sort_values("number", ignore_index=True), result.dataset)
        assert json.loads((tmp_path / ".rowloop/metadata.json").read_bytes()) == told


def test_usage_equals_what_the_server_counted(server: FakeOpenAI):
    """Tokens of every answer, also of an unusable one."""
    server.configure(fault_invalid_json=0.3, fault_attempts=1, seed=1)
    result = everything(server.url).preview(ROWS, retry=SOON, progress=False)
    counters = server.counters()
    assert result.structured_by_column["grade"].repaired > 0
    assert result.usage.prompt_tokens == counters.prompt_tokens
    assert result.usage.completion_tokens == counters.completion_tokens


def test_several_threads_may_run_recipes_at_once(server: FakeOpenAI, tmp_path: Path):
    """Builds, previews and their own loops: none sees another's rows, requests or failures."""
    server.configure(reply="echo", latency=0.01, fault_500=0.1, retry_after=0)
    recipe = everything(server.url)
    with ThreadPoolExecutor(4) as threads:
        ways = [build, preview, abuild, start]
        runs = [threads.submit(way, recipe, tmp_path / str(i)) for i, way in enumerate(ways)]
        results = [run.result(60) for run in runs]
    for result in results:
        check(result.dataset)
        assert result.usage.requests == 3 * ROWS + result.metadata["retries"]
    counters = server.counters()
    assert counters.distinct_prompts == 3 * ROWS
    assert counters.requests == sum(result.usage.requests for result in results)


def in_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imitate a notebook's kernel."""
    ipython = ModuleType("IPython")
    vars(ipython)["get_ipython"] = lambda: SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", ipython)


def test_a_notebooks_cell_may_block_although_a_loop_is_running(
    server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """No warning, no nested loop, no deadlock; awaiting works too."""
    in_a_kernel(monkeypatch)
    server.configure(reply="echo")
    recipe = everything(server.url)

    async def cell() -> list[rl.Result]:
        blocked = recipe.preview(ROWS, progress=False)
        awaited = await recipe.abuild(tmp_path, ROWS, progress=False)
        return [blocked, awaited]

    for result in asyncio.run(cell()):
        check(result.dataset)


def test_blocking_any_other_loop_warns_at_the_users_line(server: FakeOpenAI):
    """It works, and the warning points at the line that needs an await."""
    server.configure(reply="echo")

    async def handler() -> rl.Result:
        return everything(server.url).preview(ROWS, progress=False)

    with pytest.warns(BlockingCallWarning) as warned:
        check(asyncio.run(handler()).dataset)
    assert [warning.filename for warning in warned] == [__file__]


def test_two_loops_may_await_the_same_run(server: FakeOpenAI, tmp_path: Path):
    """A Run belongs to no loop."""
    server.configure(latency=0.05)
    run = everything(server.url).start(tmp_path, ROWS, progress=False)

    async def wait() -> rl.Result:
        return await run

    with ThreadPoolExecutor(2) as threads:
        first, second = (threads.submit(asyncio.run, wait()) for _ in range(2))
        assert first.result(30).actual == second.result(30).actual == ROWS
    assert run.done()


def test_a_run_reports_its_progress_and_its_result_can_be_waited_for(server: FakeOpenAI, tmp_path: Path):
    """A wait that takes too long leaves the run alone."""
    server.configure(fault_hang=1.0)
    run = everything(server.url).start(tmp_path, ROWS, progress=False)
    server.wait_for(in_flight=8)
    with pytest.raises(TimeoutError):
        run.result(0.01)
    progress = run.progress
    assert not run.done()
    columns = {column.name: column for column in progress.columns}
    assert (progress.target, progress.committed, columns["question"].running) == (ROWS, 0, 8)
    assert columns["topic"].completed == ROWS
    run.cancel()
    result = run.result(10)
    assert (result.status, result.actual) == ("cancelled", 0)
    assert server.wait_for(client_disconnects=8).in_flight == 0
    assert json.loads((tmp_path / ".rowloop/metadata.json").read_bytes())["status"] == "cancelled"


def test_cancelling_abuild_cancels_the_run_and_awaits_its_end(server: FakeOpenAI, tmp_path: Path):
    """When the CancelledError is raised, the server has lost its clients and the metadata has the status cancelled."""
    server.configure(fault_hang=1.0)

    async def impatient() -> None:
        build = asyncio.ensure_future(everything(server.url).abuild(tmp_path, ROWS, progress=False))
        await asyncio.to_thread(server.wait_for, in_flight=8)
        build.cancel()
        with pytest.raises(asyncio.CancelledError):
            await build

    asyncio.run(impatient())
    assert server.wait_for(client_disconnects=8).in_flight == 0
    assert json.loads((tmp_path / ".rowloop/metadata.json").read_bytes())["status"] == "cancelled"


def test_the_environment_names_the_endpoint_and_holds_the_key(server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch):
    """OPENAI_BASE_URL and OPENAI_API_KEY; one model names a variable of its own."""
    server.configure(api_key=KEY, reply="echo")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OTHER_KEY", "sk-another")
    text = rl.Text("text", model="m", prompt="hello")
    assert rl.Recipe(models={"m": "openai:m"}, columns=[text]).preview(2, progress=False).actual == 2
    other = rl.Recipe(models={"m": rl.Model("openai:m", api_key_env="OTHER_KEY")}, columns=[text])
    with pytest.raises(rl.RowloopError, match="401"):
        other.preview(2, progress=False)


# G37


def told_by(error: BaseException | None) -> str:
    """Return all texts of an error: its chain, notes, arguments and attributes."""
    said = [] if error is None else traceback.format_exception(error)
    while error is not None:
        said += [repr(error), str(error), repr(error.args), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(said)


def written_in(directory: Path) -> str:
    """Return the contents of a directory's files: their bytes, and the values of tables, which are compressed."""
    said = []
    for path in directory.rglob("*"):
        if path.is_file():
            said.append(path.read_bytes().decode("utf-8", "replace"))
        if path.suffix == ".parquet":
            table = pq.read_table(path, partitioning=None)
            said += [str(table.to_pylist()), str(table.schema), str(table.schema.metadata)]
    return "\n".join(said)


def told_about(recipe: rl.Recipe, result: rl.Result) -> str:
    """Return all texts of a recipe and a result."""
    shown = [recipe, recipe.models, recipe.to_dict(), recipe.to_yaml(), vars(recipe), result, result.metadata]
    shown += [result.summary(), result.report, result.usage, result.task_traces, result.failures.to_dict("records")]
    return "\n".join(f"{thing!r} {thing}" for thing in shown)


@pytest.mark.parametrize("given", ["argument", "secret", "environment"])
@pytest.mark.parametrize("ending", ["partial", "wrong key", "failing", "gone"])
def test_no_artefact_contains_the_key(  # noqa: PLR0913, PLR0917 - each is a fixture
    server: FakeOpenAI,
    tmp_path: Path,
    given: str,
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
):
    """Metadata, parts, failures, traces, logs, output, reprs and errors, of complete and other runs."""
    monkeypatch.setenv("ROWLOOP_TRACE", "1")
    key: dict[str, Any] = {"argument": {"api_key": KEY}, "secret": {"api_key": SecretStr(KEY)}, "environment": {}}[
        given
    ]
    if given == "environment":
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.configure(record=3, api_key="sk-the-right-one" if ending == "wrong key" else KEY)
    server.configure(
        fault_400={"failing": 1.0, "partial": 0.2}.get(ending, 0.0), fault_500=0.2 if ending == "partial" else 0.0
    )
    if ending == "gone":
        server.stop()

    @rl.cell(on_error="null")
    async def breaks(text: str) -> str:
        raise ValueError(text)

    model = rl.Model("openai:m", base_url=server.url, **key)
    recipe = rl.Recipe(
        models={"m": model},
        columns=[rl.Uniform("u"), rl.Text("text", model="m", prompt="hello {{ u }}"), breaks],
        seed=5,
    )
    told, out = [repr(model), str(model)], tmp_path / "out"
    options: Any = {"retry": SOON, "error_budget": rl.ErrorBudget(rate=None), "progress": True}
    with caplog.at_level(logging.DEBUG):
        try:
            result = recipe.build(out, 30, **options)
        except rl.RowloopError as error:
            assert ending != "partial"
            told.append(told_by(error))
        else:
            assert ending == result.status == "partial"
            told.append(told_about(recipe, result))
            result.export_trace(tmp_path / "trace.json")
    captured = capfd.readouterr()
    told += [written_in(tmp_path), caplog.text, captured.out, captured.err, repr(recipe), recipe.to_yaml()]
    if ending in {"partial", "failing"}:
        assert server.requests()[-1].headers["authorization"] == f"Bearer {KEY}", "the key was not used at all"
        assert "failed" in caplog.text or "partial" in caplog.text
    assert KEY not in "\n".join(told)
    assert KEY[3:] not in "\n".join(told)
