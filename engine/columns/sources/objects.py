"""Tables that are Python objects: DataFrames, lists of dicts, dicts of lists, and whatever gives an Arrow stream."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import types as kinds

from ...core.errors import RecipeError
from ...core.plain_data import check_walkable
from .blocks import MOST_ROWS, Blocks, in_memory, rows_of_block
from .json_shapes import shape_of
from .json_text import encoded, is_json, json_field
from .python_values import python_value
from .schemas import check_names, chosen, conformed, one_schema
from .streams import stream_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .reading import Reading

_WHAT = "takes a DataFrame or a path"
_ALSO = (
    "a list of dicts, a dict of lists, or what gives an Arrow stream (polars, pyarrow, DuckDB, Hugging Face datasets)"
)
_SAMPLE = 256
_MISFITS = (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError)


def object_blocks(data: object, reading: Reading) -> Blocks:
    """Take a table; later changes to the object have no effect. Raises RecipeError for any other object."""
    if isinstance(data, pd.DataFrame):
        return _kept(_table_of_frame(data.copy()), reading)
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if isinstance(data, pa.Table):
        return _kept(data, reading)
    if isinstance(data, list):
        return _kept(_table_of_columns(_columns_of_rows(data)), reading)
    if isinstance(data, Mapping) and not any(hasattr(value, "with_format") for value in data.values()):
        return _kept(_table_of_columns(_columns(data)), reading)
    if hasattr(data, "with_format") and hasattr(data, "iter"):
        return _hugging_face(data, reading)
    if hasattr(data, "__arrow_c_stream__") and not isinstance(data, pd.Series | pd.Index):
        return _stream(data, reading)
    raise RecipeError("columns.seed.data", f"{_WHAT}, not {type(data).__name__}; also {_ALSO}")


def _kept(table: pa.Table, reading: Reading) -> Blocks:
    """Take a table that is in memory; pandas' categories stay what they are."""
    plain = chosen(one_schema({"": table.schema}, reading.types), reading.columns)
    fields = []
    for field in plain:
        given = table.schema.field(field.name)
        as_given = is_json(given) or (kinds.is_dictionary(given.type) and given.type.value_type.equals(field.type))
        fields.append(given if as_given and field.name not in reading.types else field)
    return in_memory(conformed(table.select(plain.names), pa.schema(fields)))


def _table_of_frame(frame: pd.DataFrame) -> pa.Table:
    """Convert a DataFrame; a column of objects that Arrow would change is kept as JSON text."""
    check_names(list(frame.columns))
    for name in frame.columns:
        if frame[name].dtype == object:
            _check_walkable(name, frame[name].tolist())
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        for i, name in enumerate(table.column_names):
            if frame[name].dtype == object:
                values = frame[name].astype(object).where(frame[name].notna(), None).tolist()
                shape = shape_of(values)
                if not shape.exact and not shape.foreign:
                    table = table.set_column(i, json_field(name, shape), _json_text(values))
    except _MISFITS as error:
        raise RecipeError("columns.seed.data", f"the seed data does not fit into a table: {error}") from error
    return table


def _columns_of_rows(rows: list[Any]) -> dict[str, list[Any]]:
    """Take rows apart; one that lacks a key has None there."""
    names: dict[Any, None] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            problem = f"row {number} is of the type {type(row).__name__}; a list holds one dict per row"
            raise RecipeError("columns.seed.data", problem)
        names.update(dict.fromkeys(row))
    return {name: [row.get(name) for row in rows] for name in names}


def _columns(data: Mapping[Any, Any]) -> dict[str, Any]:
    """Check that a dict holds columns of one length."""
    lengths = {}
    for name, values in data.items():
        if (
            isinstance(values, str | bytes | Mapping)
            or not hasattr(values, "__len__")
            or not hasattr(values, "__iter__")
        ):
            problem = f"column '{name}' is of the type {type(values).__name__}; a dict holds one list per column"
            raise RecipeError("columns.seed.data", problem)
        lengths[name] = len(values)
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"'{name}' has {length}" for name, length in lengths.items())
        raise RecipeError("columns.seed.data", f"columns are of different lengths: {found}")
    return dict(data)


