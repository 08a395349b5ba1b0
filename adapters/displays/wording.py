"""What displays say about a run: short words of constant width for counts, rates and times."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ...engine.models.prices import dollars

if TYPE_CHECKING:
    from ...engine.telemetry.progress import ColumnProgress, ProgressSnapshot

_WINDOW = 30.0  # seconds that rates look back on
_MINUTE = 60
_HOUR = 3600
_DAY = 86_400
_EXACT = 10_000  # counts below this are written out
_ONE_DECIMAL = 100
_NOTICEABLE = 5.0  # seconds for which a rate limit is not worth a word
_UNITS = "kMGTP"


def compact(number: float) -> str:
    """Write a count in at most five characters: 9999, 12.3k, 999k, 10.0M."""
    if number < _EXACT:
        return f"{number:.0f}"
    value, unit = number / 1000, 0
    while value >= 999.5 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - where rounding would write a fourth digit
        value, unit = value / 1000, unit + 1
    return f"{value:.1f}{_UNITS[unit]}" if value < _ONE_DECIMAL - 0.05 else f"{value:.0f}{_UNITS[unit]}"


def per_second(rate: float) -> str:
    """Write a rate of rows; slow ones per minute, because "0 rows/s" says nothing."""
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


def over(column: ColumnProgress) -> int:
    """Count the cells of a column that are over, however they ended."""
    return column.completed + column.failed + column.skipped


def rows_over(snapshot: ProgressSnapshot) -> int:
    """Count the rows every column is through with; written ones lag behind by up to a row group."""
    finished = snapshot.committed + snapshot.dropped
    return max(finished, min((over(column) for column in snapshot.columns), default=0))


def failed(snapshot: ProgressSnapshot) -> int:
    """Count the cells that failed for good."""
    return sum(column.failed for column in snapshot.columns)


class Speed:
    """Rates over the last half minute, from snapshots as they come."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._seen: deque[tuple[float, int, int]] = deque()
        self._moved = 0.0

    def see(self, snapshot: ProgressSnapshot) -> None:
        """Take one more snapshot; those that are older than the window are forgotten."""
        if not self._seen or self._seen[-1][2] != snapshot.cells_over:
            self._moved = snapshot.elapsed
        self._seen.append((snapshot.elapsed, rows_over(snapshot), snapshot.cells_over))
        while len(self._seen) > 2 and self._seen[1][0] <= snapshot.elapsed - _WINDOW:  # noqa: PLR2004 - a pair at least
            self._seen.popleft()

    @property
    def rows(self) -> float:
        """Rows per second."""
        return self._rate(1)

    def remaining(self, snapshot: ProgressSnapshot) -> float | None:
        """Estimate how many seconds are left, by the cells; None as long as there is nothing to go by.

        A run that has stood still for a while is not about to end, however little is left of it.
        """
        rate = self._rate(2)
        if rate <= 0:
            return None
        return max((snapshot.cells - snapshot.cells_over) / rate, snapshot.elapsed - self._moved)

    def _rate(self, what: int) -> float:
        if len(self._seen) < 2:  # noqa: PLR2004 - a rate needs two points
            return 0.0
        first, last = self._seen[0], self._seen[-1]
        took = last[0] - first[0]
        return (last[what] - first[what]) / took if took > 0 else 0.0


def totals(snapshot: ProgressSnapshot) -> list[str]:
    """Say what the run has asked for and what went wrong, leaving out what there is none of."""
    words = []
    if snapshot.requests:
        tokens = snapshot.prompt_tokens + snapshot.completion_tokens
        words.append(f"{compact(snapshot.requests)} requests")
        words.append(f"{compact(tokens)} tokens")
        if snapshot.cost is not None:
            words.append(dollars(snapshot.cost))
    if snapshot.running:
        words.append(f"{compact(snapshot.running)} running")
    if snapshot.waiting_to_retry:
        words.append(f"{compact(snapshot.waiting_to_retry)} waiting to retry")
    for lane, seconds in snapshot.rate_limited.items():
        if seconds >= _NOTICEABLE:
            words.append(f"{lane.partition(' at ')[0]} refuses all for {duration(seconds)} (rate limit)")
    if failures := failed(snapshot):
        words.append(f"{compact(failures)} failed")
    if snapshot.dropped:
        words.append(f"{compact(snapshot.dropped)} {'row' if snapshot.dropped == 1 else 'rows'} dropped")
    return words


def headline(snapshot: ProgressSnapshot, pace: Speed) -> list[str]:
    """Say how far the run is: rows, their rate, and the time that is left."""
    words = [f"{compact(rows_over(snapshot))}/{compact(snapshot.target)} rows", per_second(pace.rows)]
    left = pace.remaining(snapshot)
    words.append(f"{duration(left)} left" if left is not None else f"{duration(snapshot.elapsed)} so far")
    return words
