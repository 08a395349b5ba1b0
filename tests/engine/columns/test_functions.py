"""Python functions as columns: every usable kind of function works, and the others are refused by name."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pytest

from identifiers import by_repr
from rowloop import Category, DatasetGenerationError, EarlyShutdownError, Recipe, RecipeError, Seed, batch, cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from rowloop.engine.columns.functions import Function

ROWS = Seed(pd.DataFrame({"a": [1, 2, 3, 4], "b": [10, 20, 30, 40]}), repeat=True)


def made(*columns: Any, rows: int = 4, size: int = 2) -> Any:
    """Preview over the seed."""
    return Recipe(columns=[ROWS, *columns]).preview(rows, row_group_size=size, progress=False)


def values(*columns: Any) -> list[Any]:
    """Give the last column's values."""
    return made(*columns).to_arrow().columns[-1].to_pylist()


def plain(a: int, b: int) -> int:
    """Add."""
    return a + b


async def waiting(a: int, b: int) -> int:
    """Add."""
    await asyncio.sleep(0)
    return a + b


def keyword(*, b: int, a: int) -> int:
    """Add."""
    return a + b


async def half_keyword(b: int, *, a: int) -> int:
    """Tell the two apart."""
    return b * 100 + a


class Adder:
    """Is called."""

    def __call__(self, a: int, b: int) -> int:
        """Add."""
        return a + b

    def method(self, a: int, b: int) -> int:
        """Add."""
        return a + b

    async def waiting(self, a: int, b: int) -> int:
        """Add."""
        return a + b


class WaitingAdder:
    """Is called and awaited."""

    async def __call__(self, a: int, b: int) -> int:
        """Add."""
        return a + b


@pytest.mark.parametrize(
    "column",
    [
        plain,
        waiting,
        cell(plain),
        Adder().method,
        Adder().waiting,
        cell(name="x")(Adder()),
        cell(name="x")(WaitingAdder()),
        cell(name="x")(functools.partial(plain)),
        cell(name="x")(functools.partial(waiting)),
        cell(name="x")(lambda a, b: a + b),
        cell(name="x", dtype="float64", max_parallel=1)(plain),
        cell(name="x")(keyword),
    ],
    ids=by_repr,
)
def test_anything_callable_with_single_values_is_a_column(column):
    """Functions, methods, objects, partials and lambdas; sync and async; keyword-only parameters too."""
    assert values(column) == [11, 22, 33, 44]


def test_needs_go_to_the_parameters_of_their_name():
    """Not by the order of the columns."""
    assert values(half_keyword) == [1001, 2002, 3003, 4004]
    assert values(cell(name="x")(lambda b, a: b - a)) == [9, 18, 27, 36]


def test_parameters_with_a_default_are_not_needs():
    """They keep it."""

    def scaled(a: int, factor: int = 3) -> int:
        return a * factor

    assert Recipe(columns=[ROWS, scaled]).columns == ["a", "b", "scaled"]
    assert values(scaled) == [3, 6, 9, 12]


def test_a_function_without_parameters_is_called_once_per_row():
    """A column may have no needs."""
    calls = []

    def one() -> int:
        calls.append(1)
        return 1

    assert values(one) == [1, 1, 1, 1]
    assert len(calls) == 4


@batch
def series(a: pd.Series, b: pd.Series) -> pd.Series:
    """Add."""
    return a + b


@batch
async def series_awaited(a: pd.Series, b: pd.Series) -> list[int]:
    """Add."""
    return list(a + b)


@batch(needs=["a", "b"])
def frame(frame: pd.DataFrame) -> pd.Series:
    """Add."""
    return frame["a"] + frame["b"]


@batch(needs=["a", "b"], name="x")
def whole_frame(frame: pd.DataFrame, more: int = 0) -> pd.DataFrame:
    """Add."""
    return frame.assign(x=frame["a"] + frame["b"] + more)


@batch(needs=["b", "a"])
def renamed(x: pd.Series, y: pd.Series) -> np.ndarray:
    """Add."""
    return (x + y).to_numpy()


@batch
def by_keyword(*, a: pd.Series, b: pd.Series) -> tuple[int, ...]:
    """Add."""
    return tuple(a + b)


@pytest.mark.parametrize("column", [series, series_awaited, frame, whole_frame, renamed, by_keyword], ids=by_repr)
def test_batch_functions_get_whole_columns(column):
    """As Series or as one frame; they return a Series, a list, an array, a tuple or a frame."""
    assert values(column) == [11, 22, 33, 44]


