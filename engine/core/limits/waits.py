"""Waits: what a lane begins with after a wait that the endpoint asked for, as everything was refused. Pure.

Theory of operation
    A quota that is used up gives as many answers with half the requests in flight: the ceiling is halved at each wait,
    so that in time a quota is spread over its minute, and the lane begins low. An endpoint that is open in windows of
    time gives fewer answers then. Once this has been seen, the lane has no ceiling and begins with what the endpoint
    took. A wait after which nothing was answered has shown nothing.
"""

from __future__ import annotations

from typing import Final

_LESS: Final = 0.75
"""The share of the answers between two waits until those before the next count as clearly fewer."""


class Waits:
    """The ceiling and the limit after the latest wait."""

    __slots__ = ("_answers", "_in_windows", "_low", "ceiling", "first")

    def __init__(self, start: int) -> None:
        """Start without a wait. `start` is what the lane begins with."""
        self.ceiling: int | None = None
        self.first = self._low = max(1, start // 4)
        self._answers = 0
        self._in_windows = False

    def wait(self, limit: int, taken: int, answers: int) -> None:
        """Learn from the time before a wait: the limit, how many requests were taken at once, and the answers."""
        if not answers:
            return
        self._in_windows = self._in_windows or answers < _LESS * self._answers
        self._answers = answers
        self.ceiling = None if self._in_windows else limit // 2
        self.first = max(self._low, taken) if self._in_windows else self._low
