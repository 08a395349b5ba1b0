"""check_column: whether a kind of column keeps the contract of rowloop.engine.columns.ColumnSpec."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pydantic

from ..engine.columns import Column, ColumnSpec, Lane, Node
from ..engine.columns.seeds import Seed
from ..engine.core.errors import RecipeError, RowloopError
from ..engine.core.spec import check_kind
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
    _check_kind(column)
    recipe = _recipe(column, data, models)
    for one in column.expand():
        _check_place(one, recipe)
    _check_description(column)
    whole = _made(recipe, rows, row_group_size=rows)
    for one in column.expand():
        _check_values(one, whole, rows)
    pieces = _made(recipe, rows, row_group_size=2)
    sequential = _made(recipe, rows, engine="sequential")
    if repeatable:
        again = _made(recipe, rows, row_group_size=rows)
        for other, how in (
            (again, "in a second run with the same seed"),
            (pieces, "in row groups of 2 rows"),
            (sequential, "with the sequential engine"),
        ):
            assert other.equals(whole), f"{_label(column)} has other values {how}: {_difference(whole, other)}"
    _check_resuming(column, recipe, rows)


def _check_kind(column: Any) -> None:
    assert isinstance(column, ColumnSpec), f"a column is a rowloop.engine.columns.ColumnSpec, not {column!r:.80}"
    if _is_for_files(column):
        try:
            check_kind(type(column), ColumnSpec, column.type)
        except TypeError as error:
            raise AssertionError(f"{_label(column)} cannot be named in a recipe file: {error}") from error


def _recipe(column: ColumnSpec, data: Sequence[Mapping[str, Any]], models: Any) -> Recipe:
    columns = [column]
    if data:
        import pandas as pd  # noqa: PLC0415 - not at import time

        columns.insert(0, Seed(pd.DataFrame(list(data)), repeat=True))
    try:
        return Recipe(models=models or {}, columns=columns, seed=_SEED)
    except RecipeError as error:
        raise AssertionError(f"{_label(column)} makes no recipe with the data and models given: {error}") from error


def _check_place(column: Column, recipe: Recipe) -> None:
    """Check a column's place in the graph, and the model that it asks."""
    lanes = {alias: Lane(alias, 1) for alias in recipe.models}
    node, again = column.node(lanes), column.node(lanes)
    assert isinstance(node, Node), f"{_label(column)}.node() must return a Node; it returned {node!r:.80}"
    assert node == again, f"{_label(column)}.node() returned {node} and then {again}; it has one place"
    assert node.name == column.name, f"{_label(column)}.node() has the name {node.name!r}, not {column.name!r}"
    alias = column.model_alias
    assert alias is None or alias in recipe.models, (
        f"{_label(column)}.model_alias is {alias!r}, which is none of the models {list(recipe.models)}"
    )


def _check_description(column: ColumnSpec) -> None:
    """Check a column's description in recipe files and its identity: complete, and the same each time."""
    for name in ("describe", "identity"):
        plain, again = getattr(column, name)(), getattr(column, name)()
        assert plain == again, f"{_label(column)}.{name}() returned {plain} and then {again}"
        try:
            json.dumps(plain)
        except (TypeError, ValueError) as error:
            raise AssertionError(f"{_label(column)}.{name}() must return plain data: {error}; it is {plain}") from error
    described = column.describe()
    assert described.get("type") == column.type, f"{_label(column)} is described as {described}, without its type"
    if _is_for_files(column):
        try:
            read = pydantic.TypeAdapter(type(column)).validate_python(described)
        except (RecipeError, pydantic.ValidationError) as error:
            raise AssertionError(f"{_label(column)} cannot be read back from {described}: {error}") from error
        assert read.describe() == described, f"{_label(column)} is read back as {read.describe()}, from {described}"


def _is_for_files(column: ColumnSpec) -> bool:
    """Return whether plain data describes all of a column; a function, for example, is left out."""
    fields = dataclasses.fields(column)  # pyright: ignore[reportArgumentType] - every spec is a dataclass
    return all(not getattr(field.default, "exclude", None) or getattr(column, field.name) is None for field in fields)


def _made(recipe: Recipe, rows: int, **options: Any) -> pa.Table:
    try:
        result = recipe.preview(rows, progress=False, **options)
    except RowloopError as error:
        cause = error.__cause__ if isinstance(error.__cause__, RowloopError) else error
        raise AssertionError(f"a preview of {rows} rows failed: {cause}") from error
    assert result.status == "complete", f"a preview has the status '{result.status}': {_failures(result)}"
    return result.to_arrow()


def _failures(result: Any) -> list[Any]:
    found: list[Any] = result.failures[["column", "error", "message"]].drop_duplicates().to_numpy().tolist()
    return found


def _check_values(column: Column, table: pa.Table, rows: int) -> None:
    import pyarrow as pa  # noqa: PLC0415 - not at import time

    from ..engine.columns.sources.json_text import is_json  # noqa: PLC0415 - the same
    from ..engine.datasets.tables import Frames  # noqa: PLC0415 - the same

    assert table.num_rows == rows, f"{rows} rows were wanted, and {table.num_rows} made"
    assert column.name in table.column_names, f"{_label(column)} is not among the columns {table.column_names}"
    stated = Frames([column.name], [column.arrow_type()]).schema.field(0).type
    real = table.schema.field(column.name).type
    is_open = not isinstance(column.arrow_type(), str | pa.DataType) and is_json(table.schema.field(column.name))
    fits = is_open or pa.types.is_null(stated) or real.equals(stated)
    assert fits, f"{_label(column)}.arrow_type() is {stated}, and its values are {real}"


def _check_resuming(column: ColumnSpec, recipe: Recipe, rows: int) -> None:
    """Build some rows, then the rest: the first ones keep their values."""
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


def _label(column: ColumnSpec) -> str:
    name = getattr(column, "name", None)
    return type(column).__name__ if name is None else f"{type(column).__name__}({name!r})"
