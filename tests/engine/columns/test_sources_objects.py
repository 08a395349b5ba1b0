"""Python objects as seeds: DataFrames, lists and dicts, and whatever gives an Arrow stream."""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import json
import math
import pickle
import uuid
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowloop import Category, Expression, Recipe, RecipeError, Seed
from rowloop.engine.columns.sources import blocks
from seed_cells import cells, types

if TYPE_CHECKING:
    from collections.abc import Callable

QUIET: Any = {"progress": False}
DAY, NOON = dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 12)  # noqa: DTZ001 - without a zone, as tables have it


class Stream:
    """What speaks Arrow's C stream interface, and nothing else."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Give the table's own."""
        return self.table.__arrow_c_stream__(requested_schema)


TABLE = pa.table({"n": [1, None, 2**60 + 1], "s": ["a", "", None], "l": [[1], [], None]})
VALUES = TABLE.to_pydict()

PRODUCERS = {
    "pyarrow table": lambda: TABLE,
    "pyarrow batch": lambda: TABLE.combine_chunks().to_batches()[0],
    "pyarrow reader": TABLE.to_reader,
    "a stream": lambda: Stream(TABLE),
    "polars": lambda: pl.DataFrame(TABLE),
    "polars, views and large lists": lambda: pl.concat([pl.DataFrame(TABLE[:1]), pl.DataFrame(TABLE[1:])]),
    "duckdb": lambda: duckdb.from_arrow(TABLE),
    "a list of dicts": TABLE.to_pylist,
    "a dict of lists": TABLE.to_pydict,
    "a dict of arrays": lambda: {name: TABLE.column(name) for name in TABLE.column_names},
}


@pytest.mark.parametrize("make", PRODUCERS.values(), ids=PRODUCERS)
def test_the_same_table_from_any_producer(make):
    """Integers beside nulls stay integers; no value changes, and the identity is the same for all."""
    seed = Seed(make())
    assert cells(seed) == VALUES
    assert Recipe(columns=[seed]).preview(3, **QUIET).to_arrow().to_pydict() == VALUES
    assert seed.digest == Seed(TABLE).digest


def test_a_hugging_face_dataset():
    """Its selections and orders too, and one that can only be read once."""
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"n": list(range(1000)), "s": [f"s{i}" for i in range(1000)]})
    assert cells(Seed(data.select([5, 3]))) == {"n": [5, 3], "s": ["s5", "s3"]}
    assert cells(Seed(data, columns=["s"]))["s"][999] == "s999"
    assert cells(Seed(data.to_iterable_dataset()))["n"] == list(range(1000))
    with pytest.raises(RecipeError, match="takes a DataFrame or a path, not DatasetDict"):
        Recipe(columns=[Seed(datasets.DatasetDict({"train": data}))])


def test_types_of_other_libraries_become_plain_values():
    """Categories, enums, decimals, UUIDs, times and nested text."""
    frame = pl.DataFrame(
        {
            "c": pl.Series(["u", "v"], dtype=pl.Categorical),
            "e": pl.Series(["u", "v"], dtype=pl.Enum(["u", "v"])),
            "t": [["a"], ["b", None]],
            "d": [DAY, None],
            "m": [decimal.Decimal("1.10"), None],
        }
    )
    assert cells(Seed(frame)) == {
        "c": ["u", "v"],
        "e": ["u", "v"],
        "t": [["a"], ["b", None]],
        "d": [DAY, None],
        "m": [decimal.Decimal("1.10"), None],
    }
    table = pa.table({"u": pa.array([uuid.UUID(int=1).bytes], pa.uuid()), "j": pa.array(['{"a": 1}'], pa.json_())})
    assert cells(Seed(table)) == {"u": [str(uuid.UUID(int=1))], "j": ['{"a": 1}']}


def test_a_stream_larger_than_memory_allows_is_kept_on_the_disk(monkeypatch):
    """It is read once, in order, and rows come back from anywhere in it."""
    monkeypatch.setattr(blocks, "IN_MEMORY_BYTES", 1000)
    table = pa.table({"n": range(100_000), "s": [f"text {i}" for i in range(100_000)]})
    seed = Seed(table.to_reader(max_chunksize=7_000))
    assert not seed._table.source.blocks.in_memory
    assert cells(seed) == table.to_pydict()
    assert seed.digest == Seed(table).digest


