"""Seeds: columns of a table that exists already, which the run starts from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast
from weakref import WeakValueDictionary

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, field_serializer, field_validator

from ..core.errors import RecipeError, shown
from ..core.graph import Node
from ..core.spec import spec
from .column import Column, ColumnSpec
from .sources.addresses import absolute, without_secrets
from .work import Fill, FillInThread

if TYPE_CHECKING:
    import pyarrow as pa

    from ..core.graph import Lane
    from .column import ArrowType, Binding
    from .sources.arranging import Arranged
    from .sources.opening import Source

_DECISIVE = ("type", "columns", "order", "rows")
"""Fields that decide the values beside the data; the digest is of values that are read already."""
_TYPE_NAMES = {"str": "string", "int": "int64", "float": "float64", "date": "date32", "datetime": "timestamp[us]"}
"""Python's names for types that Arrow calls otherwise."""


def _slice_of(given: object) -> object:
    """Read "10:20" as slice(10, 20)."""
    if not isinstance(given, str):
        return given
    parts = [int(part) if part.strip() else None for part in given.split(":")]
    if len(parts) not in {2, 3}:
        raise ValueError(f'takes "first:end" or "first:end:step", not {shown(given)}')
    return slice(*parts)


def _text_of(given: slice) -> str:
    parts = [given.start, given.stop] if given.step is None else [given.start, given.stop, given.step]
    return ":".join("" if part is None else str(part) for part in parts)


