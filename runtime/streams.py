"""Streams: async generators and async context managers for synchronous code, each run by one task from start to end.

Theory of operation. A task per item would break everything inside an async generator that belongs to a task: cancel
scopes, task groups, time-outs, context variables. So one task, the pump, runs the whole generator and puts the items
into a queue, and the consuming thread takes them out. The pump pauses when it is `prefetch` items ahead and resumes
when half of them are taken, so a wake-up is paid per half a queue, not per item. On closing, the pump ends the
generator. A pump that pauses calls aclose() in its own task; a generator that awaits is cancelled there.

The pump refers to the pipe, not to the iterator, so a dropped iterator is collected. Its finaliser requests the
closing and does not wait for it, because it may run in any thread, the loop's own included.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Iterator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

from . import guards
from .errors import RuntimeClosedError
from .waiting import waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from .call import Call
    from .generators import Generators
    from .loop import LoopThread

    Submit = Callable[[Coroutine[Any, Any, Any]], Call[Any]]

T = TypeVar("T")
_END: Any = object()


class Pipe(Generic[T]):
    """The state that the pump and the consumer share."""

    def __init__(self, prefetch: int) -> None:
        """Allow the pump to be `prefetch` items ahead."""
        self.queue: SimpleQueue[T] = SimpleQueue()
        self.prefetch = prefetch
        self.low = prefetch // 2
        self.made = 0
        self.taken = 0
        self.room: asyncio.Future[None] | None = None
        self.fetching = False  # whether the source is producing an item: then only a cancellation stops it
        self.stopped = False

    async def pump(self, source: AsyncIterable[T], generators: Generators) -> None:
        """Run the whole source in the calling task."""
        items = source.__aiter__()
        try:
            self.fetching = True
            async for item in items:
                self.fetching = False
                self.queue.put(item)
                self.made += 1
                if self.made - self.taken >= self.prefetch:
                    await self._pause()
                if self.stopped:
                    return
                self.fetching = True
        finally:
            if hasattr(items, "aclose"):
                await generators.closed(items)  # together with the generators that it reads and drops

    async def _pause(self) -> None:
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.room = room
        if self.made - self.taken > self.low and not self.stopped:  # checked again: the consumer may have been faster
            await room
        self.room = None

    def stop(self, call: Call[None]) -> None:
        """End the source; call this on the loop's thread."""
        self.stopped = True
        if self.fetching:
            call.cancel_here()
        elif self.room is not None:
            self.resume(self.room)

    @staticmethod
    def resume(room: asyncio.Future[None]) -> None:
        """Resume a pausing pump; call this on the loop's thread."""
        if not room.done():
            room.set_result(None)


class Items(Iterator[T]):
    """The items of an async source; also a context manager, whose exit waits for the source's cleanup."""

    def __init__(self, thread: LoopThread, submit: Submit, source: AsyncIterable[T], prefetch: int) -> None:
        """Start the pump."""
        self._thread = thread
        self._pipe: Pipe[T] = Pipe(prefetch)
        self._get = self._pipe.queue.get_nowait
        self._over = True
        self._call: Call[None] = submit(self._pipe.pump(source, thread.generators))
        self._over = False
        queue = self._pipe.queue
        self._call.when_done(lambda: queue.put(_END))

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> T:
        """Return the next item, or raise the source's error."""
        pipe = self._pipe
        try:
            try:
                item = self._get()
            except Empty:
                item = self._wait_for_item()
            if item is _END:
                self._end()
            pipe.taken += 1
            if (room := pipe.room) is not None and pipe.made - pipe.taken <= pipe.low:
                pipe.room = None
                self._post(pipe.resume, room)
        except BaseException:  # for example an interrupt
            self.close()
            raise
        return item

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the source."""
        self.close()

    def close(self) -> None:
        """End the source and wait for its cleanup, at most the grace; raise an error of the cleanup."""
        if self._over:
            return
        self._over = True
        self._get = self._nothing_more
        self._post(self._pipe.stop, self._call)
        if self._thread.is_current():
            return  # waiting here would block the cleanup
        if self._call.wait(self._thread.settings.grace):
            error = self._call.exception()
            if error is not None and not isinstance(error, (asyncio.CancelledError, RuntimeClosedError)):
                raise error

    def __del__(self) -> None:
        """Request the closing of a source that was not read to its end; do not wait for it."""
        if not self._over:
            self._over = True
            self._post(self._pipe.stop, self._call)

    def _post(self, callback: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(RuntimeClosedError):  # the loop has ended, and so has the pump
            self._thread.post(callback, *args)

    def _wait_for_item(self) -> T:
        if self._over:
            raise StopIteration
        guards.refuse_own_loop(self._thread, "async for item in source")
        return waiter().take(self._pipe.queue)

    def _end(self) -> NoReturn:
        self._over = True
        self._call.result()
        raise StopIteration

    @staticmethod
    def _nothing_more() -> NoReturn:
        raise Empty


class Entered(contextlib.AbstractContextManager[T]):
    """An async context manager for a `with` block; one task of the loop enters and leaves it."""

    def __init__(self, thread: LoopThread, submit: Submit, manager: AbstractAsyncContextManager[T]) -> None:
        """Take the manager that `with` enters and leaves."""
        self._thread = thread
        self._submit = submit
        self._manager = manager
        self._news: SimpleQueue[Any] = SimpleQueue()

    def __enter__(self) -> T:
        """Enter on the loop; an interrupt meanwhile cancels the entering and waits for its cleanup."""
        guards.refuse_own_loop(self._thread, "async with")
        self._call: Call[bool] = self._submit(self._hold())
        self._call.when_done(lambda: self._news.put(_END))
        try:
            entered: T = waiter().take(self._news)
        except BaseException:
            self._call.cancel()
            self._call.wait(self._thread.settings.grace)
            raise
        if entered is _END:
            self._call.result()
        return entered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Leave on the loop; return whether the manager suppressed the error. In a forked child, do nothing."""
        if self._thread.inherited:  # only the parent may leave it
            return False
        with contextlib.suppress(RuntimeClosedError):  # the loop has ended: the call already has its outcome
            self._thread.post(self._leave, error)
        try:
            self._call.wait()
        except BaseException:
            self._call.cancel()
            self._call.wait(self._thread.settings.grace)
            raise
        if error is not None and self._call.exception() is error:
            return False
        return self._call.result()

    async def _hold(self) -> bool:
        manager = self._manager
        self._left: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        entered = await type(manager).__aenter__(manager)
        self._news.put(entered)
        try:
            error = await self._left
        except asyncio.CancelledError as cancelled:
            if await type(manager).__aexit__(manager, type(cancelled), cancelled, cancelled.__traceback__):
                return False
            raise
        if error is None:
            await type(manager).__aexit__(manager, None, None, None)
            return False
        return bool(await type(manager).__aexit__(manager, type(error), error, error.__traceback__))

    def _leave(self, error: BaseException | None) -> None:
        if not self._left.done():
            self._left.set_result(error)
