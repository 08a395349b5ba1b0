"""The scheduler: carries out the tracker's commands in one TaskGroup and feeds the resulting events back to it.

A worker is an asyncio task that works one cell after the other: when a cell ends, the tracker usually answers with the
next one for the free permit, and the worker continues with it. A task per permit instead of one per cell saves most of
the cost of asyncio. Two rules keep this fair: a worker whose cells do not wait yields to the loop when all workers
together have run for a while, and it ends when a cell has changed its context. A function in a thread needs no task.

Nothing outlives `run`: workers, timers and commits have ended when it returns or raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import time
from typing import TYPE_CHECKING, Any, Final

from ..core.errors import DatasetGenerationError
from ..core.events import (
    Admit,
    BudgetLow,
    Cancel,
    Cancelled,
    Commit,
    Discard,
    Execute,
    Halted,
    Hedge,
    Null,
    Record,
    RunAfter,
    Started,
    Stop,
    Wake,
    Woken,
)
from ..models.bytes_received import received
from ..telemetry.observer import methods_of
from .budget import warn
from .executor import Placement
from .racing import Racing
from .slices import Slices
from .timers import Timers
from .transfers import Transfers, cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from ..core.events import Command, Event, Reason, Steering
    from ..core.store import Store
    from ..core.tracker import Tracker
    from ..datasets.sinks import RowGroupSink
    from ..telemetry.observer import Observer
    from .executor import Executor

_ABOUT_A_TASK: Final = (asyncio.CancelledError, GeneratorExit, StopIteration)
"""Errors that would mean something else to the task that waits for them: that it is cancelled, closed or over."""

ON_THE_SPOT, IN_THREAD = Placement.ON_THE_SPOT, Placement.IN_THREAD


class Scheduler:
    """Runs one tracker to its end."""

    def __init__(
        self, tracker: Tracker, executor: Executor, store: Store, sink: RowGroupSink, observers: Sequence[Observer] = ()
    ) -> None:
        """Take the parts; `run` does the rest. Before that, `timers` takes what to call periodically."""
        self._tracker = tracker
        self._executor = executor
        self._store = store
        self._on_event = methods_of(observers, "on_event")
        self._on_failure = methods_of(observers, "on_failure")
        self._on_command = methods_of(observers, "on_command")
        self.timers = Timers(self._feed, self._guarded)
        self._transfers = Transfers(store, sink, self._fail)
        self._racing = Racing(executor, self._feed_guarded, self._spawn, lambda: tracker.halted is not None)
        self._work_task = self._racing.work if Placement.HEDGED in executor.places else executor.work
        self._workers: dict[asyncio.Task[None], Execute] = {}
        self._in_threads: dict[int, Execute] = {}
        self._error: BaseException | None = None
        self._slices = Slices()
        self._carriers: dict[type, Callable[..., None]] = {
            Admit: self._admit,
            Hedge: self._racing.hedge,
            RunAfter: self.timers.run_after,
            Wake: self.timers.wake,
            Null: store.null,
            Record: self._record,
            Commit: self._commit,
            Discard: self._transfers.discard,
            BudgetLow: warn,
            Cancel: self._cancel,
            Stop: self._stop,
        }

    async def run(self) -> Reason | None:
        """Work until the tracker commands Stop, and return its reason.

        A cancellation of the calling task halts the run, waits until everything finished is committed, and is then
        raised; a second cancellation ends the wait. What the sink, an observer or the engine itself raises is raised
        from here, when everything in flight has been cancelled and awaited.
        """
        self._loop = asyncio.get_running_loop()
        self._tracker.on_permits(self._look_soon)
        self._context = contextvars.copy_context()
        self._stopped: asyncio.Future[Reason | None] = self._loop.create_future()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self.timers.start()
                self._feed(Started())
                return await self._until_stopped()
        except BaseExceptionGroup as group:
            error = _first(group)
            raise error from error.__cause__
        finally:
            self.timers.close()
            self._tracker.close(self._loop.time())

    def halt(self, reason: Reason = "cancelled") -> None:
        """End the run, from the loop's thread: what is in flight is cancelled, complete rows are committed."""
        self.steer(Halted(reason))

    def steer(self, event: Steering) -> None:
        """Take an event from outside the run, on the loop's thread."""
        self._guarded(lambda: self._feed(event))

    @property
    def time(self) -> float:
        """The loop's time, in seconds."""
        return self._loop.time()

    @property
    def in_flight(self) -> list[Execute]:
        """The tasks being worked at this moment."""
        return [*self._workers.values(), *self._in_threads.values()]

    @property
    def received(self) -> dict[int, int]:
        """The bytes received of awaited answers, by the id of their Execute command."""
        counts = {id(run): received(task) for task, run in self._workers.items()}
        return {run: count for run, count in counts.items() if count is not None}

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
        """Feed an event that no worker brought; each task to execute gets a new worker."""
        run = self._step(event)
        if run is not None:
            self._start(run)

    def _feed_guarded(self, event: Event) -> None:
        self._guarded(lambda: self._feed(event))

    def _step(self, event: Event) -> Execute | None:
        """Feed an event and carry out the commands, except one Execute that the caller can carry out itself."""
        kept: Execute | None = None
        events = [event]
        places, on_event, on_command = self._executor.places, self._on_event, self._on_command
        timed = self._tracker.timed
        for notify in on_event:
            notify(event)
        while events:
            now = self._loop.time() if timed else 0.0
            for command in self._tracker.handle(events.pop(), now):
                for notify in on_command:
                    notify(command)
                if type(command) is not Execute:
                    self._carriers[type(command)](command)
                elif (place := places[command.column]) is ON_THE_SPOT:
                    ended = self._executor.work_now(command)
                    for notify in on_event:
                        notify(ended)
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
        self._spawn(self._work(run))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._tasks.create_task(coroutine, context=self._context.copy())

    async def _work(self, first: Execute) -> None:
        """Work one task after the other, as long as the tracker has one."""
        run: Execute | None = first
        slices, work, me = self._slices, self._work_task, asyncio.current_task()
        assert me is not None  # noqa: S101 - a coroutine of a task
        try:
            while run is not None:
                self._workers[me] = run
                try:
                    event = _cancelled(run) if slices.cancelling else await slices.watch(work(run))
                except (asyncio.CancelledError, DatasetGenerationError) as error:
                    event = self._broken_off(run, error)
                waited = slices.waited
                try:
                    run = self._step(event)
                except BaseException as error:  # noqa: BLE001 - a CancelledError is the user's here: nothing is awaited
                    return self._break(error)
                if run is not None and contextvars.copy_context() != self._context:
                    self._start(run)
                    return None
                if not waited and time.monotonic() > slices.until:
                    await slices.yield_loop()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the tracker must not wait for this task
            self._break(error)
        finally:
            self._workers.pop(me, None)

    def _broken_off(self, run: Execute, error: BaseException) -> Cancelled:
        """Return the event of a task that was cancelled, or whose error ends the run; raises what is not ours."""
        if isinstance(error, DatasetGenerationError):
            self._fail(error)
            self._feed(Halted("failed"))
        elif self._tracker.halted is None:
            raise error  # not cancelled by us: the whole TaskGroup is ending
        return _cancelled(run)

    def _thread_ended(self, run: Execute, value: Any, error: BaseException | None) -> None:
        if self._in_threads.pop(id(run), None) is not None:  # else it was cancelled, and its outcome is not needed
            self._guarded(lambda: self._feed(self._executor.outcome(run, value, error)))

    # Commands

    def _admit(self, command: Admit) -> None:
        self._store.admit(command)
        if command.known:
            self._transfer(self._transfers.restore(self._store.groups[command.group]))

    def _commit(self, command: Commit) -> None:
        self._transfer(self._transfers.commit(command))

    def _transfer(self, transfer: Coroutine[Any, Any, Event]) -> None:
        async def work() -> None:
            try:
                event = await transfer
            except BaseException as error:
                if cancelled(error):
                    raise
                self._break(error)
            else:
                self._guarded(lambda: self._feed(event))

        self._spawn(work())

    def _look_soon(self, lane: int) -> None:
        """Look at a lane in the loop's next turn, because shared permits are free; from any thread."""
        look = functools.partial(self._guarded, functools.partial(self._feed, Woken(lane)))
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the run is over; another run must not fail
            self._loop.call_soon_threadsafe(look, context=self._context.copy())

    def _record(self, command: Record) -> None:
        group = self._store.groups[command.group]
        for notify in self._on_failure:
            notify(command, group)

    def _cancel(self, _: Command) -> None:
        """Cancel what is in flight.

        Workers that have not begun see the flag: a task cancelled before its first step could not answer. The worker
        that called us is not in flight. A function in a thread cannot be stopped, but its outcome is thrown away.
        """
        self._slices.cancelling = True
        self.timers.cancel_waits()
        current = asyncio.current_task()
        for worker in self._workers:
            if worker is not current:
                worker.cancel()
        for run in self._in_threads.values():
            self._loop.call_soon(self._guarded, functools.partial(self._feed, _cancelled(run)))
        self._in_threads.clear()

    def _stop(self, command: Stop) -> None:
        if not self._stopped.done():
            self._stopped.set_result(command.reason)

    # Errors

    def _fail(self, error: BaseException) -> None:
        """Keep the first error; it is raised from run() once the tracker has ended everything in flight."""
        self._error = self._error or error

    def _guarded(self, call: Callable[[], None]) -> None:
        """End the run with what a callback raises, which would only be logged otherwise; ignore late callbacks."""
        if self._stopped.done():
            return
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - it is raised from run()
            self._break(error)

    def _break(self, error: BaseException) -> None:
        """End the run at once with an error that is no fault of a cell; it is raised from run()."""
        if self._stopped.done():
            return
        if isinstance(error, _ABOUT_A_TASK):
            cause, error = error, DatasetGenerationError(f"{type(error).__name__}: {error}", stage="engine")
            error.__cause__ = cause
        self._stopped.set_exception(error)


def _cancelled(run: Execute) -> Cancelled:
    return Cancelled(run.group, run.column, run.row)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the exception that ended a TaskGroup."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
