"""Table columns: the values of one column as Arrow arrays, row group after row group."""

from __future__ import annotations

import datetime as dt
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import pyarrow as pa
from pyarrow import types as kinds

from ..columns.schema_types import type_of_schema
from ..columns.sources.json_shapes import shape_of
from ..columns.sources.json_text import UNWRITABLE, any_encoded, encoded, is_json, marked
from ..columns.sources.python_values import python_value
from ..columns.storable import ANY, declared_array, misfit
from ..core.store import Vector, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..columns.column import ArrowType
    from ..columns.schema_types import Strays

Values: TypeAlias = "pa.Array[Any] | pa.ChunkedArray[Any]"

_MOST_KEYS: Final = 64
"""A struct with more fields than that is JSON text, unless all objects have all of its keys."""
_MOST_WIDENINGS: Final = 8
"""An inferred struct or list that is widened more often becomes JSON text: each time rewrites all parts."""
_CHANGED_TOGETHER: Final = ({str, bytes}, {dt.date, dt.datetime}, {bool, float})
"""Types of Python that Arrow would make one type of, so that the values of one change."""
_MAY_CHANGE: Final = (kinds.is_binary, kinds.is_date, kinds.is_floating)
_VECTORS: Final = pa.list_(pa.float32())
_KEPT_APART: Final = (kinds.is_string, kinds.is_binary, kinds.is_date, kinds.is_timestamp)


class Misfit(Exception):  # noqa: N818 - a value, whose error is in __cause__
    """The first of the values that cannot be written: its position among them, and what was expected."""

    def __init__(self, row: int, value: object, expected: str) -> None:
        """Take the facts."""
        super().__init__(row)
        self.row = row
        self._value = value
        self._expected = expected

    def sentence(self, row: int) -> str:
        """Return the problem in words; `row` is the run's number."""
        return misfit(self._expected, row, self._value)


def column_of(name: str, type_: ArrowType) -> DeclaredColumn | OpenColumn:
    """Return the column of a spec's type: an Arrow type or its alias, a JSON Schema, or None."""
    if type_ is None:
        return OpenColumn(name)
    if isinstance(type_, dict):
        found = type_of_schema(type_)
        return OpenColumn(name, marked(name)) if found is None else OfSchema(name, found.type, found.strays)
    made = pa.type_for_alias(cast("Any", type_)) if isinstance(type_, str) else type_
    return DeclaredColumn(name, cast("pa.DataType", made))


class DeclaredColumn:
    """A column of the Arrow type in its spec; it never changes."""

    def __init__(self, name: str, type_: pa.DataType) -> None:
        """Take the type."""
        self.name = name
        self.field = pa.field(name, type_)

    def resume(self, field: pa.Field[Any]) -> None:
        """Keep the type."""

    def become_json(self) -> None:
        """Refuse: raises DatasetGenerationError, as parts of another type are of another recipe."""
        raise pa.ArrowTypeError(f"column '{self.name}' is not {self.field.type} in an earlier part")

    def array(self, values: Sequence[Any]) -> pa.Array[Any]:
        """Make an array; raises Misfit."""
        type_ = self.field.type
        if type_.equals(_VECTORS):
            if all(value is None or type(value) is Vector for value in values):
                return _of_vectors(values)
            values = [plain(value) for value in values]  # some are of a function, or of an earlier version
        try:
            return declared_array(values, type_)
        except UNWRITABLE:  # each value may fit, and all together need not
            return pa.concat_arrays(_in_pieces(values, str(type_), lambda piece: declared_array(piece, type_)))


class OpenColumn:
    """A column whose values decide its type. It is JSON text where no type holds all of them as they are."""

    def __init__(self, name: str, field: pa.Field[Any] | None = None) -> None:
        """Begin without a type, or with a field."""
        self.name = name
        self.field = pa.field(name, pa.null()) if field is None else field
        self._encoded = any_encoded if field is None else encoded
        self._widenings = 0

    def resume(self, field: pa.Field[Any]) -> None:
        """Start from the type of an earlier run."""
        if is_json(field):
            self.become_json()
        elif kinds.is_null(self.field.type):
            self.field = pa.field(self.name, field.type)

    def become_json(self) -> None:
        """Hold JSON text from now on."""
        self.field = marked(self.name)

    def array(self, values: Sequence[Any]) -> pa.Array[Any]:
        """Make an array; raises Misfit for a value that neither Arrow nor JSON can hold."""
        if not is_json(self.field):
            found = self._typed(values)
            if found is not None:
                self.field = self.field.with_type(found.type)
                return found
        try:
            texts = self._encoded(values)
        except UNWRITABLE:
            expected = ANY if kinds.is_null(self.field.type) else str(self.field.type)
            texts = pa.concat_arrays(_in_pieces(values, expected, any_encoded))
        self.become_json()
        return texts

    def _typed(self, values: Sequence[Any]) -> pa.Array[Any] | None:
        """Make an array of one Arrow type; None where there is none."""
        try:
            return self._inferred(values)
        except UNWRITABLE:
            pass
        try:  # without the missing values of pandas, which Arrow refuses
            return self._inferred([python_value(value) for value in values])
        except UNWRITABLE:
            return None

    def _inferred(self, values: Sequence[Any]) -> pa.Array[Any]:
        """Make an array of the type of the values, widened to hold earlier values as well.

        The type is inferred even where one is known: Arrow fits a dict to a known struct by leaving out other keys.
        """
        known, found = self.field.type, _inferred(values)
        if found.type.equals(known):
            return found
        if kinds.is_null(found.type):
            return pa.nulls(len(values), known)
        if kinds.is_null(known):
            return found
        both = _wider(known, found.type)
        if kinds.is_nested(both) and not both.equals(known):
            self._widenings += 1
            if self._widenings > _MOST_WIDENINGS:
                raise TypeError("too many types")
        return pa.array(values, both)


