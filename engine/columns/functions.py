"""Columns that are Python functions, of a cell or of a whole row group; `cell` and `batch` make them.

The parameters without a default are the columns that the function needs. An asynchronous function runs on the
runtime's loop, where it can share clients; a synchronous one in a thread.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack, cast, overload

from pydantic import Field

from ..core.errors import RecipeError
from ..core.graph import Lane, Node, OnError
from ..core.spec import spec
from .work import Await, AwaitWhole, CellError, InThread, Resize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...runtime.threads import Threads
    from .column import Binding

AnyFunction: TypeAlias = Callable[..., Any]

_ARROW_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}
_ASYNC_PARALLEL = 128
_SYNC_PARALLEL = 16


@spec
class Function:
    """A column that a Python function fills. Made by `cell`, `batch` and `Recipe.column`.

    `max_parallel` is the most calls under way at once (default: 128 for an asynchronous function, 16 threads for a
    synchronous one). `dtype` is the type of its values (default: the return annotation, else what the first are).
    `stateful`: a batch function gets the row groups one at a time, in their order.
    """

    name: str
    needs: list[str]
    function: AnyFunction = Field(exclude=True, kw_only=True)
    whole: bool = Field(default=False, kw_only=True)
    allow_resize: bool = Field(default=False, kw_only=True)
    stateful: bool = Field(default=False, kw_only=True)
    max_parallel: int | None = Field(default=None, ge=1, kw_only=True)
    dtype: str | None = Field(default=None, kw_only=True)
    on_error: OnError = Field(default="drop", kw_only=True)
    type: Literal["function"] = Field(default="function", kw_only=True)

    def __post_init__(self) -> None:
        """Refuse a type that is none, and a state that cells cannot keep."""
        if self.stateful and not self.whole:
            raise ValueError("stateful is for functions of whole columns, as cells are worked side by side; use batch")
        if self.dtype is not None:
            import pyarrow as pa  # noqa: PLC0415 - not at import time

            try:
                pa.type_for_alias(cast("Any", self.dtype))
            except ValueError:
                raise ValueError(f"dtype='{self.dtype}' is no type; write int64, float64, string, bool ...") from None

    @property
    def parallel(self) -> int:
        """The most calls under way at once."""
        default = _ASYNC_PARALLEL if _is_asynchronous(self.function) else _SYNC_PARALLEL
        return default if self.max_parallel is None else self.max_parallel

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Queue in a lane of its own."""
        strategy: Literal["whole", "cell"] = "whole" if self.whole else "cell"
        lane = Lane(f"function {self.name}", self.parallel)
        return Node(self.name, tuple(self.needs), strategy, lane, self.on_error, stateful=self.stateful)

    def arrow_type(self) -> str | None:
        """Give `dtype`, else what the return annotation says of a cell."""
        if self.dtype is not None or self.whole:
            return self.dtype
        try:
            return _ARROW_TYPES.get(typing.get_type_hints(self.function).get("return", object))
        except (NameError, TypeError):
            return None  # annotations that cannot be resolved say nothing

    def bind(self, binding: Binding) -> Await | InThread | AwaitWhole | Resize:
        """Call on the loop or in a thread; what it raises is a fault of the cell."""
        asynchronous, function = _is_asynchronous(self.function), _positional(self)
        if not asynchronous:
            function = _synchronous(function)
        if self.allow_resize:
            return Resize(_resizing(self, function if asynchronous else _through(binding.threads, function)))
        if self.whole:
            return AwaitWhole(_on_frames(self, function if asynchronous else _through(binding.threads, function)))
        return Await(function, foreign=True) if asynchronous else InThread(function)


