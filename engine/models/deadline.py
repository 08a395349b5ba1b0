"""Deadline: the total time limit of each attempt at a column's cells, fixed or learnt from answers."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..core.errors import ModelError
from ..core.events import Usage
from ..core.histogram import Latency
from .sweep import Sweep
from .time_limit import TimeLimit

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
    """The time limit of one column's attempts. A change applies to the attempts in flight as well.

    A request that has run into a learnt limit twice has twice the limit the next time, then four times, as it may need
    long for a reason of its own: it cannot change what is learnt from all others.
    """

    def __init__(self, timeout: float | Literal["auto"], policy: TimeLimit | None = None) -> None:
        """Take the seconds, or "auto" and the policy that learns them."""
        self._policy = policy or TimeLimit()
        self._learning = timeout == "auto"
        self._sweep = Sweep(self._policy.first if timeout == "auto" else timeout, _Attempt.expire)
        self._answers = Latency()
        self._watched_since: float | None = None
        self._late: dict[int, int] = {}
        """How often requests that have not been answered have run into a learnt limit, by a hash."""

    async def enforce(
        self, answer: Awaitable[T], judge: Callable[[T, float], None] | None = None, key: object = None
    ) -> tuple[T, float]:
        """Return an answer and the seconds it took; raises ModelError for one that takes too long.

        `judge` gets both, and raises ModelError for an answer that is of no use. `key` has the same representation when
        the same request is sent again.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - a coroutine of a task
        attempt, began = _Attempt(task), loop.time()
        late = hash(repr(key)) if self._late else 0
        longer = None
        if late and (times := self._late.get(late, 0)) > 1:
            longer = loop.call_at(began + self._policy.again(self._sweep.seconds, times), attempt.expire)
        else:
            self._sweep.add(attempt, began, loop)
        try:
            answered = await answer
        except asyncio.CancelledError:
            if attempt.withdraw():
                raise self._missed(loop.time() - began, key, loop) from None
            raise
        finally:
            self._sweep.remove(attempt) if longer is None else longer.cancel()
            if attempt.expired:  # it ended in another way all the same
                attempt.withdraw()
        took = loop.time() - began
        if late:
            self._late.pop(late, None)
        if self._learning:
            self._answers.add(took)
            if not self._answers.count % self._policy.answers:
                self._learn(loop)
        if judge is not None:
            judge(answered, took)
        return answered, took

    def _missed(self, took: float, key: object, loop: asyncio.AbstractEventLoop) -> ModelError:
        limit = f'{took:.0f} s (timeout="auto")' if self._learning else f"timeout={self._sweep.seconds:g} s"
        if self._learning:
            late = hash(repr(key))
            self._late[late] = self._late.get(late, 0) + (key is not None)
            self._answers.add(self._policy.counts_as(took))
            self._watched_since = -math.inf  # for as long as this attempt: slower answers had the time to arrive
            self._learn(loop)
        error = ModelError(f"no answer within {limit}", kind="timeout", retryable=True)
        error.usage = Usage(seconds=took)
        return error

    def _learn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Apply the limit that follows from the answers so far to all attempts in flight."""
        now, answers = loop.time(), self._answers
        if self._watched_since is None and answers.count >= self._policy.answers:
            self._watched_since = now
        watched = 0.0 if self._watched_since is None else now - self._watched_since
        seconds = self._policy.seconds(answers.count, answers.quantile(0.99), answers.quantile(0.999), watched)
        if seconds != self._sweep.seconds:
            self._sweep.change(seconds, loop)
