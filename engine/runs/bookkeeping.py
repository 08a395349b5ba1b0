"""The account of a run: what it has come to, told as a snapshot, as metadata.json, as a report and as its Result."""

from __future__ import annotations

import asyncio
import importlib.metadata
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..core.errors import DatasetGenerationError, EarlyShutdownError
from ..datasets.metadata import SCHEMA_VERSION, ColumnMetadata, Metadata, PartMetadata
from ..datasets.result import Result
from ..telemetry.failures import Clock, FailureObserver
from ..telemetry.progress import ColumnProgress, ProgressSnapshot
from ..telemetry.report import Report
from ..telemetry.spending import Spent, StructuredCounts, UsageObserver, added_up, by_model, known_cost
from ..telemetry.stalls import LongWaits
from .budget import prices_of
from .diagnostics import Diagnostics

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from ..compiler.compiling import Compiled
    from ..core.events import Reason
    from ..core.store import Store
    from ..core.tracker import Tracker
    from ..datasets.metadata import Status
    from ..datasets.sinks import Sink
    from ..telemetry.observer import Observer
    from ..telemetry.spending import Spending
    from ..telemetry.traces import Traces
    from .scheduler import Scheduler
    from .settings import Settings


_LOOK_SECONDS = 0.5
"""How often a run looks whether its journal could be written."""