# pandas


def test_objects_in_a_frame_are_what_they_are():
    """Of a column of objects, no integer becomes a float, and no dict gets the keys of another."""
    frame = pd.DataFrame(
        {
            "n": pd.Series([1, 2.5, None], dtype=object),
            "i": pd.Series([1, None, 2**60 + 1], dtype=object),
            "o": pd.Series([{"a": 1}, {"b": [2, 0.5]}, math.nan], dtype=object),
            "s": pd.Series(["x", None, math.nan], dtype=object),
            "d": pd.Series([DAY, None, DAY], dtype=object),
        }
    )
    assert json.dumps(cells(Seed(frame)), default=str) == json.dumps(
        {
            "n": [1, 2.5, None],
            "i": [1, None, 2**60 + 1],
            "o": [{"a": 1}, {"b": [2, 0.5]}, None],
            "s": ["x", None, None],
            "d": [DAY, None, DAY],
        },
        default=str,
    )


def test_unsigned_integers_of_64_bits():
    """From pandas, numpy and lists, beside nulls, into the table."""
    large = 2**64 - 1
    for data in (
        pd.DataFrame({"u": pd.Series([large, None], dtype="UInt64")}),
        {"u": [np.uint64(large), None]},
        [{"u": large}, {}],
    ):
        result = Recipe(columns=[Seed(data), Expression("e", "{{ u }}")]).preview(2, **QUIET)
        assert result.to_arrow().to_pydict() == {"u": [large, None], "e": [str(large), ""]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([3, 1]), [3, 1]),
        (np.array(["b", "a"]), ["b", "a"]),
        (pd.Series([2, 2, 5]).unique(), [2, 5]),
        (pd.Series(["x", "y", "x"]).unique(), ["x", "y"]),
        (pd.Series([1.5, 0.5]), [1.5, 0.5]),
        (pd.Index([1, 2]), [1, 2]),
        ([np.int64(1), np.int64(2)], [1, 2]),
        ([np.float32(0.5), 2.0], [0.5, 2.0]),
        ([np.bool_(1), False], [True, False]),
        ([{"a": np.int64(1)}, {"a": np.int64(2)}], [{"a": 1}, {"a": 2}]),
        ([np.array([1, 2]), np.array([3])], [[1, 2], [3]]),
        (pd.Series(pd.to_datetime(["2024-02-29 12:00"])).unique(), [NOON]),
        (np.array(["2024-02-29T12:00"], dtype="datetime64[ns]"), [NOON]),
    ],
)
def test_values_of_numpy_and_pandas_in_a_category(values, expected):
    """They are taken as Python's own, in the table and in the recipe's description."""
    column = Category("c", values=values)
    assert vars(column)["values"] == expected
    number: Any = np.int64(20)
    recipe = Recipe(columns=[column], seed=number)
    drawn = recipe.preview(number, **QUIET).to_arrow().column("c").to_pylist()
    assert all(value in expected for value in drawn)
    assert Recipe.from_dict(recipe.to_dict()).to_dict() == recipe.to_dict()


def test_weights_of_numpy():
    """An array is a list of numbers."""
    weights: Any = pd.Series(["a", "a", "b"]).value_counts().to_numpy()
    assert Category("c", values=["a", "b"], weights=weights).weights == [2.0, 1.0]


# Lists and dicts

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=6,
)


@given(st.lists(JSON.filter(lambda value: "\\ud" not in json.dumps(value)), min_size=1, max_size=8))
def test_values_of_a_list_are_what_they_are(values):
    """Of whatever types, beside whatever others."""
    assert json.dumps(cells(Seed({"v": values}))["v"]) == json.dumps(values)
    assert json.dumps(cells(Seed([{"v": value} for value in values]))["v"]) == json.dumps(values)


