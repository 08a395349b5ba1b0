"""A run of plain functions on a loop with a virtual clock: the engine's parts, put together as a run does it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from rowloop.engine.columns.work import Await, Fill
from rowloop.engine.core.events import Restored
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.policy import ErrorBudget, Policies, RetryPolicy
from rowloop.engine.core.row_groups import Plan
from rowloop.engine.core.store import Store
from rowloop.engine.core.tracker import Tracker
from rowloop.engine.runs.diagnostics import Diagnostics
from rowloop.engine.runs.local_executor import LocalExecutor
from rowloop.engine.runs.scheduler import Scheduler
from rowloop.runtime.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from rowloop.engine.core.events import Tally
    from rowloop.engine.core.permits import PermitsOf
    from rowloop.engine.core.store import RowGroup
    from rowloop.engine.telemetry.observer import Observer


class Nowhere:
    """A sink that takes everything, at once or after so many seconds."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    async def restore(self, group: RowGroup) -> Restored:
        """Have nothing of an earlier run."""
        return Restored(group.id, [], {}, [])

    def discard(self, group: int, tally: Tally | None) -> None:
        """Keep nothing."""

    async def commit(self, group: RowGroup, rows: Sequence[int], tally: Tally) -> None:  # noqa: ARG002 - a sink's signature
        """Take the rows."""
        await asyncio.sleep(self._seconds)


class WatchedSeldom(Diagnostics):
    """Diagnostics that sample the load less often: ten times a second is much for a virtual day."""

    sample_seconds = 10.0


class VirtualRun:
    """A column `n` of row numbers, and one column after the other that awaits functions of it; each has a model."""

    def __init__(  # noqa: PLR0913 - each is something that some test wants to be another
        self,
        *calls: Callable[[int], Awaitable[Any]],
        rows: int,
        row_group_size: int = 1000,
        parallel: int = 4,
        retry: RetryPolicy | None = None,
        budget: ErrorBudget | None = None,
        writing: float = 0.0,
        trace: bool = False,
        permits: PermitsOf | None = None,
        memory: int | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        """Put the parts together."""
        nodes = [Node("n", strategy="whole")]
        nodes += [Node(f"c{i}", ("n",), lane=Lane(f"openai:m{i}", parallel)) for i in range(len(calls))]
        self.graph = compile_graph(nodes)
        policies = Policies(retry or RetryPolicy(), budget or ErrorBudget(rate=None), permits=permits)
        self.tracker = Tracker(self.graph, Plan(rows, row_group_size, memory=memory), policies)
        self.diagnostics = WatchedSeldom(
            self.tracker, {i + 1: f"m{i}" for i in range(len(calls))}, len(nodes), trace=trace
        )
        store, self._threads = Store(self.graph), Threads(1)
        works = [Fill(lambda start, rows: range(start, start + rows)), *map(Await, calls)]
        executor = LocalExecutor(self.graph, works, store, self._threads)
        observers = [*self.diagnostics.observers, *observers]
        self.scheduler = Scheduler(self.tracker, executor, store, Nowhere(writing), observers)
        self.warnings: list[tuple[float, str]] = []
        self.elapsed = 0.0

    async def __call__(self, stall_after: float | None = None, slow_request_after: float | None = None) -> str | None:
        """Run to the end; what was warned of, with the virtual time, is in `warnings` then."""
        time = asyncio.get_running_loop().time
        handler = logging.Handler()
        handler.emit = lambda record: self.warnings.append((time(), record.getMessage()))  # type: ignore[method-assign]
        logger = logging.getLogger("rowloop")
        logger.addHandler(handler)
        self.diagnostics.begin(self.scheduler, stall_after, slow_request_after)
        began = time()
        try:
            return await self.scheduler.run()
        finally:
            self.elapsed = time() - began
            self.diagnostics.end()
            self._threads.close()
            logger.removeHandler(handler)
