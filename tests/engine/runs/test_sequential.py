"""The sequential engine: the same tables as the asynchronous one, and columns that change the number of rows."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rowloop as rl
from rowloop.engine.core.events import WHOLE, Admit, Commit, Committed, Done, Execute, Resized, Started, Stop, Tally
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.row_groups import Plan
from rowloop.engine.core.sequential import in_sequence
from rowloop.engine.core.tracker import Tracker

if TYPE_CHECKING:
    from pathlib import Path

    from rowloop import Recipe, Result
    from rowloop.engine.core.events import Command
    from rowloop.engine.core.graph import OnError

ON_ERRORS: list[OnError] = ["drop", "null"]
NEVER = rl.ErrorBudget(rate=None)


# The graph


def commands(tracker: Tracker, event: Any) -> list[Command]:
    """Feed an event and leave out the commands for the store."""
    return [command for command in tracker.handle(event) if not isinstance(command, Admit)]


def test_a_column_waits_for_all_rows_of_the_previous_one() -> None:
    """Row 0 of the second column starts when the last row of the first has ended, although it does not need it."""
    lane = Lane("lane", 8)
    nodes = [Node("a", lane=lane), Node("b", lane=lane)]
    tracker = Tracker(compile_graph(in_sequence(nodes, 2, [])), Plan(2))
    assert commands(tracker, Started()) == [Execute(0, 0, 0), Execute(0, 0, 1)]
    assert commands(tracker, Done(0, 0, 0)) == []
    barrier = commands(tracker, Done(0, 0, 1))
    assert [(run.column, run.row) for run in barrier if isinstance(run, Execute)] == [(2, WHOLE)]
    assert commands(tracker, Done(0, 2, WHOLE)) == [Execute(0, 1, 0), Execute(0, 1, 1)]


def test_columns_come_after_their_needs_and_else_in_the_order_of_the_recipe() -> None:
    """A column that is written before its needs is worked after them; columns without needs are first."""
    nodes = [Node("late", needs=("early",)), Node("early"), Node("seed", strategy="whole")]
    ordered = in_sequence(nodes, 3, [])
    assert ordered[1].after == ("seed",)
    assert ordered[0].after == ("all rows of early",)


def test_the_tracker_continues_with_the_rows_that_a_column_returns() -> None:
    """Three rows become five: later columns are worked for five, and five are committed."""
    nodes = in_sequence([Node("a", strategy="whole"), Node("more", strategy="whole"), Node("b")], 3, ["more"])
    tracker = Tracker(compile_graph(nodes), Plan(3))
    tracker.handle(Started())
    assert commands(tracker, Done(0, 0, WHOLE)) == [Execute(0, 1, WHOLE, range(3))]
    assert commands(tracker, Resized(0, 1, 5)) == [Execute(0, 2, row) for row in range(5)]
    for row in range(4):
        assert commands(tracker, Done(0, 2, row)) == []
    barrier = commands(tracker, Done(0, 2, 4))
    assert barrier == [Execute(0, 3, WHOLE, range(5))]
    assert commands(tracker, Done(0, 3, WHOLE)) == [
        Commit(0, range(5), Tally(live=5, dropped=0, columns=((3, 0, 0), (5, 0, 0), (5, 0, 0), (5, 0, 0))))
    ]
    assert commands(tracker, Committed(0)) == [Stop(None)]
    assert (tracker.totals.committed, tracker.totals.dropped) == (5, 0)


def test_a_column_may_leave_no_row() -> None:
    """A row group without rows is over, and none of its rows was dropped by a failure."""
    nodes = in_sequence([Node("none", strategy="whole"), Node("b")], 2, ["none"])
    tracker = Tracker(compile_graph(nodes), Plan(3))
    tracker.handle(Started())
    assert Stop(None) in tracker.handle(Resized(0, 0, 0))
    assert (tracker.totals.committed, tracker.totals.dropped) == (0, 0)


# Both engines on the same recipes


def picky(limit: int) -> Any:
    """Make a function of a value that fails for some values."""

    def value(x: float) -> float:
        if int(x * 97) % 10 < limit:
            raise ValueError("picky")
        return x * 2

    return value


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Draw a recipe: samplers, columns of every kind that need earlier ones, processors.

    Columns that fail, or that see which rows are left, need one another: with two that do not, it is a matter of time
    whether a row fails in both.
    """
    columns: list[Any] = [rl.Uniform("x0", low=0, high=10)]
    numbers, failing = ["x0"], "x0"
    for i in range(1, draw(st.integers(2, 6))):
        name, need = f"x{i}", draw(st.sampled_from(numbers))
        on_error: OnError = draw(st.sampled_from(ON_ERRORS))
        function = picky(draw(st.integers(0, 3)))
        kind = draw(st.sampled_from(["sampler", "expression", "cell", "async", "batch"]))
        if kind == "sampler":
            columns.append(rl.Category(name, values=[1.5, 2.5, 3.5]))
        elif kind == "expression":
            columns.append(rl.Expression(name, f"{{{{ {need} }}}}", dtype="float64"))
        elif kind == "cell":
            columns.append(rl.cell(tolerant(function), name=name, needs=[failing], dtype="float64", on_error=on_error))
            failing = name
        elif kind == "async":
            columns.append(rl.cell(awaiting(function), name=name, needs=[failing], dtype="float64", on_error=on_error))
            failing = name
        else:
            columns.append(rl.batch(ranked, name=name, needs=[failing], dtype="float64", on_error=on_error))
            failing = name
        numbers.append(name)
    possible = [Doubled(), short, rl.DropColumns(["x1"]), rl.SchemaTransform({"row": "{{ x0 }}"}), Sorted()]
    kept = draw(st.lists(st.sampled_from(range(len(possible))), unique=True, max_size=2).map(sorted))
    if {2, 3} <= set(kept):
        kept.remove(2)
    return rl.Recipe(columns=draw(st.permutations(columns)), processors=[possible[i] for i in kept], seed=5)