def test_values_that_json_does_not_have():
    """Dates, times, bytes, decimals and tuples; numpy's values within others."""
    data = {
        "d": [DAY, None],
        "t": [NOON, None],
        "b": [b"\xff", b""],
        "m": [decimal.Decimal("1.5"), None],
        "l": [(1, 2), [3]],
        "a": [{"x": np.int64(1)}, {"x": np.array([1.5, 2])}],
        "r": range(2),
    }
    assert cells(Seed(data)) == {
        **data,
        "l": [[1, 2], [3]],
        "a": [{"x": 1}, {"x": [1.5, 2.0]}],
        "r": [0, 1],
    }


def test_a_number_that_is_none_is_null_as_in_a_frame():
    """Beside numbers and beside others; an infinite one stays what it is."""
    assert cells(Seed({"f": [1.5, math.nan], "n": [1, math.nan], "m": ["x", math.nan], "i": [math.inf, 1.0]})) == {
        "f": [1.5, None],
        "n": [1, None],
        "m": ["x", None],
        "i": [math.inf, 1.0],
    }
    frame = pd.DataFrame({"f": [1.5, math.nan], "s": ["x", None]})
    assert cells(Seed(frame.to_dict("records"))) == cells(Seed(frame))


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    """Wrap 1 so many times."""
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


LOOP: list[Any] = []
LOOP.append(LOOP)
MANY = nested(9, lambda value: [value] * 10)
"""A billion values, in a few lists."""
NESTED: Any = {"list": lambda value: [value], "dict": lambda value: {"a": value}}


@pytest.mark.parametrize("wrap", NESTED.values(), ids=NESTED)
def test_values_may_be_nested(wrap):
    """Up to a level, and not for ever; twice as deep takes twice as long."""
    assert cells(Seed({"a": [nested(90, wrap)]}))["a"] == [nested(90, wrap)]
    assert cells(Seed({"a": [nested(90, wrap), 2.5]}))["a"] == [nested(90, wrap), 2.5]


def test_rows_may_share_a_value():
    """However many they are."""
    shared = {"tags": ["a", "b"]}
    assert cells(Seed([{"a": shared}] * 40_000), rows=1)["a"] == [shared]


def test_values_of_numpy_within_lists_and_dicts():
    """Durations, records, unsigned integers, and a number that is none in an array, as in a list."""
    record = np.zeros(1, dtype=[("x", "u8"), ("y", "M8[s]")])[0]
    record["x"] = 7
    data = {
        "t": [np.timedelta64(1, "D"), np.timedelta64(90, "s")],
        "r": [record, record],
        "u": [{"a": np.array([2**64 - 1], dtype=np.uint64)}, {"a": [1]}],
        "f": np.array([math.nan, 0.5]),
        "d": np.array(["NaT", "2024-02-29"], dtype="M8[s]"),
        "n": [{"a": [np.float16(0.5), np.int8(-1)]}, None],
    }
    assert cells(Seed(data)) == {
        "t": [dt.timedelta(1), dt.timedelta(0, 90)],
        "r": [{"x": 7, "y": dt.datetime(1970, 1, 1)}] * 2,  # noqa: DTZ001 - numpy has no zones
        "u": [{"a": [2**64 - 1]}, {"a": [1]}],
        "f": [None, 0.5],
        "d": [None, dt.datetime(2024, 2, 29)],  # noqa: DTZ001 - the same
        "n": [{"a": [0.5, -1]}, None],
    }


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"a": [LOOP]}, "does not fit into a table: column 'a': the value of row 0 contains itself"),
        ([{"a": 1}, {"a": (LOOP,)}], "column 'a': the value of row 1 contains itself"),
        (pd.DataFrame({"a": [1, LOOP]}), "column 'a': the value of row 1 contains itself"),
        ({"a": [nested(5000, NESTED["list"])]}, "column 'a': the value of row 0 is nested deeper than 100 levels"),
        ({"a": [None, nested(101, NESTED["dict"])]}, "column 'a': the value of row 1 is nested deeper than 100 levels"),
        ({"a": [MANY]}, "column 'a': the value of row 0 repeats more than 100,000 values"),
        ({"a": [1, {"x": MANY}]}, "column 'a': the value of row 1 repeats more than 100,000 values"),
        (pd.DataFrame({"a": [MANY]}), "column 'a': the value of row 0 repeats more than 100,000 values"),
        ({"a": [np.longdouble(1.5)]}, "does not fit into a table: column 'a'"),
        ({"a": [decimal.Decimal("NaN")]}, "does not fit into a table: column 'a'"),
        ({"a": [1 + 2j]}, "does not fit into a table: column 'a'"),
        ({"a": [10**5000, "x"]}, "does not fit into a table: column 'a'"),
        (pd.DataFrame({"a": pd.Series([1, math.inf], dtype=object)}), "does not fit into a table: inf stands"),
        ({"a": [1, math.inf, "x"]}, "inf stands beside values of other types"),
        ([], "no rows"),
        ({}, "no rows"),
        ({"a": []}, "no rows"),
        ([1], "row 0 is of the type int; a list holds one dict per row"),
        ([{"a": 1}, None], "row 1 is of the type NoneType"),
        ([{1: 2}], "column names must be text"),
        ({"a": [1], "b": [1, 2]}, "columns are of different lengths: 'a' has 1, 'b' has 2"),
        ({"a": "text"}, "column 'a' is of the type str; a dict holds one list per column"),
        ({"a": 5}, "column 'a' is of the type int"),
        ({"a": [DAY, 1]}, "column 'a': 1 would become"),
        ({"a": [DAY, NOON]}, "column 'a': .* would become"),
        ({"a": [{"x": DAY}, {"y": 1}, 5]}, "does not fit into a table: column 'a'"),
        ({"a": [object()]}, "does not fit into a table: column 'a'"),
        ({"a": ["\ud800"]}, "does not fit into a table: column 'a'"),
        (5, "takes a DataFrame or a path, not int; also a list of dicts, a dict of lists"),
        (pl.DataFrame({"a": [1]}).lazy(), "takes a DataFrame or a path, not LazyFrame"),
        (pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), "Duplicate column names: a"),
        (Stream(pa.table({"a": []})), "no rows"),
    ],
)
def test_objects_that_are_no_table_are_refused(data, problem):
    """When the recipe is made, with the row or the column."""
    with pytest.raises(RecipeError, match=rf"^columns\.seed\.data: .*{problem}"):
        Recipe(columns=[Seed(data)])


