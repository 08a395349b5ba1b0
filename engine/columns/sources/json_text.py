"""JSON text in a column: values whose shape no Arrow type holds exactly, and the mark that a field has then."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .blocks import Column
    from .json_shapes import Shape

_MARK: Final = b"rowloop.json"


def json_field(name: str, shape: Shape) -> pa.Field[Any]:
    """Return the field of a column: of the shape's own type where that is exact, else of marked JSON text."""
    if shape.exact and shape.type is not None:
        return pa.field(name, shape.type)
    mark = b"" if shape.type is None else pa.schema([("", shape.type)]).serialize().to_pybytes()
    return pa.field(name, pa.string(), metadata={_MARK: mark})


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
    """Encode values; None stays null."""
    encode = msgspec.json.Encoder().encode
    return pa.array([None if value is None else encode(value).decode() for value in values], pa.string())


def as_texts(texts: Sequence[str | bytes | None]) -> list[str | None]:
    """Return each value as text: a string as it is, anything else as its JSON text."""
    found = [text.decode() if isinstance(text, bytes) else text for text in texts]
    pairs = zip(decoded(texts), found, strict=True)
    return [value if value is None or isinstance(value, str) else text for value, text in pairs]


def values_of(column: Column, field: pa.Field[Any]) -> list[Any]:
    """Return the values of a column as Python objects."""
    values = column.to_pylist()
    return decoded(values) if is_json(field) else values
