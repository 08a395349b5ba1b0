"""One run, from a compiled recipe to a Result: connect, bind, schedule, and tell how it ended, on every way out."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from .binding import Binding
from .diagnostics import Diagnostics
from .errors import DatasetGenerationError, EarlyShutdownError, PartialDatasetError, RowloopError
from .executor import Executor
from .metadata import SCHEMA_VERSION, ColumnMetadata, Metadata, PartMetadata
from .models import providers
from .observe import Clock, FailureObserver, Spent, UsageObserver
from .processors import overriding
from .progress import ColumnProgress, ProgressSnapshot
from .report import Report
from .results import Result
from .scheduler import Scheduler
from .store import Store
from .threads import Threads
from .tracker import Plan, Tracker
from .work import Nothing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from ..runtime import Runtime
    from .binding import ColumnSpec
    from .events import Reason
    from .graph import Graph
    from .metadata import Status
    from .models import ChatModel, Model
    from .policy import ErrorBudget, RetryPolicy
    from .processing import Tables
    from .processors import BeforeBatch, Processor
    from .progress import Display
    from .scheduler import Observer
    from .sinks import Sink
    from .work import Work

_THREADS = 64
"""The most threads of one run, however many synchronous functions it has."""

logger = logging.getLogger("rowloop")


@dataclass(frozen=True, slots=True)
class Compiled:
    """A recipe that has been checked, as far as a run needs it. `model_of` names the model of a column that has one."""

    engine: Literal["async", "sequential"]
    columns: Sequence[ColumnSpec]
    resizing: Sequence[str]
    before_batch: BeforeBatch | None
    processors: Sequence[Processor]
    graph: Graph
    models: Mapping[str, Model]
    model_of: Mapping[int, str]
    description: dict[str, Any]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run has and a recipe has not."""

    rows: int
    seed: int
    row_group_size: int = 1000
    min_completion: float | None = None
    display: Display | None = None
    retry: RetryPolicy | None = None
    budget: ErrorBudget | None = None
    trace: bool = False
    stall_after: float | None = 30.0
    slow_request_after: float | None = 30.0


