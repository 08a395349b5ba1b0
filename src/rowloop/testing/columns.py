"""check_column: whether a kind of column keeps the contract of rowloop.engine.columns.column.ColumnSpec."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..engine.columns.seeds import Seed
from ..engine.core.errors import RecipeError, RowloopError
from ..engine.core.graph import Lane, Node
from ..engine.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from ..engine.models.model import Model, ModelFunction


_SEED: Final = 1


def check_column(
    column: Any,
    *,
    data: Sequence[Mapping[str, Any]] = (),
    models: Mapping[str, Model | str | ModelFunction] | None = None,
    rows: int = 6,
    repeatable: bool = True,
) -> None:
    """Check that a column does what rowloop relies on; raises AssertionError for what it does not.

    `data` has the columns that it needs, and `models` the models that it asks (a function will do), by alias. `rows`
    rows are made a few times, in memory and in a temporary directory. `repeatable=False`: its values may differ from
    run to run.
    """
    recipe = _recipe(column, data, models)
    _check_statements(column, recipe)
    whole = _made(recipe, rows, row_group_size=rows)
    _check_values(column, whole, rows)
    pieces = _made(recipe, rows, row_group_size=2)
    sequential = _made(recipe, rows, engine="sequential")
    if repeatable:
        for other, how in (
            (_made(recipe, rows, row_group_size=rows), "in a second run with the same seed"),
            (pieces, "in row groups of 2 rows"),
            (sequential, "with the sequential engine"),
        ):
            assert other.equals(whole), f"{_label(column)} has other values {how}: {_difference(whole, other)}"
    _check_resuming(column, recipe, rows)


def _recipe(column: Any, data: Sequence[Mapping[str, Any]], models: Any) -> Recipe:
    for name in ("name", "type"):
        value = getattr(column, name, None)
        assert isinstance(value, str), f"a column has an attribute {name}, a str; that of {column!r:.80} is {value!r}"
    columns = [column]
    if data:
        import pandas as pd  # noqa: PLC0415 - not at import time

        columns.insert(0, Seed(pd.DataFrame(list(data))))
    try:
        return Recipe(models=models or {}, columns=columns, seed=_SEED)
    except RecipeError as error:
        raise AssertionError(f"{_label(column)} makes no recipe with the data and models given: {error}") from error


def _check_statements(column: Any, recipe: Recipe) -> None:
    """Check what a column states before it is worked."""
    lanes = {alias: Lane(alias, 1) for alias in recipe.models}
    node, again = column.node(lanes), column.node(lanes)
    assert isinstance(node, Node), f"{_label(column)}.node() must return a Node; it returned {node!r:.80}"
    assert node == again, (
        f"{_label(column)}.node() returned {node} and then {again}; it must depend on the column alone"
    )
    assert node.name == column.name, f"{_label(column)}.node() has the name {node.name!r}, not {column.name!r}"
    wrong = [need for need in (*node.needs, *node.after) if not isinstance(need, str)]
    assert not wrong, f"{_label(column)}.node() needs {wrong}; needs are names of columns"
    described = recipe.to_dict()["columns"][-1]
    try:
        json.dumps(described)
    except TypeError as error:
        raise AssertionError(f"{_label(column)} cannot be written to a recipe file: {error}; {described}") from error
    assert described.get("type") == column.type, f"{_label(column)} is written as {described}, without its type"


def _made(recipe: Recipe, rows: int, **options: Any) -> pa.Table:
    try:
        result = recipe.preview(rows, progress=False, **options)
    except RowloopError as error:
        raise AssertionError(f"a preview of {rows} rows failed: {error}") from error
    assert result.status == "complete", f"a preview has the status '{result.status}': {_failures(result)}"
    return result.to_arrow()


def _failures(result: Any) -> list[Any]:
    found: list[Any] = result.failures[["column", "error", "message"]].drop_duplicates().to_numpy().tolist()
    return found


def _check_values(column: Any, table: pa.Table, rows: int) -> None:
    import pyarrow as pa  # noqa: PLC0415 - not at import time

    from ..engine.datasets.tables import Frames  # noqa: PLC0415 - the same

    assert table.num_rows == rows, f"{rows} rows were wanted, and {table.num_rows} made"
    assert column.name in table.column_names, (
        f"{_label(column)} is not in the table, whose columns are {table.schema.names}"
    )
    stated = Frames([column.name], [column.arrow_type()]).schema.field(0).type
    real = table.schema.field(column.name).type
    fits = pa.types.is_null(stated) or real.equals(stated)
    assert fits, f"{_label(column)}.arrow_type() is {stated}, and its values are {real}"


def _check_resuming(column: Any, recipe: Recipe, rows: int) -> None:
    """Build some rows, then the rest: those that are there keep their values."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out"
        first = recipe.build(path, rows - 2, row_group_size=2, progress=False).to_arrow()
        try:
            result = recipe.build(path, rows, resume="always", progress=False)
        except RowloopError as error:
            raise AssertionError(f"a build with {_label(column)} cannot be resumed: {error}") from error
        assert result.status == "complete", f"a resumed build has the status '{result.status}': {_failures(result)}"
        kept = result.to_arrow().slice(0, rows - 2)
        assert kept.equals(first), f"{_label(column)} changed when its build was resumed: {_difference(first, kept)}"


def _difference(one: pa.Table, other: pa.Table) -> str:
    if not one.schema.equals(other.schema):
        return f"the types are {one.schema.types} and {other.schema.types}"
    for name in one.column_names:
        for row, (a, b) in enumerate(zip(one[name].to_pylist(), other[name].to_pylist(), strict=False)):
            if a != b:
                return f"row {row} of '{name}' is {a!r:.80} and {b!r:.80}"
    return f"{one.num_rows} and {other.num_rows} rows"


def _label(column: Any) -> str:
    return f"{type(column).__name__}({column.name!r})"