Rows = Annotated[
    slice,
    BeforeValidator(_slice_of),
    PlainSerializer(_text_of, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\s*-?\d*\s*:\s*-?\d*\s*(:\s*-?\d*\s*)?$"}),
]


def _named_types(given: object) -> object:
    """Return Arrow's names of types for Arrow types and Python's own."""
    if not isinstance(given, dict):
        return given
    names = {column: type_.__name__ if isinstance(type_, type) else str(type_) for column, type_ in given.items()}
    return {column: _TYPE_NAMES.get(name, name) for column, name in names.items()}


Types = Annotated[
    Mapping[str, Any],
    BeforeValidator(_named_types),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
]


@spec
class Seed(ColumnSpec):
    """Columns of a table that exists already. Row i of the run takes row i of the table.

    `data` is a path, a glob or an address (csv, tsv, jsonl, ndjson, json, parquet, arrow; also with .gz or .zst), a
    DataFrame, a list of dicts, a dict of lists, or an object that gives an Arrow stream (polars, pyarrow, DuckDB,
    Hugging Face datasets). `columns` are the ones to take, by default all. The table is read once: later changes to it
    have no effect. A file too large for memory is read while the run goes on, and the run ends if it changes.

    A run makes one row for each row of the table, unless it is given another number; with `repeat`, a longer run starts
    again at the top of the table. `rows` takes a slice of the table (`slice(100, 200)`, in a file "100:200"), and
    `order="shuffled"` takes its rows in an order that follows from the recipe's seed.

    A CSV column becomes numbers, bools or dates only if every value's text comes back unchanged; an empty value is
    null. `types` sets types by column ({"zip": "string"}), `separator` and `encoding` say how a text file is written.

    A seed without data stands for the rows of the previous stage, in a Workflow.
    """

    tables: ClassVar = ("data",)
    data: Any = None
    columns: list[str] | None = None
    repeat: bool = False
    order: Literal["as_is", "shuffled"] = "as_is"
    rows: Rows | None = None
    types: Types | None = None
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    encoding: str | None = None
    type: Literal["seed"] = Field(default="seed", kw_only=True)

    def __post_init__(self) -> None:
        """Make a path absolute: a later change of the working directory does not lead elsewhere."""
        location = absolute(self.data) if isinstance(self.data, str | os.PathLike) else None
        object.__setattr__(self, "_absolute", location)

    @field_validator("rows")
    @classmethod
    def _counts_rows(cls, rows: slice | None) -> slice | None:
        parts = () if rows is None else (rows.start, rows.stop, rows.step)
        if not all(part is None or type(part) is int for part in parts) or 0 in parts[2:]:
            raise ValueError(f"takes a slice of whole numbers with a step other than 0, not {rows}")
        return rows

    def expand(self) -> list[SeedColumn]:
        """Open the table and return a column for each one taken; raises RecipeError for data that cannot be used."""
        if self.data is None:
            if not self.columns:
                problem = "needs data; in a stage of a Workflow, it needs columns=[...] of the previous stage"
                raise RecipeError("columns.seed", problem)
            return [SeedColumn(name, None) for name in self.columns]
        table = self._table
        return [SeedColumn(name, table) for name in table.source.blocks.schema.names]

    @property
    def length(self) -> int | None:
        """How many rows of the table are taken; None where the previous stage has yet to make it."""
        return None if self.data is None else len(self._table.rows)

    def identity(self) -> dict[str, Any]:
        """Hold a digest of the data, wherever and however it is kept, and which of its rows are taken."""
        given = self.describe()
        return {"data": self.digest, **{field: given[field] for field in _DECISIVE if field in given}}

    @field_serializer("data")
    def described(self, data: Any) -> str | None:
        """Return a path as it is, and a table as its columns and a hash, so that other data looks different."""
        if data is None:
            return None
        if isinstance(data, str | os.PathLike):
            return without_secrets(str(data))
        try:
            blocks = self._table.source.blocks
        except RecipeError:  # `expand` raises it
            return type(data).__name__
        return f"{type(data).__name__} of {blocks.rows} rows ({', '.join(blocks.schema.names)}), {self.digest}"

    @property
    def digest(self) -> str | None:
        """A hash of the columns that are taken; None where the previous stage has yet to make them."""
        return None if self.data is None else self._table.source.digest

    @cached_property
    def _table(self) -> SeedTable:
        from .sources.opening import open_files, open_object  # noqa: PLC0415 - it loads pandas and pyarrow
        from .sources.reading import Reading  # noqa: PLC0415 - the same

        reading = Reading(
            None if self.columns is None else tuple(self.columns),
            {name: _arrow_type(name, type_) for name, type_ in (self.types or {}).items()},
            self.separator,
            self.encoding,
        )
        if self._location is None:
            source = open_object(self.data, reading)
        else:
            source = open_files(self._location, str(self.data), reading)
        if not source.blocks.rows:
            raise RecipeError("columns.seed.data", "the seed data has no rows")
        rows = range(source.blocks.rows)[self.rows or slice(None)]
        if not rows:
            problem = (
                f"{_text_of(self.rows or slice(None))} takes none of the {source.blocks.rows} rows of the seed data"
            )
            raise RecipeError("columns.seed.rows", problem)
        return SeedTable(source, rows, shuffled=self.order == "shuffled")

    def __getstate__(self) -> dict[str, Any]:
        """Hand another process what it can open: a file by its path, and the rows of an object as they were read."""
        state = dict(vars(self))
        table: SeedTable | None = state.pop("_table", None)
        if table is not None and self._location is None and not hasattr(self.data, "with_format"):
            state["data"] = table.source.blocks.whole()
        return state

    @property
    def _location(self) -> str | None:
        location: str | None = vars(self)["_absolute"]
        return location


def _arrow_type(column: str, name: str) -> pa.DataType:
    import pyarrow as pa  # noqa: PLC0415 - not at import time

    try:
        return cast("pa.DataType", pa.type_for_alias(cast("Any", name)))
    except ValueError:
        problem = f"'{name}' is not a type; use string, int64, float64, bool, date32 or timestamp[us]"
        raise RecipeError(f"columns.seed.types.{column}", problem) from None


class SeedTable:
    """The table of a Seed, for all of its columns. `rows` are those that are taken."""

    def __init__(self, source: Source, rows: range, *, shuffled: bool) -> None:
        """Put nothing in order yet."""
        self.source = source
        self.rows = rows
        self._shuffled = shuffled
        self._arranged: WeakValueDictionary[tuple[int, int], Arranged] = WeakValueDictionary()

    def arranged(self, seed: int, most: int | None) -> Arranged:
        """Return the rows in the order of a run of at most so many rows, the same for all columns."""
        from .sources.arranging import Shared, arranged  # noqa: PLC0415 - it loads pyarrow
        from .sources.order import Order  # noqa: PLC0415 - it loads numpy

        blocks = self.source.blocks
        most = len(self.rows) if most is None else min(most, len(self.rows))
        found = self._arranged.get((seed, most))
        if found is None:
            key = f"{seed}/{','.join(blocks.schema.names)}" if self._shuffled else None
            rows = arranged(blocks, Order(self.rows, key), most)
            found = rows if rows.in_memory else Shared(rows, len(blocks.schema))
            self._arranged[seed, most] = found
        return found


@spec
class SeedColumn(Column):
    """One column of a seed table. `table` is a SeedTable; None where the previous stage has yet to make it."""

    table: Any
    type: Literal["seed"] = Field(default="seed", kw_only=True)

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Need nothing; a row group is filled whole."""
        return Node(self.name, strategy="whole")

    def arrow_type(self) -> ArrowType:
        """Return the type of the data; where its values are of no one type, the JSON Schema of any value."""
        if self.table is None:
            return None
        from .sources.json_text import type_of_values  # noqa: PLC0415 - it loads pyarrow

        return type_of_values(self.table.source.blocks.schema.field(self.name)) or {}

    def bind(self, binding: Binding) -> Fill | FillInThread:
        """Take the stretch of rows, starting again at the top where the run has more rows than the table."""
        from .sources.json_text import values_of  # noqa: PLC0415 - it loads pyarrow

        table: SeedTable = self.table
        rows = table.arranged(binding.seed, binding.rows)
        name, length = self.name, len(table.rows)
        field = table.source.blocks.schema.field(name)

        def fill(start: int, count: int) -> list[Any]:
            values: list[Any] = []
            while len(values) < count:
                first = (start + len(values)) % length
                part = rows.read(first, min(count - len(values), length - first))
                values += values_of(part.column(name), field)
            return values

        return Fill(fill) if rows.in_memory else FillInThread(fill)
