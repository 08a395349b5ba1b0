"""JSON text in a column: values that no Arrow type holds exactly, and the mark that a field has then.

Every column of JSON text has the mark, whatever made it: a seed, a schema, or values of several types. The mark is
beside plain text, and not Arrow's own type for JSON, because polars refuses the functions of text for that.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from .python_values import python_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from .blocks import Column
    from .json_shapes import Shape

_MARK: Final = b"rowloop.json"
_EXACT_IN_FLOAT: Final = 2**53


def json_field(name: str, shape: Shape) -> pa.Field[Any]:
    """Return the field of a column: of the shape's own type where that is exact, else of marked JSON text."""
    if shape.exact and shape.type is not None:
        return pa.field(name, shape.type)
    mark = b"" if shape.type is None else pa.schema([("", shape.type)]).serialize().to_pybytes()
    return pa.field(name, pa.string(), metadata={_MARK: mark})


def marked(name: str) -> pa.Field[Any]:
    """Return the field of a column of JSON text that stands for values of any type."""
    return pa.field(name, pa.string(), metadata={_MARK: b""})


def is_json(field: pa.Field[Any]) -> bool:
    """Return whether a column holds JSON text that stands for its values."""
    return field.metadata is not None and _MARK in field.metadata


def type_of_values(field: pa.Field[Any]) -> pa.DataType | None:
    """Return the type of a column's values in a table; None where they differ too much to have one."""
    if not is_json(field):
        return cast("pa.DataType", field.type)
    mark = (field.metadata or {}).get(_MARK, b"")
    with contextlib.suppress(pa.ArrowException):  # such as that of a mark that holds nothing
        schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(mark))
        return cast("pa.DataType", schema.field(0).type)
    return None


def decoded(texts: Sequence[str | bytes | None]) -> list[Any]:
    """Decode values, all in one call."""
    parts = [b"null" if text is None else text.encode() if isinstance(text, str) else text for text in texts]
    values: list[Any] = msgspec.json.decode(b"[" + b",".join(parts) + b"]")
    return values


def encoded(values: Sequence[Any]) -> pa.Array[pa.StringScalar]:
    """Encode values that are known to be JSON's; None stays null."""
    return pa.array([None if value is None else _encode(value).decode() for value in values], pa.string())


def as_texts(texts: Sequence[str | bytes | None]) -> list[str | None]:
    """Return each value as text: a string as it is, anything else as its JSON text."""
    found = [text.decode() if isinstance(text, bytes) else text for text in texts]
    pairs = zip(decoded(texts), found, strict=True)
    return [value if value is None or isinstance(value, str) else text for value, text in pairs]


def values_of(column: Column, field: pa.Field[Any]) -> list[Any]:
    """Return the values of a column as Python objects."""
    values = column.to_pylist()
    return decoded(values) if is_json(field) else values


def frame_of(table: pa.Table) -> pd.DataFrame:
    """Return a table as a DataFrame, with the values in the place of JSON text.

    Integers beside nulls are floats there, as pandas makes them, but objects where a float would change one.
    """
    import pandas as pd  # noqa: PLC0415 - not at import time

    frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
    for field, column in zip(table.schema, table.columns, strict=True):
        if is_json(field) or _changed_by_pandas(column):
            values = decoded(column.to_pylist()) if is_json(field) else column.to_pylist()
            frame[field.name] = pd.Series(values, index=frame.index, dtype=object)
    return frame


def _changed_by_pandas(column: Any) -> bool:
    """Return whether a column, or what is in it, has nulls and integers that no float holds."""
    if pa.types.is_struct(column.type):
        return any(map(_changed_by_pandas, column.flatten()))
    if pa.types.is_list(column.type):
        return _changed_by_pandas(pc.list_flatten(column))
    if not (column.null_count and pa.types.is_integer(column.type)):
        return False
    bounds: Any = pc.min_max(column).as_py()
    return bool(max(abs(bound or 0) for bound in bounds.values()) > _EXACT_IN_FLOAT)


def any_encoded(values: Sequence[Any]) -> pa.Array[pa.StringScalar]:
    """Encode values of any kind; raises one of UNWRITABLE for one that neither JSON nor Arrow can hold."""
    return pa.array([any_text_of(value) for value in values], pa.string())


def text_of(value: object) -> str | None:
    """Write a value as JSON text, None for null; raises one of UNWRITABLE for a value that JSON cannot hold.

    Numbers of numpy, models of pydantic and their like become what they stand for, and times become text.
    """
    text = _encode(value)
    if b"null" in text:  # what is written for a number that JSON does not have
        _check_numbers(msgspec.to_builtins(value, enc_hook=_plain))
    return None if text == b"null" else text.decode()


def any_text_of(value: Any) -> str | None:
    """Write a value as JSON text, also one that JSON cannot hold but Arrow can: "NaN" is then text, too."""
    try:
        return text_of(value)
    except UNWRITABLE:
        held: Any = pa.array([value]).to_pylist()[0]
        return _encode(_without_odd_numbers(msgspec.to_builtins(held, enc_hook=_plain))).decode()


UNWRITABLE: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError, pa.ArrowException)
"""The errors of writing a value that a table cannot hold. A UnicodeError is a ValueError."""


def _plain(value: Any) -> Any:
    """Return what an object stands for, in types that JSON has; raises TypeError for any other object."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    plain = python_value(value)
    if type(plain) is not type(value):
        return plain
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"JSON has no {type(value).__name__}")


_encode: Final = msgspec.json.Encoder(enc_hook=_plain).encode


def _check_numbers(value: object) -> None:
    """Raise ValueError for a number that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"JSON has no number {value}")
    inner: Iterable[object] = value.values() if isinstance(value, dict) else ()
    for item in value if isinstance(value, list | tuple) else inner:
        _check_numbers(item)


def _without_odd_numbers(value: Any) -> Any:
    """Write numbers that JSON does not have as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _without_odd_numbers(item) for key, item in value.items()}
    return [_without_odd_numbers(item) for item in value] if isinstance(value, list | tuple) else value
