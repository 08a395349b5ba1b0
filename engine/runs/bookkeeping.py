"""Bookkeeping: the counts of a run, as a snapshot, as metadata.json, as a report and as its result."""

from __future__ import annotations

import importlib.metadata
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..datasets.directory import shown
from ..datasets.metadata import SCHEMA_VERSION, ColumnMetadata, Metadata, PartMetadata
from ..datasets.result import History, Result
from ..telemetry.failures import FailureTable
from ..telemetry.progress import ColumnProgress, ProgressSnapshot
from ..telemetry.report import Details, report_of
from ..telemetry.report_parts import OutageReport
from ..telemetry.spending import Spent, StructuredCounts, UsageObserver, added_up, by_model
from ..telemetry.stalls import LongWaits
from .diagnostics import Diagnostics
from .ending import ending_word, error_text, reason_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from ..core.store import Store
    from ..core.tracker import Tracker
    from ..datasets.claim import Place
    from ..datasets.journal_writer import JournalWriter
    from ..datasets.metadata import Status
    from ..datasets.past import Past
    from ..datasets.sinks import Sink
    from ..telemetry.observer import Observer
    from ..telemetry.progress import State
    from ..telemetry.report import Report
    from ..telemetry.spending import Spending
    from ..telemetry.traces import Traces
    from .facts import RecipeFacts
    from .scheduler import Scheduler
    from .settings import Settings


@dataclass(frozen=True, slots=True)
class Output:
    """Where a run writes, what earlier runs have left there, and what keeps values until they are in a part."""

    sink: Sink
    past: Past
    journal: JournalWriter | None = None
    place: Place | None = None
    """The claimed directory; None for a preview."""


