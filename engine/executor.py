"""The executor: one task in, one event out. The only place where exceptions are classified."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .errors import ModelError
from .events import WHOLE, Done, Failed, Failure
from .work import Answer, Await, AwaitWhole, CellError, Fill, Render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .events import Run
    from .graph import Graph
    from .store import Store
    from .work import Work

_TRANSIENT_STATUS = frozenset({408, 409, 425, 429})


class Executor:
    """Works tasks on the values in the store and puts what comes of them back there."""

    def __init__(self, graph: Graph, works: Sequence[Work], store: Store) -> None:
        """Take the works in the order of the graph's columns."""
        self._columns = graph.columns
        self._works = works
        self._store = store
        self.on_the_spot = [isinstance(work, Fill | Render) for work in works]

    def work_now(self, run: Run) -> Done | Failed:
        """Work a task on the spot."""
        work = self._works[run.column]
        group = self._store.groups[run.group]
        try:
            if type(work) is Render:
                values = group.values
                inputs = [values[need][run.row] for need in self._columns[run.column].needs]
                values[run.column][run.row] = work.render(*inputs)
            elif type(work) is Fill:
                group.values[run.column] = work.fill(group.start, group.size)
        except CellError as error:
            return Failed(run.group, run.column, run.row, failure_of(error))
        return Done(run.group, run.column, run.row)

    async def work(self, run: Run) -> Done | Failed:
        """Work a task that is awaited. A cancellation that comes from outside the cell is passed on."""
        work = self._works[run.column]
        group = self._store.groups[run.group]
        try:
            if type(work) is Await:
                values = group.values
                value = await work.call(*[values[need][run.row] for need in self._columns[run.column].needs])
                usage = None
                if type(value) is Answer:
                    value, usage = value.value, value.usage
                values[run.column][run.row] = value
                return Done(run.group, run.column, run.row, usage)
            if type(work) is AwaitWhole:
                await self._work_whole(run, work)
            return Done(run.group, run.column, WHOLE)
        except (CellError, ModelError, TimeoutError) as error:
            return Failed(run.group, run.column, run.row, failure_of(error), getattr(error, "usage", None))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return Failed(run.group, run.column, run.row, failure_of(error))

    async def _work_whole(self, run: Run, work: AwaitWhole) -> None:
        group = self._store.groups[run.group]
        rows = run.rows or ()
        inputs = [[group.values[need][row] for row in rows] for need in self._columns[run.column].needs]
        results = await work.call(inputs, len(rows))
        values: list[object] = [None] * group.size
        for row, result in zip(rows, results, strict=True):
            values[row] = result
        group.values[run.column] = values


def failure_of(error: BaseException) -> Failure:
    """Judge an exception: whether the task may succeed later, and whether every other will fail for the same reason."""
    if isinstance(error, ModelError):
        return Failure(
            error=f"{type(error).__name__}({error.kind})",
            message=str(error),
            retryable=error.retryable,
            retry_after=error.retry_after,
            fatal=error.fatal,
            rate_limited=error.kind == "rate_limited",
            cause=error,
        )
    cause = error.__cause__ if isinstance(error, CellError) and error.__cause__ is not None else error
    status = getattr(cause, "status_code", None)
    transient = isinstance(cause, ConnectionError | TimeoutError) or _is_transient(status)
    message = str(cause) if cause is error or str(error) == "" else f"{error}: {cause}"
    return Failure(type(cause).__name__, message, retryable=transient, rate_limited=status == 429, cause=cause)  # noqa: PLR2004


def _is_transient(status: object) -> bool:
    """Clients that users bring (openai, httpx) put the status on their errors."""
    return isinstance(status, int) and (status in _TRANSIENT_STATUS or status >= 500)  # noqa: PLR2004 - HTTP's own
