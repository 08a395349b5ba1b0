"""Selection: rows that are filtered, exploded and sampled keep their values and types."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from rowloop import RecipeError
from rowloop.engine.datasets.selection import exploded, filtered, sampled

TABLE = pa.table(
    {
        "n": [1, None, 2**60 + 1, 4],
        "score": [1.0, 2.0, 3.0, 4.0],
        "l": [["a", "b"], [], None, ["c", None]],
        "d": pa.array([dt.date(2024, 2, 29), None, dt.date(1, 1, 1), None]),
        "m": pa.array([decimal.Decimal("1.10"), None, None, None], pa.decimal128(5, 2)),
        "b": [True, None, False, None],
        "o": [{"x": 1}, {"x": None}, None, {"x": 2**60 + 1}],
        "u": pa.array([2**64 - 1, None, 0, 1], pa.uint64()),
        "t": pa.array([0, None, 1, 2], pa.time64("us")),
    }
)
ROWS = TABLE.to_pylist()


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("score >= 2", [1, 2, 3]),
        ("b.isna()", [1, 3]),
        (lambda frame: frame["score"] != 3, [0, 1, 3]),
        (lambda frame: frame["d"].notna(), [0, 2]),
        ("score > 9", []),
    ],
)
def test_a_filter_changes_no_value(condition: Any, kept: list[int]):
    """Of rows that are kept, in any column."""
    found = filtered(TABLE, condition, "path")
    assert found.to_pylist() == [ROWS[row] for row in kept]
    assert found.schema.equals(TABLE.schema)


def test_an_index_that_pandas_left_in_a_table_picks_no_other_rows():
    """A condition is of rows, not of labels."""
    table = pa.Table.from_pandas(pd.DataFrame({"a": [1, 2, 3]}, index=[7, 8, 9]))
    assert filtered(table, "a > 1", "path").column("a").to_pylist() == [2, 3]


@pytest.mark.parametrize("condition", ["no such thing", "nowhere > 1", lambda _: [True] * 4, lambda _: 1 / 0])
def test_a_filter_that_fails_is_refused_with_its_path(condition: Any):
    """Whatever it raises or returns."""
    with pytest.raises(RecipeError, match=r"^stages\.a\.filter: (failed on|must return a Series of 4 booleans)"):
        filtered(TABLE, condition, "stages.a.filter")


@pytest.mark.parametrize("type_", [pa.list_(pa.string()), pa.large_list(pa.string())])
def test_an_element_becomes_a_row_beside_the_values_of_its_row(type_: pa.DataType):
    """Lists without elements, nulls in lists and nulls for lists become none; integers stay integers."""
    table = TABLE.set_column(2, "l", TABLE.column("l").cast(type_))
    expected = [{**ROWS[row], "l": element} for row, element in ((0, "a"), (0, "b"), (3, "c"))]
    assert exploded(table, "l").to_pylist() == expected
    assert exploded(pa.concat_tables([table, table.slice(0, 1)]), "l").num_rows == 5
    assert exploded(table, "l").schema.field("n").type == pa.int64()


def test_a_column_without_lists_loses_its_nulls():
    """As an element each."""
    assert exploded(TABLE, "n").to_pylist() == [ROWS[0], ROWS[2], ROWS[3]]


@pytest.mark.parametrize(("sample", "rows"), [(2, 2), (0.5, 2), (1.0, 4), (99, 4)])
def test_a_sample_is_that_of_pandas_in_order(sample: float, rows: int):
    """The same rows for the same seed as DataFrame.sample draws, unchanged."""
    found = sampled(TABLE, sample, 4).to_pylist()
    drawn = pd.DataFrame(index=range(4)).sample(rows, random_state=4).index
    assert found == [ROWS[row] for row in sorted(drawn)]