def tolerant(function: Any) -> Any:
    """Let nulls through."""
    return lambda x: None if x is None else function(x)


def awaiting(function: Any) -> Any:
    """Make it a coroutine function."""

    async def value(x: float | None) -> float | None:
        return None if x is None else function(x)

    return value


def ranked(x: pd.Series[float]) -> pd.Series[float]:
    """Depend on every row of the group."""
    return x.astype("float64").rank(method="first")


class Doubled(rl.Processor):
    """Changes sampled values."""

    def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Double the first sampler."""
        return frame.assign(x0=frame["x0"] * 2)


class Sorted(rl.Processor):
    """Changes the order of all rows."""

    def after_generation(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Turn the table around."""
        return frame.iloc[::-1]


def short(frame: pd.DataFrame) -> pd.DataFrame:
    """Leave out the first row of a group."""
    return frame.iloc[1:]


def ended(recipe: Recipe, rows: int, size: int, engine: Any) -> tuple[Any, ...]:
    """Return everything about a preview that does not depend on the time or the engine."""
    try:
        result = recipe.preview(
            rows, row_group_size=size, engine=engine, progress=False, error_budget=NEVER, stall_after=None
        )
    except rl.EarlyShutdownError as error:
        return (str(error).partition(";")[0],)
    metadata = {name: value for name, value in result.metadata.items() if name not in TIMED}
    over = [(c["failed"], c["completed"] + c["failed"] + c["skipped"]) for c in metadata.pop("columns")]
    failures = result.failures.drop(columns=["first_failed_at", "last_failed_at"])
    return result.dataset.to_dict("list"), failures.to_dict("list"), metadata, over, result.status


TIMED = {"started_at", "finished_at", "elapsed", "engine", "recipe_fingerprint"}


@given(recipes(), st.integers(1, 40), st.integers(1, 15))
@settings(max_examples=25, deadline=None)
def test_both_engines_give_the_same_table_failures_and_metadata(recipe: Recipe, rows: int, size: int) -> None:
    """Whatever the recipe: rows, failures, counts and parts are the same, apart from times and the engine's name.

    How many cells of a row were completed before it was dropped is a matter of time: of each column, all rows are over.
    """
    assert repr(ended(recipe, rows, size, "async")) == repr(ended(recipe, rows, size, "sequential"))


# Columns that change the number of rows


def topics() -> Recipe:
    """Make a recipe with one column to be multiplied."""
    return rl.Recipe(
        columns=[rl.Category("topic", values=["law", "art"]), rl.Expression("label", "{{ topic }}!")], seed=3
    )


