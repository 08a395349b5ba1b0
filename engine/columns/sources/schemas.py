"""The columns of a seed's table: one schema for all files, and tables that conform to it without a value changing."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import types as kinds

from ...core.errors import RecipeError, nearest
from .json_text import as_texts, encoded, is_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .blocks import Column


_INDEX = re.compile(r"__index_level_\d+__")
"""The names that pandas gives to an index without a name when it writes a file."""
_ONE_KIND = (
    kinds.is_integer,
    kinds.is_floating,
    lambda type_: kinds.is_string(type_) or kinds.is_large_string(type_),
    lambda type_: kinds.is_binary(type_) or kinds.is_large_binary(type_),
    kinds.is_date,
    kinds.is_timestamp,
    kinds.is_decimal,
)
"""Types of one kind are widened to one that holds both; no integer becomes a float by that."""


def one_schema(schemas: Mapping[str, pa.Schema], types: Mapping[str, pa.DataType]) -> pa.Schema:
    """Return the schema of several files, by their names: all columns, of types that hold the values of each file."""
    found: dict[str, pa.DataType] = {}
    for shown, schema in schemas.items():
        check_names(schema.names)
        for one in schema:
            type_ = types.get(one.name) or plain(one.type, one.name)
            both = wider(found.get(one.name, type_), type_)
            if both is None:
                problem = f"column '{one.name}' is {found[one.name]} in one file and {type_} in '{shown}'"
                raise RecipeError("columns.seed.data", f'{problem}; choose with types={{"{one.name}": "string"}}')
            found[one.name] = both
    return pa.schema(list(found.items()))


def check_names(names: Sequence[object]) -> None:
    """Refuse names that no table can have."""
    if not all(isinstance(name, str) for name in names):
        raise RecipeError("columns.seed.data", "column names must be text")
    twice = {str(name) for name in names if names.count(name) > 1}
    if twice:
        raise RecipeError("columns.seed.data", f"Duplicate column names: {', '.join(sorted(twice))}")


def chosen_names(names: Sequence[str], wanted: Sequence[str] | None, path: str = "columns") -> list[str]:
    """Return the names of the columns that are taken; raises RecipeError, with the nearest name, for a missing one."""
    for name in wanted or ():
        if name not in names:
            problem = f"the seed data has no column '{name}'; {nearest(name, names)}"
            raise RecipeError(f"columns.seed.{path}", problem)
    return [name for name in names if not _INDEX.fullmatch(name)] if wanted is None else list(dict.fromkeys(wanted))


def chosen(schema: pa.Schema, wanted: Sequence[str] | None) -> pa.Schema:
    """Leave only the columns that are taken, in the order in which they are named."""
    return pa.schema([schema.field(name) for name in chosen_names(schema.names, wanted)])


def plain(type_: Any, name: str) -> pa.DataType:
    """Return the type that values are kept in: views become plain, and dictionaries in files their values."""
    found: pa.DataType = type_
    if kinds.is_struct(type_):
        found = pa.struct([(one.name, plain(one.type, name)) for one in type_])
    elif kinds.is_list(type_) or kinds.is_list_view(type_):
        found = pa.list_(plain(type_.value_type, name))
    elif kinds.is_large_list(type_) or kinds.is_large_list_view(type_):
        found = pa.large_list(plain(type_.value_type, name))
    elif kinds.is_dictionary(type_) or kinds.is_run_end_encoded(type_):
        found = plain(type_.value_type, name)
    elif kinds.is_string_view(type_) or isinstance(type_, pa.UuidType | pa.JsonType):
        found = pa.string()
    elif kinds.is_binary_view(type_):
        found = pa.binary()
    elif isinstance(type_, pa.BaseExtensionType):
        problem = f"column '{name}' is of the type {type_}; make it text, numbers or timestamps"
        raise RecipeError("columns.seed.data", problem)
    return found


def wider(one: Any, other: Any) -> pa.DataType | None:
    """Return a type that holds the values of both as they are; None where no type does."""
    found: pa.DataType | None = None
    if one.equals(other) or kinds.is_null(other):
        found = one
    elif kinds.is_null(one):
        found = other
    elif kinds.is_struct(one) and kinds.is_struct(other):
        found = _wider_struct(one, other)
    elif _is_list(one) and _is_list(other):
        inner = wider(one.value_type, other.value_type)
        found = None if inner is None else pa.large_list(inner)
    elif any(is_one(one) and is_one(other) for is_one in _ONE_KIND):
        pair = [pa.schema([("x", one)]), pa.schema([("x", other)])]
        with contextlib.suppress(pa.ArrowException):
            found = pa.unify_schemas(pair, promote_options="permissive").field("x").type
    return found


def _is_list(type_: pa.DataType) -> bool:
    return kinds.is_list(type_) or kinds.is_large_list(type_)


def _wider_struct(one: pa.StructType, other: pa.StructType) -> pa.DataType | None:
    fields = {field.name: field.type for field in one}
    for field in other:
        both = wider(fields.get(field.name, field.type), field.type)
        if both is None:
            return None
        fields[field.name] = both
    return pa.struct(list(fields.items()))


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table the columns and types of a schema; a column that it lacks is null in all rows."""
    if table.schema.equals(schema, check_metadata=True):
        return table
    columns = [
        _conformed(table, one) if one.name in table.column_names else pa.nulls(table.num_rows, one.type)
        for one in schema
    ]
    return pa.table(columns, schema=schema)


def _conformed(table: pa.Table, field: pa.Field[Any]) -> Column:
    column, was_json = table.column(field.name), is_json(table.schema.field(field.name))
    if is_json(field):
        return column if was_json else pa.chunked_array([encoded(column.to_pylist())])
    return converted(column, field.type, field.name, json=was_json)


def converted(column: Column, type_: pa.DataType, name: str, *, json: bool = False) -> Column:
    """Convert a column; raises RecipeError naming a value that is none of the type."""
    if json:
        column = pa.chunked_array([pa.array(as_texts(column.to_pylist()), pa.string())])
    if column.type.equals(type_):
        return column
    if isinstance(column.type, pa.JsonType):
        column = _storage(column)
    try:
        if kinds.is_string(type_) and not _same_as_text(column.type):
            texts = [None if value is None else str(value) for value in column.to_pylist()]
            return pa.chunked_array([pa.array(texts, type_)])
        return _cast(column, type_)
    except (pa.ArrowException, OverflowError) as error:
        problem = f"'{name}' has a value that is not {type_}: {error}"
        raise RecipeError("columns.seed.types", problem) from error


def _cast(column: Column, type_: pa.DataType) -> Column:
    try:
        return column.cast(type_)
    except pa.ArrowNotImplementedError:  # such as text views in a dictionary
        return pa.chunked_array([pa.array(column.to_pylist(), type_)])


def _storage(column: Any) -> Column:
    """Take off an extension type that has text below it."""
    stored: Column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    return stored


def _same_as_text(type_: pa.DataType) -> bool:
    """Return whether Arrow writes values as templates do."""
    if kinds.is_dictionary(type_):
        return _same_as_text(type_.value_type)
    text = kinds.is_string(type_) or kinds.is_large_string(type_) or kinds.is_string_view(type_)
    return text or kinds.is_null(type_) or kinds.is_integer(type_) or kinds.is_date32(type_)
