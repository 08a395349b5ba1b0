"""Tables: row groups as Arrow tables, all of one schema.

The type of a column is the one in its spec, else the type of its first values. Values that do not fit widen a type that
was only inferred (int64 to float64, null to anything, a struct by a field). `version` then shows a sink that the tables
it has already written need to be widened.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import msgspec
import pyarrow as pa

from ..core.errors import DatasetGenerationError, writable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..columns.column import ArrowType
    from ..core.store import RowGroup

Convert: TypeAlias = "Callable[[Sequence[Any], pa.DataType | None], pa.Array[Any]]"

_MISFITS = (pa.ArrowException, OverflowError, UnicodeError, TypeError)
_JSON = {b"rowloop.json": b""}
"""The mark of a column of JSON text that stands for values of any type."""

_SIMPLE: dict[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}


class Tables(Protocol):
    """Makes a sink's tables from row groups, all of one schema."""

    @property
    def schema(self) -> pa.Schema:
        """The schema so far."""
        ...

    @property
    def version(self) -> int:
        """The number of changes of the schema; tables of an earlier version need to be widened."""
        ...

    def table(self, group: RowGroup, rows: Sequence[int]) -> pa.Table:
        """Make a table of the rows at these offsets."""
        ...

    def resume(self, schema: pa.Schema) -> None:
        """Start from the schema of an earlier run."""
        ...


class Frames:
    """The tables of one run, and their schema."""

    def __init__(self, names: Sequence[str], types: Sequence[ArrowType]) -> None:
        """Take the columns and their types, in the order of the table."""
        self.names = list(names)
        self.version = 0
        self._open = [type_ == {} for type_ in types]
        self._declared = [pa.string() if type_ == {} else _arrow_type(type_) for type_ in types]
        self._types = list(self._declared)

    @property
    def schema(self) -> pa.Schema:
        """The schema so far; a column without values is of type null."""
        return pa.schema([self._field(i) for i in range(len(self.names))])

    def _field(self, i: int) -> pa.Field[Any]:
        type_ = pa.null() if (known := self._types[i]) is None else known
        return pa.field(self.names[i], type_, metadata=_JSON if self._open[i] else None)

    def resume(self, schema: pa.Schema) -> None:
        """Start from the types of an earlier run."""
        for i, name in enumerate(self.names):
            if self._types[i] is None and name in schema.names and not pa.types.is_null(schema.field(name).type):
                self._types[i] = schema.field(name).type

    def table(self, group: RowGroup, rows: Sequence[int]) -> pa.Table:
        """Make a table of these rows; raises DatasetGenerationError naming the column and the value that does not fit.

        Rows are offsets into the group.
        """
        arrays = [self._array(i, group, rows) for i in range(len(self.names))]
        return pa.table(arrays, schema=self.schema)

    def _array(self, i: int, group: RowGroup, rows: Sequence[int]) -> pa.Array[Any]:
        values = group.values[i]
        if len(rows) != group.size:
            values = [values[row] for row in rows]
        known = self._types[i]
        convert = _json_text if self._open[i] else _inferred if self._declared[i] is None else _typed
        try:
            array = convert(values, known)
        except _MISFITS as error:
            row, value = _misfit(convert, values, known)
            expected = "values of one type" if known is None else str(known)
            raise DatasetGenerationError(
                f"expected {expected}, but row {group.start + rows[row]} has {_shown(value)} ({type(value).__name__})",
                stage="column",
                column=self.names[i],
                row_group=group.id,
            ) from error
        if not array.type.equals(known or pa.null()):
            self._types[i] = array.type
            self.version += 1
        return array


def _typed(values: Sequence[Any], known: pa.DataType | None) -> pa.Array[Any]:
    """Make an array of the type in the column's spec. Arrow truncates floats to integers, so those are cast instead."""
    if known is None or not pa.types.is_integer(known):
        return pa.array(values, type=known)
    try:
        found: pa.Array[Any] = pa.array(values)
    except OverflowError:  # beyond int64, which Arrow would infer
        found = pa.array(values, pa.uint64())
    return found if found.type.equals(known) else found.cast(known)


