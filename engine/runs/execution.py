"""One run, from a compiled recipe to a Result: connect, bind, schedule, and tell how it ended, on every way out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from ...runtime.threads import Threads
from ..columns.column import Binding
from ..columns.work import Nothing
from ..core.errors import DatasetGenerationError, RowloopError
from ..core.row_groups import Plan
from ..core.store import Store
from ..core.tracker import Tracker
from ..datasets.reading import read_result
from ..datasets.result import PartialDatasetError
from ..models.provider import providers
from ..models.response_cache import ResponseCache
from ..processors.processor import overriding
from .bookkeeping import Account
from .budget import cost_budget
from .executor import Executor
from .scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from ...runtime import Runtime
    from ..columns.work import Work
    from ..compiler.compiling import Compiled
    from ..core.events import Reason
    from ..core.row_groups import Earlier
    from ..datasets.metadata import Metadata, Status
    from ..datasets.result import Result
    from ..datasets.sinks import Sink
    from ..datasets.tables import Tables
    from ..models.provider import ChatModel
    from ..telemetry.progress import Display, ProgressSnapshot
    from ..telemetry.report import Report
    from .settings import Settings

_THREADS = 64
"""The most threads of one run, however many synchronous functions it has."""

logger = logging.getLogger("rowloop")


class Execution:
    """One run. `run` does it, once; `snapshot` looks at it and `halt` ends it, from any thread."""

    def __init__(self, compiled: Compiled, settings: Settings, sink: Sink, earlier: Earlier) -> None:
        """Set everything up; nothing starts."""
        plan = Plan(settings.rows, settings.row_group_size, earlier=earlier)
        self._compiled = compiled
        self._settings = settings
        self._sink = sink
        cost = cost_budget(compiled, settings, sink.spent)
        self._tracker = Tracker(compiled.graph, plan, settings.retry, settings.error_budget, cost)
        self._account = Account(compiled, settings, self._tracker, sink)
        self._scheduler: Scheduler | None = None
        self._cache: ResponseCache | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._halt_asked = False

    async def run(self, runtime: Runtime, tables: Tables) -> Result:
        """Work until the run has ended; raises what it failed of, a RowloopError or a cancellation.

        Before anything is raised, all in flight has been cancelled and awaited, the display is gone, and the metadata
        says how it ended.
        """
        self._loop = asyncio.get_running_loop()
        try:
            if self._sink.finished and self._sink.path is not None:
                return self._conclude(read_result(self._sink.path))
            connected = await self._connect(runtime)
            await self._sink.begin(tables)
            try:
                reason = await self._work(connected)
                if reason in {None, "early_shutdown"}:
                    await self._after_generation()
                self._account.stop_clock()
                failed = self._account.error(reason)
                status = "failed" if failed else self._account.status(reason)
                metadata, failures = await self._describe(status, failed)
            except BaseException as error:
                self._account.stop_clock()
                status = "cancelled" if isinstance(error, asyncio.CancelledError) else "failed"
                try:
                    await self._describe_failure(status, error)
                finally:
                    self._log(self._account.report(status, error, self._hits))
                if isinstance(error, Exception) and not isinstance(error, RowloopError):
                    raise DatasetGenerationError(f"{type(error).__name__}: {error}", stage="engine") from error
                raise
            report = self._account.report(status, failed, self._hits)
            self._log(report)
            if failed is not None:
                raise failed
            return self._conclude(self._account.result(status, metadata, failures, report))
        finally:
            self._sink.close()
            if self._cache is not None:
                self._cache.close()

    def halt(self) -> None:
        """Ask for an end: what is in flight is cancelled, rows that are whole are committed."""
        self._halt_asked = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._halt_scheduler)

    def close_unless_begun(self) -> None:
        """Let go of what the run would have had to itself, if it was never begun."""
        if self._loop is None:
            self._sink.close()

    def snapshot(self) -> ProgressSnapshot:
        """Look at the run. Numbers are read while they change: each is right, their sum may be one off."""
        return self._account.snapshot()

    async def _connect(self, runtime: Runtime) -> dict[str, ChatModel]:
        """Connect the models that columns ask, if there is anything to ask.

        Until that has worked, nothing is written or removed.
        """
        connected: dict[str, ChatModel] = {}
        if not self._tracker.plan.left:
            return connected
        if self._settings.cache is not None:
            self._cache = ResponseCache(self._settings.cache)
        for alias in dict.fromkeys(self._compiled.model_of.values()):
            model = self._compiled.models[alias]
            connected[alias] = await providers.get(model.provider).connect(model, runtime)
        return connected

    async def _work(self, connected: Mapping[str, ChatModel]) -> Reason | None:
        compiled, threads = self._compiled, Threads(_THREADS)
        await self._describe("running", None)
        binding = Binding(self._settings.seed, threads, compiled.models, connected, self._cache)
        works: list[Work] = [column.bind(binding) for column in compiled.columns] if self._tracker.plan.left else []
        if compiled.before_batch is not None:
            from ..processors.applying import rewriting  # noqa: PLC0415 - it loads pandas

            works.append(rewriting(compiled.before_batch, threads, resize=compiled.engine == "sequential"))
        works += [Nothing()] * (len(compiled.graph.columns) - len(works))
        store = Store(compiled.graph)
        executor = Executor(compiled.graph, works, store, threads)
        scheduler = Scheduler(self._tracker, executor, store, self._sink, self._account.observers)
        self._scheduler = scheduler
        if self._halt_asked:
            asyncio.get_running_loop().call_soon(scheduler.halt)
        display: Display | None = self._settings.progress
        self._account.begin(scheduler, store)
        try:
            with contextlib.nullcontext() if display is None else display(self.snapshot):
                return await scheduler.run()
        finally:
            self._account.end()
            threads.close()

    async def _after_generation(self) -> None:
        processors = overriding(self._compiled.processors, "after_generation")
        if processors and self._tracker.totals.committed and not self._sink.rewritten:
            from ..processors.applying import changing  # noqa: PLC0415 - it loads pandas

            await self._sink.rewrite(changing(processors), self._settings.row_group_size)

    def _halt_scheduler(self) -> None:
        if self._scheduler is not None:
            self._scheduler.halt()

    # How it ended

    @property
    def _hits(self) -> int:
        return 0 if self._cache is None else self._cache.hits

    def _conclude(self, result: Result) -> Result:
        """Give the result, or raise that too little came of the run."""
        wanted = self._settings.min_completion
        if wanted is not None and self._tracker.totals.committed < wanted * self._settings.rows:
            raise PartialDatasetError(result, wanted)
        return result

    def _log(self, report: Report) -> None:
        """Tell how the run ended: the last thing it logs, whichever way out it takes."""
        where = "" if self._sink.path is None else f"\n  written to {self._sink.path}{self._how_to_go_on()}"
        logger.log(logging.INFO if report.status == "complete" else logging.WARNING, "%s%s", report, where)

    def _how_to_go_on(self) -> str:
        """Say what to call for the rows that are missing."""
        totals, plan = self._tracker.totals, self._tracker.plan
        call = f'build("{self._sink.path}", {plan.rows}, resume="always"'
        if self._sink.rewritten:  # after_generation has changed the rows, so there is no way back
            return ""
        if totals.cut_short or totals.groups_over < plan.row_groups:
            return f"\n  go on with it: {call})"
        return f"\n  work again what failed: {call}, retry_failed=True)" if totals.dropped else ""

    async def _describe_failure(self, status: Status, error: BaseException) -> None:
        """Keep how things stand; where that fails as well, it is a note on the error that came first."""
        try:
            await self._describe(status, error)
        except DatasetGenerationError as second:
            if second is not error:
                error.add_note(str(second))

    async def _describe(self, status: Status, error: BaseException | None) -> tuple[Metadata, pd.DataFrame]:
        """Have the sink keep how things stand."""
        metadata, failures = self._account.metadata(status, error), self._account.failures()
        await self._sink.describe(metadata, failures, None if status == "running" else self._account.traces)
        return metadata, failures