def test_a_batch_function_is_called_once_per_row_group_with_the_live_rows_only():
    """Rows that were dropped before it are not among its values."""
    seen = []

    def picky(a: int) -> int:
        if a == 2:
            raise ValueError("no twos")
        return a

    @batch
    def total(picky: pd.Series) -> list[int]:
        seen.append(picky.tolist())
        return [0] * len(picky)

    assert made(picky, total).dataset["picky"].tolist() == [1, 3, 4]
    assert sorted(seen) == [[1], [3, 4]]


def returns(value: Any, *, whole: bool) -> Function:
    """Make a column `x` that always returns this."""
    if whole:
        return batch(name="x", needs=["a"])(lambda a: value)  # noqa: ARG005 - a need
    return cell(name="x")(lambda a: value)  # noqa: ARG005 - a need


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([1], "the function returned 1 values for 2 rows"),
        ([1, 2, 3], "the function returned 3 values for 2 rows"),
        (pd.Series([], dtype=float), "the function returned 0 values for 2 rows"),
        (7, "the function returned a int; expected a Series, a list or a DataFrame"),
        (None, "the function returned a NoneType; expected"),
        ("ab", "the function returned a str; expected"),
        ({"x": 1, "y": 2}, "the function returned a dict; expected"),
        (pd.DataFrame({"y": [1, 2]}), "a DataFrame without the column 'x'; it has: y"),
        (pd.DataFrame(), "a DataFrame without the column 'x'"),
    ],
)
def test_a_batch_function_that_returns_the_wrong_thing_fails_with_a_reason(value, says):
    """The error names the column, the expected and the returned value; the rows are in the failures."""
    with pytest.raises(EarlyShutdownError, match=says) as raised:
        made(returns(value, whole=True))
    assert "'x'" in str(raised.value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), r"column 'x', row group \d: expected values of one type, but row \d has <object"),
        (
            [2**65, object()],
            r"column 'x', row group \d: expected values of one type, but row \d has \[36893488147419103232",
        ),
        ("\ud800", r"column 'x', row group \d: expected values of one type, but row \d has '.*ud800'"),
    ],
)
def test_a_value_that_no_table_can_hold_is_named(value, says):
    """The error has the column, row group, row, expected type and value."""
    with pytest.raises(DatasetGenerationError, match=says):
        made(returns(value, whole=False))


def test_a_value_of_another_type_than_the_annotation_is_named():
    """`-> int` is a promise."""

    def number(a: int) -> int:
        return a if a != 3 else "three"  # type: ignore[return-value] # the point

    result = made(number)
    assert result.dataset["number"].tolist() == [1, 2, 4]
    (message,) = result.failures["message"]
    assert message == "column 'number', row group 1: expected int64, but row 2 has 'three' (str)"
    with pytest.raises(
        DatasetGenerationError, match=r"column 'number', row group 1: expected int64, but row 2 has 'three'"
    ):
        made(cell(on_error="raise")(number))


def test_the_return_annotation_types_the_column():
    """str, int, float and bool; also where every value is None, and where annotations are text."""

    def nothing(a: int) -> float:  # noqa: ARG001 - a need
        return None  # type: ignore[return-value] # a missing value is none

    def unknown(a: int) -> NoSuchType:  # type: ignore[name-defined] # noqa: F821 - the point
        return a

    table = made(nothing, unknown).to_arrow()
    assert str(table.schema.field("nothing").type) == "double"
    assert table.column("unknown").to_pylist() == [1, 2, 3, 4]


def test_a_function_that_only_looks_synchronous_is_refused():
    """A lambda around an async function returns coroutines that nobody awaits."""
    result_of = cell(name="x")(lambda a, b: waiting(a, b))  # noqa: PLW0108 - the point
    with pytest.raises(EarlyShutdownError, match="the function returned a coroutine; write it as an async def"):
        made(result_of)


def test_a_function_that_raises_stop_iteration_is_a_failed_cell():
    """It would otherwise confuse generators and futures alike."""

    def stop(a: int) -> int:
        if a < 4:
            return a
        raise StopIteration(a)

    @batch
    def stop_all(stop: pd.Series) -> pd.Series:  # noqa: ARG001 - a need
        raise StopIteration

    assert made(stop).dataset["stop"].tolist() == [1, 2, 3]
    with pytest.raises(EarlyShutdownError, match="StopIteration"):
        made(stop, stop_all)


def many(*a: int) -> int:
    """Add all."""
    return sum(a)


def options(**a: int) -> int:
    """Add all."""
    return sum(a.values())


def generator(a: int) -> Any:
    """Yield."""
    yield a


