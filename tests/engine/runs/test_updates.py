"""Updates: a dataset whose recipe or seed data has changed costs what the change costs, and plan() says it before."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rowloop as rl
from rowloop.engine.datasets import earlier
from rowloop.engine.datasets.journal import Journal
from rowloop.engine.datasets.parquet_sink import ParquetSink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

QUIET: dict[str, Any] = {"progress": False, "row_group_size": 3}
UPDATE: dict[str, Any] = {**QUIET, "resume": "update"}


class Counting:
    """A model that answers with its prompt and counts."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return f"<{prompt}>"

    def new(self) -> list[str]:
        """Return the prompts since the last call, sorted."""
        prompts, self.prompts = sorted(self.prompts), []
        return prompts


@pytest.fixture
def model() -> Counting:
    """Return a model that counts."""
    return Counting()


def texts(**prompts: str) -> list[rl.Text]:
    """Make a text column of each prompt."""
    return [rl.Text(name, model="m", prompt=prompt) for name, prompt in prompts.items()]


def recipe(model: Any, columns: Sequence[Any], rows: Sequence[int] = range(7), **options: Any) -> rl.Recipe:
    """Make a recipe of a numbered seed table and columns."""
    seed = rl.Seed(pd.DataFrame({"n": [*rows], "word": [f"w{n % 3}" for n in rows]}))
    return rl.Recipe(models={"m": model}, columns=[seed, *columns], seed=3, **options)


def updated(path: Path, made: rl.Recipe, model: Counting, **options: Any) -> list[str]:
    """Update, check the table and the plan against a run afresh, and return the new prompts."""
    plan = made.plan(path)
    result = made.build(path, **{**UPDATE, **options})
    prompts = model.new()
    assert len(prompts) == plan.requests, str(plan)
    assert plan.kept == sum(column.kept for column in plan.columns)
    assert result.dataset.equals(made.preview(made.rows, progress=False).dataset)
    model.new()
    return prompts


Q, A = "Q {{ n }}", "A {{ q }}"


def test_a_changed_prompt_makes_its_column_and_what_depends_on_it(tmp_path: Path, model: Counting):
    """A column beside it is kept."""
    recipe(model, texts(q=Q, a=A, b="B {{ word }}")).build(tmp_path, **QUIET)
    assert len(model.new()) == 21
    assert updated(tmp_path, recipe(model, texts(q=Q, a="C {{ q }}", b="B {{ word }}")), model) == [
        f"C <Q {n}>" for n in range(7)
    ]
    assert len(updated(tmp_path, recipe(model, texts(q="R {{ n }}", a="C {{ q }}", b="B {{ word }}")), model)) == 14


def test_adding_removing_renaming_and_moving_columns_costs_nothing_for_others(tmp_path: Path, model: Counting):
    """A renamed column is read by its new name in the prompts behind it."""
    recipe(model, texts(q=Q, a=A, b="B {{ word }}")).build(tmp_path, **QUIET)
    model.new()
    assert updated(tmp_path, recipe(model, texts(b="B {{ word }}", ask=Q, reply="A {{ ask }}")), model) == []
    assert updated(tmp_path, recipe(model, texts(ask=Q, reply="A {{ ask }}")), model) == []
    more = [*texts(ask=Q, reply="A {{ ask }}", new="N {{ reply }}"), rl.Expression("e", "{{ ask | upper }}")]
    assert len(updated(tmp_path, recipe(model, more), model)) == 7
    later = [rl.Text("ask", model="m", prompt=Q, on_error="null"), *texts(reply="A {{ ask }}", new="N {{ reply }}")]
    assert updated(tmp_path, recipe(model, later), model) == []


def test_a_renamed_seed_column_costs_nothing(tmp_path: Path, model: Counting):
    """It is known by its values."""

    def made(name: str) -> rl.Recipe:
        return rl.Recipe(models={"m": model}, columns=[rl.Seed({name: [1, 2, 3]}), *texts(q=f"Q {{{{ {name} }}}}")])

    made("n").build(tmp_path, **QUIET)
    model.new()
    assert updated(tmp_path, made("number"), model) == []


@pytest.mark.parametrize(
    ("rows", "new"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7, 8], 2),
        ([0, 1, 2, 33, 4, 5, 6], 1),
        ([0, 2, 3, 4, 5, 6], 0),
        ([6, 5, 4, 3, 2, 1, 0], 0),
        ([0, 0, 1], 1),
        ([9], 1),
    ],
)
def test_rows_cost_only_where_they_are_new(tmp_path: Path, model: Counting, rows: list[int], new: int):
    """Rows are known by their values: added, changed, removed, moved and doubled."""
    recipe(model, texts(q=Q, a=A)).build(tmp_path, **QUIET)
    model.new()
    assert len(updated(tmp_path, recipe(model, texts(q=Q, a=A), rows), model)) == 2 * new