def built(recipe: Recipe, rows: int = 4, **options: Any) -> Result:
    """Preview without a display and without the deprecation warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return recipe.preview(rows, progress=False, **options)


def twice(frame: pd.DataFrame) -> pd.DataFrame:
    """Return each row twice."""
    return pd.concat([frame.assign(copy=0), frame.assign(copy=1)]).sort_index(kind="stable")


def test_a_column_returns_more_rows_and_later_columns_see_them() -> None:
    """Each row group of two becomes one of four; a later column is worked for all of them."""
    recipe = topics()
    recipe.column(rl.batch(twice, name="copy", allow_resize=True))

    @recipe.column
    def named(label: str, copy: int) -> str:
        return f"{label}{copy}"

    result = built(recipe, row_group_size=2)
    plain = topics().preview(4, progress=False).dataset
    assert result.dataset["named"].tolist() == [f"{label}{i}" for label in plain["label"] for i in (0, 1)]
    assert (result.status, result.target, result.actual) == ("complete", 4, 8)
    assert result.metadata["engine"] == "sequential"
    assert [part["rows"] for part in result.metadata["parts"]] == [4, 4]


def test_a_column_returns_fewer_rows(tmp_path: Path) -> None:
    """Rows that it leaves out are not failures; a row group without rows writes no part."""
    recipe = topics()
    law = rl.batch(lambda frame: frame[frame["topic"] == "law"].assign(kept=1), name="kept", allow_resize=True)
    recipe.column(law)
    with pytest.warns(DeprecationWarning, match="allow_resize"):
        result = recipe.build(tmp_path / "out", rows=12, row_group_size=1, progress=False)
    wanted = topics().preview(12, progress=False).dataset["topic"].tolist().count("law")
    assert result.to_pandas()["topic"].tolist() == ["law"] * wanted
    assert len(list((tmp_path / "out" / "data").glob("*.parquet"))) == wanted
    assert result.failures.empty
    assert result.dropped == 0


def test_one_deprecation_warning_points_at_the_users_line() -> None:
    """The warning comes once a run, with this file's name and the line of the call."""
    recipe = topics()
    recipe.column(rl.batch(twice, name="copy", allow_resize=True))
    with pytest.warns(DeprecationWarning, match=r"allow_resize \(copy\).*Workflow") as caught:
        recipe.preview(1, progress=False)
    assert [warning.filename for warning in caught] == [__file__]
    code = test_one_deprecation_warning_points_at_the_users_line.__code__
    assert caught[0].lineno in {line for _, _, line in code.co_lines()}


def test_the_engine_is_chosen_per_run() -> None:
    """Two builds in two threads, one of each kind, do not affect each other."""
    plain, resizing = topics(), topics()
    resizing.column(rl.batch(twice, name="copy", allow_resize=True))
    both, engines = threading.Barrier(2), dict.fromkeys(["plain", "resizing"], "")

    def run(name: str, recipe: Recipe) -> None:
        both.wait()
        engines[name] = {built(recipe, rows=50).metadata["engine"] for _ in range(5)}.pop()

    threads = [threading.Thread(target=run, args=args) for args in [("plain", plain), ("resizing", resizing)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engines == {"plain": "async", "resizing": "sequential"}


def test_before_batch_may_change_the_number_of_rows() -> None:
    """The asynchronous engine refuses it, the sequential one does it."""

    class Half(rl.Processor):
        def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
            return frame.iloc[: len(frame) // 2]

    columns = [rl.Uniform("x", low=0, high=1), rl.Expression("line", "{{ x }}")]
    recipe = rl.Recipe(columns=columns, processors=[Half()], seed=1)
    assert len(built(recipe, 10, engine="sequential").dataset) == 5
    with pytest.raises(rl.DatasetProcessingError, match="from 10 to 5"):
        built(recipe, 10)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda frame: frame["topic"].tolist(), "returned a list; with allow_resize it must return a DataFrame"),
        (lambda frame: frame[["topic"]].assign(copy=1), "without label"),
        (lambda frame: frame, "without copy"),
    ],
)
def test_a_wrong_return_value_of_a_resizing_column_is_reported(function: Any, problem: str) -> None:
    """The failure names the column, the expected and the actual value."""
    recipe = topics()
    recipe.column(rl.batch(function, name="copy", allow_resize=True))
    with pytest.raises(rl.EarlyShutdownError, match=f"'copy'.*{problem}"):
        built(recipe)


def test_a_resizing_column_takes_a_frame() -> None:
    """It is refused when it is defined with parameters named after columns."""
    with pytest.raises(rl.RecipeError, match=r"columns\.copy: with allow_resize.*frame"):
        rl.batch(lambda topic: topic, name="copy", allow_resize=True)
