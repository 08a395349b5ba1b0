"""MicroBatcher: callers with one item each share calls of many items, behind a plain await.

Items of one turn of the loop share a call, and so do those that arrive while no call may begin. No item waits for
others to be ready. A call that can be cancelled ends with its last caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ...runtime.threads import Threads

T = TypeVar("T")
R = TypeVar("R")

Ended: TypeAlias = "Callable[[Sequence[R] | None, BaseException | None], None]"
"""Called on the loop at the end of a call, with one value per item or with an error."""

Start: TypeAlias = "Callable[[list[T], Ended[R]], asyncio.Future[Any] | None]"
"""Starts the call of many items; returns the task of a call that can be cancelled."""


def in_thread(threads: Threads, function: Callable[[list[T]], Sequence[R]]) -> Start[T, R]:
    """Make calls in a thread, which cannot be cancelled."""

    def start(items: list[T], ended: Ended[R]) -> None:
        threads.submit(function, (items,), ended)

    return start


def in_task(function: Callable[[list[T]], Awaitable[Sequence[R]]]) -> Start[T, R]:
    """Make calls of an asynchronous function, each in a task of its own."""

    def start(items: list[T], ended: Ended[R]) -> asyncio.Future[Any]:
        task = asyncio.ensure_future(function(items))
        task.add_done_callback(partial(_report, ended))
        return task

    return start


def _report(ended: Ended[R], task: asyncio.Future[Sequence[R]]) -> None:
    if task.cancelled():
        ended(None, asyncio.CancelledError())
    else:
        error = task.exception()
        ended(None if error else task.result(), error)


class _Batch(Generic[T, R]):
    """The items of one call, and their callers' futures."""

    __slots__ = ("call", "futures", "items", "waiting")

    def __init__(self) -> None:
        self.items: list[T] = []
        self.futures: list[asyncio.Future[R]] = []
        self.waiting = 0
        self.call: asyncio.Future[Any] | None = None

    def drop_cancelled(self) -> None:
        """Keep the items whose callers still wait."""
        live = [i for i, future in enumerate(self.futures) if not future.done()]
        self.items = [self.items[i] for i in live]
        self.futures = [self.futures[i] for i in live]

    def settle(self, values: Sequence[R] | None, error: BaseException | None) -> None:
        """Give each caller its value, or all of them the error."""
        for i, future in enumerate(self.futures):
            if future.done():  # cancelled
                continue
            if values is not None:
                future.set_result(values[i])
            elif isinstance(error, asyncio.CancelledError):
                future.cancel()
            else:
                future.set_exception(error or RuntimeError("the call returned nothing"))

    async def leave(self) -> None:
        """Take one caller away; the last one cancels the call, and waits until it has ended."""
        self.waiting -= 1
        if not self.waiting and self.call is not None and not self.call.done():
            self.call.cancel()
            await asyncio.wait([self.call])


class MicroBatcher(Generic[T, R]):
    """Calls of up to `size` items, of which up to `parallel` are under way at once (None: any number)."""

    def __init__(self, start: Start[T, R], *, size: int, parallel: int | None = None) -> None:
        """Take what starts a call."""
        self._start = start
        self._size = size
        self._parallel = parallel
        self._under_way = 0
        self._scheduled = False
        self._open: deque[_Batch[T, R]] = deque()

    async def call(self, item: T) -> R:
        """Return the value of one item."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        batch = self._batch()
        batch.items.append(item)
        batch.futures.append(future)
        batch.waiting += 1
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._begin)  # behind all items that come in this turn of the loop
        try:
            return await future
        finally:
            await batch.leave()

    def _batch(self) -> _Batch[T, R]:
        """Return the batch that takes the next item."""
        if not self._open or len(self._open[-1].items) == self._size:
            self._open.append(_Batch())
        return self._open[-1]

    def _begin(self) -> None:
        """Begin as many calls as may be under way."""
        self._scheduled = False
        while self._open and (self._parallel is None or self._under_way < self._parallel):
            batch = self._open.popleft()
            batch.drop_cancelled()
            if batch.items:
                self._under_way += 1
                try:
                    batch.call = self._start(batch.items, partial(self._ended, batch))
                except Exception as error:  # noqa: BLE001 - its callers get it
                    self._under_way -= 1
                    batch.settle(None, error)

    def _ended(self, batch: _Batch[T, R], values: Sequence[R] | None, error: BaseException | None) -> None:
        self._under_way -= 1
        batch.settle(values, error)
        self._begin()
