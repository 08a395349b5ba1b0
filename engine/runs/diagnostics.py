"""Diagnostics: the warnings, traces and load of one run.

The parts in telemetry/ are pure or only observe; here they get the time, and the loop calls them at intervals.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from ...runtime.logs import safe_logger
from ..telemetry.metrics import LoadSamples, RequestObserver
from ..telemetry.outages import OutageWatch
from ..telemetry.stalls import View, Watch
from ..telemetry.traces import TraceObserver

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..core.tracker import Tracker
    from ..telemetry.observer import Observer
    from ..telemetry.report_parts import Load
    from ..telemetry.traces import Traces
    from .scheduler import Scheduler

logger = safe_logger()


class Diagnostics:
    """The diagnostics of one run."""

    sample_seconds: ClassVar[float] = 0.1
    """The seconds between samples of the load."""

    def __init__(self, tracker: Tracker, model_of: Mapping[int, str], working: int, *, trace: bool) -> None:
        """Prepare for a run whose first `working` columns do any work; `trace` keeps a record of each attempt."""
        self._tracker = tracker
        self.requests = RequestObserver(tracker.graph, tracker.plan, model_of)
        self._traces = TraceObserver(tracker.graph, working) if trace else None
        self._load = LoadSamples(tracker, working)
        self._outages = OutageWatch(len(tracker.graph.lanes))
        self._busy = 0.0
        self.observers: list[Observer] = [self.requests]
        if self._traces is not None:
            self.observers.append(self._traces)

    @property
    def traces(self) -> Traces | None:
        """The traces so far; None for a run without them."""
        return None if self._traces is None else self._traces.traces()

    def begin(self, scheduler: Scheduler, stall_after: float | None, slow_request_after: float | None) -> None:
        """Start the periodic inspections and samples of a run that is about to begin, in the loop's thread."""
        watch = Watch(self._tracker.graph, self._tracker.plan, stall_after, slow_request_after)
        if watch.period is not None:
            scheduler.timers.every(watch.period, lambda: self._inspect(watch, scheduler))
        scheduler.timers.every(self.sample_seconds, self._sample)
        self._thread_time = time.thread_time()

    def end(self) -> None:
        """Measure how long the loop's thread was busy, and look for outages once more; to be called in that thread."""
        self._log_outages()
        self._busy = time.thread_time() - self._thread_time

    def load(self, elapsed: float) -> Load | None:
        """Return where the time went; None for a run that was too short to be sampled."""
        return self._load.load(min(1.0, self._busy / elapsed) if elapsed else 0.0)

    def _sample(self) -> None:
        self._load.sample()
        self._log_outages()

    def _log_outages(self) -> None:
        for warning in self._outages.inspect(self._tracker.lanes, self.requests.refusals):
            logger.warning("%s", warning)

    def _inspect(self, watch: Watch, scheduler: Scheduler) -> None:
        totals = self._tracker.totals
        view = View(
            over=totals.committed + sum(count.completed + count.failed + count.skipped for count in totals.columns),
            lanes=self._tracker.lanes,
            in_flight=scheduler.in_flight,
            received=scheduler.received,
            waiting=scheduler.timers.waiting,
            writing=self._tracker.committing,
            began=self._tracker.began,
            refusals=self.requests.refusals,
            paused=self._tracker.paused,
        )
        for warning in watch.inspect(scheduler.time, view):
            logger.warning("%s", warning)
