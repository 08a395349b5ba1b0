"""Awaiting: calls that tasks of other loops await, and calls from anyio's worker threads."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time

import anyio
import anyio.to_thread
import pytest

from rowloop.runtime import CallCancelledError, RuntimeClosedError, waiting
from rowloop.runtime.testing import fresh_runtime


class Work:
    """A coroutine that reports when it begins and ends."""

    def __init__(self, cleanup: float = 0.0) -> None:
        self.cleanup = cleanup
        self.began = threading.Event()
        self.ended = threading.Event()

    async def run(self) -> None:
        """Work until cancelled, then clean up."""
        try:
            self.began.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(self.cleanup)
            self.ended.set()


async def until_set(event: threading.Event) -> None:
    """Wait on this loop for an event that another thread sets."""
    assert await asyncio.to_thread(event.wait, 10)


def test_cancelling_the_outer_task_cancels_the_inner_and_waits_for_its_cleanup(rt):
    """The outer task ends cancelled, with its message, after the cleanup on the runtime's loop."""
    work = Work(cleanup=0.05)

    async def main() -> None:
        async def outer() -> None:
            await rt.submit(work.run())

        task = asyncio.create_task(outer())
        await until_set(work.began)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        assert work.ended.is_set()
        assert task.cancelled()

    asyncio.run(main())


def test_second_cancellation_ends_the_wait_at_once(rt):
    """The second cancellation does not wait for the cleanup."""
    work = Work(cleanup=0.5)

    async def main() -> None:
        async def outer() -> None:
            await rt.submit(work.run())

        task = asyncio.create_task(outer())
        await until_set(work.began)
        task.cancel()
        await asyncio.sleep(0.02)
        at = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - at < 0.05

    asyncio.run(main())
    assert work.ended.wait(5)


def test_cleanup_that_never_ends_delays_the_outer_task_at_most_the_grace(loop_factory):
    """The outer task waits no longer than the grace."""
    release = threading.Event()

    async def stubborn() -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    async def main() -> None:
        at = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await rt.submit(stubborn())
        assert 0.2 < time.monotonic() - at < 0.6
        release.set()

    with fresh_runtime("awaited", grace=0.2, loop_factory=loop_factory) as rt:
        asyncio.run(main())
        rt.run(asyncio.sleep(0.05))


@pytest.mark.parametrize("bridged", [False, True])
def test_timeouts_task_groups_and_cancellation_counts_work_as_with_a_plain_await(rt, bridged):
    """The first case awaits the plain coroutine, the second awaits the call; both behave in the same way."""
    work, sibling = Work(), Work()

    async def one(coro) -> None:
        await (rt.submit(coro) if bridged else coro)

    async def fail_later() -> None:
        await until_set(sibling.began)
        raise ValueError

    async def timed() -> None:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await one(work.run())
        assert task.cancelling() == 0

    async def grouped() -> None:
        failed: list[type[Exception]] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(one(sibling.run()))
                group.create_task(fail_later())
        except* ValueError as errors:
            failed += [type(error) for error in errors.exceptions]
        assert failed == [ValueError]
        assert sibling.ended.is_set()
        await asyncio.sleep(0)  # no cancellation is pending

    asyncio.run(timed())
    asyncio.run(grouped())


def test_error_of_the_cleanup_is_not_lost(rt):
    """As with a plain await, the error of the cleanup is raised."""
    began = threading.Event()

    async def fail() -> None:
        try:
            began.set()
            await asyncio.sleep(60)
        finally:
            raise ValueError("cleanup")

    async def main() -> None:
        async def outer() -> None:
            await rt.submit(fail())

        task = asyncio.create_task(outer())
        await until_set(began)
        task.cancel()
        with pytest.raises(ValueError, match="cleanup"):
            await task

    asyncio.run(main())


