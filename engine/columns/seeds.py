"""Seeds: columns of a table that exists already, which the run starts from."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import Field, field_serializer

from ..core.errors import RecipeError, nearest
from ..core.graph import Node
from ..core.spec import spec
from .column import Column, ColumnSpec
from .work import Fill

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from ..core.graph import Lane
    from .column import Binding

_READERS = {".csv": "read_csv", ".parquet": "read_parquet", ".jsonl": "read_json", ".json": "read_json"}


@spec
class Seed(ColumnSpec):
    """Columns of a table that exists already: a DataFrame, or a path to csv, parquet or jsonl.

    Row i of the run takes row i of the table; a run with more rows starts again at the top of the table. `columns` are
    the ones to take, by default all. The data is read once and copied, so later changes to it have no effect.

    A seed without data stands for the rows of the previous stage, in a Workflow.
    """

    tables: ClassVar = ("data",)
    data: Any = None
    columns: list[str] | None = None
    type: Literal["seed"] = Field(default="seed", kw_only=True)

    def expand(self) -> list[SeedColumn]:
        """Read the table and return a column for each one taken; raises RecipeError for data that cannot be used."""
        if self.data is None:
            if not self.columns:
                problem = "needs data; in a stage of a Workflow, it needs columns=[...] of the previous stage"
                raise RecipeError("columns.seed", problem)
            return [SeedColumn(name, None) for name in self.columns]
        table = self._table
        names = table.column_names if self.columns is None else self.columns
        for name in names:
            if name not in table.column_names:
                problem = f"the seed data has no column '{name}'; {nearest(name, table.column_names)}"
                raise RecipeError("columns.seed.columns", problem)
        if not table.num_rows:
            raise RecipeError("columns.seed.data", "the seed data has no rows")
        return [SeedColumn(name, table.column(name).combine_chunks()) for name in names]

    def identity(self) -> dict[str, Any]:
        """Hold a digest of the data, wherever it is kept."""
        return {**super().identity(), "data": self.digest}

    @field_serializer("data")
    def described(self, data: Any) -> str | None:
        """Return a path as it is, and a DataFrame as its columns and a hash, so that other data looks different."""
        if data is None:
            return None
        if isinstance(data, str | Path):
            return str(data)
        try:
            table = self._table
        except RecipeError:  # `expand` raises it
            return type(data).__name__
        return f"DataFrame of {table.num_rows} rows ({', '.join(table.column_names)}), {self.digest}"

    @cached_property
    def digest(self) -> str | None:
        """A hash of the data, wherever it is kept; None where the previous stage has yet to make it."""
        return None if self.data is None else _digest(self._table)

    @cached_property
    def _table(self) -> pa.Table:
        import pandas as pd  # noqa: PLC0415 - not at import time
        import pyarrow as pa  # noqa: PLC0415 - not at import time

        frame = self.data.copy() if isinstance(self.data, pd.DataFrame) else self._read()
        if not all(isinstance(name, str) for name in frame.columns):
            raise RecipeError("columns.seed.data", "column names must be text")
        try:
            table = pa.Table.from_pandas(frame, preserve_index=False)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise RecipeError("columns.seed.data", f"the seed data does not fit into a table: {error}") from error
        for field in table.schema:
            if isinstance(field.type, pa.BaseExtensionType):
                problem = f"column '{field.name}' is of the type {field.type}; make it text, numbers or timestamps"
                raise RecipeError("columns.seed.data", problem)
        return table

    def _read(self) -> Any:
        import pandas as pd  # noqa: PLC0415 - not at import time

        if not isinstance(self.data, str | Path):
            problem = f"takes a DataFrame or a path, not {type(self.data).__name__}"
            raise RecipeError("columns.seed.data", problem)
        path = Path(self.data)
        reader = _READERS.get(path.suffix)
        if reader is None:
            raise RecipeError("columns.seed.data", f"'{path}' is none of {', '.join(_READERS)}")
        try:
            return getattr(pd, reader)(path, **({"lines": True} if path.suffix == ".jsonl" else {}))
        except (OSError, ValueError) as error:
            raise RecipeError("columns.seed.data", f"cannot read '{path}': {error}") from error


def _digest(table: pa.Table) -> str:
    """Hash the values, and the names and types of the columns."""
    import pyarrow as pa  # noqa: PLC0415 - not at import time

    plain = table.replace_schema_metadata(None)
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, plain.schema) as writer:
        writer.write_table(plain)
    return hashlib.blake2b(buffer.getvalue(), digest_size=8).hexdigest()


@spec
class SeedColumn(Column):
    """One column of a seed table. `values` is a pyarrow Array; None where the previous stage has yet to make it."""

    values: Any
    type: Literal["seed"] = Field(default="seed", kw_only=True)

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Need nothing; a row group is filled whole."""
        return Node(self.name, strategy="whole")

    def arrow_type(self) -> pa.DataType | None:
        """Return the type of the data."""
        return None if self.values is None else cast("pa.DataType", self.values.type)

    def bind(self, _binding: Binding) -> Fill:
        """Copy the stretch of rows, starting again at the top where the run has more rows than the data."""
        source = self.values

        def fill(start: int, rows: int) -> list[Any]:
            values: list[Any] = []
            while len(values) < rows:
                first = (start + len(values)) % len(source)
                values += source.slice(first, rows - len(values)).to_pylist()
            return values

        return Fill(fill)
