"""The final report: what a run came to, how its models answered and where the time went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..models.prices import dollars

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .spending import StructuredCounts


class ModelReport(msgspec.Struct, frozen=True):
    """How one model answered. Latencies are in seconds, over the answers; failed requests have none.

    `cost` is in US dollars, None if it is not known.
    """

    model: str
    requests: int
    answers: int
    prompt_tokens: int
    completion_tokens: int
    latency_p50: float
    latency_p95: float
    latency_max: float
    cost: float | None = None


class SlowCell(msgspec.Struct, frozen=True):
    """A request that was among those that took longest."""

    column: str
    row: int
    seconds: float


class LaneReport(msgspec.Struct, frozen=True):
    """How a lane was used: the mean of what was in flight and of what was ready, and the share of time it was full.

    `limit` is how many there could be in flight in the end, `cuts` how often rate limits have lowered that.
    """

    lane: str
    in_flight: float
    ready: float
    full: float
    limit: int
    cuts: int = 0


class Load(msgspec.Struct, frozen=True):
    """Where the time went. Means are of numbers of tasks over the run, shares are between 0 and 1.

    The mean of a column's running tasks, times the seconds of the run, is the time spent in it (Little's law).
    """

    running: dict[str, float]
    lanes: list[LaneReport]
    waiting_to_retry: float
    writing: float
    """The share of time in which row groups were being written."""
    loop: float
    """The share of time in which the event loop's thread was computing: the rest it waited."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to. `retries` counts by error what was tried again, `failures` what failed for good.

    `actual`, `dropped` and `failures` are the dataset's, of which earlier runs had made `earlier` rows; what was asked
    for, what it cost and how long it took are this run's own. `cost` is in US dollars, and None where some model has no
    price; `known_cost` is that of the others.
    """

    status: str
    target: int
    actual: int
    dropped: int
    elapsed: float
    requests: int
    prompt_tokens: int
    completion_tokens: int
    retries: dict[str, int]
    failures: dict[str, int]
    models: list[ModelReport]
    slowest: list[SlowCell]
    load: Load | None
    """None for a run that was too short to be sampled."""
    error: str | None = None
    cost: float | None = None
    known_cost: float | None = None
    earlier: int = 0
    budget_spent: bool = False
    cached: int = 0
    """Requests that were answered by the response cache, which are not among the others."""
    structured: dict[str, StructuredCounts] = {}

    @property
    def rate(self) -> float:
        """Rows per second."""
        return (self.actual - self.earlier) / self.elapsed if self.elapsed else 0.0

    @property
    def cost_text(self) -> str:
        """Tell the cost as far as it is known: "$0.0123", "$0.0123 + unpriced", or nothing."""
        if self.known_cost is None:
            return ""
        return dollars(self.known_cost) + (" + unpriced" if self.cost is None else "")

    @property
    def headline(self) -> str:
        """Tell it in one line."""
        parts = [f"{self.status}: {self.actual:,} of {self.target:,} rows"]
        if self.earlier:
            parts.append(f"{self.earlier:,} of them from earlier runs")
        if self.dropped:
            parts.append(f"{self.dropped:,} dropped")
        parts.append(f"{self.elapsed:.1f} s ({self.rate:,.1f} rows/s)")
        if self.requests:
            tokens = f"{self.prompt_tokens:,} + {self.completion_tokens:,} tokens"
            parts.append(f"{self.requests:,} requests, {tokens}")
            parts += [self.cost_text] if self.cost_text else []
        return ", ".join(parts)

    def __str__(self) -> str:
        """Tell it in a few lines, leaving out what there is none of."""
        return "\n".join([self.headline, *(f"  {label:<9} {text}" for label, text in self.lines())])

    def lines(self) -> Iterator[tuple[str, str]]:
        """Give what there is to tell beside the headline: labels and texts."""
        if self.error:
            yield "error", self.error
        if self.budget_spent:
            yield "budget", "max_cost or max_tokens_total is spent; with more, the run can be gone on with"
        if self.failures:
            yield "failures", _counted(self.failures)
        if self.retries:
            yield "retries", _counted(self.retries)
        yield from _told_of_answers(self.structured)
        if self.cached:
            yield "cache", f"{self.cached:,} answers were there already"
        for model in self.models:
            yield "model", _told_of_model(model)
        if self.slowest:
            yield (
                "slowest",
                "; ".join(f"{cell.column}, row {cell.row}: {_seconds(cell.seconds)}" for cell in self.slowest),
            )
        if self.load is not None:
            yield "in flight", ", ".join(_means(self.load)) or "nothing"
            for lane in self.load.lanes:
                yield "lane", _told_of_lane(lane)
            yield "time", f"event loop busy {self.load.loop:.0%}, writing {self.load.writing:.0%}"


def _told_of_model(model: ModelReport) -> str:
    told = f"{model.model}: {model.answers:,} answers to {model.requests:,} requests"
    if model.answers:
        told += f", p50 {_seconds(model.latency_p50)}, p95 {_seconds(model.latency_p95)}"
    if model.requests and model.cost is not None:
        told += f", {dollars(model.cost)}"
    return told


def _told_of_answers(structured: Mapping[str, StructuredCounts]) -> Iterator[tuple[str, str]]:
    for column, counts in structured.items():
        told = {"repaired": counts.repaired, "asked again": counts.reasked, "failed": counts.failed}
        if any(told.values()):
            yield "json", f"{column}: " + ", ".join(f"{count:,} {what}" for what, count in told.items() if count)


def _told_of_lane(lane: LaneReport) -> str:
    used = f"{lane.lane}: full {lane.full:.0%} of the time, {lane.ready:,.1f} ready on average"
    cuts = f", cut {lane.cuts} times by rate limits" if lane.cuts else ""
    return f"{used}, {lane.limit} at once{cuts}"


def _counted(counts: Mapping[str, int]) -> str:
    kinds = sorted(counts.items(), key=lambda item: -item[1])
    return f"{sum(counts.values()):,}: " + ", ".join(f"{count:,} x {error}" for error, count in kinds)


def _means(load: Load) -> Iterator[str]:
    for column, mean in load.running.items():
        if mean:
            yield f"{column} {mean:,.1f}"
    if load.waiting_to_retry:
        yield f"waiting to retry {load.waiting_to_retry:,.1f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:,.0f} s"  # noqa: PLR2004 - three digits either way