def test_a_column_that_draws_by_the_row_number_costs_the_rows_that_shift(tmp_path: Path, model: Counting):
    """Plan counts them."""
    columns = texts(q="{{ [n, n + 100, n + 200] | random }}")
    recipe(model, columns).build(tmp_path, **QUIET)
    model.new()
    assert len(updated(tmp_path, recipe(model, columns, [0, 1, 3, 4, 5, 6]), model)) == 4


def test_a_function_that_was_fixed_is_called_again_and_its_failed_rows_with_it(tmp_path: Path, model: Counting):
    """The answers before it are kept."""

    def broken(q: str, n: int) -> str:
        return f"{q} {1 // (n - 4)}"

    def fixed(q: str, n: int) -> str:
        return f"{q} {n}"

    first = recipe(model, [*texts(q=Q), rl.cell(name="f")(broken), *texts(a="A {{ f }}")])
    assert first.build(tmp_path, **QUIET).dropped == 1
    model.new()
    assert (
        len(updated(tmp_path, recipe(model, [*texts(q=Q), rl.cell(name="f")(fixed), *texts(a="A {{ f }}")]), model))
        == 7
    )


def test_a_plan_says_why_and_writes_nothing(tmp_path: Path, model: Counting):
    """For a new directory, everything is made and the directory is not; costs are those of the table's own requests."""
    made = recipe(rl.Model(model, price=rl.Price(1e6, 0)), texts(q=Q, a=A))
    there = made.plan(tmp_path / "d")
    assert (there.requests, there.dollars, there.kept) == (14, None, 0)
    assert not (tmp_path / "d").exists()
    made.build(tmp_path / "d", **QUIET)
    plan = recipe(rl.Model(model, price=rl.Price(1e6, 0)), texts(q=Q, a="B {{ q }}", c="{{ a }}")).plan(tmp_path / "d")
    assert [(one.name, one.kept, one.made, one.why) for one in plan.columns] == [
        ("q", 7, 0, ""),
        ("a", 0, 7, "its definition has changed"),
        ("c", 0, 7, "the column is new"),
    ]
    assert "7 cells kept, 14 requests" in str(plan)
    assert plan.dollars is None
    assert made.plan(tmp_path / "d").requests == 0


def test_what_cannot_be_updated_is_refused_by_name(tmp_path: Path, model: Counting):
    """Nothing is lost by that."""
    recipe(model, texts(q=Q), processors=[lambda frame: frame]).build(tmp_path, **QUIET)
    with pytest.raises(rl.ResumeError, match="cannot be updated: the processor"):
        recipe(model, texts(q="R {{ n }}"), processors=[lambda frame: frame.copy()]).build(tmp_path, **UPDATE)
    with pytest.raises(rl.ResumeError, match="cannot be updated"):
        recipe(model, texts(q="R {{ n }}")).plan(tmp_path)
    assert pq.read_table(tmp_path / "data").num_rows == 7


def test_a_dropped_column_has_no_values_to_keep(tmp_path: Path, model: Counting):
    """It is made again, and so is what follows from it, while columns without it are kept."""
    columns, leave = texts(q=Q, a=A, b="B {{ n }}"), [rl.DropColumns(["q"])]
    recipe(model, columns, processors=leave).build(tmp_path, **QUIET)
    model.new()
    longer = recipe(model, columns, range(8), processors=leave)
    plan = longer.plan(tmp_path)
    assert [(one.name, one.kept) for one in plan.columns] == [("q", 0), ("a", 0), ("b", 7)]
    longer.build(tmp_path, **UPDATE)
    assert len(model.new()) == plan.requests


@pytest.mark.parametrize("at", range(6))
def test_a_crash_at_any_step_loses_nothing(tmp_path: Path, model: Counting, monkeypatch: pytest.MonkeyPatch, at: int):
    """At each step of the beginning, between parts, and at the end; then once more, with another edit in between."""
    recipe(model, texts(q=Q, a=A)).build(tmp_path, **QUIET)
    model.new()
    steps = [
        (Journal, "copy"),
        (earlier, "flush"),
        (Journal, "begin"),
        (ParquetSink, "_write_part"),
        (earlier, "part_files"),
        (shutil, "rmtree"),
    ]
    owner, name = steps[at]
    with monkeypatch.context() as patched:
        real, calls = getattr(owner, name), iter([at != 3, False])

        def dying(*given: Any, **named: Any) -> Any:
            if next(calls, False):
                raise OSError("it dies here")
            return real(*given, **named)

        patched.setattr(owner, name, dying)
        with contextlib.suppress(rl.RowloopError, OSError):
            recipe(model, texts(q=Q, a="B {{ q }}")).build(tmp_path, **UPDATE)
    paid = len(model.new())
    assert paid in {0, 7}
    assert len(updated(tmp_path, recipe(model, texts(q=Q, a="B {{ q }}"), range(8)), model)) == 9 - paid
    assert not (tmp_path / ".rowloop/earlier").exists()


