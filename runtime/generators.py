"""Generators: closes async generators that were dropped, or that are left when the loop ends, one after the other.

Theory of operation. An event loop must close the async generators that were dropped half read, and those that still
exist when it ends. asyncio starts all these closings at once. This fails where one generator reads another, as in the
body of an HTTP response, which passes through half a dozen. The cleanup of the outer generator closes the inner one,
which is already being closed ("asynchronous generator is already running"). Here one task, a sweep, closes the
generators that were dropped at the same moment, one after the other. Generators that a cleanup drops are closed by
the same sweep afterwards. Generators that were dropped at different moments have sweeps of their own, so a slow
cleanup does not delay the others.

The interpreter calls `_drop` in any thread: where the last reference disappears, or where the garbage collector runs.
Everything else happens on the loop's thread, and a sweep starts only while no thread collects: a collector that finds
a generator in the middle of its cleanup throws a GeneratorExit into it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .errors import RuntimeClosedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    Generator = AsyncGenerator[Any, Any]


POLL_EVERY = 0.002  # seconds between two checks whether the collector has finished


class Collector:
    """Whether the garbage collector is running, in any thread of the process.

    The first loop of the process adds the callback to `gc.callbacks`, where it stays. The interpreter walks that list
    by index: removing an entry while another thread collects would make it skip the callback of another library.
    """

    working = False
    _requests = count()

    @classmethod
    def observe(cls) -> None:
        """Start to observe the collector; only the first request of the process has an effect."""
        if next(cls._requests) == 0:  # atomic: no lock, which a fork could leave locked
            gc.callbacks.append(cls.note)

    @classmethod
    def note(cls, phase: str, _info: object) -> None:
        """Record the phase that `gc` reports to its callbacks: start or stop."""
        cls.working = phase == "start"

    @classmethod
    def forget(cls) -> None:
        """Reset the state in a forked child, where no other thread collects."""
        cls.working = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Collector.forget)


class Generators:
    """The async generators of one loop."""

    def __init__(self, post: Callable[[Callable[[], object]], object]) -> None:
        """Take the function that posts a callback to the loop from any thread."""
        self._post = post
        self._begun: WeakKeyDictionary[Generator, None] = WeakKeyDictionary()  # in the order in which they began
        self._dropped: deque[Generator] = deque()
        self._sweeps: dict[asyncio.Task[Any], deque[Generator]] = {}  # sweep -> the generators that it closes
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self) -> None:
        """Replace the hooks that the loop set when it began to run; call this on the running loop."""
        Collector.observe()
        self._loop = asyncio.get_running_loop()
        sys.set_asyncgen_hooks(firstiter=self._begin, finalizer=self._drop)

    def open(self) -> list[str]:
        """Name the generators that have begun and not ended."""
        return [_name(generator) for generator in self._begun if _is_open(generator)]

    def sweeps(self) -> set[asyncio.Task[Any]]:
        """Return the tasks that close dropped generators."""
        return set(self._sweeps)

    async def closed(self, generator: Any) -> None:
        """Close a generator, and then the generators that it drops meanwhile, all in the calling task."""
        task = _current_task()
        dropped = self._sweeps[task] = deque()
        try:
            await generator.aclose()
            await self._sweep(dropped)
        finally:
            del self._sweeps[task]
            self._later(*dropped)

    async def settle(self, until: float) -> None:
        """Wait until all dropped generators are closed, or until the loop's clock shows `until`."""
        loop = asyncio.get_running_loop()
        while (self._sweeps or self._dropped) and loop.time() < until:
            if self._sweeps:
                await asyncio.wait(self.sweeps(), timeout=until - loop.time())
            else:
                await asyncio.sleep(POLL_EVERY)  # the collector is running

    async def close(self, until: float) -> list[str]:
        """Close all that are left, outer before inner, each within its share of the time; name those that refuse."""
        loop = asyncio.get_running_loop()
        await self.settle((loop.time() + until) / 2)
        left = [generator for generator in self._begun if _is_open(generator)]
        while left:
            share = (until - loop.time()) / len(left)
            await asyncio.wait([self._start([left.pop(0)])], timeout=max(0.0, share))
        for task in self._sweeps:
            task.cancel("the runtime is being closed")
        refusing = [_name(queue[0]) for queue in self._sweeps.values() if queue]
        return [f"async generator {name} refuses to be closed" for name in refusing]

    def _begin(self, generator: Generator) -> None:
        self._begun[generator] = None

    def _drop(self, generator: Generator) -> None:
        loop = self._loop
        if asyncio._get_running_loop() is loop:  # noqa: SLF001 - returns None instead of raising
            task = asyncio.current_task(loop)
            if task in self._sweeps:
                self._sweeps[task].append(generator)
                return
        self._later(generator)

    def _later(self, *generators: Generator) -> None:
        self._dropped.extend(generators)
        try:
            if self._dropped:
                self._post(self._sweep_dropped)
        except RuntimeClosedError:  # the loop has ended: nothing can be awaited any more
            self._dropped.clear()

    def _sweep_dropped(self) -> None:
        if Collector.working:
            asyncio.get_running_loop().call_later(POLL_EVERY, self._sweep_dropped)
            return
        batch = []
        while self._dropped:
            batch.append(self._dropped.popleft())
        if batch:
            self._start(batch)

    def _start(self, batch: list[Generator]) -> asyncio.Task[None]:
        queue = deque(batch)
        task = asyncio.get_running_loop().create_task(self._sweep(queue), name="closing of async generators")
        self._sweeps[task] = queue
        task.add_done_callback(self._swept)
        return task

    async def _sweep(self, queue: deque[Generator]) -> None:
        while queue:
            await _closed(queue[0])
            queue.popleft()

    def _swept(self, task: asyncio.Task[None]) -> None:
        """Queue again what a cancelled sweep has left: the interpreter reports a dropped generator only once."""
        queue = self._sweeps.pop(task)
        self._later(*list(queue)[1:])


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("this works only in a task")
    return task


async def _closed(generator: Generator) -> None:
    """Close one generator; report an error of its cleanup, because no caller waits for it."""
    if getattr(generator, "ag_running", False):  # the task that runs it also ends it
        return
    try:
        await generator.aclose()
    except asyncio.CancelledError:
        if _current_task().cancelling():
            raise
    except Exception as error:  # noqa: BLE001 - as asyncio does
        message = f"an error occurred during closing of asynchronous generator {_name(generator)}"
        asyncio.get_running_loop().call_exception_handler(
            {"message": message, "exception": error, "asyncgen": generator}
        )


def _is_open(generator: Generator) -> bool:
    """Return whether it has begun and not ended; a compiled generator without `ag_frame` counts as open."""
    return getattr(generator, "ag_frame", generator) is not None


def _name(generator: Generator) -> str:
    return getattr(generator, "__qualname__", None) or repr(generator)
