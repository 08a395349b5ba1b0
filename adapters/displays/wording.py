"""The words of all displays: counts, rates and times in short form, and the speed of a run."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ...engine.models.prices import as_far_as_known

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


def finished(column: ColumnProgress) -> int:
    """Return how many cells of a column are completed, failed or skipped."""
    return column.completed + column.failed + column.skipped


def finished_rows(snapshot: ProgressSnapshot) -> int:
    """Return how many rows are finished in every column; they are written up to a row group later."""
    ended = snapshot.committed + snapshot.dropped
    return max(ended, min((finished(column) for column in snapshot.columns), default=0))


def failed_cells(snapshot: ProgressSnapshot) -> int:
    """Return how many cells failed and are not retried any more."""
    return sum(column.failed for column in snapshot.columns)


class Speed:
    """The speed of a run over the last half minute, measured from snapshots."""

    def __init__(self) -> None:
        """Start without snapshots."""
        self._seen: deque[tuple[float, int, int]] = deque()
        self._last_progress = 0.0

    def add(self, snapshot: ProgressSnapshot) -> None:
        """Add a snapshot and forget those that are older than the window."""
        if not self._seen or self._seen[-1][2] != snapshot.cells_over:
            self._last_progress = snapshot.elapsed
        self._seen.append((snapshot.elapsed, finished_rows(snapshot), snapshot.cells_over))
        while len(self._seen) > 2 and self._seen[1][0] <= snapshot.elapsed - _WINDOW:  # noqa: PLR2004 - a pair at least
            self._seen.popleft()

    @property
    def rows(self) -> float:
        """Rows per second."""
        return self._rate(1)

    def remaining(self, snapshot: ProgressSnapshot) -> float | None:
        """Estimate the remaining seconds from the rate of cells; None before there is a rate.

        The estimate is at least the time since the last progress: a run that stands still does not end soon.
        """
        rate = self._rate(2)
        if rate <= 0:
            return None
        return max((snapshot.cells - snapshot.cells_over) / rate, snapshot.elapsed - self._last_progress)

    def _rate(self, field: int) -> float:
        if len(self._seen) < 2:  # noqa: PLR2004 - a rate needs two points
            return 0.0
        first, last = self._seen[0], self._seen[-1]
        seconds = last[0] - first[0]
        return (last[field] - first[field]) / seconds if seconds > 0 else 0.0


def totals(snapshot: ProgressSnapshot) -> list[str]:
    """Return what the run has used and what failed, as words; counts of zero are left out."""
    words = []
    if snapshot.requests:
        tokens = snapshot.prompt_tokens + snapshot.completion_tokens
        words.append(f"{compact(snapshot.requests)} requests")
        words.append(f"{compact(tokens)} tokens")
        known = snapshot.known_cost if snapshot.cost is None else snapshot.cost
        if known is not None:
            words.append(as_far_as_known(known, snapshot.cost))
    if snapshot.running:
        words.append(f"{compact(snapshot.running)} running")
    if snapshot.waiting_to_retry:
        words.append(f"{compact(snapshot.waiting_to_retry)} waiting to retry")
    for lane, seconds in snapshot.rate_limited.items():
        if seconds >= _NOTICEABLE:
            words.append(f"{lane.partition(' at ')[0]} rate limited for {duration(seconds)}")
    if failures := failed_cells(snapshot):
        words.append(f"{compact(failures)} failed")
    if snapshot.dropped:
        words.append(f"{compact(snapshot.dropped)} {'row' if snapshot.dropped == 1 else 'rows'} dropped")
    return words


def headline(snapshot: ProgressSnapshot, speed: Speed) -> list[str]:
    """Return the progress as words: rows, rows per second, and the remaining time."""
    words = [f"{compact(finished_rows(snapshot))}/{compact(snapshot.target)} rows", per_second(speed.rows)]
    left = speed.remaining(snapshot)
    words.append(f"{duration(left)} left" if left is not None else f"{duration(snapshot.elapsed)} so far")
    return words