def _is_asynchronous(function: AnyFunction) -> bool:
    """Tell also of an object that is called, and of a partial."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _positional(column: Function) -> AnyFunction:
    """Give a function that takes the needs in their order, also where some are keyword-only."""
    function, needs = column.function, column.needs
    by_keyword = {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    first = next((i for i, need in enumerate(needs) if need in by_keyword), None)
    if first is None or _takes_frame(function):
        return function
    names = needs[first:]
    return lambda *values: function(*values[:first], **dict(zip(names, values[first:], strict=True)))


def _synchronous(function: AnyFunction) -> AnyFunction:
    """Refuse what only looks synchronous: nobody would await what it returns."""

    def call(*values: object) -> Any:
        value = function(*values)
        if type(value) is CoroutineType:
            value.close()
            raise TypeError("the function returned a coroutine; write it as an async def")
        return value

    return call


def _through(threads: Threads, function: AnyFunction) -> Callable[..., Awaitable[Any]]:
    return lambda *values: threads.call(function, *values)


def _on_frames(
    column: Function, call: Callable[..., Awaitable[Any]]
) -> Callable[[list[list[Any]], int], Awaitable[Sequence[Any]]]:
    """Hand a batch function Series (or one DataFrame, where its only parameter is `frame`) and check what it gives."""
    as_frame = _takes_frame(column.function)

    async def work(inputs: list[list[Any]], rows: int) -> Sequence[Any]:
        import pandas as pd  # noqa: PLC0415 - not at import time

        series = {need: pd.Series(values, name=need) for need, values in zip(column.needs, inputs, strict=True)}
        try:
            given = await (call(pd.DataFrame(series)) if as_frame else call(*series.values()))
        except Exception as error:
            raise CellError from error
        return _values(column, given, rows)

    return work


def _resizing(
    column: Function, call: Callable[..., Awaitable[Any]]
) -> Callable[[list[str], list[list[Any]]], Awaitable[list[list[Any]]]]:
    """Hand a resizing function the columns so far as a DataFrame, and check that it gives them back with its own."""

    async def work(names: list[str], inputs: list[list[Any]]) -> list[list[Any]]:
        import pandas as pd  # noqa: PLC0415 - not at import time

        try:
            given = await call(pd.DataFrame(dict(zip(names, inputs, strict=True))))
        except Exception as error:
            raise CellError from error
        if not isinstance(given, pd.DataFrame):
            raise CellError(f"the function gave a {type(given).__name__}; with allow_resize it gives a DataFrame")
        missing = [name for name in (*names, column.name) if name not in given.columns]
        if missing:
            raise CellError(f"the function gave a DataFrame without {', '.join(missing)}")
        return [given[name].tolist() for name in (*names, column.name)]

    return work


def _values(column: Function, given: object, rows: int) -> list[Any]:
    import pandas as pd  # noqa: PLC0415 - not at import time

    if isinstance(given, pd.DataFrame):
        if column.name not in given.columns:
            names = ", ".join(map(str, given.columns))
            raise CellError(f"the function gave a DataFrame without the column '{column.name}'; it has: {names}")
        given = given[column.name]
    if isinstance(given, str | bytes | dict) or not hasattr(given, "__len__") or not hasattr(given, "__iter__"):
        raise CellError(f"the function gave a {type(given).__name__}; expected a Series, a list or a DataFrame")
    values = given.tolist() if hasattr(given, "tolist") else list(given)
    if len(values) != rows:
        raise CellError(f"the function gave {len(values)} values for {rows} rows")
    return values


class FunctionOptions(TypedDict, total=False):
    """What `cell` and `batch` can be told.

    `name`: the column's, where it is not the function's. `needs`: the columns for the parameters, in their order, where
    those are not named after columns. `max_parallel`: the most calls at once. `dtype`: the Arrow type of the values,
    such as "int64", where the annotation does not say it. `on_error`: "drop" the row, "null" the cell, or "raise".
    """

    name: str | None
    needs: list[str] | None
    max_parallel: int | None
    dtype: str | None
    on_error: OnError


class BatchOptions(FunctionOptions, total=False):
    """What `batch` can be told beside that.

    `allow_resize`: the function changes the number of rows. `stateful`: it is called for one row group at a time, in
    their order.
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
    """Make a function of single values a column: called once per row, with the values of its parameters' columns."""
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
    """Make a function of whole columns a column: called once per row group, with a Series per parameter.

    A function whose only parameter is `frame` gets a DataFrame of the columns that `needs` names. It returns as many
    values as it got rows: a Series, a list, an array, or a DataFrame that has the column.

    With `allow_resize` it gets, as `frame`, all columns that come before it, and returns a DataFrame of those and its
    own with any number of rows. The whole recipe then runs column by column; Workflow is the better way.

    A `stateful` function is called for one row group at a time, in their order, and may keep what it likes from one to
    the next. A row group of which no row is left does not come to it.
    """
    if function is None:
        return lambda actual: _column(actual, {**options, "whole": True})
    return _column(function, {**options, "whole": True})


def _column(function: AnyFunction, options: dict[str, Any]) -> Function:
    if not callable(function):
        raise RecipeError("column", f"{function!r:.80} is no function")
    needs = options.pop("needs", None)
    name = options.pop("name", None) or getattr(function, "__name__", None)
    if name is None or name == "<lambda>":
        raise RecipeError("column", "a function without a name needs name=...")
    if needs is not None and not (isinstance(needs, list) and all(isinstance(need, str) for need in needs)):
        raise RecipeError(f"columns.{name}.needs", f"takes a list of column names, not {needs!r:.80}")
    found = _parameters(name, function)
    takes_frame = bool(options.get("whole")) and _takes_frame(function)
    if options.get("allow_resize"):
        if not takes_frame:
            raise RecipeError(f"columns.{name}", "with allow_resize, the function takes one parameter called frame")
        found = needs or []
    elif takes_frame and needs is None:
        raise RecipeError(f"columns.{name}", "a function of a frame says which columns it needs: batch(needs=[...])")
    if needs is not None and not takes_frame and len(needs) != len(found):
        problem = f"the function has {len(found)} parameters for needs={needs}; as many, or one called frame, will do"
        raise RecipeError(f"columns.{name}", problem)
    return Function(name, found if needs is None else needs, function=function, **options)


def _takes_frame(function: AnyFunction) -> bool:
    """Tell whether the only parameter without a default is `frame`."""
    return [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty] == ["frame"]


def _parameters(name: str, function: AnyFunction) -> list[str]:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise RecipeError(f"columns.{name}", "a generator gives no value of a cell; write a function that returns it")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        problem = "its parameters cannot be read; wrap it in a function whose parameters name columns"
        raise RecipeError(f"columns.{name}", problem) from None
    for parameter in parameters:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise RecipeError(f"columns.{name}", f"*{parameter.name} names no column; write the parameters out")
    return [p.name for p in parameters if p.default is p.empty]
