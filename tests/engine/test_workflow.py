"""Workflows: chained stages, the rows they pass on, and finished stages that do not run again."""

from __future__ import annotations

import asyncio
import json
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import rowloop as rl

if TYPE_CHECKING:
    from pathlib import Path

    from rowloop import Recipe
    from rowloop.runtime import Runtime

QUIET: Any = {"progress": False}


def topics() -> Recipe:
    """Make topics with a score and three ideas each."""
    recipe = rl.Recipe(columns=[rl.Category("topic", values=["law", "art", "tea"]), rl.Uniform("score", 0, 10)], seed=4)

    @recipe.column
    def ideas(topic: str) -> Any:
        return [f"{topic} {i}" for i in range(3)]

    return recipe


def lines(calls: list[str] | None = None, *names: str) -> Recipe:
    """Make a line of an idea of the previous stage, and count the calls."""
    recipe = rl.Recipe(columns=[rl.Seed(columns=["ideas", *names])])

    @recipe.column
    def line(ideas: str) -> str:
        if calls is not None:
            calls.append(ideas)
        return f"About {ideas}."

    return recipe


def test_a_stages_rows_seed_the_next_one(tmp_path: Path) -> None:
    """The second stage has a row for each row of the first, in order, in a dataset of its own."""
    second = rl.Recipe(columns=[rl.Seed(columns=["topic"]), rl.Expression("title", "{{ topic | upper }}")])
    workflow = rl.Workflow([rl.Stage("topics", topics(), rows=5), rl.Stage("titles", second)])
    first, last = workflow.build(tmp_path, **QUIET)
    assert last.to_pandas()["title"].tolist() == first.to_pandas()["topic"].str.upper().tolist()
    assert pd.read_parquet(tmp_path / "titles" / "data").shape == (5, 2)
    assert first.path == tmp_path / "topics"


def test_rows_are_filtered_exploded_and_sampled_in_this_order() -> None:
    """A condition keeps rows, a list becomes rows, and some of those are drawn, the same ones every time."""
    stage = rl.Stage("topics", topics(), rows=20, filter="score >= 5", explode="ideas", sample=4)
    first, last = rl.Workflow([stage, rl.Stage("lines", lines(None, "topic", "score"))]).preview(20, **QUIET)
    kept = first.dataset[first.dataset["score"] >= 5]
    rows = last.dataset
    assert len(rows) == 4
    assert set(rows["ideas"]) <= set(kept["ideas"].explode())
    assert set(rows["score"]) <= set(kept["score"])
    assert all(idea.startswith(topic) for idea, topic in zip(rows["ideas"], rows["topic"], strict=True))
    again = rl.Workflow([stage, rl.Stage("lines", lines())]).preview(20, **QUIET)[1]
    assert again.dataset["ideas"].tolist() == rows["ideas"].tolist()


@pytest.mark.parametrize(("sample", "rows"), [(0.5, 5), (1.0, 10), (3, 3), (99, 10)])
def test_a_sample_is_a_number_of_rows_or_a_share(sample: float, rows: int) -> None:
    """A whole number counts rows, a fraction is a share of them; a number above the total takes all."""
    stage = rl.Stage("topics", topics(), rows=10, sample=sample)
    assert len(stage.passed_on(topics().preview(10, **QUIET).dataset)) == rows


def test_a_filter_may_be_a_function() -> None:
    """It returns a Series of booleans."""
    stage = rl.Stage("topics", topics(), rows=10, filter=lambda frame: frame["topic"] == "tea")
    assert set(stage.passed_on(topics().preview(10, **QUIET).dataset)["topic"]) == {"tea"}


def test_empty_lists_become_no_rows() -> None:
    """A row with an empty list is not passed on."""
    stage = rl.Stage("topics", topics(), rows=1, explode="ideas")
    rows = stage.passed_on(pd.DataFrame({"topic": ["a", "b"], "score": [1, 2], "ideas": [["x"], []]}))
    assert rows["ideas"].tolist() == ["x"]


