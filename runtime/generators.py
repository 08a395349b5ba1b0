"""Generators: async generators that nobody holds any more, or that are left at the end, are closed one after the other.

Theory of operation. An event loop has to close the async generators that were dropped half read, and those still there
when it ends. asyncio begins all of these at once. Where one generator reads another, as the body of an HTTP response
goes through half a dozen, that fails: the cleanup of the outer one closes the inner one, which is being closed already
("asynchronous generator is already running"). Here one task closes those that were dropped at the same moment, one
after the other; what the cleanup of one drops is closed by the same task after it. What was dropped at different
moments is closed side by side, so that one slow cleanup does not hold up everybody's.

The interpreter calls `_drop` wherever the last reference went away, or the collector ran: in any thread. Everything
else happens on the loop's thread, and not before a collector at work in another thread is done: a generator that is
being closed when the collector comes to it gets a GeneratorExit thrown into the middle of its cleanup.
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


LOOK_EVERY = 0.002  # seconds between two looks at whether the collector is done


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
        if next(cls._requests) == 0:  # atomic, so no lock is needed, which a forked child could inherit locked
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
        """Take what has a function called soon on the loop, from any thread."""
        self._post = post
        self._begun: WeakKeyDictionary[Generator, None] = WeakKeyDictionary()  # in the order of their beginning
        self._dropped: deque[Generator] = deque()
        self._sweeps: dict[asyncio.Task[Any], deque[Generator]] = {}  # who closes what, the current one excluded
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self) -> None:
        """Take the place of the hooks that the loop set when it began to run; on the running loop."""
        Collector.observe()
        self._loop = asyncio.get_running_loop()
        sys.set_asyncgen_hooks(firstiter=self._begin, finalizer=self._drop)

    def open(self) -> list[str]:
        """Name those that have begun and not ended."""
        return [_name(generator) for generator in self._begun if _is_open(generator)]

    def sweeps(self) -> set[asyncio.Task[Any]]:
        """Return the tasks that are closing what was dropped."""
        return set(self._sweeps)

    async def closed(self, generator: Any) -> None:
        """Close a generator, and then what it drops meanwhile, all in the calling task."""
        task = _current_task()
        dropped = self._sweeps[task] = deque()
        try:
            await generator.aclose()
            await self._sweep(dropped)
        finally:
            del self._sweeps[task]
            self._later(*dropped)

    async def settle(self, until: float) -> None:
        """Wait for the closing of what has been dropped, until the loop's clock shows `until`."""
        loop = asyncio.get_running_loop()
        while (self._sweeps or self._dropped) and loop.time() < until:
            if self._sweeps:
                await asyncio.wait(self.sweeps(), timeout=until - loop.time())
            else:
                await asyncio.sleep(LOOK_EVERY)  # the collector is at work

    async def close(self, until: float) -> list[str]:
        """Close all that are left, the outer before the inner, each within its share of the time; name what refuses."""
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
        if asyncio._get_running_loop() is loop:  # noqa: SLF001 - None, not an error
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
        except RuntimeClosedError:  # nothing can be awaited any more
            self._dropped.clear()

    def _sweep_dropped(self) -> None:
        if Collector.working:
            asyncio.get_running_loop().call_later(LOOK_EVERY, self._sweep_dropped)
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
        """Hand on what is left if the task was cancelled: for a dropped generator the hook is called only once."""
        queue = self._sweeps.pop(task)
        self._later(*list(queue)[1:])


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("this is for code that runs in a task")
    return task


async def _closed(generator: Generator) -> None:
    """Close one; what its cleanup raises is reported, for nobody waits for it."""
    if getattr(generator, "ag_running", False):  # whoever runs it will end it
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
    """Say whether it has begun and not ended; one of a compiled extension does not tell, and counts as open."""
    return getattr(generator, "ag_frame", generator) is not None


def _name(generator: Generator) -> str:
    return getattr(generator, "__qualname__", None) or repr(generator)
