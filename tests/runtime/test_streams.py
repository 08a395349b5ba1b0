"""Streams: async generators and async context managers in synchronous code."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import signal
import threading
import time

import anyio
import pytest

from rowloop.runtime import DeadlockError, RuntimeClosedError


class Source:
    """An async generator that counts its items and reports its cleanup."""

    def __init__(self, count: int = 1000, cleanup: float = 0.0) -> None:
        self.count = count
        self.cleanup = cleanup
        self.made = 0
        self.closed = threading.Event()

    async def items(self):
        """Yield numbers; clean up on the loop."""
        try:
            for number in range(self.count):
                self.made += 1
                yield number
        finally:
            await asyncio.sleep(self.cleanup)
            self.closed.set()


def test_whole_generator_runs_in_one_task(rt):
    """Scopes, groups, time-outs, context variables and their tokens belong to a task, and work inside."""
    var = contextvars.ContextVar("var", default=0)

    async def items():
        task = asyncio.current_task()
        token = var.set(1)
        with anyio.CancelScope() as scope:
            async with asyncio.TaskGroup() as group, asyncio.timeout(30):
                child = group.create_task(asyncio.sleep(0, "child"))
                yield await child
                yield var.get()
                yield asyncio.current_task() is task
        yield scope.cancelled_caught
        var.reset(token)

    assert list(rt.iterate(items(), prefetch=1)) == ["child", 1, True, False]


def test_callers_context_is_visible_in_the_generator(rt):
    """The generator runs in the caller's context."""
    var = contextvars.ContextVar("var")
    var.set("caller")

    async def items():
        yield var.get()

    assert list(rt.iterate(items())) == ["caller"]


@pytest.mark.parametrize("end", ["break", "exception", "close"])
@pytest.mark.parametrize("prefetch", [1, 64])
def test_cleanup_has_finished_on_the_loop_before_the_with_block_ends(rt, end, prefetch):
    """The generator's finally has run, in whatever way the block ends."""
    source = Source(cleanup=0.05)
    with contextlib.suppress(ZeroDivisionError), rt.iterate(source.items(), prefetch) as items:
        for number in items:
            if number == 3:
                if end == "exception":
                    raise ZeroDivisionError
                if end == "close":
                    items.close()
                break
    assert source.closed.is_set()
    assert list(items) == []


def test_generator_that_awaits_is_cancelled_there(rt):
    """A generator that waits for its next item is closed too."""
    closed, waiting = threading.Event(), threading.Event()

    async def items():
        try:
            yield 1
            waiting.set()
            await asyncio.sleep(60)
        finally:
            closed.set()

    with rt.iterate(items()) as numbers:
        assert next(numbers) == 1
        assert waiting.wait(5)
    assert closed.is_set()


def test_failing_cleanup_is_raised(rt):
    """The error of a generator's cleanup reaches the consumer."""

    async def items():
        try:
            yield 1
            yield 2
        finally:
            raise ValueError("cleanup")

    with pytest.raises(ValueError, match="cleanup"), rt.iterate(items(), prefetch=1) as numbers:
        next(numbers)


def test_dropped_iterator_is_closed_soon_without_blocking(rt):
    """An iterator without a reference is closed, in whatever thread it was collected."""
    source = Source(cleanup=0.3)
    items = rt.iterate(source.items())
    next(items)
    at = time.monotonic()
    del items
    assert time.monotonic() - at < 0.05
    assert source.closed.wait(5)
    source = Source()
    for number in rt.iterate(source.items()):
        if number == 2:
            break
    assert source.closed.wait(5)


def test_iterator_collected_on_the_loop_thread_does_not_stall_it(rt):
    """The collector may run on the loop's own thread; the loop stalls for less than 50 ms."""
    source = Source(cleanup=0.3)
    cycle: list[object] = [rt.iterate(source.items())]
    cycle.append(cycle)
    next(cycle[0])  # type: ignore[call-overload]

    async def collect() -> float:
        at = time.monotonic()
        gc.collect(0)
        gc.collect(1)
        await asyncio.sleep(0)
        return time.monotonic() - at

    gc.collect()
    del cycle
    assert rt.run(collect()) < 0.05
    gc.collect()
    assert source.closed.wait(5)


@pytest.mark.parametrize("prefetch", [1, 2, 8, 64])
def test_producer_runs_at_most_prefetch_items_ahead(rt, prefetch):
    """The number of items that are made and not taken never exceeds the limit."""
    source = Source(count=200)
    with rt.iterate(source.items(), prefetch) as items:
        for number in items:
            rt.run(asyncio.sleep(0))  # the loop has had a turn
            assert source.made - (number + 1) <= prefetch
    assert source.made == 200


