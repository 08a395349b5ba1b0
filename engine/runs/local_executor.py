"""LocalExecutor: works tasks in this process. The only place where exceptions are classified."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ...runtime.errors import CALLBACK_ERRORS
from ..columns.sizes import SMALL, size_of, size_of_all
from ..columns.storable import misfit
from ..columns.work import (
    Answer,
    Await,
    AwaitWhole,
    Beside,
    Fill,
    FillInThread,
    InThread,
    Nothing,
    Render,
    Resize,
    Rewrite,
)
from ..core.errors import CellError, DatasetGenerationError, Invalid, ModelError, writable
from ..core.events import WHOLE, Done, Failed, Failure, Resized
from ..core.store import plain
from .executor import Placement
from .foreign import judgement_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...runtime.threads import Threads
    from ..columns.storable import Check
    from ..columns.work import Work
    from ..core.events import Execute, Usage
    from ..core.graph import Graph
    from ..core.store import RowGroup, Store


class LocalExecutor:
    """Works tasks on the values in the store and stores their results."""

    def __init__(
        self,
        graph: Graph,
        works: Sequence[Work],
        store: Store,
        threads: Threads,
        checks: Sequence[Check | None] | None = None,
    ) -> None:
        """Take the works in the order of the graph's columns, and the checks of their values."""
        self._columns = graph.columns
        self._works = works
        self._store = store
        self._threads = threads
        self._beside = _beside(graph, works)
        self._checks = checks or [None] * len(works)
        self._needs = [column.needs for column in graph.columns]
        self._numbered = [isinstance(work, Render | Await) and work.numbered for work in works]
        self._vectors = {i for i, work in enumerate(works) if isinstance(work, Await) and work.vectors}
        self._as_lists = [not self._vectors.isdisjoint(needs) for needs in self._needs]
        self.places = [_place(work) for work in works]

    def work_now(self, run: Execute) -> Done | Failed:
        """Work a task on the spot."""
        work = self._works[run.column]
        group = self._store.groups[run.group]
        size = 0
        try:
            if type(work) is Render:
                value = work.render(*self._inputs(group, run))
                self._put(group, run, value)
                size = 0 if type(value) in SMALL else size_of(value)
            elif type(work) is Fill:
                group.values[run.column] = values = work.fill(group.start, group.size)
                size = size_of_all(values)
            elif type(work) is Beside:
                size = size_of(group.values[run.column][run.row])
        except CellError as error:
            return _failed(run, error)
        return Done(run.group, run.column, run.row, None, size)

    async def work(self, run: Execute) -> Done | Resized | Failed:
        """Work a task that is awaited. A cancellation that comes from outside the cell is passed on."""
        work = self._works[run.column]
        group = self._store.groups[run.group]
        try:
            if type(work) is Await:
                value = await work.call(*self._inputs(group, run))
                usage = self._put(group, run, value)
                if type(value) in SMALL:
                    return Done(run.group, run.column, run.row, usage)
                size = size_of(value.value if type(value) is Answer else value)
                return Done(run.group, run.column, run.row, usage, size)
            return await self._work_whole(group, run, work)
        except (CellError, ModelError) as error:
            return _failed(run, error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return _failed(run, error)
        except Exception as error:
            if type(work) is Await and work.foreign:
                return _failed(run, error)
            raise

    def work_in_thread(self, run: Execute, ended: Callable[[Execute, Any, BaseException | None], None]) -> None:
        """Work a task in a thread; `ended` is called in the loop's thread, and asks `outcome` what it was."""
        work = self._works[run.column]
        assert type(work) is InThread  # noqa: S101 - by its place
        inputs = self._inputs(self._store.groups[run.group], run)
        self._threads.submit(work.function, inputs, lambda value, error: ended(run, value, error))

    def outcome(self, run: Execute, value: Any, error: BaseException | None) -> Done | Failed:
        """Put away what came from a thread; raises what is not a fault of the cell (SystemExit, KeyboardInterrupt)."""
        if error is None:
            try:
                self._put(self._store.groups[run.group], run, value)
            except CellError as unfit:
                return _failed(run, unfit)
            return Done(run.group, run.column, run.row, None, size_of(value))
        if isinstance(error, CALLBACK_ERRORS):
            return _failed(run, error)
        raise error

    def _put(self, group: RowGroup, run: Execute, value: Any) -> Usage | None:
        """Store a value, and the one beside it, and return its usage; raises CellError for one that does not fit."""
        usage = None
        if type(value) is Answer:
            beside = self._beside[run.column]
            if beside is not None:
                text = value.beside  # no reason to fail a cell: halves of characters are written as escapes
                group.values[beside][run.row] = text if type(text) is not str or text.isascii() else writable(text)
            value, usage = value.value, value.usage
        check = self._checks[run.column]
        if check is not None and (expected := check(value)) is not None:
            raise self._unfit(run, expected, group.start + run.row, value, usage)
        group.values[run.column][run.row] = value
        return usage

    def _unfit(self, run: Execute, expected: str, row: int, value: Any, usage: Usage | None = None) -> CellError:
        """Make the error of a value that the table cannot hold, with the usage that it was paid with."""
        error = CellError()
        error.usage = usage
        error.__cause__ = DatasetGenerationError(
            misfit(expected, row, value), stage="column", column=self._columns[run.column].name, row_group=run.group
        )
        return error

    def _check_whole(self, group: RowGroup, run: Execute, rows: Sequence[int], values: Sequence[Any]) -> None:
        """Check the values of a whole column; raises CellError for the first one that does not fit."""
        check = self._checks[run.column]
        for row, value in zip(rows, values, strict=check is not None):
            if check is None:
                break
            if (expected := check(value)) is not None:
                raise self._unfit(run, expected, group.start + row, value)

    async def _work_whole(self, group: RowGroup, run: Execute, work: Work) -> Done | Resized:
        """Work a whole column for its live rows."""
        if type(work) is FillInThread:
            group.values[run.column] = values = await self._threads.call(work.fill, group.start, group.size)
            return Done(run.group, run.column, run.row, size=size_of_all(values))
        rows, needs = run.rows or (), self._columns[run.column].needs
        if type(work) is Rewrite:
            return await _rewrite(group, run, rows, work)
        given = self._whole_inputs(group, needs, rows)
        if type(work) is Resize:
            given = await work.call([self._columns[need].name for need in needs], given)
            self._check_whole(group, run, range(len(given[-1])), given[-1])
            return _replace(group, run, dict(zip((*needs, run.column), given, strict=True)))
        assert type(work) is AwaitWhole  # noqa: S101 - the other shapes are worked elsewhere
        values = await work.call(given, len(rows))
        self._check_whole(group, run, rows, values)
        group.values[run.column] = _spread(values, rows, [None] * group.size)
        return Done(run.group, run.column, WHOLE, rows=len(rows), size=size_of_all(values))

    def _inputs(self, group: RowGroup, run: Execute) -> list[Any]:
        values, row = group.values, run.row
        inputs = [values[need][row] for need in self._needs[run.column]]
        if self._as_lists[run.column]:
            inputs = [plain(value) for value in inputs]
        if self._numbered[run.column]:
            inputs.append(group.start + row)
        return inputs

    def _whole_inputs(self, group: RowGroup, needs: Sequence[int], rows: Sequence[int]) -> list[list[Any]]:
        given = [_live(group, need, rows) for need in needs]
        for i, need in enumerate(needs):
            if need in self._vectors:
                given[i] = [plain(value) for value in given[i]]
        return given


async def _rewrite(group: RowGroup, run: Execute, rows: Sequence[int], work: Rewrite) -> Done | Resized:
    """Change whole columns for their live rows, all or none of them."""
    given = [_live(group, column, rows) for column in work.columns]
    changed = await work.call(run.group, given)
    if len(changed[0]) != len(rows):
        return _replace(group, run, dict(zip(work.columns, changed, strict=True)))
    for column, values in zip(work.columns, changed, strict=True):
        group.values[column] = _spread(values, rows, list(group.values[column]))
    return Done(run.group, run.column, WHOLE, size=sum(map(size_of_all, changed)) - sum(map(size_of_all, given)))


def _replace(group: RowGroup, run: Execute, values: dict[int, list[Any]]) -> Resized:
    """Take new values for all columns that have any, and make room for those that have not begun."""
    group.size = len(values[next(iter(values))])
    size = sum(size_of_all(new) - size_of_all(group.values[column]) for column, new in values.items())
    for column in range(len(group.values)):
        if column in values:
            group.values[column] = values[column]
        elif group.values[column] is not None:
            group.values[column] = [None] * group.size
    return Resized(run.group, run.column, group.size, size=size)


def _live(group: RowGroup, column: int, rows: Sequence[int]) -> list[Any]:
    return [group.values[column][row] for row in rows]


def _spread(values: Sequence[Any], rows: Sequence[int], over: list[Any]) -> list[Any]:
    """Put the live rows' values in their places."""
    for row, value in zip(rows, values, strict=True):
        over[row] = value
    return over


def _beside(graph: Graph, works: Sequence[Work]) -> list[int | None]:
    """Give for each column the one that stands beside it, or None."""
    beside: list[int | None] = [None] * len(graph.columns)
    for column, work in zip(graph.columns, works, strict=True):
        if isinstance(work, Beside):
            beside[column.needs[0]] = column.id
    return beside


def _place(work: Work) -> Placement:
    if isinstance(work, Fill | Render | Beside | Nothing):
        return Placement.ON_THE_SPOT
    if isinstance(work, Await) and work.hedged:
        return Placement.HEDGED
    return Placement.IN_THREAD if isinstance(work, InThread) else Placement.IN_TASK


def _failed(run: Execute, error: BaseException) -> Failed:
    return Failed(run.group, run.column, run.row, failure_of(error), getattr(error, "usage", None))


def failure_of(error: BaseException) -> Failure:
    """Return what an exception means for its task and for all others.

    A ModelError states it. Exceptions of other people's code are judged by the adapters that know them.
    """
    if isinstance(error, ModelError):
        return Failure(
            error=f"{ModelError.__name__}({error.kind})",
            message=str(error),
            retryable=error.retryable,
            retry_after=error.retry_after,
            fatal=error.fatal,
            rate_limited=error.kind == "rate_limited",
            cause=error,
            kind=error.kind,
        )
    cause = error.__cause__ if isinstance(error, CellError) and error.__cause__ is not None else error
    judgement = judgement_of(cause)
    message = str(cause) if cause is error or str(error) == "" else f"{error}: {cause}"
    return Failure(
        type(cause).__name__,
        message,
        retryable=judgement is not None and judgement.retryable,
        rate_limited=judgement is not None and judgement.kind == "rate_limited",
        verdict=isinstance(cause, Invalid),
        cause=cause,
    )