@pytest.mark.parametrize("where", ["another loop", "its own loop"])
def test_inner_cancelled_alone_is_an_ordinary_exception_for_the_outer(rt, where):
    """A TaskGroup whose work was cancelled elsewhere fails; it does not silently succeed."""

    async def outer() -> None:
        async with asyncio.TaskGroup() as group:
            call = rt.submit(asyncio.sleep(60))
            group.create_task(await_call(call))
            await asyncio.sleep(0.01)
            call.cancel("elsewhere")

    async def await_call(call) -> None:
        await call

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(outer()) if where == "another loop" else rt.run(outer())
    [error] = caught.value.exceptions
    assert isinstance(error, CallCancelledError)
    assert "elsewhere" in str(error)
    assert isinstance(error.__cause__, asyncio.CancelledError)


def test_await_returns_the_result_and_raises_the_error(rt):
    """A call that is already done can be awaited too."""

    async def fail() -> None:
        raise ValueError

    async def outer() -> str:
        call = rt.submit(asyncio.sleep(0, "value"))
        assert await call == "value"
        with pytest.raises(ValueError):  # noqa: PT011 - it has no message
            await rt.submit(fail())
        return await call

    assert asyncio.run(outer()) == "value"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_closing_the_awaiting_loop_cancels_the_inner(rt):
    """A closed loop cannot be notified: the inner is cancelled, and the runtime's loop keeps running."""
    work, complaints = Work(), []
    rt.loop.call_soon_threadsafe(rt.loop.set_exception_handler, lambda _, context: complaints.append(context))
    loop = asyncio.new_event_loop()

    async def outer() -> None:
        await rt.submit(work.run())

    task = loop.create_task(outer())
    while not work.began.is_set():
        loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()
    assert work.ended.wait(2)
    assert rt.run(asyncio.sleep(0, 1)) == 1
    assert complaints == []
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    del task
    gc.collect()


def test_an_awaiting_loop_that_has_stopped_for_good_cancels_the_inner(loop_factory):
    """A loop that has been stopped for longer than the grace no longer gets the answer."""
    work = Work()
    loop = asyncio.new_event_loop()

    async def outer() -> None:
        await rt.submit(work.run())

    with fresh_runtime("awaited", grace=0.3, loop_factory=loop_factory) as rt:
        task = loop.create_task(outer())
        while not work.began.is_set():
            loop.run_until_complete(asyncio.sleep(0.001))
        assert work.ended.wait(3)
        with pytest.raises(CallCancelledError, match="has stopped"):
            loop.run_until_complete(task)
    loop.close()


def test_closing_the_runtime_raises_in_a_task_of_another_loop_that_awaits(rt):
    """The awaiting task gets RuntimeClosedError, and its loop keeps running."""
    work = Work()

    async def main() -> None:
        call = rt.submit(work.run())
        await until_set(work.began)
        closing = asyncio.create_task(asyncio.to_thread(rt.close))
        with pytest.raises(RuntimeClosedError):
            await call
        await closing

    asyncio.run(main())


def test_host_scope_cancelled_stops_a_call_in_an_anyio_worker_thread(rt):
    """A sync handler whose request was cancelled ends within 250 ms, cleanup included."""
    work, times = Work(), {}

    def handler() -> None:
        try:
            rt.run(work.run())
        finally:
            times["left"] = time.monotonic()

    async def host() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, handler)
            await until_set(work.began)
            times["cancelled"] = time.monotonic()
            group.cancel_scope.cancel()

    anyio.run(host)
    assert times["left"] - times["cancelled"] < 0.25
    assert work.ended.is_set()


def test_an_ordinary_thread_is_not_polled(rt):
    """A thread that is not anyio's waits without slices, although anyio is imported."""
    found = []
    thread = threading.Thread(target=lambda: (rt.run(asyncio.sleep(0)), found.append(waiting.waiter())))
    thread.start()
    thread.join()
    assert type(found[0]) is waiting.Waiter