async def async_generator(a: int) -> Any:
    """Yield."""
    yield a


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: cell(many), r"columns\.many: \*a does not name a column; list every parameter"),
        (lambda: cell(options), r"columns\.options: \*a does not name a column"),
        (lambda: cell(print), r"columns\.print: \*args does not name a column"),
        (lambda: cell(max), r"columns\.max: its parameters cannot be read"),
        (
            lambda: cell(generator),
            r"columns\.generator: a generator has no single value; write",
        ),
        (lambda: cell(async_generator), r"columns\.async_generator: a generator"),
        (lambda: cell(lambda a: a), "a function without a name needs name="),
        (lambda: cell(functools.partial(plain)), "a function without a name needs name="),
        (lambda: cell(3), "3 is not a function"),  # type: ignore[call-overload] # the point
        (lambda: cell(name="x")(None), "None is not a function"),  # type: ignore[arg-type] # the point
        (lambda: cell(dtype="int63")(plain), "dtype='int63' is not an Arrow type; use int64"),
        (lambda: cell(max_parallel=0)(plain), r"max_parallel: Input should be greater than or equal to 1"),
        (lambda: cell(on_error="ignore")(plain), r"on_error: Input should be 'drop', 'null' or 'raise'"),  # type: ignore[call-overload] # the point
        (lambda: cell(parallel=3)(plain), r"parallel: unknown field; did you mean 'max_parallel'\?"),  # type: ignore[call-overload] # the point
        (lambda: batch(lambda frame: frame), "a function without a name"),
        (
            lambda: batch(name="x")(lambda frame: frame),
            r"columns\.x: a function of a frame needs a list of columns",
        ),
        (lambda: batch(name="x", needs=["a"])(plain), r"columns\.x: the function has 2 parameters for needs=\['a'\]"),
    ],
)
def test_what_cannot_be_a_column_is_refused_when_it_is_made(make, says):
    """With its name, and what to do."""
    with pytest.raises(RecipeError, match=says):
        make()


def test_a_column_called_frame_can_be_needed():
    """Only for batch functions does the word mean something else."""
    recipe = Recipe(columns=[Category("frame", ["x"]), cell(name="y")(lambda frame: frame * 2)])
    assert recipe.preview(2, progress=False).dataset["y"].tolist() == ["xx", "xx"]


@pytest.mark.parametrize("parallel", [1, 3, None])
def test_no_more_threads_than_max_parallel_call_a_function(parallel):
    """16 by default."""
    now = most = 0
    lock, go_on = threading.Lock(), threading.Event()

    def slow(a: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if most == (parallel or 16):
                go_on.set()
        go_on.wait(10)
        with lock:
            now -= 1
        return a

    made(cell(max_parallel=parallel)(slow), rows=40, size=40)
    assert most == (parallel or 16)


def test_synchronous_functions_run_off_the_loop_and_asynchronous_ones_on_it():
    """Async functions of one run share one thread, and a blocking one cannot stop them."""
    loops: set[Any] = set()
    names: set[str] = set()

    async def on_loop(a: int) -> int:
        loops.add(asyncio.get_running_loop())
        names.add(threading.current_thread().name)
        return a

    def off_loop(on_loop: int) -> int:
        assert threading.current_thread().name not in names
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return on_loop

    assert values(on_loop, off_loop) == [1, 2, 3, 4]
    assert len(loops) == len(names) == 1


OnError = Literal["drop", "null", "raise"]


def breaks(on_error: OnError) -> Sequence[Any]:
    """Fail for a == 2, as the column says."""

    @cell(on_error=on_error)
    def brittle(a: int) -> int:
        if a == 2:
            raise KeyError("two")
        return a

    return [brittle]


def test_a_failed_cell_drops_its_row_by_default():
    """The failures table has the row, column, error, attempts and inputs."""
    result = made(*breaks("drop"))
    assert result.dataset["brittle"].tolist() == [1, 3, 4]
    assert (result.status, result.target, result.actual, result.dropped) == ("partial", 4, 3, 1)
    (failure,) = result.failures.to_dict("records")
    assert (failure["row"], failure["column"], failure["error"], failure["attempts"]) == (1, "brittle", "KeyError", 1)
    assert failure["message"] == "'two'"
    assert failure["inputs"] == '{"a":2}'


def test_a_failed_cell_may_be_null():
    """The row stays, and the failure is in the failures table all the same."""
    result = made(*breaks("null"))
    assert result.to_arrow().column("brittle").to_pylist() == [1, None, 3, 4]
    assert (result.status, result.dropped, len(result.failures)) == ("complete", 0, 1)


def test_a_failed_cell_may_end_the_run():
    """With its own error as the cause."""
    with pytest.raises(DatasetGenerationError, match=r"^column 'brittle', row group 0: 'two'$") as raised:
        made(*breaks("raise"))
    assert isinstance(raised.value.__cause__, KeyError)
