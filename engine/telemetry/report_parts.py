"""The parts of a report: models, slow requests, lanes, outages and the load, and the text of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..models.prices import as_far_as_known

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class ModelReport(msgspec.Struct, frozen=True):
    """The requests to one model. Latencies are in seconds and of answers only, not of failed requests.

    `cost` is in US dollars, None if it is not known; `known_cost` is that of the requests whose cost is known.
    `last_refusal` is what the endpoint answered to the last attempt that failed and could be retried, such as a rate
    limit.
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
    last_refusal: str | None = None
    known_cost: float | None = None


class SlowCell(msgspec.Struct, frozen=True):
    """One of the slowest requests."""

    column: str
    row: int
    seconds: float


class LaneReport(msgspec.Struct, frozen=True):
    """The use of one lane: mean tasks in flight, mean tasks ready, and the share of time in which it was full.

    `limit` is the most tasks in flight at the end of the run, `cuts` how often rate limits have lowered it, and `runs`
    the most runs that shared the limit at a time, with this one.
    """

    lane: str
    in_flight: float
    ready: float
    full: float
    limit: int
    cuts: int = 0
    runs: int = 1


class OutageReport(msgspec.Struct, frozen=True):
    """The outages of one lane's endpoint: how many, and how many seconds in all; `open`: the last had not ended."""

    lane: str
    outages: int
    seconds: float
    open: bool


class Load(msgspec.Struct, frozen=True):
    """Where the time went. Means are numbers of tasks over the run, shares are between 0 and 1.

    The mean of a column's running tasks, times the seconds of the run, is the time spent in it (Little's law).
    """

    running: dict[str, float]
    lanes: list[LaneReport]
    waiting_to_retry: float
    writing: float
    """The share of time in which a row group was being written."""
    loop: float
    """The share of time in which the event loop's thread was busy; the rest of the time it waited."""


def model_lines(model: ModelReport) -> Iterator[tuple[str, str]]:
    """Return the lines about a model."""
    yield "model", _model_text(model)
    if model.last_refusal:
        yield "refusal", f"the last of {model.model}: {model.last_refusal}"


def outage_text(outage: OutageReport) -> str:
    """Describe the outages of a lane's endpoint."""
    several = "" if outage.outages == 1 else f" in {outage.outages:,} outages"
    end = "; it was still down at the end" if outage.open else ""
    return f"{outage.lane} was down for {_seconds(outage.seconds)}{several}; rows waited, none was dropped for it{end}"


def slowest_text(cells: Sequence[SlowCell]) -> str:
    """Name the slowest requests."""
    return "; ".join(f"{cell.column}, row {cell.row}: {_seconds(cell.seconds)}" for cell in cells)


def load_lines(load: Load) -> Iterator[tuple[str, str]]:
    """Return the lines about where the time went."""
    yield "in flight", ", ".join(_means(load)) or "nothing"
    for lane in load.lanes:
        yield "lane", _lane_text(lane)
    yield "time", f"event loop busy {load.loop:.0%}, writing {load.writing:.0%}"


def _model_text(model: ModelReport) -> str:
    text = f"{model.model}: {model.answers:,} answers to {model.requests:,} requests"
    if model.answers:
        text += f", p50 {_seconds(model.latency_p50)}, p95 {_seconds(model.latency_p95)}"
    known = model.known_cost if model.cost is None else model.cost
    if model.requests and known is not None:
        text += f", {as_far_as_known(known, model.cost)}"
    return text


def _lane_text(lane: LaneReport) -> str:
    used = f"{lane.lane}: full {lane.full:.0%} of the time, {lane.ready:,.1f} ready on average"
    cuts = f", cut {lane.cuts} times by rate limits" if lane.cuts else ""
    shared = f", shared by {lane.runs} runs" if lane.runs > 1 else ""
    return f"{used}, {lane.limit} at once{shared}{cuts}"


def _means(load: Load) -> Iterator[str]:
    for column, mean in load.running.items():
        if mean:
            yield f"{column} {mean:,.1f}"
    if load.waiting_to_retry:
        yield f"waiting to retry {load.waiting_to_retry:,.1f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:,.0f} s"  # noqa: PLR2004 - three digits either way
