"""Latency: a histogram of durations, any number of them in bounded memory, and its quantiles."""

from __future__ import annotations

import math
from typing import Final

_STEPS: Final = 16
"""Buckets per doubling: a quantile is at most 4.5 % too high, and never too low."""
_LEAST: Final = 1e-6


class Latency:
    """A histogram of seconds whose buckets grow geometrically, as in HdrHistogram."""

    __slots__ = ("_buckets", "count", "longest", "total")

    def __init__(self) -> None:
        """Start empty."""
        self.count = 0
        self.total = 0.0
        self.longest = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Add one duration."""
        bucket = math.ceil(math.log2(seconds if seconds > _LEAST else _LEAST) * _STEPS)  # noqa: FURB136 - each answer
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1
        self.total += seconds
        if seconds > self.longest:  # noqa: PLR1730 - the same
            self.longest = seconds

    def quantile(self, share: float) -> float:
        """Return the seconds within which this share (0 to 1) of them ended; 0 where there are none."""
        wanted = share * self.count
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return min(2 ** (bucket / _STEPS), self.longest)
        return self.longest
