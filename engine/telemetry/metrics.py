"""Metrics: latencies, retries and the load of a run, for its report.

Answers and retries are folded from events. The load is sampled at intervals instead, which costs a cell nothing.
"""

from __future__ import annotations

from collections import Counter
from heapq import heappush, heappushpop
from typing import TYPE_CHECKING, Final

from ..core.events import Done, Due, Failed
from ..core.histogram import Latency
from .report_parts import LaneReport, Load, ModelReport, SlowCell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..core.events import Event, Record
    from ..core.graph import Graph
    from ..core.row_groups import Plan
    from ..core.store import RowGroup
    from ..core.tracker import Tracker
    from .spending import Spent

_SLOWEST: Final = 5


class RequestObserver:
    """Folds the latencies of models, the slowest requests, and the reasons of retries."""

    def __init__(self, graph: Graph, plan: Plan, model_of: Mapping[int, str]) -> None:
        """Take the model of each column that has one."""
        self._graph = graph
        self._plan = plan
        self._model_of = model_of
        self._latency = {model: Latency() for model in model_of.values()}
        self._slowest: list[tuple[float, int, int, int]] = []
        self._failed: dict[tuple[int, int, int], str] = {}
        self.retries: Counter[str] = Counter()
        self._last: dict[int, str] = {}
        self.refusals: dict[int, str] = {}
        """What the endpoint behind each lane has answered to the last attempt that failed and may be retried."""

    def on_event(self, event: Event) -> None:
        """Count an answer, a failed attempt or a retry."""
        if isinstance(event, Done):
            if event.usage is not None:
                self._answered(event, event.usage.seconds)
        elif isinstance(event, Failed):
            self._failed[event.group, event.column, event.row] = event.failure.error
            if event.failure.retryable:
                self._refused(event)
            if event.usage is not None and event.usage.seconds:
                self._took(event, event.usage.seconds)
        elif isinstance(event, Due):
            self.retries[self._failed.pop((event.group, event.column, event.row))] += 1

    def on_failure(self, record: Record, group: RowGroup) -> None:  # noqa: ARG002 - an observer's signature
        """Forget the failure, because the task is not retried."""
        self._failed.pop((record.group, record.column, record.row), None)

    def models(self, spent: Mapping[str, Spent]) -> list[ModelReport]:
        """Return a report on each model; `spent` is what each has spent."""
        refusals = {self._model_of.get(column): text for column, text in self._last.items()}
        return [_report(model, each, spent[model], refusals.get(model)) for model, each in self._latency.items()]

    def slowest(self) -> list[SlowCell]:
        """Return the slowest requests, the slowest first."""
        return [
            SlowCell(self._graph.columns[column].name, self._plan.row(group, row), seconds)
            for seconds, group, column, row in sorted(self._slowest, reverse=True)
        ]

    def _refused(self, event: Failed) -> None:
        lane = self._graph.columns[event.column].lane
        if lane is not None:
            self.refusals[lane] = event.failure.message
            self._last.pop(event.column, None)  # the latest column comes last
            self._last[event.column] = event.failure.message

    def _answered(self, event: Done, seconds: float) -> None:
        model = self._model_of.get(event.column)
        if model is not None:
            self._latency[model].add(seconds)
        self._took(event, seconds)

    def _took(self, event: Done | Failed, seconds: float) -> None:
        if len(self._slowest) < _SLOWEST:
            heappush(self._slowest, (seconds, event.group, event.column, event.row))
        elif seconds > self._slowest[0][0]:
            heappushpop(self._slowest, (seconds, event.group, event.column, event.row))


def _report(model: str, latency: Latency, spent: Spent, refusal: str | None) -> ModelReport:
    return ModelReport(
        model=model,
        requests=spent.requests,
        answers=latency.count,
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
        latency_p50=latency.quantile(0.5),
        latency_p95=latency.quantile(0.95),
        latency_max=latency.longest,
        cost=spent.cost,
        known_cost=spent.known_cost,
        last_refusal=refusal,
    )


class LoadSamples:
    """Samples the load of a run at equal intervals and returns the means."""

    def __init__(self, tracker: Tracker, columns: int) -> None:
        """Take the run to sample, and how many of its columns do any work (the first ones)."""
        self._tracker = tracker
        self._samples = 0
        self._running = [0] * columns
        self._lanes = [[0, 0, 0] for _ in tracker.graph.lanes]
        self._waiting = 0
        self._writing = 0

    def sample(self) -> None:
        """Take one sample."""
        tracker = self._tracker
        self._samples += 1
        for i in range(len(self._running)):
            self._running[i] += tracker.totals.columns[i].running
        for sums, lane in zip(self._lanes, tracker.lanes, strict=True):
            sums[0] += lane.in_flight
            sums[1] += lane.ready
            sums[2] += lane.in_flight >= lane.limit
        self._waiting += tracker.totals.waiting_to_retry
        self._writing += bool(tracker.committing)

    def load(self, loop: float) -> Load | None:
        """Return the means; `loop` is the share of time in which the loop's thread was busy."""
        if not self._samples:
            return None
        graph, count = self._tracker.graph, self._samples
        return Load(
            running={column.name: total / count for column, total in zip(graph.columns, self._running, strict=False)},
            lanes=[
                LaneReport(
                    lane.name,
                    in_flight / count,
                    ready / count,
                    full / count,
                    now.limit,
                    self._cuts(lane.name),
                    now.runs,
                )
                for lane, now, (in_flight, ready, full) in zip(
                    graph.lanes, self._tracker.lanes, self._lanes, strict=True
                )
            ],
            waiting_to_retry=self._waiting / count,
            writing=self._writing / count,
            loop=loop,
        )

    def _cuts(self, lane: str) -> int:
        return sum(change.why == "rate limited" for change in self._tracker.limits.get(lane, ()))
