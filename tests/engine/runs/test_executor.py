"""An executor is a protocol: a run takes one from outside, such as one that works its tasks elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rowloop.engine.core.events import Done, Execute, Failed, Failure, Restored
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.policy import Policies, RetryPolicy
from rowloop.engine.core.row_groups import Plan
from rowloop.engine.core.store import Store
from rowloop.engine.core.tracker import Tracker
from rowloop.engine.runs.executor import Placement
from rowloop.engine.runs.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rowloop.engine.core.events import Tally
    from rowloop.engine.core.store import RowGroup
    from rowloop.engine.runs.executor import Executor


class Elsewhere:
    """Works cells as another machine would: it takes a while, and the first attempt at row 3 is lost."""

    places = (Placement.ON_THE_SPOT, Placement.IN_TASK)

    def __init__(self, store: Store) -> None:
        self._store = store
        self.executed: list[tuple[int, int]] = []

    def work_now(self, run: Execute, /) -> Done | Failed:
        group = self._store.groups[run.group]
        group.values[run.column] = list(range(group.start, group.start + group.size))
        return Done(run.group, run.column, run.row)

    async def work(self, run: Execute, /) -> Done | Failed:
        await asyncio.sleep(1)
        group = self._store.groups[run.group]
        row = group.start + run.row
        self.executed.append((run.column, row))
        if row == 3 and self.executed.count((run.column, row)) == 1:
            return Failed(run.group, run.column, run.row, Failure("Lost", "the machine is gone", retryable=True))
        group.values[run.column][run.row] = row * 10
        return Done(run.group, run.column, run.row)

    def work_in_thread(self, run: Execute, ended: Callable[..., None], /) -> None:  # noqa: ARG002 - the protocol's
        raise AssertionError("no column is placed in a thread")

    def outcome(self, run: Execute, value: Any, error: BaseException | None, /) -> Done | Failed:  # noqa: ARG002 - the same
        raise AssertionError("no column is placed in a thread")


class Rows:
    """Keeps the rows that are committed."""

    def __init__(self) -> None:
        self.values: dict[int, Any] = {}

    async def restore(self, group: RowGroup) -> Restored:
        return Restored(group.id, [], {}, [])

    async def commit(self, group: RowGroup, rows: Sequence[int], tally: Tally) -> None:  # noqa: ARG002 - a sink's
        self.values.update({group.start + row: group.value(1, row) for row in rows})

    def discard(self, group: int, tally: Tally | None) -> None:  # noqa: ARG002 - a sink's
        raise AssertionError("every row group has rows")


def test_a_run_works_with_an_executor_from_outside(virtually):
    """Its results are committed, its failures are retried, and the lane's limit holds."""
    graph = compile_graph([Node("row", strategy="whole"), Node("y", ("row",), lane=Lane("elsewhere", 2))])
    store, rows = Store(graph), Rows()
    elsewhere = Elsewhere(store)
    executor: Executor = elsewhere
    tracker = Tracker(graph, Plan(5, 2), Policies(RetryPolicy(wait=lambda _: 0.5)))

    async def run() -> float:
        began = asyncio.get_running_loop().time()
        await Scheduler(tracker, executor, store, rows).run()
        return asyncio.get_running_loop().time() - began

    took = virtually(run())
    assert rows.values == {row: row * 10 for row in range(5)}
    assert sorted(elsewhere.executed) == [(1, 0), (1, 1), (1, 2), (1, 3), (1, 3), (1, 4)]
    assert tracker.totals.retries == 1
    assert took >= 3  # six attempts of a second, two at a time