def test_a_finished_stage_does_not_run_again(tmp_path: Path) -> None:
    """When the second stage failed, the next build reads the first one back and runs only the second."""
    made: list[str] = []
    first = rl.Recipe(columns=[rl.Category("ideas", values=["a", "b"])], seed=1)

    @first.column
    def counted(ideas: str) -> str:
        made.append(ideas)
        return ideas

    broken = rl.Recipe(columns=[rl.Seed(columns=["ideas"])])

    @broken.column
    def line(ideas: str) -> str:
        raise ValueError(ideas)

    with pytest.raises(rl.EarlyShutdownError) as caught:
        rl.Workflow([rl.Stage("one", first, rows=6), rl.Stage("two", broken)]).build(tmp_path, **QUIET)
    assert "in stage 'two' of the workflow" in caught.value.__notes__
    assert len(made) == 6
    calls: list[str] = []
    workflow = rl.Workflow([rl.Stage("one", first, rows=6), rl.Stage("two", lines(calls))])
    one, two = workflow.build(tmp_path, **QUIET)  # there is nothing in the second that could be lost
    assert (len(made), len(calls)) == (6, 6)
    assert one.status == two.status == "complete"
    assert one.to_pandas()["ideas"].tolist() == two.to_pandas()["ideas"].tolist()
    again = workflow.build(tmp_path, **QUIET)
    assert (len(made), len(calls)) == (6, 6)
    assert again[1].to_pandas().equals(two.to_pandas())
    assert again[1].metadata == two.metadata


def test_other_rows_from_the_previous_stage_are_noticed(tmp_path: Path) -> None:
    """A stage that finished on other rows does not count as finished."""
    stages = [rl.Stage("topics", topics(), rows=4, explode="ideas", sample=2), rl.Stage("lines", lines())]
    rl.Workflow(stages).build(tmp_path, **QUIET)
    stages[0] = rl.Stage("topics", topics(), rows=4, explode="ideas", sample=3)
    with pytest.raises(rl.ResumeError, match=r"lines' has another dataset: columns\.seed of ideas\.data has changed"):
        rl.Workflow(stages).build(tmp_path, **QUIET)


def test_a_stage_that_was_cut_short_is_resumed(tmp_path: Path) -> None:
    """The previous stage does not run again, nor does any finished cell of this one."""
    calls: list[str] = []
    broken = True
    recipe = rl.Recipe(columns=[rl.Seed(columns=["ideas"])])

    @recipe.column(max_parallel=1, on_error="raise")
    def line(ideas: str) -> str:
        if broken and len(calls) == 4:
            raise ConnectionRefusedError("the power is off")
        calls.append(ideas)
        return f"About {ideas}."

    workflow = rl.Workflow([rl.Stage("topics", topics(), rows=2, explode="ideas"), rl.Stage("lines", recipe)])
    retry = rl.RetryPolicy(attempts=1)
    with pytest.raises(rl.DatasetGenerationError, match="the power is off"):
        workflow.build(tmp_path, row_group_size=3, retry=retry, **QUIET)
    made = (tmp_path / "topics" / ".rowloop/metadata.json").stat().st_mtime_ns
    broken = False
    _, last = workflow.build(tmp_path, row_group_size=3, retry=retry, **QUIET)
    assert (last.status, len(calls), len(set(calls))) == ("complete", 6, 6)
    assert last.dataset["line"].tolist() == [f"About {idea}." for idea in last.dataset["ideas"]]
    assert (tmp_path / "topics" / ".rowloop/metadata.json").stat().st_mtime_ns == made


def test_outdated_metadata_is_repaired(tmp_path: Path) -> None:
    """A build that was killed after its last row, and before it wrote its metadata, only writes that."""
    calls: list[str] = []
    workflow = rl.Workflow([rl.Stage("topics", topics(), rows=2, explode="ideas"), rl.Stage("lines", lines(calls))])
    _, first = workflow.build(tmp_path, **QUIET)
    file = tmp_path / "lines" / ".rowloop/metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "running", "parts": []}))
    _, last = workflow.build(tmp_path, **QUIET)
    assert len(calls) == 6
    assert (last.status, last.metadata["parts"]) == ("complete", first.metadata["parts"])


def test_a_workflow_runs_in_any_event_loop(tmp_path: Path) -> None:
    """`abuild` does what `build` does."""
    workflow = rl.Workflow([rl.Stage("topics", topics(), rows=2, explode="ideas"), rl.Stage("lines", lines())])
    results = asyncio.run(workflow.abuild(tmp_path, **QUIET))
    assert [result.actual for result in results] == [2, 6]