class Execution:
    """One run. `run` does it, once; `snapshot` looks at it and `halt` ends it, from any thread."""

    def __init__(self, compiled: Compiled, settings: Settings, sink: Sink) -> None:
        """Set everything up; nothing starts."""
        plan = Plan(settings.rows, settings.row_group_size)
        self._compiled = compiled
        self._settings = settings
        self._sink = sink
        self._tracker = Tracker(compiled.graph, plan, settings.retry, settings.budget)
        self._usage = UsageObserver(set(compiled.model_of))
        self._failures = FailureObserver(compiled.graph)
        self._diagnostics = Diagnostics(self._tracker, compiled.model_of, trace=settings.trace)
        self._clock = Clock()
        self._scheduler: Scheduler | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._halt_asked = False

    async def run(self, runtime: Runtime, tables: Tables) -> Result:
        """Work until the run has ended; raises what it failed of, a RowloopError or a cancellation.

        Before anything is raised, all in flight has been cancelled and awaited, the display is gone, and the metadata
        says how it ended.
        """
        self._loop = asyncio.get_running_loop()
        try:
            connected = await self._connect(runtime)
            await self._sink.begin(tables)
            try:
                reason = await self._work(connected)
                if reason in {None, "early_shutdown"}:
                    await self._after_generation()
            except BaseException as error:
                self._clock.stop()
                status: Status = "cancelled" if isinstance(error, asyncio.CancelledError) else "failed"
                await self._describe_failure(status, error)
                self._log(self._report(status, error))
                if isinstance(error, Exception) and not isinstance(error, RowloopError):
                    raise DatasetGenerationError(f"{type(error).__name__}: {error}", stage="engine") from error
                raise
            self._clock.stop()
            return await self._conclude(reason)
        finally:
            self._sink.close()

    def halt(self) -> None:
        """Ask for an end: what is in flight is cancelled, rows that are whole are committed."""
        self._halt_asked = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._halt_scheduler)

    def snapshot(self) -> ProgressSnapshot:
        """Look at the run. Numbers are read while they change: each is right, their sum may be one off."""
        totals, plan = self._tracker.totals, self._tracker.plan
        columns = [
            ColumnProgress(column.name, plan.rows, count.completed, count.failed, count.skipped, count.running)
            for column, count in zip(self._compiled.columns, totals.columns, strict=False)  # not the processors' own
        ]
        return ProgressSnapshot(
            target=plan.rows,
            committed=totals.committed,
            dropped=totals.dropped,
            row_groups=plan.row_groups,
            row_groups_committed=totals.groups_over,
            columns=tuple(columns),
            running=totals.running,
            waiting_to_retry=totals.waiting_to_retry,
            retries=totals.retries,
            requests=self._usage.total.requests,
            prompt_tokens=self._usage.total.prompt_tokens,
            completion_tokens=self._usage.total.completion_tokens,
            elapsed=self._clock.elapsed,
        )

    async def _connect(self, runtime: Runtime) -> dict[str, ChatModel]:
        """Connect the models that columns ask; until that has worked, nothing is written or removed."""
        connected: dict[str, ChatModel] = {}
        for alias in dict.fromkeys(self._compiled.model_of.values()):
            model = self._compiled.models[alias]
            connected[alias] = await providers.get(model.provider).connect(model, runtime)
        return connected

    async def _work(self, connected: Mapping[str, ChatModel]) -> Reason | None:
        compiled, threads = self._compiled, Threads(_THREADS)
        await self._describe("running", None)
        binding = Binding(self._settings.seed, threads, compiled.models, connected)
        works: list[Work] = [column.bind(binding) for column in compiled.columns]
        if compiled.before_batch is not None:
            from .processing import rewriting  # noqa: PLC0415 - it loads pandas

            works.append(rewriting(compiled.before_batch, threads, resize=compiled.engine == "sequential"))
        works += [Nothing()] * (len(compiled.graph.columns) - len(works))
        store = Store(compiled.graph)
        executor = Executor(compiled.graph, works, store, threads)
        observers: list[Observer] = [self._usage, self._failures] if compiled.model_of else [self._failures]
        observers += self._diagnostics.observers
        scheduler = Scheduler(self._tracker, executor, store, self._sink, observers)
        self._scheduler = scheduler
        if self._halt_asked:
            asyncio.get_running_loop().call_soon(scheduler.halt)
        display = self._settings.display
        self._diagnostics.begin(scheduler, self._settings.stall_after, self._settings.slow_request_after)
        try:
            with contextlib.nullcontext() if display is None else display(self.snapshot):
                return await scheduler.run()
        finally:
            self._diagnostics.end()
            threads.close()

    async def _after_generation(self) -> None:
        processors = overriding(self._compiled.processors, "after_generation")
        if processors and self._tracker.totals.committed:
            from .processing import changing  # noqa: PLC0415 - it loads pandas

            await self._sink.rewrite(changing(processors), self._settings.row_group_size)

    def _halt_scheduler(self) -> None:
        if self._scheduler is not None:
            self._scheduler.halt()

    # How it ended

    async def _conclude(self, reason: Reason | None) -> Result:
        """Give the result, or raise what the run failed of.

        A run is complete when every row was worked to its end, whatever processors made of the rows then.
        """
        totals = self._tracker.totals
        completed = totals.committed
        status: Status = "cancelled" if reason == "cancelled" else "complete"
        if status == "complete" and (reason is not None or totals.dropped):
            status = "partial"
        error = self._error(reason, completed)
        metadata, failures = await self._describe("failed" if error else status, error)
        report = self._report("failed" if error else status, error)
        self._log(report)
        if error is not None:
            raise error
        result = Result(
            status=status,
            target=self._settings.rows,
            actual=self._actual(),
            dropped=self._tracker.totals.dropped,
            usage=self._usage.total,
            failures=failures,
            elapsed=self._clock.elapsed,
            path=self._sink.path,
            report=report,
            _metadata=metadata,
            _table=self._sink.table,
            _traces=self._diagnostics.traces,
        )
        wanted = self._settings.min_completion
        if wanted is not None and completed < wanted * self._settings.rows:
            raise PartialDatasetError(result, wanted)
        return result

    def _actual(self) -> int:
        return sum(part.rows for part in self._sink.parts)

    def _error(self, reason: Reason | None, completed: int) -> DatasetGenerationError | None:
        first = self._failures.first
        if reason == "failed" and first is not None:
            column = self._compiled.graph.columns[first.column].name
            error = DatasetGenerationError(first.failure.message, stage="column", column=column, row_group=first.group)
        elif completed == 0 and reason != "cancelled":
            cause = "" if first is None else f"; the first failure was in column '{self._name(first.column)}': "
            message = "" if first is None else f"{first.failure.error}: {first.failure.message}"
            error = EarlyShutdownError(f"no row was completed{cause}{message}")
        else:
            return None
        error.__cause__ = None if first is None else first.failure.cause
        return error

    def _name(self, column: int) -> str:
        return self._compiled.graph.columns[column].name

    def _log(self, report: Report) -> None:
        """Tell how the run ended: the last thing it logs, whichever way out it takes."""
        where = f"\n  written to {self._sink.path}" if self._sink.path else ""
        logger.log(logging.INFO if report.status == "complete" else logging.WARNING, "%s%s", report, where)

    def _report(self, status: Status, error: BaseException | None) -> Report:
        totals, usage, diagnostics = self._tracker.totals, self._usage, self._diagnostics
        return Report(
            status=status,
            target=self._settings.rows,
            actual=self._actual(),
            dropped=totals.dropped,
            elapsed=self._clock.elapsed,
            requests=usage.total.requests,
            prompt_tokens=usage.total.prompt_tokens,
            completion_tokens=usage.total.completion_tokens,
            retries=dict(diagnostics.requests.retries),
            failures=dict(self._failures.by_error),
            models=diagnostics.requests.models(usage.columns),
            slowest=diagnostics.requests.slowest(),
            load=diagnostics.load(self._clock.elapsed),
            error=_told(error),
        )

    async def _describe_failure(self, status: Status, error: BaseException) -> None:
        """Keep how things stand; where that fails as well, it is a note on the error that came first."""
        try:
            await self._describe(status, error)
        except DatasetGenerationError as second:
            error.add_note(str(second))

    async def _describe(self, status: Status, error: BaseException | None) -> tuple[Metadata, pd.DataFrame]:
        """Have the sink keep how things stand."""
        metadata, failures = self._metadata(status, error), self._failures.frame()
        await self._sink.describe(metadata, failures, None if status == "running" else self._diagnostics.traces)
        return metadata, failures

    def _metadata(self, status: Status, error: BaseException | None) -> Metadata:
        totals, settings, compiled = self._tracker.totals, self._settings, self._compiled
        parts = sorted(self._sink.parts, key=lambda part: part.row_group)
        return Metadata(
            schema_version=SCHEMA_VERSION,
            rowloop_version=importlib.metadata.version("rowloop"),
            kind=self._sink.kind,
            engine=compiled.engine,
            status=status,
            target_num_records=settings.rows,
            actual_num_records=self._actual(),
            dropped_num_records=totals.dropped,
            row_group_size=settings.row_group_size,
            seed=settings.seed,
            recipe_fingerprint=compiled.fingerprint,
            recipe=compiled.description,
            columns=[self._column_metadata(i) for i in range(len(compiled.columns))],
            parts=[PartMetadata(part.row_group, part.start, part.rows, part.file) for part in parts],
            row_groups_cut_short=sorted(totals.cut_short),
            early_shutdown=self._tracker.halted == "early_shutdown",
            error=_told(error),
            retries=totals.retries,
            failures=dict(self._failures.by_error),
            started_at=self._clock.started_at.isoformat(),
            finished_at=None if status == "running" else datetime.now(UTC).isoformat(),
            elapsed=self._clock.elapsed,
        )

    def _column_metadata(self, i: int) -> ColumnMetadata:
        count = self._tracker.totals.columns[i]
        spent = self._usage.columns.get(i, Spent())
        return ColumnMetadata(
            name=self._name(i),
            type=getattr(self._compiled.columns[i], "type", "seed"),
            completed=count.completed,
            failed=count.failed,
            skipped=count.skipped,
            requests=spent.requests,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
        )


def _told(error: BaseException | None) -> str | None:
    """Say what a run failed of; a cancellation is no failure."""
    if error is None or isinstance(error, asyncio.CancelledError):
        return None
    return f"{type(error).__name__}: {error}"
