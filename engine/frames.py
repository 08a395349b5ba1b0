"""Row groups as Arrow tables, all of one schema.

The type of a column is what its spec says, else what its first values are. Values that do not fit widen a type that
was only inferred (int64 to float64, null to anything, a struct by a field); `version` tells a sink that the tables it
has already written are behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from .errors import DatasetGenerationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .binding import ArrowType
    from .store import RowGroup

_SIMPLE: dict[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}


class Frames:
    """The schema of one run's tables."""

    def __init__(self, names: Sequence[str], types: Sequence[ArrowType]) -> None:
        """Take the columns in the order of the table."""
        self.names = list(names)
        self.version = 0
        self._declared = [_arrow_type(type_) for type_ in types]
        self._types = list(self._declared)

    @property
    def schema(self) -> pa.Schema:
        """The schema as it stands; a column without a value so far is of type null."""
        return pa.schema([(name, type_ or pa.null()) for name, type_ in zip(self.names, self._types, strict=True)])

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
        try:
            array = pa.array(values, type=known)
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            array = self._widened(i, values, group, rows, error)
        if not array.type.equals(known or pa.null()):
            self._types[i] = array.type
            self.version += 1
        return array

    def _widened(
        self, i: int, values: Sequence[Any], group: RowGroup, rows: Sequence[int], error: Exception
    ) -> pa.Array[Any]:
        known = self._types[i]
        if self._declared[i] is None and known is not None:
            try:
                found = pa.schema([("x", pa.array(values).type)])
                both = pa.unify_schemas([pa.schema([("x", known)]), found], promote_options="permissive")
                widened: pa.Array[Any] = pa.array(values, type=both.field("x").type)
            except (pa.ArrowException, OverflowError, UnicodeError):
                pass  # told below, from the value that does not fit
            else:
                return widened
        row, value = _misfit(values, known)
        expected = "values of one type" if known is None else str(known)
        raise DatasetGenerationError(
            f"expected {expected}, but row {group.start + rows[row]} has {value!r:.80} ({type(value).__name__})",
            stage="column",
            column=self.names[i],
            row_group=group.id,
        ) from error


def _misfit(values: Sequence[Any], known: pa.DataType | None) -> tuple[int, Any]:
    """Find the first value that does not go with those before it."""
    for row in range(len(values)):
        try:
            pa.array(values[: row + 1] if known is None else values[row : row + 1], type=known)
        except (pa.ArrowException, OverflowError, UnicodeError):
            return row, values[row]
    return 0, values[0]


def _arrow_type(type_: ArrowType) -> pa.DataType | None:
    if isinstance(type_, str):
        return cast("pa.DataType", pa.type_for_alias(cast("Any", type_)))
    if isinstance(type_, dict):
        return arrow_type_of_schema(type_, type_)
    return type_


def arrow_type_of_schema(schema: dict[str, Any], root: dict[str, Any]) -> pa.DataType | None:
    """Give the Arrow type of values that obey a JSON Schema; None where it leaves the type open."""
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
    """Follow `#/$defs/Name`; a schema that leads back to itself has no Arrow type."""
    target: Any = root
    for part in reference.removeprefix("#/").split("/"):
        target = target.get(part, {}) if isinstance(target, dict) else {}
    try:
        return arrow_type_of_schema(target, root) if isinstance(target, dict) else None
    except RecursionError:
        return None
