"""The words of all displays: counts, rates and times in short form, and the speed of a run."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from ...engine.models.prices import as_far_as_known, dollars

if TYPE_CHECKING:
    from ...engine.telemetry.progress import ColumnProgress, ProgressSnapshot

_WINDOW = 30.0  # seconds over which rates are measured
_MINUTE = 60
_HOUR = 3600
_DAY = 86_400
_EXACT = 10_000  # smaller counts are written in full
_ONE_DECIMAL = 100
_NOTICEABLE = 5.0  # seconds; a shorter rate limit is not shown
_UNITS = "kMGTP"


def compact(number: float) -> str:
    """Write a count in at most five characters: 9999, 12.3k, 999k, 10.0M."""
    if number < _EXACT:
        return f"{number:.0f}"
    value, unit = number / 1000, 0
    while value >= 999.5 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - rounding would give a fourth digit
        value, unit = value / 1000, unit + 1
    return f"{value:.1f}{_UNITS[unit]}" if value < _ONE_DECIMAL - 0.05 else f"{value:.0f}{_UNITS[unit]}"


def per_second(rate: float) -> str:
    """Write a rate of rows; rates below one per second are per minute, since "0 rows/s" means nothing."""
    if 0 < rate < 1:
        return f"{rate * 60:.1f} rows/min"
    return f"{compact(rate)} rows/s" if rate >= 10 else f"{rate:.1f} rows/s"  # noqa: PLR2004 - two digits either way


def duration(seconds: float) -> str:
    """Write a time: 4.2s, 1:05, 2:03:04, 3d 4h."""
    if seconds < 10:  # noqa: PLR2004 - one digit needs a decimal
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}:{whole % _MINUTE:02}"
    if whole < _DAY:
        return f"{whole // _HOUR}:{whole % _HOUR // _MINUTE:02}:{whole % _MINUTE:02}"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR}h" if whole < _DAY * 1000 else ">1000d"


def finished(column: ColumnProgress) -> bool:
    """Return whether no cell of a column is left."""
    return column.left <= 0


def finished_rows(snapshot: ProgressSnapshot) -> int:
    """Return how many rows are finished in every column; they are written up to a row group later.

    Once the run ends early, these are the written and the dropped rows: the skipped cells of others are not finished.
    """
    ended = snapshot.committed + snapshot.dropped
    if snapshot.ending is not None:
        return ended
    return max(ended, min((column.worked + column.skipped for column in snapshot.columns), default=0))


def failed_cells(snapshot: ProgressSnapshot) -> int:
    """Return how many cells failed and are not retried any more."""
    return sum(column.failed for column in snapshot.columns)


class Speed:
    """The speed of a run over the last half minute, measured from snapshots."""

    def __init__(self) -> None:
        """Start without snapshots."""
        self._seen: deque[tuple[float, int, int, int]] = deque()
        self._first: ProgressSnapshot | None = None
        self._last_progress = 0.0

    def add(self, snapshot: ProgressSnapshot) -> None:
        """Add a snapshot and forget those that are older than the window."""
        self._first = self._first or snapshot
        over = sum(column.worked + column.skipped for column in snapshot.counted)
        if not self._seen or self._seen[-1][2] != over:
            self._last_progress = snapshot.elapsed
        self._seen.append((snapshot.elapsed, finished_rows(snapshot), over, snapshot.requests))
        while len(self._seen) > 2 and self._seen[1][0] <= snapshot.elapsed - _WINDOW:  # noqa: PLR2004 - a pair at least
            self._seen.popleft()

    @property
    def rows(self) -> float:
        """Rows per second."""
        return max(0.0, self._rate(1))

    @property
    def requests(self) -> float:
        """Requests per minute."""
        return self._rate(3) * _MINUTE

    def remaining(self, snapshot: ProgressSnapshot) -> float | None:
        """Estimate the remaining seconds from the rate of cells; None before there is a rate, and once the run ends.

        The estimate is at least the time since the last progress: a run that stands still does not end soon.
        """
        rate = self._rate(2)
        if rate <= 0 or snapshot.ending is not None:
            return None
        return max(snapshot.left / rate, snapshot.elapsed - self._last_progress)

    def projected(self, snapshot: ProgressSnapshot) -> float | None:
        """Estimate the cost of the whole run from what a cell of each column has cost since the first snapshot.

        None if a price is not known, before each column with a cost has ended a cell, and once the run ends.
        """
        if self._first is None or snapshot.cost is None or snapshot.ending is not None:
            return None
        whole = snapshot.cost
        for before, now in zip(self._first.columns, snapshot.columns, strict=False):
            if now.cost is None or now.left <= 0:
                continue
            if now.worked <= before.worked:
                return None
            whole += (now.cost - (before.cost or 0.0)) / (now.worked - before.worked) * now.left
        return whole

    def _rate(self, field: int) -> float:
        if len(self._seen) < 2:  # noqa: PLR2004 - a rate needs two points
            return 0.0
        first, last = self._seen[0], self._seen[-1]
        seconds = last[0] - first[0]
        return (last[field] - first[field]) / seconds if seconds > 0 else 0.0


def totals(snapshot: ProgressSnapshot, speed: Speed | None = None) -> list[str]:
    """Return what the run has used and what failed, as words; counts of zero are left out."""
    words = _spent(snapshot, speed) if snapshot.requests else []
    if snapshot.running:
        words.append(f"{compact(snapshot.running)} running")
    if snapshot.waiting_to_retry:
        words.append(f"{compact(snapshot.waiting_to_retry)} waiting to retry")
    for lane, seconds in snapshot.rate_limited.items():
        if seconds >= _NOTICEABLE:
            words.append(f"{lane.partition(' at ')[0]} rate limited for {duration(seconds)}")
    for lane, seconds in snapshot.down.items():
        words.append(f"{lane.partition(' at ')[0]} down for {duration(seconds)}, rows wait")
    if failures := failed_cells(snapshot):
        words.append(f"{compact(failures)} failed")
    if snapshot.dropped:
        words.append(f"{compact(snapshot.dropped)} {'row' if snapshot.dropped == 1 else 'rows'} dropped")
    return words


def _spent(snapshot: ProgressSnapshot, speed: Speed | None) -> list[str]:
    tokens = snapshot.prompt_tokens + snapshot.completion_tokens
    words = [f"{compact(snapshot.requests)} requests"]
    if speed is not None and speed.requests > 0:
        words.append(f"{compact(speed.requests)} requests/min")
    words.append(f"{compact(tokens)} tokens")
    known = snapshot.known_cost if snapshot.cost is None else snapshot.cost
    if known is not None:
        projected = None if speed is None else speed.projected(snapshot)
        whole = "" if projected is None else f" of about {dollars(projected)}"
        words.append(as_far_as_known(known, snapshot.cost) + whole)
    return words


def headline(snapshot: ProgressSnapshot, speed: Speed) -> list[str]:
    """Return the progress as words: rows, rows per second, and the remaining time."""
    words = [f"{compact(finished_rows(snapshot))}/{compact(snapshot.target)} rows", per_second(speed.rows)]
    left = speed.remaining(snapshot)
    if snapshot.ending is not None:
        words.append(f"ends early: {snapshot.ending}")
    elif snapshot.state == "paused":
        words.append("paused")
    else:
        words.append(f"{duration(left)} left" if left is not None else f"{duration(snapshot.elapsed)} so far")
    return words


def final(snapshot: ProgressSnapshot) -> list[str]:
    """Return how a run has ended, as words: rows, time, what it has used and what failed."""
    rows, seconds = finished_rows(snapshot), snapshot.elapsed
    words = [f"{compact(rows)}/{compact(snapshot.target)} rows in {duration(seconds)}"]
    if snapshot.ending is not None:
        words.append(f"ended early: {snapshot.ending}")
    return [*words, *totals(replace(snapshot, running=0, waiting_to_retry=0, rate_limited={}, down={}))]