class OfSchema(OpenColumn):
    """A column of the type that a JSON Schema has. It becomes JSON text for values that the type would change."""

    def __init__(self, name: str, type_: pa.DataType, strays: Strays | None) -> None:
        """Take the type, and the check for keys that it lacks."""
        super().__init__(name, pa.field(name, type_))
        self._encoded = any_encoded
        self._strays = strays

    def _inferred(self, values: Sequence[Any]) -> pa.Array[Any]:
        if self._strays is not None and any(map(self._strays, values)):
            raise TypeError("a key that the type lacks")
        return pa.array(values, self.field.type)


def _of_vectors(values: Sequence[Vector | None]) -> pa.Array[Any]:
    """Make an array of vectors: their bytes, one after the other, and where each begins."""
    made = [vector for vector in values if vector is not None]
    numbers = pa.Array.from_buffers(pa.float32(), sum(map(len, made)), [None, pa.py_buffer(b"".join(made))])
    ends = accumulate((0 if vector is None else len(vector) for vector in values), initial=0)
    missing = None if len(made) == len(values) else pa.array([vector is None for vector in values], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), numbers, mask=missing)


def recast(column: Values, was: pa.Field[Any], field: pa.Field[Any]) -> Values:
    """Convert a column of an earlier version; raises ArrowException where a value would change."""
    if is_json(field):
        return column if is_json(was) else pa.chunked_array([any_encoded(column.to_pylist())])
    return column.cast(field.type)


def _in_pieces(
    values: Sequence[Any], expected: str, convert: Callable[[Sequence[Any]], pa.Array[Any]], start: int = 0
) -> list[pa.Array[Any]]:
    """Convert values a half at a time, down to single ones; raises Misfit for the first one that fails alone."""
    try:
        return [convert(values)]
    except UNWRITABLE as error:
        if len(values) == 1:
            raise Misfit(start, values[0], expected) from error
    half = len(values) // 2
    first = _in_pieces(values[:half], expected, convert, start)
    return first + _in_pieces(values[half:], expected, convert, start + half)


def _inferred(values: Sequence[Any]) -> pa.Array[Any]:
    """Make an array of the values' own type; raises TypeError where one would change some, or cannot be in a file."""
    first = next((value for value in values if value is not None), None)
    if not isinstance(first, dict | list | tuple):
        return _inferred_scalars(values)
    inferred = pa.infer_type(values)  # type: ignore[call-arg] # the mask is optional
    if inferred.equals(pa.struct([])):
        return pa.nulls(len(values))  # dicts without keys: no file can hold them
    if _has_empty_struct(inferred) or (_width(inferred) > _MOST_KEYS and shape_of(values).type is None):
        raise TypeError("objects of many shapes, or of none")
    return pa.array(values, inferred)


def _inferred_scalars(values: Sequence[Any]) -> pa.Array[Any]:
    found: pa.Array[Any] = pa.array(values)
    if any(is_kind(found.type) for is_kind in _MAY_CHANGE):
        types = set(map(type, values))
        if any(pair <= types for pair in _CHANGED_TOGETHER):
            raise TypeError("values of several types")
    return found


def _wider(known: pa.DataType, found: pa.DataType) -> pa.DataType:
    """Return a type for the values of both; raises ArrowException where there is none."""
    for is_kind in _KEPT_APART:
        if is_kind(known) != is_kind(found) and any(is_other(known) or is_other(found) for is_other in _KEPT_APART):
            raise pa.ArrowTypeError(f"{known} beside {found}")
    both = pa.unify_schemas([pa.schema([("x", known)]), pa.schema([("x", found)])], promote_options="permissive")
    return cast("pa.DataType", both.field("x").type)


def _inside(type_: Any) -> list[pa.DataType]:
    """Return the types inside of a list or a struct."""
    if kinds.is_struct(type_):
        return [field.type for field in type_]
    return [type_.value_type] if kinds.is_list(type_) else []


def _has_empty_struct(type_: Any) -> bool:
    return (kinds.is_struct(type_) and not len(type_)) or any(map(_has_empty_struct, _inside(type_)))


def _width(type_: Any) -> int:
    """Return the fields of the widest struct in a type."""
    own = len(type_) if kinds.is_struct(type_) else 0
    return max([own, *map(_width, _inside(type_))])
