"""Together: cells that are ready at the same time, worked by one call in a thread. No cell waits for another."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...runtime.threads import Threads

T = TypeVar("T")


class Together(Generic[T]):
    """Makes one call at a time, for all cells that arrived during the previous call."""

    def __init__(self, threads: Threads, work: Callable[[list[Sequence[object]]], Sequence[T]]) -> None:
        """Take the function from the inputs of many cells to one value per cell."""
        self._threads = threads
        self._work = work
        self._waiting: list[tuple[Sequence[object], asyncio.Future[T]]] = []
        self._busy = False

    async def call(self, inputs: Sequence[object]) -> T:
        """Return the value of one cell, from the next call."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append((inputs, future))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._next)  # after the other cells that start in this turn of the loop
        return await future

    def _next(self) -> None:
        wanted = [(inputs, future) for inputs, future in self._waiting if not future.done()]
        self._waiting = []
        self._busy = bool(wanted)
        if wanted:
            futures = [future for _, future in wanted]
            self._threads.submit(self._work, ([inputs for inputs, _ in wanted],), partial(self._ended, futures))

    def _ended(
        self, futures: Sequence[asyncio.Future[T]], values: Sequence[T] | None, error: BaseException | None
    ) -> None:
        for i, future in enumerate(futures):
            if future.done():  # cancelled
                continue
            if values is None:
                future.set_exception(error or RuntimeError("the call returned no values"))
            else:
                future.set_result(values[i])
        self._next()
