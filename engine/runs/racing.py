"""Racing: two requests for a cell that takes long. The first good answer is the cell's, and the other is cancelled.

The first request runs in the cell's worker, as in other columns. A cell that takes longer than twice the 95th
percentile of its column is reported to the tracker as Slow. If the tracker commands Hedge, a task of its own works the
same cell again. One of the two ends first:

    with an answer            the other is cancelled; the worker returns the answer
    with a retryable error    its failure is reported; the outcome of the other is the cell's
    the first, otherwise      the second is cancelled, as it would fail as well; the worker returns the failure

For each Hedge there is one HedgeEnded, before the outcome of the cell.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final

from ..core.events import UNKNOWN_USAGE, Done, Failed, HedgeEnded, Slow, Usage
from ..core.histogram import Latency
from ..models.sweep import Sweep
from .executor import Placement

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..core.events import Event, Execute, Hedge, Resized
    from .executor import Executor

_ANSWERS: Final = 50
"""So many answers are needed to know what takes long."""
_LEAST: Final = 0.05
"""Nothing is slow before so many seconds."""


class _Race:
    """A cell in flight, with the task of its second request."""

    __slots__ = ("alone", "cancels", "hedge", "open", "outcome", "run", "task")

    def __init__(self, run: Execute, task: asyncio.Task[Any]) -> None:
        self.run = run
        self.task = task
        self.cancels = task.cancelling()
        self.hedge: asyncio.Task[None] | None = None
        self.open = False
        """Whether both requests are under way."""
        self.alone = False
        """Whether the second request is under way alone."""
        self.outcome: Done | Resized | Failed | BaseException | None = None
        """The outcome of the second request, where it is the cell's."""

    def ended(self, *, failed: Failed | None = None, usage: Usage | None = None, won: bool = False) -> HedgeEnded:
        """Return how the race ended."""
        self.open = False
        run, failure = self.run, None if failed is None else failed.failure
        return HedgeEnded(run.group, run.column, run.row, failure, usage if failed is None else failed.usage, won)

    def result(self) -> Done | Resized | Failed:
        """Return the outcome of the second request, or raise its error."""
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        assert self.outcome is not None  # noqa: S101 - it has ended
        return self.outcome


class _Column:
    """The answers of one column, and its cells in flight."""

    def __init__(self, slow: Callable[[_Race], None]) -> None:
        self._answers = Latency()
        self.under_way = Sweep(math.inf, slow)

    def add(self, took: float, loop: asyncio.AbstractEventLoop) -> None:
        """Learn from an answer."""
        self._answers.add(took)
        if not self._answers.count % _ANSWERS:
            self.under_way.change(max(_LEAST, 2 * self._answers.quantile(0.95)), loop)


class Racing:
    """Works tasks as an executor does, and the cells of hedged columns with up to two requests each."""

    def __init__(
        self,
        executor: Executor,
        feed: Callable[[Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        ending: Callable[[], bool],
    ) -> None:
        """Take the functions that feed an event and start a task, and whether the run is being ended in order."""
        self._executor = executor
        self._feed = feed
        self._spawn = spawn
        self._ending = ending
        self._columns = {i: _Column(self._slow) for i, p in enumerate(executor.places) if p is Placement.HEDGED}
        self._reported: dict[tuple[int, int, int], _Race] = {}
        """The slow cells in flight, by row group, column and row."""

    async def work(self, run: Execute) -> Done | Resized | Failed:
        """Work a task. A cancellation that comes from outside is passed on."""
        column = self._columns.get(run.column)
        if column is None:
            return await self._executor.work(run)
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of a worker
        race, began = _Race(run, task), loop.time()
        column.under_way.add(race, began, loop)
        try:
            event = await self._raced(race)
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError) or self._ending():
                self._end(race, UNKNOWN_USAGE)
            raise
        finally:
            column.under_way.remove(race)
            self._reported.pop((run.group, run.column, run.row), None)
            if race.hedge is not None:
                race.hedge.cancel()
        self._end(race, getattr(event, "usage", None) or UNKNOWN_USAGE)
        if type(event) is Done:
            column.add(loop.time() - began, loop)
        return event

    def hedge(self, command: Hedge) -> None:
        """Send a second request for a cell that was reported as slow."""
        race = self._reported[command.group, command.column, command.row]
        self._columns[command.column].under_way.remove(race)
        race.open = True
        race.hedge = self._spawn(self._second(race))

    async def _raced(self, race: _Race) -> Done | Resized | Failed:
        """Work the first request, and return the outcome of the cell."""
        try:
            event = await self._executor.work(race.run)
            if race.open and type(event) is Failed and event.failure.retryable and race.outcome is None:
                self._feed(race.ended(failed=event, won=True))
                race.alone = True
                assert race.hedge is not None  # noqa: S101 - the race was open
                await asyncio.wait([race.hedge])
                return event if race.outcome is None else race.result()
        except asyncio.CancelledError:
            if race.outcome is None or race.alone or race.task.uncancel() > race.cancels:
                raise
            return race.result()
        if race.outcome is not None:  # the first request ended all the same when it was cancelled
            race.task.uncancel()
            return race.result()
        return event

    async def _second(self, race: _Race) -> None:
        """Work the second request."""
        outcome: Done | Resized | Failed | BaseException
        try:
            outcome = await self._executor.work(race.run)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - raised by the worker of the cell
            outcome = error
        if race.alone:
            race.outcome = outcome
        elif type(outcome) is Failed and race.open:
            self._feed(race.ended(failed=outcome))
        elif race.open:
            race.outcome = outcome
            race.task.cancel()

    def _end(self, race: _Race, usage: Usage) -> None:
        """Report the request that is cancelled; what it has used is estimated by the usage of the other."""
        if race.open:
            usage = Usage(usage.prompt_tokens, usage.completion_tokens, usage.seconds, usage.billing)
            self._feed(race.ended(usage=usage, won=race.outcome is not None))

    def _slow(self, race: _Race) -> None:
        """Report a slow cell; if it gets no second request now, it is reported again later."""
        if race.hedge is not None:
            return  # it got a permit in this turn of the loop
        run = race.run
        self._reported[run.group, run.column, run.row] = race
        self._feed(Slow(run.group, run.column, run.row))
        if race.hedge is None:
            loop = asyncio.get_running_loop()
            self._columns[run.column].under_way.add(race, loop.time(), loop)