VICTIM = """
import pathlib, sys, time
import rowloop as rl

path, log, prompt, rows = sys.argv[1:]

def ask(text):
    time.sleep(0.01)
    with open(log, "a") as file:
        file.write(text + chr(10))
    return text

columns = [rl.Seed({"n": [*range(int(rows))]}), rl.Text("q", model="m", prompt="Q {{ n }}")]
columns.append(rl.Text("a", model="m", prompt=prompt))
recipe = rl.Recipe(models={"m": rl.Model(ask, max_parallel=4)}, columns=columns)
recipe.build(path, resume="update", row_group_size=20, progress=False)
"""


def killed(path: Path, prompt: str, rows: int, answers: int | None) -> list[str]:
    """Update in a process that is killed after so many answers, if it gets there; return its answers."""
    log = path.with_suffix(".log")
    log.write_text("")
    with subprocess.Popen([sys.executable, "-c", VICTIM, str(path), str(log), prompt, str(rows)]) as process:
        while process.poll() is None:
            if answers is not None and len(log.read_text().splitlines()) >= answers:
                process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.005)
    return log.read_text().splitlines()


def check_kills(path: Path, first: int, second: int) -> None:
    """Build, kill an update, kill a different one that follows it, and let a third one end."""
    assert len(killed(path, "A {{ q }}", 100, None)) == 200
    one = killed(path, "B {{ q }}", 100, first)
    two = killed(path, "B {{ q }}", 110, second)
    three = killed(path, "B {{ q }}", 110, None)
    every = one + two + three
    assert set(every) == {f"B Q {n}" for n in range(110)} | {f"Q {n}" for n in range(100, 110)}
    assert len(every) - len(set(every)) <= 2 * 40  # what a kill repeats
    table = pq.read_table(path / "data")
    assert table["a"].to_pylist() == [f"B Q {n}" for n in range(110)]
    assert not (path / ".rowloop/earlier").exists()


def test_two_kills_in_two_updates_lose_nothing(tmp_path: Path):
    """The second update differs: it finds the old values and what the first one has made."""
    check_kills(tmp_path / "d", 50, 30)


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(40))
def test_kills_at_random_moments_lose_nothing(tmp_path: Path, seed: int):
    """From the first answer to the last."""
    drawn = random.Random(seed)  # noqa: S311 - no secrets
    check_kills(tmp_path / "d", drawn.randrange(100), drawn.randrange(100))


PROMPTS = ["P {{ n }}", "P {{ word }}", "R {{ n }} {{ word }}", "fixed", "{{ ['x', 'y'] | random }} {{ n }}"]


@st.composite
def drawn_columns(draw: st.DrawFn) -> list[Any]:
    """Draw columns that follow from the seed table and from each other."""
    names = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True))
    columns: list[Any] = []
    for i, name in enumerate(names):
        sources = [*PROMPTS, *(f"F {{{{ {before} }}}}" for before in names[:i])]
        prompt = draw(st.sampled_from(sources))
        columns.append(
            rl.Expression(name, prompt) if draw(st.integers(0, 4)) == 0 else rl.Text(name, model="m", prompt=prompt)
        )
    return draw(st.permutations(columns))


TABLES = st.lists(st.integers(0, 5), min_size=1, max_size=8)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.tuples(drawn_columns(), TABLES), min_size=2, max_size=3))
def test_any_edit_makes_the_table_of_a_run_afresh_with_as_many_requests_as_planned(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[list[Any], list[int]]]
):
    """Random recipes and seeds, one after the other in one directory."""
    check_edits(tmp_path_factory.mktemp("edits"), edits)


@pytest.mark.stress
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.tuples(drawn_columns(), TABLES), min_size=2, max_size=5))
def test_many_edits(tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[list[Any], list[int]]]):
    """The same with more of them."""
    check_edits(tmp_path_factory.mktemp("edits"), edits)


def check_edits(path: Path, edits: Sequence[tuple[list[Any], list[int]]]) -> None:
    """Update a directory with one recipe after the other; the unchanged recipe then costs nothing."""
    model = Counting()
    for columns, rows in edits:
        updated(path, recipe(model, columns, rows), model, row_group_size=random.Random(len(rows)).randint(1, 4))  # noqa: S311 - no secrets
        assert recipe(model, columns, rows).plan(path).requests == 0