def test_a_stage_that_passes_no_rows_on_ends_the_workflow() -> None:
    """The error names the stage that has no rows to start from."""
    workflow = rl.Workflow([rl.Stage("topics", topics(), rows=2, filter="score > 99"), rl.Stage("lines", lines())])
    with pytest.raises(rl.DatasetGenerationError, match="stage 'lines': the previous stage passed no rows on"):
        workflow.preview(**QUIET)


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        (list, "stages: a workflow needs at least one stage"),
        (lambda: [rl.Stage("a", topics())], r"stages\.a\.rows: the first stage needs a number of rows"),
        (
            lambda: [rl.Stage("a", lines(), rows=2)],
            r"stages\.a\.recipe: needs ideas of a previous stage, and is the first",
        ),
        (lambda: [rl.Stage("a", topics(), rows=2)] * 2, r"stages\.a: two stages have this name"),
        (
            lambda: [rl.Stage("a", topics(), rows=2), rl.Stage("b", topics())],
            r"stages\.b\.recipe: uses no column of the previous stage",
        ),
        (
            lambda: [rl.Stage("a", topics(), rows=2), rl.Stage("b", lines(None, "topik"))],
            r"stages\.b\.recipe\.columns\.seed: stage 'a' has no column 'topik'; did you mean 'topic'",
        ),
        (lambda: [rl.Stage("a", topics(), rows=2, explode="idea")], r"stages\.a\.explode: .*did you mean 'ideas'"),
        (lambda: [rl.Stage("a/b", topics(), rows=2)], r"Stage\('a/b'\)\.name: takes letters, digits"),
        (lambda: [rl.Stage("a", topics(), rows=0)], r"Stage\('a'\)\.rows"),
        (lambda: [rl.Stage("a", topics(), rows=1, sample=1.5)], r"Stage\('a'\)\.sample"),
    ],
)
def test_stages_that_do_not_fit_are_refused_when_the_workflow_is_made(stages: Any, problem: str) -> None:
    """The error has the path to the mistake and, for a name, the nearest right one."""
    with pytest.raises(rl.RecipeError, match=problem):
        rl.Workflow(stages())


def test_a_seed_without_data_needs_columns() -> None:
    """A seed without either is refused."""
    with pytest.raises(rl.RecipeError, match=r"columns\.seed: needs data; in a stage of a Workflow, it needs columns="):
        rl.Recipe(columns=[rl.Seed()])


@pytest.mark.parametrize("condition", ["no such thing", lambda frame: [True] * len(frame), lambda _: 1 / 0])
def test_a_filter_that_does_not_fit_is_named(condition: Any) -> None:
    """A condition that cannot be parsed, is not boolean or raises: the error names the stage's filter."""
    workflow = rl.Workflow([rl.Stage("a", topics(), rows=2, filter=condition), rl.Stage("b", lines())])
    with pytest.raises(rl.RecipeError, match=r"stages\.a\.filter"):
        workflow.preview(**QUIET)


def test_a_recipe_that_waits_for_a_stage_cannot_run_alone(tmp_path: Path) -> None:
    """Without a workflow and without data, it is refused before anything is written."""
    with pytest.raises(rl.RecipeError, match="ideas must come from the previous stage"):
        lines().build(tmp_path / "out", rows=1, **QUIET)
    assert not (tmp_path / "out").exists()
    recipe = lines().replace_seed(pd.DataFrame({"ideas": ["x"]}))
    assert recipe.preview(1, **QUIET).dataset["line"].tolist() == ["About x."]


def test_an_unreadable_metadata_file_is_named(tmp_path: Path) -> None:
    """It is not overwritten."""
    (tmp_path / "topics").mkdir()
    (tmp_path / "topics" / "metadata.json").write_text("{}")
    with pytest.raises(rl.ResumeError, match=r"cannot read '.*metadata\.json' as the metadata of a dataset"):
        rl.Workflow([rl.Stage("topics", topics(), rows=2)]).build(tmp_path, overwrite=True, **QUIET)


PASSED = {"n": [1, None, 2**60 + 1], "ideas": [["a"], ["b", "c"], None], "o": [{"x": 1}, {"x": None}, None]}


def make(**columns: list[Any]) -> Recipe:
    """Make a recipe whose table has these columns."""
    return rl.Recipe(columns=[rl.Seed(columns)], seed=1)