def test_errors_of_the_source_arrive_after_the_items_before_them(rt):
    """Every yielded item arrives, and the iterator is at its end afterwards."""

    async def items():
        yield 1
        yield 2
        raise ValueError

    numbers = rt.iterate(items())
    assert [next(numbers), next(numbers)] == [1, 2]
    with pytest.raises(ValueError):  # noqa: PT011 - it has no message
        next(numbers)
    assert list(numbers) == []


def test_ctrl_c_in_next_closes_the_stream(rt):
    """An interrupt during the wait for an item ends the generator, cleanup included."""
    waiting, closed = threading.Event(), threading.Event()

    async def items():
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.02)
            closed.set()

    def interrupt() -> None:
        waiting.wait(5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)

    def read() -> None:
        for _ in rt.iterate(items()):
            waiting.set()

    thread.start()
    with pytest.raises(KeyboardInterrupt):
        read()
    assert closed.is_set()
    thread.join()


def test_iterate_refuses_zero_prefetch_its_own_loop_and_a_closed_runtime(rt):
    """Each case has a clear error."""
    source = Source()
    with pytest.raises(ValueError, match="prefetch"):
        rt.iterate(source.items(), 0)

    async def inside() -> None:
        with pytest.raises(DeadlockError, match="async for"):
            rt.iterate(source.items())

    rt.run(inside())
    numbers = rt.iterate(Source().items(), 1)
    next(numbers)
    rt.close()
    with pytest.raises(RuntimeClosedError):
        list(numbers)


class Manager:
    """An async context manager that records its tasks and the error at its exit."""

    def __init__(self, *, suppress: bool = False) -> None:
        self.suppress = suppress
        self.tasks: list[object] = []
        self.left_with: object = "not left"

    async def __aenter__(self) -> str:
        """Enter."""
        self.tasks.append(asyncio.current_task())
        return "entered"

    async def __aexit__(self, kind, error, trace) -> bool:
        """Leave."""
        self.tasks.append(asyncio.current_task())
        self.left_with = error
        await asyncio.sleep(0)
        return self.suppress


def test_manager_is_entered_and_left_in_one_task(rt):
    """The same task enters and leaves; the body gets the value."""
    manager = Manager()
    with rt.context(manager) as value:
        assert value == "entered"
        assert manager.left_with == "not left"
    assert manager.tasks[0] is manager.tasks[1]
    assert manager.left_with is None


def test_exceptions_reach_the_manager_and_can_be_suppressed(rt):
    """The manager gets the body's exception and decides about it."""
    for suppress in (True, False):
        manager = Manager(suppress=suppress)
        error = ValueError("body")
        with contextlib.nullcontext() if suppress else pytest.raises(ValueError, match="body"), rt.context(manager):
            raise error
        assert manager.left_with is error


def test_failing_enter_and_exit_raise_in_the_with_statement(rt):
    """The manager's own errors are raised where the block begins or ends."""

    @contextlib.asynccontextmanager
    async def fails(at: str):
        if at == "enter":
            raise ValueError(at)
        yield
        raise ValueError(at)

    for at in ("enter", "exit"):
        with pytest.raises(ValueError, match=at), rt.context(fails(at)):
            pass


def test_ctrl_c_in_enter_runs_the_managers_cleanup(rt):
    """An interrupt during the entering surfaces after the manager's cleanup."""
    began, unwound = threading.Event(), threading.Event()

    @contextlib.asynccontextmanager
    async def slow():
        try:
            began.set()
            await asyncio.sleep(60)
            yield
        finally:
            unwound.set()

    def interrupt() -> None:
        began.wait(5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt), rt.context(slow()):
        pass
    assert unwound.is_set()
    thread.join()


def test_cancellation_of_the_holding_task_is_raised_at_the_end_of_the_block(rt):
    """A time-out cannot interrupt the body of the block; it is raised where the block ends."""

    @contextlib.asynccontextmanager
    async def limited():
        async with asyncio.timeout(0.02):
            yield

    with pytest.raises(TimeoutError), rt.context(limited()):
        rt.run(asyncio.sleep(0.1))

    async def cancel_holders() -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel("gone")

    manager = Manager()
    with pytest.raises(asyncio.CancelledError, match="gone"), rt.context(manager):
        rt.run(cancel_holders())
    assert isinstance(manager.left_with, asyncio.CancelledError)
