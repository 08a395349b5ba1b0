"""The scheduler: carries the tracker's commands out in one TaskGroup and hands back what happened.

A worker is an asyncio task that works one cell after the other: when a cell ends, the tracker usually answers with the
next one for the permit that has become free, and the worker goes on with that. A task per permit rather than per cell
saves most of what asyncio costs. Two things keep it honest: a worker yields to the loop when all of them together have
run for a while without waiting, and it ends when a cell has left something behind in its context. A function in a
thread needs no task at all.

Nothing outlives `run`: workers, timers and commits are over when it returns or raises.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from typing import TYPE_CHECKING, Any, Protocol

from ..core.errors import DatasetGenerationError, RowloopError
from ..core.events import (
    Admit,
    Cancel,
    Cancelled,
    Commit,
    CommitFailed,
    Committed,
    Discard,
    Due,
    Execute,
    Halted,
    Null,
    Record,
    RunAfter,
    Started,
    Stop,
    Wake,
    Woken,
)
from ..models.bytes_received import received
from ..telemetry.observer import CommandObserver, Observer
from .executor import Placement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..core.events import Command, Event, Reason, Restored, Tally
    from ..core.store import RowGroup, Store
    from ..core.tracker import Tracker
    from .executor import Executor

ON_THE_SPOT, IN_THREAD = Placement.ON_THE_SPOT, Placement.IN_THREAD
_SLICE = 0.005
"""Seconds for which the workers together may hold the loop before they let others in."""


class Sink(Protocol):
    """Where finished row groups go, and where what earlier runs had of others comes from."""

    async def restore(self, group: RowGroup) -> Restored:
        """Put what an earlier run had of a row group into it."""
        ...

    async def commit(self, group: RowGroup, rows: Sequence[int], tally: Tally) -> None:
        """Take the rows at these offsets; they are safe when this returns."""
        ...

    def discard(self, group: int, tally: Tally | None) -> None:
        """Take note of a row group of which nothing is to be written."""
        ...


class Scheduler:
    """One run of a tracker."""

    def __init__(
        self, tracker: Tracker, executor: Executor, store: Store, sink: Sink, observers: Sequence[Observer] = ()
    ) -> None:
        """Take the parts; `run` does the rest."""
        self._tracker = tracker
        self._executor = executor
        self._store = store
        self._sink = sink
        self._observers = observers
        self._told = [observer.told for observer in observers if isinstance(observer, CommandObserver)]
        self._workers: dict[asyncio.Task[None], Execute] = {}
        self._in_threads: dict[int, Execute] = {}
        self._timers: dict[Due, asyncio.TimerHandle] = {}
        self._wakes: dict[Woken, asyncio.TimerHandle] = {}
        self._periodic: dict[Callable[[], None], float] = {}
        self._ticks: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._cancelling = False
        self._error: Exception | None = None
        self._until = 0.0
        self._turning = False
        self._carriers: dict[type, Callable[..., None]] = {
            Admit: self._admit,
            RunAfter: self._run_after,
            Wake: self._wake,
            Null: self._null,
            Record: self._record,
            Commit: self._start_commit,
            Discard: self._discard,
            Cancel: self._cancel,
            Stop: self._stop,
        }

    async def run(self) -> Reason | None:
        """Work until the tracker says Stop, and give its reason.

        A cancellation of the calling task halts the run, waits until what finished is committed, and is raised then; a
        second one cuts that short. What the sink, an observer or the engine itself raises is raised from here, when
        everything in flight has been cancelled and awaited.
        """
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._context = contextvars.copy_context()
        self._stopped: asyncio.Future[Reason | None] = self._loop.create_future()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for call in self._periodic:
                    self._set_tick(call)
                self._feed(Started())
                return await self._until_stopped()
        except BaseExceptionGroup as group:
            error = _first(group)
            raise error from error.__cause__
        finally:
            self._cancel_timers()
            for tick in self._ticks.values():
                tick.cancel()

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Have something called every so many seconds while the run lasts; raising ends the run."""
        self._periodic[call] = seconds

    @property
    def time(self) -> float:
        """The loop's time, in seconds."""
        return self._loop.time()

    @property
    def in_flight(self) -> list[Execute]:
        """What is being worked at this moment."""
        return [*self._workers.values(), *self._in_threads.values()]

    @property
    def received(self) -> dict[int, int]:
        """How many bytes have come of the answers that are awaited, by the id of their Execute command."""
        counts = {id(run): received(task) for task, run in self._workers.items()}
        return {run: count for run, count in counts.items() if count is not None}

    @property
    def waiting(self) -> list[Due]:
        """What waits for another attempt."""
        return list(self._timers)

    def halt(self) -> None:
        """Cancel the run from the loop's thread: what is in flight is cancelled, what is whole is committed."""
        self._guarded(lambda: self._feed(Halted("cancelled")))

    async def _until_stopped(self) -> Reason | None:
        try:
            reason = await asyncio.shield(self._stopped)
        except asyncio.CancelledError:
            if not self._stopped.done():
                self._feed(Halted("cancelled"))
                await self._stopped
            raise
        if self._error is not None:
            raise self._error
        return reason

    # Events in, commands out

    def _feed(self, event: Event) -> None:
        """Take in an event that no worker brought; what is to be run gets a worker each."""
        run = self._step(event)
        if run is not None:
            self._start(run)

    def _step(self, event: Event) -> Execute | None:
        """Take in an event and carry out the commands, but for one Execute that the caller can carry out itself."""
        kept: Execute | None = None
        events = [event]
        places, observers, told, timed = self._executor.places, self._observers, self._told, self._tracker.timed
        for observer in observers:
            observer.saw(event)
        while events:
            now = self._loop.time() - self._began if timed else 0.0
            for command in self._tracker.handle(events.pop(), now):
                for tell in told:
                    tell(command)
                if type(command) is not Execute:
                    self._carriers[type(command)](command)
                elif (place := places[command.column]) is ON_THE_SPOT:
                    ended = self._executor.work_now(command)
                    for observer in observers:
                        observer.saw(ended)
                    events.append(ended)
                elif place is IN_THREAD:
                    self._in_threads[id(command)] = command
                    self._context.run(self._executor.work_in_thread, command, self._thread_ended)
                elif kept is None:
                    kept = command
                else:
                    self._start(command)
        return kept

    def _start(self, run: Execute) -> None:
        self._tasks.create_task(self._work(run), context=self._context.copy())

    async def _work(self, first: Execute) -> None:
        """Work one task after the other, as long as there is one."""
        run: Execute | None = first
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - a coroutine of a task
        try:
            while run is not None:
                self._workers[me] = run
                run = self._step(await self._outcome(run))
                if run is not None and contextvars.copy_context() != self._context:
                    self._start(run)
                    return
                if time.monotonic() > self._until:
                    await self._yield()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the task can no longer answer, so the tracker must not wait
            self._break(error)
        finally:
            self._workers.pop(me, None)

    async def _outcome(self, run: Execute) -> Event:
        if self._cancelling:
            return Cancelled(run.group, run.column, run.row)
        try:
            return await self._executor.work(run)
        except asyncio.CancelledError:
            if self._tracker.halted is None:
                raise  # not our doing: the whole TaskGroup is being torn down
            return Cancelled(run.group, run.column, run.row)
        except DatasetGenerationError as error:  # raised from run(), when what is being written is written
            self._error = self._error or error
            self._feed(Halted("failed"))
            return Cancelled(run.group, run.column, run.row)

    async def _yield(self) -> None:
        """Let others in. The slice is over for all workers: the next one begins with the loop's next turn."""
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if not self._cancelling:
                raise

    def _turn(self) -> None:
        self._turning = False
        self._until = time.monotonic() + _SLICE

    def _thread_ended(self, run: Execute, value: Any, error: BaseException | None) -> None:
        if self._in_threads.pop(id(run), None) is not None:  # else it was cancelled, and nobody waits for it
            self._guarded(lambda: self._feed(self._executor.outcome(run, value, error)))

    # Carrying out

    def _admit(self, command: Admit) -> None:
        self._store.admit(command)
        if command.known:
            self._tasks.create_task(self._restore(self._store.groups[command.group]), context=self._context.copy())

    async def _restore(self, group: RowGroup) -> None:
        event: Event
        try:
            event = await self._sink.restore(group)
        except RowloopError as error:  # raised from run(), when the commits beside it are over
            self._error = self._error or error
            event = Halted("failed")
        self._guarded(lambda: self._feed(event))

    def _run_after(self, command: RunAfter) -> None:
        due = Due(command.group, command.column, command.row)
        self._timers[due] = self._loop.call_later(command.delay, self._on_timer, due)

    def _on_timer(self, due: Due) -> None:
        del self._timers[due]
        self._guarded(lambda: self._feed(due))

    def _wake(self, command: Wake) -> None:
        woken = Woken(command.lane)
        if woken in self._wakes:
            self._wakes[woken].cancel()
        self._wakes[woken] = self._loop.call_later(command.delay, self._on_wake, woken)

    def _on_wake(self, woken: Woken) -> None:
        del self._wakes[woken]
        self._guarded(lambda: self._feed(woken))

    def _set_tick(self, call: Callable[[], None]) -> None:
        self._ticks[call] = self._loop.call_later(self._periodic[call], self._on_tick, call)

    def _on_tick(self, call: Callable[[], None]) -> None:
        self._guarded(call)
        self._set_tick(call)

    def _guarded(self, call: Callable[[], None]) -> None:
        """Let what a callback of the loop raises end the run, not vanish in the loop's log; drop what comes later."""
        if self._stopped.done():
            return
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - it is raised from run()
            self._break(error)

    def _break(self, error: BaseException) -> None:
        """End the run with an error that is no fault of a cell; it is raised from run()."""
        if not self._stopped.done():
            self._stopped.set_exception(error)

    def _null(self, command: Null) -> None:
        if command.row >= 0:
            self._store.groups[command.group].values[command.column][command.row] = None
        else:
            group = self._store.groups[command.group]
            group.values[command.column] = [None] * group.size

    def _record(self, command: Record) -> None:
        group = self._store.groups[command.group]
        for observer in self._observers:
            observer.recorded(command, group)

    def _start_commit(self, command: Commit) -> None:
        self._tasks.create_task(self._commit(command), context=self._context.copy())

    async def _commit(self, command: Commit) -> None:
        group = self._store.groups[command.group]
        event: Event = Committed(command.group)
        try:
            await self._sink.commit(group, command.rows, command.tally)
        except Exception as error:  # noqa: BLE001 - it is raised from run(), when the commits beside it are over
            self._error = self._error or error
            event = CommitFailed(command.group)
        self._store.free(command.group)
        self._guarded(lambda: self._feed(event))

    def _discard(self, command: Discard) -> None:
        self._store.free(command.group)
        self._sink.discard(command.group, command.tally)

    def _cancel(self, _: Command) -> None:
        """Cancel what is in flight.

        Workers that have not begun see the flag: a task cut off before its first step could not answer. The one we
        are called from is not in flight. What a thread is doing cannot be stopped; what comes of it is thrown away.
        """
        self._cancelling = True
        self._cancel_timers()
        current = asyncio.current_task()
        for worker in self._workers:
            if worker is not current:
                worker.cancel()
        for run in self._in_threads.values():
            cancelled = Cancelled(run.group, run.column, run.row)
            self._loop.call_soon(self._guarded, functools.partial(self._feed, cancelled))
        self._in_threads.clear()

    def _cancel_timers(self) -> None:
        for timer in (*self._timers.values(), *self._wakes.values()):
            timer.cancel()
        self._timers.clear()
        self._wakes.clear()

    def _stop(self, command: Stop) -> None:
        if not self._stopped.done():
            self._stopped.set_result(command.reason)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Find the exception that ended a TaskGroup."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
