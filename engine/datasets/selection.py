"""Selection: rows of a table filtered, exploded and sampled, with every value and type as it was.

pandas decides which rows to keep, on a frame of its own; the rows themselves are taken from the Arrow table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as kinds

from ..columns.sources.json_text import decoded, encoded, frame_of, is_json
from ..core.errors import RecipeError, shown
from .table_columns import OpenColumn

if TYPE_CHECKING:
    from collections.abc import Callable


def filtered(rows: pa.Table, condition: str | Callable[[Any], Any], path: str) -> pa.Table:
    """Keep rows by a condition of DataFrame.query, or by a function from the DataFrame to booleans.

    Raises RecipeError with `path` for a condition or a function that fails on these rows, or returns anything else.
    """
    frame = frame_of(rows)
    try:
        if isinstance(condition, str):
            return rows.take(frame.query(condition).index.to_numpy())
        mask = condition(frame)
    except Exception as error:
        raise RecipeError(path, f"failed on the stage's rows: {type(error).__name__}: {error}") from error
    if not isinstance(mask, pd.Series) or mask.dtype != bool or len(mask) != len(frame):
        raise RecipeError(path, f"must return a Series of {len(frame)} booleans, one per row, not {shown(mask)}")
    return rows.filter(pa.array(mask.to_numpy()))


def exploded(rows: pa.Table, name: str) -> pa.Table:
    """Make a row of each element of a column of lists; no row of a list without elements, or of a null."""
    column, given = rows.column(name), rows.schema.field(name)
    if is_json(given):
        values = [(row, item) for row, value in enumerate(decoded(column.to_pylist())) for item in _items(value)]
        rows = rows.take([row for row, _ in values])
        rows = rows.set_column(rows.column_names.index(name), given, encoded([item for _, item in values]))
    elif kinds.is_list(column.type) or kinds.is_large_list(column.type) or kinds.is_fixed_size_list(column.type):
        lists = column.combine_chunks()
        parents = rows.take(pc.list_parent_indices(lists))
        field = pa.field(name, column.type.value_type)
        rows = parents.set_column(rows.column_names.index(name), field, pc.list_flatten(lists))
    return rows.filter(pc.is_valid(rows.column(name)))


def table_of(frame: pd.DataFrame) -> pa.Table:
    """Return a DataFrame as a table; objects of several types become JSON text."""
    made: list[tuple[pa.Field[Any], pa.Array[Any]]] = []
    for name, series in frame.items():
        column = OpenColumn(str(name))
        if pd.api.types.is_object_dtype(series.dtype):
            array = column.array(series.where(series.notna(), None).tolist())
        else:
            array = pa.array(series, from_pandas=True)
        made.append((column.field if is_json(column.field) else pa.field(column.name, array.type), array))
    return pa.table([array for _, array in made], schema=pa.schema([field for field, _ in made]))


def _items(value: object) -> list[Any]:
    """Return what a value becomes: the elements of a list, any other value itself."""
    return value if isinstance(value, list) else [value]


def sampled(rows: pa.Table, sample: float, seed: int | None) -> pa.Table:
    """Draw a number of rows, or a share of them, without replacement; rows keep their order."""
    count = sample if isinstance(sample, int) else round(sample * rows.num_rows)
    numbers = pd.Series(range(rows.num_rows), dtype="int64")
    drawn = numbers.sample(min(count, rows.num_rows), random_state=seed).sort_index()
    return rows.take(drawn.to_numpy())