def test_later_changes_to_a_list_are_not_seen():
    """Nor to what is in it."""
    data: list[dict[str, Any]] = [{"a": 1, "o": {"x": 1}}]
    recipe = Recipe(columns=[Seed(data)])
    data[0]["a"], data[0]["o"]["x"] = 2, 2
    data.append({"a": 3})
    assert recipe.preview(**QUIET).to_arrow().to_pylist() == [{"a": 1, "o": {"x": 1}}]


def test_columns_and_types_of_an_object():
    """A column is cast as it is taken."""
    table = pa.table({"zip": [2670, 10115], "f": [1.0, 2.5], "b": [True, False], "x": [0, 0]})
    seed = Seed(table, columns=["f", "zip", "b"], types={"zip": "string", "f": "string", "b": "string"})
    assert cells(seed) == {"f": ["1.0", "2.5"], "zip": ["2670", "10115"], "b": ["True", "False"]}
    assert cells(Seed([{"m": 1}, {"m": "x"}], types={"m": "string"})) == {"m": ["1", "x"]}
    with pytest.raises(RecipeError, match=r"columns\.seed\.types: 'f' has a value that is not int64: .*2\.5"):
        Recipe(columns=[Seed(table, types={"f": "int64"})])


def test_an_object_survives_copying_and_another_process():
    """It is the table as it was read, and of the same identity."""
    frame = pd.DataFrame({"n": pd.Series([1, None, 2.5], dtype=object)})
    seed = Seed(frame)
    before = cells(seed), seed.digest
    frame.loc[0, "n"] = 7
    for other in (pickle.loads(pickle.dumps(seed)), copy.deepcopy(seed)):  # noqa: S301 - our own
        assert (cells(other), other.digest) == before


def test_types_of_a_frame_reach_the_table():
    """Categories stay categories."""
    assert types(Seed(pd.DataFrame({"c": pd.Categorical(["a", "b"]), "n": pd.array([1, None], dtype="Int32")}))) == {
        "c": "dictionary<values=large_string, indices=int8, ordered=0>",
        "n": "int32",
    }