def _json_text(values: Sequence[Any], known: pa.DataType | None) -> pa.Array[Any]:
    """Write values that have no type in common as JSON text."""
    return pa.array([None if value is None else msgspec.json.encode(value).decode() for value in values], known)


def _inferred(values: Sequence[Any], known: pa.DataType | None) -> pa.Array[Any]:
    """Make an array of the type of the values, widened to hold earlier values as well.

    The type is inferred even where one is known: Arrow fits a dict to a known struct by leaving out other keys.
    """
    found: pa.Array[Any] = pa.array(values)
    if found.type.equals(pa.struct([])):
        found = pa.array([None] * len(values))  # dicts without keys: no file can hold them
    if known is None or found.type.equals(known):
        return found
    both = pa.unify_schemas([pa.schema([("x", known)]), pa.schema([("x", found.type)])], promote_options="permissive")
    widened: pa.Array[Any] = pa.array(
        found.to_pylist() if found.type.equals(pa.null()) else values, type=both.field("x").type
    )
    return widened


def _misfit(convert: Convert, values: Sequence[Any], known: pa.DataType | None) -> tuple[int, Any]:
    """Find the first value that does not fit the type and the values before it, by bisection."""

    def fails(row: int) -> bool:
        try:
            convert(values[: row + 1], known)
        except _MISFITS:
            return True
        return False

    row = bisect.bisect_left(range(len(values) - 1), x=True, key=fails)
    return row, values[row]


def _shown(value: object) -> str:
    """Show the beginning of a value, in characters that every log can hold."""
    return writable(f"{value!r:.80}")


def _arrow_type(type_: ArrowType) -> pa.DataType | None:
    if isinstance(type_, str):
        return cast("pa.DataType", pa.type_for_alias(cast("Any", type_)))
    if isinstance(type_, dict):
        return arrow_type_of_schema(type_, type_)
    return type_


def arrow_type_of_schema(schema: dict[str, Any], root: dict[str, Any]) -> pa.DataType | None:
    """Return the Arrow type of values that obey a JSON Schema; None if the schema leaves it open."""
    if "$ref" in schema:
        return _referenced(schema["$ref"], root)
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        found = [arrow_type_of_schema(option, root) for option in options if option.get("type") != "null"]
        return found[0] if len(found) == 1 else None
    kinds = schema.get("type")
    kind = kinds
    if isinstance(kinds, list):
        named = [name for name in kinds if name != "null"]
        kind = named[0] if len(named) == 1 else None
    if kind == "array":
        items = arrow_type_of_schema(schema.get("items", {}), root)
        return None if items is None else pa.list_(items)
    if kind == "object":
        return _struct(schema, root)
    if kind is None and all(isinstance(value, str) for value in schema.get("enum", [None])):
        return pa.string()
    return _SIMPLE.get(kind) if isinstance(kind, str) else None


def _struct(schema: dict[str, Any], root: dict[str, Any]) -> pa.DataType | None:
    properties = schema.get("properties", {})
    fields = {name: arrow_type_of_schema(of, root) for name, of in properties.items()}
    if not fields or any(type_ is None for type_ in fields.values()):
        return None
    return pa.struct([(name, type_) for name, type_ in fields.items() if type_ is not None])


def _referenced(reference: str, root: dict[str, Any]) -> pa.DataType | None:
    """Follow `#/$defs/Name`; a schema that refers to itself has no Arrow type."""
    target: Any = root
    for part in reference.removeprefix("#/").split("/"):
        target = target.get(part, {}) if isinstance(target, dict) else {}
    try:
        return arrow_type_of_schema(target, root) if isinstance(target, dict) else None
    except RecursionError:
        return None
