"""Draining: ends everything on a loop, in order and in bounded time.

The order: calls and the async generators that they dropped, because both use the resources; the resources, last in
first out; the remaining tasks; the other async generators; the worker threads. Each step has a share of the time, so
a step that does not finish cannot use up the time of the others. Work that refuses to end is named and left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import traceback
import warnings
from typing import TYPE_CHECKING, Any

from .errors import RuntimeClosedError
from .loop import State
from .waiting import Gate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .loop import LoopThread, Submission

SHARES = {  # the part of the exit budget that has passed when each step must be over
    "callers": 0.45,
    "calls": 0.6,
    "dropped": 0.65,
    "resources": 0.8,
    "tasks": 0.85,
    "generators": 0.9,
    "workers": 0.95,
}


class Ending:
    """The draining of one loop thread, as the thread that requests it sees it."""

    def __init__(self, thread: LoopThread, *, final: bool, patient: bool = False) -> None:
        """Start at once. A final draining refuses further calls and ends the thread.

        The draining at interpreter exit is not final. It first grants time to the callers whose threads the interpreter
        joins. If it is `patient`, calls that may finish at exit have no limit. At its end the loop takes calls again:
        exit handlers and such threads may still make some, and a second draining ends those.
        """
        self._thread = thread
        self._final = final
        self._patient = patient
        self.leftovers: list[str] = []
        self.failures: list[Exception] = []
        self._finishing: list[Submission] = []  # calls to be awaited before the draining
        self._start()

    def _start(self) -> None:
        thread = self._thread
        self._drained = Gate()
        thread.state = State.DRAINING
        thread.refusing = self._final
        with contextlib.suppress(RuntimeClosedError):  # the loop has ended: nothing is left to drain
            thread.post(self._begin)

    def wait(self) -> None:
        """Wait until everything has ended, at most the exit budget; then `leftovers` and `failures` are complete."""
        thread, budget = self._thread, self._thread.settings.exit_budget
        if not self._drained.wait(budget):
            self.leftovers.append(f"its loop is blocked and cannot be drained. Its stack:\n{thread.stack()}")
            thread.give_up()
        elif self._final and not self.leftovers:
            thread.join(budget)

    def finish(self) -> None:
        """Wait; warn about leftovers and raise the failures."""
        self.wait()
        for leftover in self.leftovers:
            warnings.warn(f"{self._thread.name} is closed, but {leftover}", RuntimeWarning, stacklevel=3)
        if self.failures:
            message = f"closing the resources of {self._thread.name} failed"
            raise ExceptionGroup(message, self.failures)

    def report(self) -> None:
        """Wait; print leftovers and failures to stderr, because it is too late for logging.

        The interpreter would wait for the threads of calls that may finish at exit next: this waits for the calls.
        """
        self.wait()
        while self._finishing:
            for call in self._finishing:
                ended = Gate()
                call.when_done(ended.open)
                ended.wait()
            self._finishing = []
            if self._thread.state is State.RUNNING:
                self._start()
                self.wait()
        for leftover in self.leftovers:
            print(f"{self._thread.name}: at exit, {leftover}", file=sys.stderr)  # noqa: T201 - see above
        for failure in self.failures:
            print("".join(traceback.format_exception(failure)), file=sys.stderr)  # noqa: T201 - see above

    def _begin(self) -> None:
        thread = self._thread
        if self._patient:
            self._finishing = [call for call in _calls_of_joined_threads(thread) if call.finish_at_exit]
            if self._finishing:
                thread.state = State.RUNNING
                self._drained.open()
                return
        thread.holding = not self._final
        self._task = asyncio.get_running_loop().create_task(self._drain(), name=f"draining of {self._thread.name}")

    async def _drain(self) -> None:
        thread, loop = self._thread, asyncio.get_running_loop()
        begun, budget = loop.time(), thread.settings.exit_budget
        until = {step: begun + budget * share for step, share in SHARES.items()}
        try:
            while not self._final and loop.time() < until["callers"] and (spared := _joined_callers(thread)):
                await _wait(spared, until["callers"])
            await _end_calls(thread, until["calls"])
            await thread.generators.settle(until["dropped"])
            self.failures = await thread.resources.close(until["resources"])
            self.leftovers += await _end_tasks(thread, until["tasks"])
            self.leftovers += await thread.generators.close(until["generators"])
            self.leftovers += await _end_workers(thread, until["workers"])
        finally:
            if not self._final:
                thread.reopen(drained=not self.leftovers)
            self._drained.open()
        if self._final:
            await _wait(_others(), float("inf"))
            thread.stop_here()


def _others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {task for task in [asyncio.current_task()] if task is not None}


def _joined_callers(thread: LoopThread) -> list[asyncio.Task[Any]]:
    """Return the tasks of the calls whose callers are threads that the interpreter joins at exit."""
    return [call.task for call in _calls_of_joined_threads(thread) if call.task is not None]


def _calls_of_joined_threads(thread: LoopThread) -> list[Submission]:
    main = threading.main_thread()
    awaited = {other.ident for other in threading.enumerate() if not other.daemon and other is not main}
    return [call for call in thread.calls if call.waited_by in awaited]


async def _end_calls(thread: LoopThread, until: float) -> None:
    calls = tuple(thread.calls)
    tasks = [call.task for call in calls]
    for call in calls:
        call.close()
    await _wait(tasks, until)
    for call in calls:
        call.fail(RuntimeClosedError(f"{thread.name} is closed, and {call.name} refuses to be cancelled"))


async def _end_tasks(thread: LoopThread, until: float) -> list[str]:
    called = {call.task for call in thread.calls}  # calls that exit handlers make from now on may run
    tasks = _others() - thread.generators.sweeps() - called
    for task in tasks:
        task.cancel("the runtime is being closed")
    await _wait(tasks, until)
    return [f"task {task.get_name()} refuses to be cancelled: {task.get_coro()!r}" for task in tasks if not task.done()]


async def _end_workers(thread: LoopThread, until: float) -> list[str]:
    if thread.workers is None:
        return []
    thread.workers.shutdown(wait=False, cancel_futures=True)
    return [f"thread {name} is still working" for name in await busy_workers(thread, until)]


async def busy_workers(thread: LoopThread, until: float) -> list[str]:
    """Wait until no worker thread is busy, or until the loop's clock shows `until`; name those that are still busy."""
    workers, idle = thread.workers, asyncio.Event()
    if workers is None or not workers.busy():
        return []

    def report_idle() -> None:
        with contextlib.suppress(RuntimeClosedError):  # the draining gave up on the loop
            thread.post(idle.set)

    workers.when_idle(report_idle)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            await idle.wait()
    return workers.busy()


async def _wait(tasks: Iterable[asyncio.Task[Any] | None], until: float) -> None:
    pending = [task for task in tasks if task is not None and not task.done()]
    if pending:
        left = until - asyncio.get_running_loop().time()
        await asyncio.wait(pending, timeout=None if left == float("inf") else max(0.0, left))
