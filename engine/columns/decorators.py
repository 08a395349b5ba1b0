"""Decorators: `cell` and `batch` make a column of a Python function, by its name and its parameters."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from ..core.errors import RecipeError, shown
from .functions import AnyFunction, Function, takes_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.graph import OnError


class FunctionOptions(TypedDict, total=False):
    """The options of `cell` and `batch`.

    `name`: the column's name, where it is not the function's. `needs`: the columns for the parameters, in order, where
    the parameters are not named after columns. `max_parallel`: the most calls at once. `dtype`: the Arrow type of the
    values, such as "int64", where there is no annotation. `on_error`: "drop" the row, "null" the cell, or "raise".
    """

    name: str | None
    needs: list[str] | None
    max_parallel: int | None
    dtype: str | None
    on_error: OnError


class BatchOptions(FunctionOptions, total=False):
    """The options of `batch`: those of `cell`, and two more.

    `allow_resize`: the function changes the number of rows. `stateful`: it is called for one row group at a time, in
    order.
    """

    allow_resize: bool
    stateful: bool


@overload
def cell(function: AnyFunction, /, **options: Unpack[FunctionOptions]) -> Function: ...
@overload
def cell(function: None = None, /, **options: Unpack[FunctionOptions]) -> Callable[[AnyFunction], Function]: ...
def cell(
    function: AnyFunction | None = None, /, **options: Unpack[FunctionOptions]
) -> Function | Callable[[AnyFunction], Function]:
    """Make a column of a function of single values: called once per row, with the values of its parameters' columns."""
    if function is None:
        return lambda actual: _column(actual, dict(options))
    return _column(function, dict(options))


@overload
def batch(function: AnyFunction, /, **options: Unpack[BatchOptions]) -> Function: ...
@overload
def batch(function: None = None, /, **options: Unpack[BatchOptions]) -> Callable[[AnyFunction], Function]: ...
def batch(
    function: AnyFunction | None = None, /, **options: Unpack[BatchOptions]
) -> Function | Callable[[AnyFunction], Function]:
    """Make a column of a function of whole columns: called once per row group, with a Series per parameter.

    A function whose only parameter is `frame` gets a DataFrame of the columns that `needs` names. It returns one value
    per row: a Series, a list, an array, or a DataFrame that has the column.

    With `allow_resize` it gets, as `frame`, all columns before it, and returns a DataFrame of those and its own with
    any number of rows. The whole recipe then runs column by column; a Workflow is usually better.

    A `stateful` function is called for one row group at a time, in order, and may keep state between calls. It is not
    called for a row group without live rows.
    """
    if function is None:
        return lambda actual: _column(actual, {**options, "whole": True})
    return _column(function, {**options, "whole": True})


def _column(function: AnyFunction, options: dict[str, Any]) -> Function:
    if not callable(function):
        raise RecipeError("column", f"{shown(function)} is not a function")
    name = options.pop("name", None) or getattr(function, "__name__", None)
    if name is None or name == "<lambda>":
        raise RecipeError("column", "a function without a name needs name=...")
    parameters = _parameters(name, function)
    return Function(name, _needs(name, function, parameters, options), function=function, **options)


def _needs(name: str, function: AnyFunction, parameters: list[str], options: dict[str, Any]) -> list[str]:
    """Return the columns that the function needs, and take `needs` out of the options."""
    needs: list[str] | None = options.pop("needs", None)
    if needs is not None and not (isinstance(needs, list) and all(isinstance(need, str) for need in needs)):
        raise RecipeError(f"columns.{name}.needs", f"takes a list of column names, not {shown(needs)}")
    as_frame = bool(options.get("whole")) and takes_frame(function)
    if options.get("allow_resize"):
        if not as_frame:
            raise RecipeError(f"columns.{name}", "with allow_resize, the function takes one parameter called frame")
        return needs or []
    if as_frame and needs is None:
        raise RecipeError(f"columns.{name}", "a function of a frame needs a list of columns: batch(needs=[...])")
    if needs is not None and not as_frame and len(needs) != len(parameters):
        problem = (
            f"the function has {len(parameters)} parameters for needs={needs}; write one parameter per need, or a"
            " single one called frame"
        )
        raise RecipeError(f"columns.{name}", problem)
    return parameters if needs is None else needs


def _parameters(name: str, function: AnyFunction) -> list[str]:
    """Return the parameters without a default; raises RecipeError for those that cannot name columns."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise RecipeError(f"columns.{name}", "a generator has no single value; write a function that returns one")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        problem = "its parameters cannot be read; wrap it in a function whose parameters name columns"
        raise RecipeError(f"columns.{name}", problem) from None
    for parameter in parameters:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise RecipeError(f"columns.{name}", f"*{parameter.name} does not name a column; list every parameter")
    return [p.name for p in parameters if p.default is p.empty]