@pytest.mark.parametrize("way", ["preview", "build"])
@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, ["1", "", str(2**60 + 1)]),
        ({"filter": "index != 0"}, ["", str(2**60 + 1)]),
        ({"filter": lambda frame: frame["n"].notna()}, ["1", str(2**60 + 1)]),
        ({"explode": "ideas"}, ["1", "", ""]),
        ({"sample": 3}, ["1", "", str(2**60 + 1)]),
    ],
)
def test_integers_beside_nulls_reach_the_next_stage_as_integers(
    tmp_path: Path, way: str, options: Any, shown: list[str]
):
    """In its prompts and in its table, whatever the stage does with its rows."""
    second = rl.Recipe(columns=[rl.Seed(columns=["n", "o"]), rl.Expression("shown", "{{ n }}")])
    workflow = rl.Workflow([rl.Stage("one", make(**PASSED), rows=3, **options), rl.Stage("two", second)])
    last = (workflow.preview(**QUIET) if way == "preview" else workflow.build(tmp_path, **QUIET))[-1]
    assert last.to_arrow().column("shown").to_pylist() == shown
    assert last.to_arrow().column("n").to_pylist() == [int(text) if text else None for text in shown]
    assert str(last.to_arrow().schema.field("o").type) == "struct<x: int64>"


def test_values_of_any_type_are_passed_on_as_they_are(tmp_path: Path) -> None:
    """Dates, times, unsigned integers, bytes and lists, through three stages."""
    noon = datetime(2024, 2, 29, 12)  # noqa: DTZ001 - without a zone, as tables have it
    columns = {
        "d": [date(2024, 2, 29), None],
        "t": [noon, None],
        "u": [2**64 - 1, 0],
        "b": [b"\xff", None],
        "l": [[1, None], []],
        "f": [0.1, None],
    }
    again = rl.Recipe(columns=[rl.Seed(columns=list(columns))])
    stages = [rl.Stage("one", make(**columns)), rl.Stage("two", again, filter="index >= 0"), rl.Stage("three", again)]
    results = rl.Workflow(stages).build(tmp_path, **QUIET)
    assert [result.to_arrow().to_pydict() for result in results] == [columns] * 3
    assert [result.metadata for result in rl.Workflow(stages).build(tmp_path, **QUIET)] == [
        result.metadata for result in results
    ]


def test_a_first_stage_with_a_seed_table_has_its_rows_and_a_later_one_those_that_it_is_passed() -> None:
    """More rows than are passed on need repeat=True."""
    second = rl.Recipe(columns=[rl.Seed(columns=["n"])])
    first, last = rl.Workflow([rl.Stage("one", make(n=[1, 2, 3])), rl.Stage("two", second)]).preview(**QUIET)
    assert (first.actual, last.actual) == (3, 3)
    stages = [rl.Stage("one", make(n=[1, 2, 3]), filter="n > 1"), rl.Stage("two", second, rows=5)]
    with pytest.raises(rl.RecipeError, match="rows: is 5, and the seed table has 2 rows") as caught:
        rl.Workflow(stages).preview(**QUIET)
    assert caught.value.__notes__ == ["in stage 'two' of the workflow"]
    repeating = rl.Recipe(columns=[rl.Seed(columns=["n"], repeat=True)])
    stages[1] = rl.Stage("two", repeating, rows=5)
    assert rl.Workflow(stages).preview(**QUIET)[1].to_arrow().column("n").to_pylist() == [2, 3, 2, 3, 2]


def slow() -> Recipe:
    """Make twenty rows, one after the other, in ten seconds each."""
    recipe = rl.Recipe(columns=[rl.Seed({"n": range(20)})])

    @recipe.column(max_parallel=1)
    async def ideas(n: int) -> str:
        await asyncio.sleep(10)
        return f"idea {n}"

    return recipe


@pytest.mark.parametrize("door", ["build", "abuild"])
def test_a_stage_that_ends_early_is_the_last_and_the_same_call_resumes_it(
    tmp_path: Path, virtual_runtime: Runtime, caplog: pytest.LogCaptureFixture, door: str
) -> None:
    """A later stage would start from too few rows, and be another dataset once the others are there."""
    calls: list[str] = []
    workflow = rl.Workflow([rl.Stage("first", slow()), rl.Stage("second", lines(calls))])

    def build(**options: Any) -> list[rl.Result]:
        options = {**QUIET, "row_group_size": 5, "runtime": virtual_runtime, **options}
        if door == "abuild":
            return asyncio.run(workflow.abuild(tmp_path, **options))
        return workflow.build(tmp_path, **options)

    (first,) = build(deadline=75)
    assert (first.actual, first.reason, calls) == (7, "deadline: 75 s are over", [])
    assert caplog.records[-1].getMessage() == (
        "stage 'first' ended early, and later stages wait for it: deadline: 75 s are over"
    )
    first, second = build()
    assert (first.actual, second.actual, first.reason, second.reason) == (20, 20, None, None)
    assert len(calls) == 20
