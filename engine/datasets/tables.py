"""Tables: row groups as Arrow tables, all of one schema.

The type of a column is the one in its spec, else the type of its first values. Values that do not fit widen a type that
was only inferred (int64 to float64, null to anything, a struct by a field). Where no type holds all values as they are,
the column becomes JSON text, unless its spec names an Arrow type. `version` then shows a sink that the tables it has
already written need to be conformed to the schema.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from ..columns.schema_types import arrow_type_of_schema
from ..columns.sources.json_text import is_json
from ..core.errors import DatasetGenerationError
from .table_columns import Misfit, column_of, recast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..columns.column import ArrowType
    from ..core.store import RowGroup

__all__ = ["Frames", "Tables", "arrow_type_of_schema", "concatenated", "conformed", "joined", "recast_table", "same"]


class Tables(Protocol):
    """Makes a sink's tables from row groups, all of one schema."""

    @property
    def schema(self) -> pa.Schema:
        """The schema so far."""
        ...

    @property
    def version(self) -> int:
        """The number of changes of the schema; tables of an earlier version need to be conformed."""
        ...

    def table(self, group: RowGroup, rows: Sequence[int]) -> pa.Table:
        """Make a table of the rows at these offsets."""
        ...

    def conform(self, table: pa.Table) -> pa.Table:
        """Convert a table of an earlier version to the schema; that may change the schema once more."""
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
        self._columns = [column_of(name, type_) for name, type_ in zip(names, types, strict=True)]

    @property
    def schema(self) -> pa.Schema:
        """The schema so far; a column without values is of type null."""
        return pa.schema([column.field for column in self._columns])

    def resume(self, schema: pa.Schema) -> None:
        """Start from the types of an earlier run."""
        for column in self._columns:
            if column.name in schema.names:
                field = schema.field(column.name)
                column.resume(field)
                self.version += is_json(column.field) and not is_json(field)

    def table(self, group: RowGroup, rows: Sequence[int]) -> pa.Table:
        """Make a table of these rows; raises DatasetGenerationError naming the column and the value that does not fit.

        Rows are offsets into the group.
        """
        arrays = [self._array(i, group, rows) for i in range(len(self.names))]
        return pa.table(arrays, schema=self.schema)

    def conform(self, table: pa.Table) -> pa.Table:
        """Convert a table of an earlier version; a column whose values have no common type becomes JSON text."""
        arrays = []
        for column in self._columns:
            given = table.schema.field(column.name)
            try:
                array = recast(table.column(column.name), given, column.field)
            except pa.ArrowException:
                column.become_json()
                self.version += 1
                array = recast(table.column(column.name), given, column.field)
            arrays.append(array)
        return pa.table(arrays, schema=self.schema)

    def _array(self, i: int, group: RowGroup, rows: Sequence[int]) -> pa.Array[Any]:
        column, values = self._columns[i], group.values[i]
        if len(rows) != group.size:
            values = [values[row] for row in rows]
        before = column.field
        try:
            array = column.array(values)
        except Misfit as error:
            problem = error.sentence(group.start + rows[error.row])
            raise DatasetGenerationError(
                problem, stage="column", column=self.names[i], row_group=group.id
            ) from error.__cause__
        self.version += not _same(before, column.field)
        return array


def conformed(tables: Tables, made: Sequence[pa.Table]) -> list[pa.Table]:
    """Convert tables of any version to the schema that holds all of them."""
    while True:
        version = tables.version
        found = [tables.conform(table) for table in made]
        if version == tables.version:
            return found


def concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables of the same columns as one; raises ArrowException for types that do not fit together."""
    schema = tables[0].schema
    if not all(same(schema, table.schema) for table in tables):  # a crash may leave some parts of a wider type
        for table in tables:
            schema = joined(schema, table.schema)
        tables = [recast_table(table, schema) for table in tables]
    return pa.concat_tables(tables)


def recast_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Convert a table to a schema of the same columns; raises ArrowException where a value would change."""
    pairs = zip(table.columns, table.schema, schema, strict=True)
    return pa.table([recast(column, was, field) for column, was, field in pairs], schema=schema)


def joined(known: pa.Schema | None, schema: pa.Schema) -> pa.Schema:
    """Return a schema of the same columns that holds the values of both; raises ArrowException where none does."""
    if known is None or known.names != schema.names:
        return schema if known is None else pa.unify_schemas([known, schema])
    both = pa.unify_schemas([_without_json(known, schema), _without_json(schema, known)], promote_options="permissive")
    fields = [one if is_json(one) else other for one, other in zip(known, schema, strict=True)]
    return pa.schema([field if is_json(field) else both.field(field.name) for field in fields])


def same(one: pa.Schema, other: pa.Schema) -> bool:
    """Return whether two schemas are of the same columns, types, and columns of JSON text."""
    return one.names == other.names and all(map(_same, one, other))


def _same(one: pa.Field[Any], other: pa.Field[Any]) -> bool:
    return one.type.equals(other.type) and is_json(one) == is_json(other)


def _without_json(schema: pa.Schema, other: pa.Schema) -> pa.Schema:
    """Leave out the columns that are JSON text in either of two schemas of the same columns."""
    pairs = zip(schema, other, strict=True)
    return pa.schema([one.remove_metadata() for one, beside in pairs if not (is_json(one) or is_json(beside))])