def _table_of_columns(columns: Mapping[str, Any]) -> pa.Table:
    check_names(list(columns))
    for name, values in columns.items():
        if not isinstance(values, pa.Array | pa.ChunkedArray | pd.Series | np.ndarray):
            _check_walkable(name, values)
    made = [_column(name, values) for name, values in columns.items()]
    return pa.table([array for _, array in made], schema=pa.schema([field for field, _ in made]))


def _column(name: str, values: Any) -> tuple[pa.Field[Any], Any]:
    """Make a column of Python values: of the Arrow type that holds them exactly, else of JSON text. NaN is null."""
    try:
        if isinstance(values, pa.Array | pa.ChunkedArray):
            return pa.field(name, values.type), values
        if isinstance(values, pd.Series):
            table = _table_of_frame(pd.DataFrame({name: values}))
            return table.schema.field(0), table.column(0)
        if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype != object:
            array = pa.array(values, from_pandas=True)
            return pa.field(name, array.type), array
        given = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
        shape = shape_of(given)
        if shape.foreign:
            given = [python_value(value) for value in given]
            shape = shape_of(given)
        if shape.foreign:
            return _foreign(name, given)
        field = json_field(name, shape)
        return field, _json_text(given) if is_json(field) else pa.array(given, field.type)
    except _MISFITS as error:
        problem = f"the seed data does not fit into a table: column '{name}': {error}"
        raise RecipeError("columns.seed.data", problem) from error


def _check_walkable(name: str, values: Iterable[Any]) -> None:
    """Refuse a value that contains itself, or stands for billions of values; each row is looked at alone."""
    for number, value in enumerate(values):
        if not isinstance(value, list | tuple | dict):
            continue
        try:
            check_walkable(value, "")
        except RecipeError as error:
            problem = f"the seed data does not fit into a table: column '{name}': the value of row {number}"
            raise RecipeError("columns.seed.data", f"{problem} {error.problem}") from None


def _json_text(values: list[Any]) -> pa.Array[Any]:
    """Encode values that have no one type; raises ValueError for an infinite number, which JSON does not have."""
    inner: list[Any] = list(values)
    for value in inner:  # it grows
        if isinstance(value, float) and math.isinf(value):
            raise ValueError(f"{value!r} stands beside values of other types, and JSON has no such number")
        inner += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return encoded(values)


def _foreign(name: str, values: list[Any]) -> tuple[pa.Field[Any], Any]:
    """Make a column of values that JSON does not have, such as dates, bytes and decimals."""
    array: pa.Array[Any] = pa.array(values)
    for value, kept in zip(values, array.to_pylist(), strict=True):
        if value != kept and value == value:  # noqa: PLR0124 - but for what is not a number
            raise ValueError(f"{value!r:.80} would become {kept!r:.80} beside values of other types")
    return pa.field(name, array.type), array


# What gives batches


def _stream(data: Any, reading: Reading) -> Blocks:
    try:
        batches = pa.RecordBatchReader.from_stream(data)
        schema = chosen(one_schema({"": batches.schema}, reading.types), reading.columns)
        return stream_blocks(batches, schema)
    except pa.ArrowException as error:
        problem = f"the Arrow stream of {type(data).__name__} is not a table: {error}"
        raise RecipeError("columns.seed.data", problem) from error


def _hugging_face(data: Any, reading: Reading) -> Blocks:
    """Read a dataset of the package datasets: a Dataset where it lies, an IterableDataset once."""
    if not hasattr(data, "__len__"):
        tables = iter(data.with_format("arrow").iter(batch_size=MOST_ROWS // 16))
        first = next(tables, pa.table({}))
        schema = chosen(one_schema({"": first.schema}, reading.types), reading.columns)
        every = (batch for table in itertools.chain([first], tables) for batch in table.to_batches())
        return stream_blocks(every, schema)
    schema = chosen(one_schema({"": data.features.arrow_schema}, reading.types), reading.columns)
    table = data.select_columns(schema.names).with_format("arrow")
    sample = table[: min(len(data), _SAMPLE)]
    size = rows_of_block(sample)
    starts = [*range(0, len(data), size), len(data)]
    return Blocks(schema, starts, lambda block: conformed(table[starts[block] : starts[block + 1]], schema))