class Account:
    """The account of one run, kept by observers of it. Reading it changes nothing."""

    def __init__(self, compiled: Compiled, settings: Settings, tracker: Tracker, sink: Sink) -> None:
        """Take what there is to look at."""
        self._compiled = compiled
        self._settings = settings
        self._tracker = tracker
        self._sink = sink
        self._earlier = sink.spent
        self._earlier_rows = self._actual()
        self._usage = UsageObserver(prices_of(compiled), sink.spent)
        keep = None if sink.journaling is None else sink.journaling.keep
        self._failures = FailureObserver(compiled.graph, list(sink.failures), keep)
        self._diagnostics = Diagnostics(tracker, compiled.model_of, compiled.working, trace=bool(settings.trace))
        self._clock = Clock()

    @property
    def observers(self) -> list[Observer]:
        """Those who have to see every event of the run."""
        longest = self._settings.retry.longest_wait
        asked: list[Observer] = (
            [self._usage, LongWaits(self._compiled.graph, longest)] if self._compiled.model_of else []
        )
        journaling: list[Observer] = [] if self._sink.journaling is None else [self._sink.journaling]
        return [*asked, self._failures, *self._diagnostics.observers, *journaling]

    def spending(self) -> Spending:
        """Tell what this run and those before it have spent."""
        retries, seconds = self._tracker.totals.retries, self._clock.elapsed
        return self._usage.spending(self._earlier.retries + retries, self._earlier.seconds + seconds)

    @property
    def traces(self) -> Traces | None:
        """What has been traced so far; None where nothing is."""
        return self._diagnostics.traces

    def begin(self, scheduler: Scheduler, store: Store) -> None:
        """Look at the run from time to time, in the loop's thread."""
        if self._sink.journaling is not None:
            self._sink.journaling.begin(store, self.spending)
            scheduler.every(_LOOK_SECONDS, self._sink.journaling.look)
        self._diagnostics.begin(scheduler, self._settings.stall_after, self._settings.slow_request_after)

    def end(self) -> None:
        """See how busy the loop was; called in its thread."""
        self._diagnostics.end()

    def stop_clock(self) -> None:
        """Take no more time into account: the run is over."""
        self._clock.stop()

    def snapshot(self) -> ProgressSnapshot:
        """Look at the run. Numbers are read while they change: each is right, their sum may be one off."""
        totals, plan, spent = self._tracker.totals, self._tracker.plan, added_up(self._usage.columns().values())
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
            rate_limited={
                lane.name: max(0.0, self._clock.elapsed - lane.refused_since)
                for lane in self._tracker.lanes
                if lane.refused_since is not None
            },
            retries=totals.retries,
            requests=spent.requests,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            elapsed=self._clock.elapsed,
            cost=spent.cost,
        )

    def status(self, reason: Reason | None) -> Status:
        """Say how a run that did not fail has ended.

        It is complete when every row was worked to its end, whatever processors made of the rows then.
        """
        if reason == "cancelled":
            return "cancelled"
        totals = self._tracker.totals
        all_over = reason is None or (reason == "budget" and totals.groups_over == self._tracker.plan.row_groups)
        return "complete" if all_over and not (totals.dropped or totals.cut_short) else "partial"

    def error(self, reason: Reason | None) -> DatasetGenerationError | None:
        """Say what a run failed of that the scheduler was through with; None if it did not."""
        first = self._failures.first
        if reason == "failed" and first is not None:
            column = self._name(first.column)
            error = DatasetGenerationError(first.failure.message, stage="column", column=column, row_group=first.group)
        elif not (self._tracker.totals.committed or self._actual()) and reason != "cancelled":
            cause = "" if first is None else f"; the first failure was in column '{self._name(first.column)}': "
            message = "" if first is None else f"{first.failure.error}: {first.failure.message}"
            spent = "; max_cost or max_tokens_total is spent" if reason == "budget" else ""
            error = EarlyShutdownError(f"no row was completed{spent}{cause}{message}")
        else:
            return None
        error.__cause__ = None if first is None else first.failure.cause
        return error

    def failures(self) -> pd.DataFrame:
        """Give the failures table: a line for each cell that failed for good."""
        return self._failures.frame()

    def metadata(self, status: Status, error: BaseException | None) -> Metadata:
        """Tell it so that it can be understood and repeated."""
        totals, settings, compiled = self._tracker.totals, self._settings, self._compiled
        spent = self._usage.columns_of_all_runs()
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
            columns=self._columns_metadata(spent),
            parts=[PartMetadata(part.row_group, part.start, part.rows, part.file) for part in parts],
            row_groups_cut_short=sorted(totals.cut_short),
            early_shutdown=self._tracker.halted == "early_shutdown",
            budget_spent=self._tracker.halted == "budget",
            error=_told(error),
            retries=self._earlier.retries + totals.retries,
            failures=dict(self._failures.by_error),
            cost=added_up(spent.values()).cost,
            started_at=self._clock.started_at.isoformat(),
            finished_at=None if status == "running" else datetime.now(UTC).isoformat(),
            elapsed=self._earlier.seconds + self._clock.elapsed,
        )

    def _columns_metadata(self, spent: Mapping[int, Spent]) -> list[ColumnMetadata]:
        structured = self._structured()
        return [
            self._column_metadata(i, spent.get(i, Spent()), structured.get(column.name))
            for i, column in enumerate(self._compiled.columns)
        ]

    def _column_metadata(self, i: int, spent: Spent, structured: StructuredCounts | None) -> ColumnMetadata:
        count = self._tracker.totals.columns[i]
        return ColumnMetadata(
            name=self._name(i),
            type=self._compiled.columns[i].type,
            model=self._compiled.model_of.get(i),
            completed=count.completed,
            failed=count.failed,
            skipped=count.skipped,
            requests=spent.requests,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            cost=spent.cost,
            structured=structured,
        )

    def _structured(self) -> dict[str, StructuredCounts]:
        """Give the counts of all structured columns, also of those that were not asked for anything yet."""
        counted = self._usage.structured_of_all_runs()
        columns = enumerate(self._compiled.columns)
        return {c.name: counted.get(i, StructuredCounts()) for i, c in columns if c.obeys_schema}

    def report(self, status: Status, error: BaseException | None, cached: int = 0) -> Report:
        """Tell it in a few lines; `cached` requests were answered by the response cache."""
        totals, columns, diagnostics = self._tracker.totals, self._usage.columns(), self._diagnostics
        spent = added_up(columns.values())
        return Report(
            status=status,
            target=self._settings.rows,
            actual=self._actual(),
            dropped=totals.dropped,
            elapsed=self._clock.elapsed,
            requests=spent.requests,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            retries=dict(diagnostics.requests.retries),
            failures=dict(self._failures.by_error),
            models=diagnostics.requests.models(self._by_model(columns)),
            slowest=diagnostics.requests.slowest(),
            load=diagnostics.load(self._clock.elapsed),
            error=_told(error),
            cost=spent.cost,
            known_cost=known_cost(columns.values()),
            earlier=self._earlier_rows,
            budget_spent=self._tracker.halted == "budget",
            cached=cached,
            structured={self._name(i): counts for i, counts in self._usage.structured().items()},
        )

    def result(self, status: Status, metadata: Metadata, failures: pd.DataFrame, report: Report) -> Result:
        """Give what the user gets."""
        columns = self._usage.columns_of_all_runs()
        return Result(
            status=status,
            target=self._settings.rows,
            actual=self._actual(),
            dropped=self._tracker.totals.dropped,
            usage=added_up(columns.values()),
            usage_by_column={self._name(i): spent for i, spent in columns.items()},
            usage_by_model=self._by_model(columns),
            structured_by_column=self._structured(),
            failures=failures,
            elapsed=self._clock.elapsed,
            path=self._sink.path,
            report=report,
            _metadata=metadata,
            _table=self._sink.table,
            limits={lane: list(changes) for lane, changes in self._tracker.limits.items()},
            _traces=self.traces,
        )

    def _by_model(self, columns: Mapping[int, Spent]) -> dict[str, Spent]:
        return by_model((self._compiled.model_of[i], spent) for i, spent in columns.items())

    def _actual(self) -> int:
        return sum(part.rows for part in self._sink.parts)

    def _name(self, column: int) -> str:
        return self._compiled.graph.columns[column].name


def _told(error: BaseException | None) -> str | None:
    """Say what a run failed of; a cancellation is no failure."""
    if error is None or isinstance(error, asyncio.CancelledError):
        return None
    return f"{type(error).__name__}: {error}"
