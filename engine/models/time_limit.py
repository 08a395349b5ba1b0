"""TimeLimit: how long one attempt may take, learnt from earlier answers. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """How long one attempt may take in all, in seconds, where the user has not set a timeout.

    It is `first` until `answers` answers have arrived, then `factor` times their 99th percentile, but at least `least`:
    a request that hangs is ended soon where answers are fast, and slow models have the time they need. Three rules keep
    answers that are merely slow:

    - Until the column has been watched for `patience` times the 99th percentile, or an attempt has run into it, that is
      the limit: the slowest of the first answers have not arrived yet.
    - It is at least twice the 99.9th percentile, so that a few answers that are far slower than the others stay within.
    - An attempt that runs into it counts as a slow answer: where more than one in a hundred does, it doubles.

    A request that runs into it twice gets more time by itself (`again`).
    """

    first: float = 600.0
    answers: int = 50
    factor: float = 10.0
    least: float = 15.0
    patience: float = 40.0

    def seconds(self, answers: int, p99: float, p999: float = 0.0, watched: float = math.inf) -> float:
        """Return the limit after so many answers; `watched`: for how many seconds the column has had answers."""
        if answers < self.answers:
            return self.first
        ordinary = (self.factor if watched >= self.patience * p99 else self.patience) * p99
        rare = min(2 * p999, max(self.first, self.factor * p99))
        return max(self.least, ordinary, rare)

    def again(self, limit: float, times: int) -> float:
        """Return the limit of a request that has run into a limit so many times: twice the usual one for the third."""
        return max(limit, min(self.first, limit * 2.0 ** max(0, times - 1)))

    def counts_as(self, limit: float) -> float:
        """Return the time that an attempt which ran into `limit` counts for among the answers.

        Where more than one in a hundred does, answers may be slower than those seen so far: the limit then doubles,
        until it is at `first` again.
        """
        return min(2 * limit, max(limit, self.first)) / self.factor
