"""Deadline: the total time limit of each attempt at a column's cells, fixed or learnt from answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..core.errors import ModelError
from ..core.events import Usage
from ..core.histogram import Latency
from ..core.policy import TimeLimit
from .sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class _Attempt:
    """A task that waits for an answer. As with asyncio.timeout, a cancellation from outside is not taken for ours."""

    __slots__ = ("_cancels", "_task", "expired")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._cancels = task.cancelling()
        self.expired = False

    def expire(self) -> None:
        """End the attempt."""
        self.expired = True
        self._task.cancel()

    def withdraw(self) -> bool:
        """Take back our cancellation of the task, if there was one; return whether nobody else cancelled the task."""
        if not self.expired:
            return False
        self.expired = False
        return self._task.uncancel() <= self._cancels


class Deadline:
    """The time limit of one column's attempts. A change applies to the attempts in flight as well."""

    def __init__(self, timeout: float | Literal["auto"], policy: TimeLimit | None = None) -> None:
        """Take the seconds, or "auto" and the policy that learns them."""
        self._policy = policy or TimeLimit()
        self._learning = timeout == "auto"
        self._sweep = Sweep(self._policy.first if timeout == "auto" else timeout, _Attempt.expire)
        self._answers = Latency()

    async def enforce(self, answer: Awaitable[T], judge: Callable[[T, float], None] | None = None) -> tuple[T, float]:
        """Return an answer and the seconds it took; raises ModelError for one that takes too long.

        `judge` gets both, and raises ModelError for an answer that is of no use.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - a coroutine of a task
        attempt, began = _Attempt(task), loop.time()
        self._sweep.add(attempt, began, loop)
        try:
            answered = await answer
        except asyncio.CancelledError:
            if attempt.withdraw():
                raise self._missed(loop.time() - began, loop) from None
            raise
        finally:
            self._sweep.remove(attempt)
            if attempt.expired:  # it ended in another way all the same
                attempt.withdraw()
        took = loop.time() - began
        if self._learning:
            self._answers.add(took)
            if not self._answers.count % self._policy.answers:
                self._learn(loop)
        if judge is not None:
            judge(answered, took)
        return answered, took

    def _missed(self, took: float, loop: asyncio.AbstractEventLoop) -> ModelError:
        limit = f'{took:.0f} s (timeout="auto")' if self._learning else f"timeout={self._sweep.seconds:g} s"
        if self._learning:
            self._answers.add(self._policy.counts_as(took))
            self._learn(loop)
        error = ModelError(f"no answer within {limit}", kind="timeout", retryable=True)
        error.usage = Usage(seconds=took)
        return error

    def _learn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Apply the limit that follows from the answers so far to all attempts in flight."""
        seconds = self._policy.seconds(self._answers.count, self._answers.quantile(0.99))
        if seconds != self._sweep.seconds:
            self._sweep.change(seconds, loop)
