"""Execution: one run from its workload to its result: connect, bind, schedule, and describe how it ended."""

from __future__ import annotations

import asyncio
import contextvars
import secrets
from typing import TYPE_CHECKING, Final

from ...runtime.threads import Threads
from ..columns.column import Binding
from ..core.errors import DatasetGenerationError, RowloopError
from ..core.events import Halted
from ..core.policy import Policies
from ..core.store import Store
from ..core.tracker import Tracker
from ..datasets.reading import read_result
from ..models.provider import providers
from ..models.response_cache import ResponseCache
from ..models.sharing import limit_keys, shared_limits
from ..telemetry.outside import OutsideObserver
from .bookkeeping import Account
from .budget import cost_budget
from .ending import advice_of, check_completion, error_of, log_end, status_of
from .local_executor import LocalExecutor
from .scheduler import Scheduler
from .serving import serving, show_end
from .showing import showing
from .steering import Steering

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from ...runtime import Runtime
    from ..core.events import Reason
    from ..core.row_groups import Plan
    from ..datasets.metadata import Metadata, Status
    from ..datasets.result import Result
    from ..datasets.tables import Tables
    from ..models.provider import ChatModel
    from ..telemetry.progress import ProgressSnapshot
    from ..telemetry.report import Report
    from .bookkeeping import Output
    from .facts import RecipeFacts
    from .settings import Settings
    from .workload import Workload

_THREADS: Final = 64
"""The most threads of one run, however many synchronous functions it has."""
_RENDERERS: Final = 2
"""The threads of one run for costly templates: they all contend for the GIL, with the loop too."""


