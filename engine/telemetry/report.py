"""The report at the end of a run: its numbers, and their text line by line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

from ..core.errors import printable
from ..models.prices import as_far_as_known
from .report_parts import load_lines, model_lines, outage_text, slowest_text
from .spending import added_up, known_cost

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from .report_parts import Load, ModelReport, OutageReport, SlowCell
    from .spending import Spent, StructuredCounts


@dataclass(frozen=True, slots=True)
class Details:
    """The numbers of a report that metadata.json does not have, because they are of one run and not of the dataset.

    `earlier` is the number of rows of earlier runs, `cached` the number of requests that the response cache answered.
    """

    elapsed: float
    spent: Collection[Spent]
    earlier: int = 0
    cached: int = 0
    retries: Mapping[str, int] = field(default_factory=dict)
    models: Sequence[ModelReport] = ()
    slowest: Sequence[SlowCell] = ()
    load: Load | None = None
    outages: Sequence[OutageReport] = ()
    structured: Mapping[str, StructuredCounts] = field(default_factory=dict)


class Described(Protocol):
    """The part of a report that metadata.json has as well."""

    @property
    def status(self) -> str:
        """How the run ended."""
        ...

    @property
    def target_num_records(self) -> int:
        """The number of rows requested."""
        ...

    @property
    def actual_num_records(self) -> int:
        """The number of rows in the dataset."""
        ...

    @property
    def dropped_num_records(self) -> int:
        """The number of rows with a failed cell."""
        ...

    @property
    def failures(self) -> dict[str, int]:
        """The number of failed cells, by error."""
        ...

    @property
    def error(self) -> str | None:
        """The error of a run that failed."""
        ...

    @property
    def reason(self) -> str | None:
        """Why the run ended before every row was worked."""
        ...

    @property
    def budget_spent(self) -> bool:
        """Whether the run ended because its budget was spent."""
        ...


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of a run. `retries` counts retried attempts by error, `failures` failed cells by error.

    `actual`, `dropped` and `failures` are the dataset's; earlier runs completed `earlier` of its rows. Requests, cost
    and time are this run's own. `cost` is in US dollars, None if that of a request is not known; `known_cost` is the
    cost of all requests whose cost is known. `cached_tokens` of the prompts were read from the endpoints' caches.
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
    """Requests that the response cache answered; they are not among the other requests."""
    outages: list[OutageReport] = []
    """The lanes whose endpoints were down for a time; their rows waited."""
    structured: dict[str, StructuredCounts] = {}
    cached_tokens: int = 0
    hedges: int = 0
    """Second requests for slow cells; the tokens of those that were cancelled are estimates."""
    hedges_won: int = 0
    reason: str | None = None
    """Why the run ended before every row was worked."""

    @property
    def rate(self) -> float:
        """Rows per second."""
        return (self.actual - self.earlier) / self.elapsed if self.elapsed else 0.0

    @property
    def cost_text(self) -> str:
        """The cost as far as it is known: "$0.0123", "$0.0123 + unpriced", or nothing."""
        if self.known_cost is None:
            return ""
        return as_far_as_known(self.known_cost, self.cost)

    @property
    def headline(self) -> str:
        """The most important numbers in one line."""
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
        """Return the headline and all lines that apply."""
        return printable("\n".join([self.headline, *(f"  {label:<9} {text}" for label, text in self.lines())]))

    def lines(self) -> Iterator[tuple[str, str]]:
        """Return the lines after the headline, as labels and texts."""
        yield from self._end()
        for outage in self.outages:
            yield "outage", outage_text(outage)
        if self.failures:
            yield "failures", _counted(self.failures)
        if self.retries:
            yield "retries", _counted(self.retries)
        if self.hedges:
            won = f"{self.hedges:,} second requests, {self.hedges_won:,} won"
            yield "hedges", f"{won}; the tokens of the requests that were cancelled are estimates"
        yield from _structured_lines(self.structured)
        yield from _cache_lines(self)
        for model in self.models:
            yield from model_lines(model)
        if self.slowest:
            yield "slowest", slowest_text(self.slowest)
        if self.load is not None:
            yield from load_lines(self.load)

    def _end(self) -> Iterator[tuple[str, str]]:
        """Return the lines of a run that failed or ended early."""
        if self.error:
            yield "error", self.error
        elif self.reason is not None and self.status != "cancelled":
            yield "reason", self.reason
        if self.budget_spent:
            yield "budget", "max_cost or max_tokens_total is spent; raise the budget to resume"


def report_of(metadata: Described, details: Details) -> Report:
    """Make the report of a run from its metadata, with what only the run itself knows."""
    spent = added_up(details.spent)
    return Report(
        status=metadata.status,
        target=metadata.target_num_records,
        actual=metadata.actual_num_records,
        dropped=metadata.dropped_num_records,
        elapsed=details.elapsed,
        requests=spent.requests,
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
        retries=dict(details.retries),
        failures=metadata.failures,
        models=list(details.models),
        slowest=list(details.slowest),
        load=details.load,
        error=metadata.error,
        cost=spent.cost,
        known_cost=known_cost(details.spent),
        earlier=details.earlier,
        budget_spent=metadata.budget_spent,
        reason=metadata.reason,
        cached=details.cached,
        outages=list(details.outages),
        structured=dict(details.structured),
        cached_tokens=spent.cached_tokens,
        hedges=spent.hedges,
        hedges_won=spent.hedges_won,
    )


def _cache_lines(report: Report) -> Iterator[tuple[str, str]]:
    if report.cached_tokens:
        share = report.cached_tokens / max(report.prompt_tokens, 1)
        yield "cache", f"{share:.0%} of the tokens of prompts were read from the endpoint's cache"
    if report.cached:
        yield "cache", f"{report.cached:,} requests were answered from the cache"


def _structured_lines(structured: Mapping[str, StructuredCounts]) -> Iterator[tuple[str, str]]:
    for column, counts in structured.items():
        kinds = {"repaired": counts.repaired, "asked again": counts.reasked, "failed": counts.failed}
        if any(kinds.values()):
            yield "json", f"{column}: " + ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)


def _counted(counts: Mapping[str, int]) -> str:
    kinds = sorted(counts.items(), key=lambda item: -item[1])
    return f"{sum(counts.values()):,}: " + ", ".join(f"{count:,} x {error}" for error, count in kinds)
