"""Deadline: the total time limit of each attempt at a column's cells, fixed or learnt from answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, TypeVar

from ..core.errors import ModelError
from ..core.events import Usage
from ..core.histogram import Latency
from ..core.policy import TimeLimit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class Deadline:
    """The time limit of one column's attempts. A change applies to the attempts in flight as well."""

    def __init__(self, timeout: float | Literal["auto"], policy: TimeLimit | None = None) -> None:
        """Take the seconds, or "auto" and the policy that learns them."""
        self._policy = policy or TimeLimit()
        self._learning = timeout == "auto"
        self._seconds = self._policy.first if timeout == "auto" else timeout
        self._answers = Latency()
        self._in_flight: dict[asyncio.Timeout, float] = {}

    async def enforce(self, answer: Awaitable[T], judge: Callable[[T, float], None] | None = None) -> tuple[T, float]:
        """Return an answer and the seconds it took; raises ModelError for one that takes too long.

        `judge` gets both, and raises ModelError for an answer that is of no use.
        """
        time = asyncio.get_running_loop().time
        began = time()
        timeout = asyncio.timeout_at(began + self._seconds)
        try:
            async with timeout:
                self._in_flight[timeout] = began
                try:
                    answered = await answer
                finally:
                    del self._in_flight[timeout]
        except TimeoutError:
            raise self._missed(time() - began) from None
        took = time() - began
        if self._learning:
            self._answers.add(took)
            if not self._answers.count % self._policy.answers:
                self._learn()
        if judge is not None:
            judge(answered, took)
        return answered, took

    def _missed(self, took: float) -> ModelError:
        limit = f'{took:.0f} s (timeout="auto")' if self._learning else f"timeout={self._seconds:g} s"
        if self._learning:
            self._answers.add(self._policy.counts_as(took))
            self._learn()
        error = ModelError(f"no answer within {limit}", kind="timeout", retryable=True)
        error.usage = Usage(seconds=took)
        return error

    def _learn(self) -> None:
        """Apply the limit that follows from the answers so far to all attempts in flight."""
        seconds = self._policy.seconds(self._answers.count, self._answers.quantile(0.99))
        if seconds != self._seconds:
            self._seconds = seconds
            for timeout, began in self._in_flight.items():
                if not timeout.expired():
                    timeout.reschedule(began + seconds)