class Execution:
    """One run. `run` works it, once; `snapshot`, `halt` and everything of `steering` may be called from any thread."""

    def __init__(self, workload: Workload, recipe: RecipeFacts, settings: Settings, output: Output, plan: Plan) -> None:
        """Prepare everything; nothing starts."""
        self._workload = workload
        self._settings = settings
        self._seed = recipe.seed
        self._sink = output.sink
        self._past = output.past
        self._place = output.place
        self._rewritten = output.past.rewritten
        caps = settings.max_cost, settings.max_tokens_total
        cost = None if caps == (None, None) else cost_budget(recipe, *caps, output.past.spent)
        self._limit_keys: dict[str, bytes] = {}
        permits = shared_limits.permits_of(settings.retry, self._limit_keys)
        policies = Policies(settings.retry, settings.error_budget, cost, permits, settings.outage_after)
        self._tracker = Tracker(workload.graph, plan, policies)
        self._account = Account(recipe, self._tracker, output, settings, workload.working)
        self.id = secrets.token_hex(6)
        self.steering = Steering(workload.graph, recipe, settings, self._account.spending)
        self._cache: ResponseCache | None = None
        self._scheduler: Scheduler | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._halting: Reason | None = None
        self._connecting: asyncio.Timeout | None = None

    async def run(self, runtime: Runtime, tables: Tables) -> Result:
        """Work until the run has ended; raises its error, a RowloopError or a cancellation.

        Before anything is raised, everything in flight has been cancelled and awaited, the display is closed, and the
        metadata describes the end.
        """
        self._context, self._loop = contextvars.copy_context(), asyncio.get_running_loop()
        deadline = self._set_deadline(self._loop)
        self.steering.begin()
        try:
            if self._past.finished and self._sink.path is not None:
                return self._checked(read_result(self._sink.path))
            connected = await self._connect_unless_halted(runtime)
            if self._halting == "deadline" and not self._account.rows:
                raise self._nothing_begun()
            await self._sink.begin(tables)
            try:
                reason = await self._work(connected)
                if reason is None:
                    await self._after_generation()
                self._account.stop_clock()
                failed = self._error(reason)
                status: Status = "failed" if failed else status_of(self._tracker, reason)
                metadata, failures = await self._describe(status, failed)
            except BaseException as error:
                await self._end_with(error)
                if isinstance(error, Exception) and not isinstance(error, RowloopError):
                    raise DatasetGenerationError(f"{type(error).__name__}: {error}", stage="engine") from error
                raise
            report = self._log(metadata)
            show_end(self._place, self.snapshot(), status)
            if failed is not None:
                raise failed
            return self._checked(self._account.result(metadata, failures, report))
        finally:
            if deadline is not None:
                deadline.cancel()
            self._sink.close()
            if self._cache is not None:
                self._cache.close()

    @property
    def path(self) -> Path | None:
        """The directory of the dataset; None for a preview."""
        return self._sink.path

    def halt(self) -> None:
        """End the run: what is in flight is cancelled, complete rows are committed."""
        self._halting = self._halting or "cancelled"
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._halt_here, "cancelled", context=self._context.copy())

    def close_unless_begun(self) -> None:
        """Release the directory of a run that was never begun."""
        if self._loop is None:
            self._sink.close()

    def snapshot(self) -> ProgressSnapshot:
        """Take a snapshot. Counts are read while they change: each is right, but their sum may be one off."""
        return self._account.snapshot()

    async def _connect_unless_halted(self, runtime: Runtime) -> dict[str, ChatModel]:
        """Connect the models; nothing is connected if the run is halted meanwhile."""
        if self._halting is not None:
            return {}
        try:
            async with asyncio.timeout(None) as self._connecting:
                return await self._connect(runtime)
        except TimeoutError:
            if self._connecting is None or not self._connecting.expired():
                raise
            return {}
        finally:
            self._connecting = None

    async def _connect(self, runtime: Runtime) -> dict[str, ChatModel]:
        """Connect the models, if there is any work left. Until that has succeeded, nothing is written or removed."""
        connected: dict[str, ChatModel] = {}
        if not self._tracker.plan.left:
            return connected
        if self._settings.cache is not None:
            self._cache = ResponseCache(self._settings.cache)
        models = self._workload.models
        for alias, model in models.items():
            connected[alias] = await providers.get(model.provider).connect(model, runtime)
        self._limit_keys |= limit_keys((models[alias].lane, model) for alias, model in connected.items())
        return connected

    async def _work(self, connected: Mapping[str, ChatModel]) -> Reason | None:
        graph, threads = self._workload.graph, Threads(_THREADS, context=self._context.copy())
        renderers = Threads(_RENDERERS, "rowloop-template", context=self._context.copy())
        await self._describe("running", None)
        if self._halting is not None:
            self._tracker.handle(Halted(self._halting))
            return self._halting
        outside = [OutsideObserver(observer) for observer in self._settings.observers]
        store = Store(graph)
        works = self._workload.bind(self._binding(connected, threads, renderers), threads)
        executor = LocalExecutor(graph, works, store, threads, self._workload.checks(works))
        # Outside observers come last: what they raise must not keep a value from the journal.
        observers = [*self._account.observers, *outside]
        scheduler = self._scheduler = Scheduler(self._tracker, executor, store, self._sink, observers)
        self.steering.take_over(scheduler)
        self._account.begin(scheduler, store)
        try:
            for observer in outside:
                observer.begin(graph, self._tracker.plan)
                scheduler.timers.every(observer.check_seconds, observer.check)
            with serving(self._place, self), showing(self._settings.progress, self.snapshot):
                return await scheduler.run()
        finally:
            for observer in outside:
                observer.check()
            self._account.end()
            threads.close()
            renderers.close()

    def _binding(self, connected: Mapping[str, ChatModel], threads: Threads, renderers: Threads) -> Binding | None:
        if not self._tracker.plan.left:
            return None
        rows = self._tracker.plan.rows
        return Binding(self._seed, threads, self._workload.models, connected, self._cache, rows, renderers)

    async def _after_generation(self) -> None:
        change = self._workload.after_generation
        if change is not None and self._tracker.totals.committed and not self._rewritten:
            await self._sink.rewrite(change, self._tracker.plan.row_group_size)
            self._rewritten = True

    def _set_deadline(self, loop: asyncio.AbstractEventLoop) -> asyncio.TimerHandle | None:
        seconds = self._settings.deadline
        return None if seconds is None else loop.call_later(seconds, self._halt_here, "deadline")

    def _halt_here(self, reason: Reason) -> None:
        """End the run, in the loop's thread, whatever it is doing."""
        self._halting = self._halting or reason
        if self._scheduler is not None:
            self._scheduler.halt(reason)
        elif self._connecting is not None and not self._connecting.expired():
            self._connecting.reschedule(0)

    # The end

    def _checked(self, result: Result) -> Result:
        return check_completion(result, self._tracker, self._settings.min_completion)

    def _error(self, reason: Reason | None) -> DatasetGenerationError | None:
        first, rows, deadline = self._account.failures.first, self._account.rows, self._settings.deadline
        return error_of(self._tracker, reason, first, rows=rows, deadline=deadline)

    def _nothing_begun(self) -> DatasetGenerationError:
        """Log the end of a run whose deadline came before anything was written, and return its error."""
        self._account.stop_clock()
        self._tracker.handle(Halted("deadline"))
        error = self._error("deadline")
        assert error is not None  # noqa: S101 - without rows
        log_end(self._account.report(self._account.metadata("failed", error)), None, "")
        return error

    async def _end_with(self, error: BaseException) -> None:
        """Describe and log the end of a run that raises an error."""
        self._account.stop_clock()
        status: Status = "cancelled" if isinstance(error, asyncio.CancelledError) else "failed"
        try:
            await self._describe(status, error)
        except DatasetGenerationError as second:
            if second is not error:  # the first error is raised, with a note on the second
                error.add_note(str(second))
        finally:
            show_end(self._place, self.snapshot(), status)
            self._log(self._account.metadata(status, error))

    async def _describe(self, status: Status, error: BaseException | None) -> tuple[Metadata, pd.DataFrame]:
        """Write the state of the run into the sink's directory."""
        metadata, failures = self._account.metadata(status, error), self._account.failures.frame()
        metadata = await self._sink.describe(metadata, failures, None if status == "running" else self._account.traces)
        return metadata, failures

    def _log(self, metadata: Metadata) -> Report:
        """Log the report of the run and return it."""
        report = self._account.report(metadata, 0 if self._cache is None else self._cache.hits)
        # After after_generation, no row can be added or retried.
        advice = "" if self._rewritten else advice_of(self._tracker, self._sink.path)
        log_end(report, self._sink.path, advice)
        return report
