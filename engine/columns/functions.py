"""Function: a column that a Python function fills, a cell or a whole row group at a time.

The parameters without a default are the columns that the function needs. An asynchronous function runs on the
runtime's loop, where it can share clients; a synchronous one runs in a thread. `decorators.py` makes a Function of a
function.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from pydantic import Field

from ..core.errors import CellError
from ..core.graph import Lane, Node, OnError
from ..core.spec import spec
from .code_hash import code_of
from .column import Column
from .work import Await, AwaitWhole, InThread, Resize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...runtime.threads import Threads
    from .column import Binding

AnyFunction: TypeAlias = Callable[..., Any]

_ARROW_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}
_ASYNC_PARALLEL = 128
_SYNC_PARALLEL = 16


@spec
class Function(Column):
    """A column that a Python function fills. Made by `cell`, `batch` and `Recipe.column`.

    `max_parallel` is the most calls in flight at once (default: 128 for an asynchronous function, 16 threads for a
    synchronous one). `dtype` is the type of its values (default: the return annotation, else that of the first values).
    A `stateful` batch function gets the row groups one at a time, in order.
    """

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
        """Refuse an unknown dtype, and state for cells, which run concurrently."""
        if self.stateful and not self.whole:
            raise ValueError("stateful is for batch functions, because the cells of a column run concurrently")
        if self.dtype is not None:
            import pyarrow as pa  # noqa: PLC0415 - not at import time

            try:
                pa.type_for_alias(cast("Any", self.dtype))
            except ValueError:
                problem = f"dtype='{self.dtype}' is not an Arrow type; use int64, float64, string, bool ..."
                raise ValueError(problem) from None

    @property
    def parallel(self) -> int:
        """The most calls in flight at once."""
        default = _ASYNC_PARALLEL if _is_asynchronous(self.function) else _SYNC_PARALLEL
        return default if self.max_parallel is None else self.max_parallel

    @property
    def resizes(self) -> bool:
        """Whether the function may change the number of rows."""
        return self.allow_resize

    def identity(self) -> dict[str, Any]:
        """Add a hash of the function's code."""
        return {**super().identity(), **code_of(self.function)}

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Queue in a lane of its own."""
        strategy: Literal["whole", "cell"] = "whole" if self.whole else "cell"
        lane = Lane(f"function {self.name}", self.parallel)
        return Node(self.name, tuple(self.needs), strategy, lane, self.on_error, stateful=self.stateful)

    def arrow_type(self) -> str | None:
        """Return `dtype`, else the type of a cell function's return annotation."""
        if self.dtype is not None or self.whole:
            return self.dtype
        try:
            return _ARROW_TYPES.get(typing.get_type_hints(self.function).get("return", object))
        except (NameError, TypeError):
            return None  # an annotation that cannot be resolved

    def bind(self, binding: Binding) -> Await | InThread | AwaitWhole | Resize:
        """Call on the loop or in a thread. An exception of the function fails the cell."""
        asynchronous, function = _is_asynchronous(self.function), _positional(self)
        if not asynchronous:
            function = _synchronous(function)
        if self.allow_resize:
            return Resize(_resizing(self, function if asynchronous else _through(binding.threads, function)))
        if self.whole:
            return AwaitWhole(_on_frames(self, function if asynchronous else _through(binding.threads, function)))
        return Await(function, foreign=True) if asynchronous else InThread(function)


def takes_frame(function: AnyFunction) -> bool:
    """Return whether the only parameter without a default is `frame`."""
    return [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty] == ["frame"]


def _is_asynchronous(function: AnyFunction) -> bool:
    """Return whether a call gives a coroutine; also for callable objects and partials."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _positional(column: Function) -> AnyFunction:
    """Return a function that takes the needs in their order, also where some are keyword-only."""
    function, needs = column.function, column.needs
    by_keyword = {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    first = next((i for i, need in enumerate(needs) if need in by_keyword), None)
    if first is None or takes_frame(function):
        return function
    names = needs[first:]
    return lambda *values: function(*values[:first], **dict(zip(names, values[first:], strict=True)))


def _synchronous(function: AnyFunction) -> AnyFunction:
    """Refuse a coroutine that a synchronous function returns, since nobody would await it."""

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
    """Pass Series (or one DataFrame, where the only parameter is `frame`) and check the returned values."""
    as_frame = takes_frame(column.function)

    async def work(inputs: list[list[Any]], rows: int) -> Sequence[Any]:
        import pandas as pd  # noqa: PLC0415 - not at import time

        series = {need: pd.Series(values, name=need) for need, values in zip(column.needs, inputs, strict=True)}
        try:
            returned = await (call(pd.DataFrame(series)) if as_frame else call(*series.values()))
        except Exception as error:
            raise CellError from error
        return _values(column, returned, rows)

    return work


def _resizing(
    column: Function, call: Callable[..., Awaitable[Any]]
) -> Callable[[list[str], list[list[Any]]], Awaitable[list[list[Any]]]]:
    """Pass the columns so far as a DataFrame, and check that they are returned together with the function's own."""

    async def work(names: list[str], inputs: list[list[Any]]) -> list[list[Any]]:
        import pandas as pd  # noqa: PLC0415 - not at import time

        try:
            returned = await call(pd.DataFrame(dict(zip(names, inputs, strict=True))))
        except Exception as error:
            raise CellError from error
        if not isinstance(returned, pd.DataFrame):
            problem = f"the function returned a {type(returned).__name__}; with allow_resize it must return a DataFrame"
            raise CellError(problem)
        missing = [name for name in (*names, column.name) if name not in returned.columns]
        if missing:
            raise CellError(f"the function returned a DataFrame without {', '.join(missing)}")
        return [returned[name].tolist() for name in (*names, column.name)]

    return work


def _values(column: Function, returned: object, rows: int) -> list[Any]:
    """Read a batch function's values; raises CellError for anything but one value per row."""
    import pandas as pd  # noqa: PLC0415 - not at import time

    if isinstance(returned, pd.DataFrame):
        if column.name not in returned.columns:
            names = ", ".join(map(str, returned.columns))
            raise CellError(f"the function returned a DataFrame without the column '{column.name}'; it has: {names}")
        returned = returned[column.name]
    if (
        isinstance(returned, str | bytes | dict)
        or not hasattr(returned, "__len__")
        or not hasattr(returned, "__iter__")
    ):
        raise CellError(f"the function returned a {type(returned).__name__}; expected a Series, a list or a DataFrame")
    values = returned.tolist() if hasattr(returned, "tolist") else list(returned)
    if len(values) != rows:
        raise CellError(f"the function returned {len(values)} values for {rows} rows")
    return values