class Account:
    """The counts of one run, kept by observers. Reading them changes nothing."""

    def __init__(self, recipe: RecipeFacts, tracker: Tracker, output: Output, settings: Settings, working: int) -> None:
        """Take everything that the counts are read from; the first `working` columns of the graph do any work."""
        self._recipe = recipe
        self._tracker = tracker
        self._sink = output.sink
        self._journal = output.journal
        self._settings = settings
        self._earlier = output.past.spent
        self._earlier_rows = self.rows
        self._usage = UsageObserver(recipe.prices, output.past.spent)
        lines = [line for failure in output.past.failures for line in failure.lines]
        self.failures = FailureTable(tracker.graph, lines, None if output.journal is None else output.journal.keep)
        self._diagnostics = Diagnostics(tracker, recipe.model_of, working, trace=bool(settings.trace))
        self._clock = Clock()
        path = output.sink.path
        self._name = str(shown(path)) if path is not None else f"preview of {recipe.columns[-1].name}"

    @property
    def observers(self) -> list[Observer]:
        """The observers that keep the counts."""
        asking: list[Observer] = []
        if self._recipe.model_of:
            asking = [self._usage, LongWaits(self._tracker.graph, self._settings.retry.longest_wait)]
        journal: list[Observer] = [] if self._journal is None else [self._journal]
        return [*asking, self.failures, *self._diagnostics.observers, *journal]

    @property
    def rows(self) -> int:
        """The number of rows in the dataset so far."""
        return sum(part.rows for part in self._sink.parts)

    @property
    def traces(self) -> Traces | None:
        """The traces so far; None for a run without them."""
        return self._diagnostics.traces

    def spending(self) -> Spending:
        """Return what this run and earlier ones have spent."""
        retries, seconds = self._tracker.totals.retries, self._clock.elapsed
        return self._usage.spending(self._earlier.retries + retries, self._earlier.seconds + seconds)

    def begin(self, scheduler: Scheduler, store: Store) -> None:
        """Start the periodic checks of the run, in the loop's thread."""
        if self._journal is not None:
            self._journal.begin(store, self.spending)
            scheduler.timers.every(self._journal.check_seconds, self._journal.check)
        self._diagnostics.begin(scheduler, self._settings.stall_after, self._settings.slow_request_after)

    def end(self) -> None:
        """Measure how busy the loop was; to be called in its thread."""
        self._diagnostics.end()

    def stop_clock(self) -> None:
        """Stop counting time: the run has ended."""
        self._clock.stop()

    def snapshot(self) -> ProgressSnapshot:
        """Take a snapshot. Counts are read while they change: each is right, but their sum may be one off."""
        totals, plan, by_column = self._tracker.totals, self._tracker.plan, self._usage.columns()
        spent = added_up(by_column.values())
        return ProgressSnapshot(
            target=plan.rows,
            committed=totals.committed,
            dropped=totals.dropped,
            row_groups=plan.row_groups,
            row_groups_committed=totals.groups_over,
            columns=tuple(self._columns_progress(by_column)),
            running=totals.running,
            waiting_to_retry=totals.waiting_to_retry,
            rate_limited={
                lane.name: max(0.0, self._clock.elapsed - lane.rate_limited_since)
                for lane in self._tracker.lanes
                if lane.rate_limited_since is not None
            },
            down={
                lane.name: max(0.0, self._clock.elapsed - lane.open_since)
                for lane in self._tracker.lanes
                if lane.open_since is not None
            },
            shared={lane.name: lane.runs for lane in self._tracker.lanes if lane.runs > 1},
            retries=totals.retries,
            requests=spent.requests,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            elapsed=self._clock.elapsed,
            cost=spent.cost,
            known_cost=spent.known_cost,
            state=_state(self._tracker),
            name=self._name,
            ending=ending_word(self._tracker),
        )

    def _columns_progress(self, spent: Mapping[int, Spent]) -> Iterable[ColumnProgress]:
        counts, nodes, rows = self._tracker.totals.columns, self._tracker.graph.columns, self._tracker.plan.rows
        for i, column in enumerate(self._recipe.columns):  # processors have counts too, behind those of columns
            count, cost = counts[i], spent[i].cost if i in spent else None
            ended = (count.completed, count.failed, count.skipped)
            yield ColumnProgress(column.name, rows, *ended, count.running, nodes[i].lane is not None, cost)

    def metadata(self, status: Status, error: BaseException | None) -> Metadata:
        """Return the contents of metadata.json."""
        totals, plan, recipe = self._tracker.totals, self._tracker.plan, self._recipe
        spent = self._usage.columns_of_all_runs()
        parts = sorted(self._sink.parts, key=lambda part: part.row_group)
        return Metadata(
            schema_version=SCHEMA_VERSION,
            rowloop_version=importlib.metadata.version("rowloop"),
            kind=self._sink.kind,
            engine=recipe.engine,
            status=status,
            target_num_records=plan.rows,
            actual_num_records=self.rows,
            dropped_num_records=totals.dropped,
            row_group_size=plan.row_group_size,
            seed=recipe.seed,
            recipe_fingerprint=recipe.fingerprint,
            recipe=recipe.description,
            columns=self._columns_metadata(spent),
            parts=[PartMetadata(part.row_group, part.start, part.rows, part.file, part.checksum) for part in parts],
            row_groups_cut_short=sorted(totals.cut_short),
            early_shutdown=self._tracker.halted == "early_shutdown",
            budget_spent=self._tracker.halted == "budget",
            error=error_text(error),
            retries=self._earlier.retries + totals.retries,
            failures=dict(self.failures.by_error),
            cost=added_up(spent.values()).cost,
            started_at=self._clock.started_at.isoformat(),
            finished_at=None if status == "running" else datetime.now(UTC).isoformat(),
            elapsed=self._earlier.seconds + self._clock.elapsed,
            reason=reason_text(self._tracker, status, error, self.failures.first, self._settings.deadline),
        )

    def _columns_metadata(self, spent: dict[int, Spent]) -> list[ColumnMetadata]:
        structured = self._usage.structured_of_all_runs()
        none = Spent()
        return [
            ColumnMetadata(
                name=column.name,
                type=column.type,
                model=column.model,
                completed=count.completed,
                failed=count.failed,
                skipped=count.skipped,
                requests=spent.get(i, none).requests,
                prompt_tokens=spent.get(i, none).prompt_tokens,
                completion_tokens=spent.get(i, none).completion_tokens,
                cost=spent.get(i, none).cost,
                known_cost=spent.get(i, none).known_cost,
                cached_tokens=spent.get(i, none).cached_tokens,
                hedges=spent.get(i, none).hedges,
                hedges_won=spent.get(i, none).hedges_won,
                structured=structured.get(i, StructuredCounts()) if column.structured else None,
            )
            for i, (column, count) in enumerate(zip(self._recipe.columns, self._tracker.totals.columns, strict=False))
        ]

    def report(self, metadata: Metadata, cached: int = 0) -> Report:
        """Return the report; the response cache answered `cached` requests."""
        columns, names, requests = self._usage.columns(), self._recipe.columns, self._diagnostics.requests
        models = by_model((self._recipe.model_of[i], spent) for i, spent in columns.items())
        details = Details(
            elapsed=self._clock.elapsed,
            spent=columns.values(),
            earlier=self._earlier_rows,
            cached=cached,
            retries=requests.retries,
            models=requests.models(models),
            slowest=requests.slowest(),
            load=self._diagnostics.load(self._clock.elapsed),
            outages=[
                OutageReport(lane.name, lane.outages, lane.down, open=lane.open_since is not None)
                for lane in self._tracker.lanes
                if lane.outages
            ],
            structured={names[i].name: counts for i, counts in self._usage.structured().items()},
        )
        return report_of(metadata, details)

    def result(self, metadata: Metadata, failures: pd.DataFrame, report: Report) -> Result:
        """Return the result for the user."""
        return Result(report, failures, metadata, self._sink, History(self._tracker.limits, self.traces))


def _state(tracker: Tracker) -> State:
    if tracker.halted is not None:
        return "paused" if tracker.paused and not tracker.over else "ending"
    return "paused" if tracker.paused else "running"


class Clock:
    """The time at which a run began, and how long it has taken."""

    def __init__(self) -> None:
        """Start now."""
        self.started_at = datetime.now(UTC)
        self._start = time.monotonic()
        self._elapsed: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds so far, or in all once it is stopped."""
        return time.monotonic() - self._start if self._elapsed is None else self._elapsed

    def stop(self) -> None:
        """Stop counting."""
        self._elapsed = self.elapsed
