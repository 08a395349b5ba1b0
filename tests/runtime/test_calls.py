"""Calls: results, errors, context variables, and what the caller keeps alive."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import gc
import os
import threading
import time
import traceback
import weakref
from pathlib import Path

import pytest

from rowloop.runtime import run_sync, waiting


class Custom(BaseException):
    """An exception that is not an Exception."""


class Thing:
    """An object for a weak reference."""


async def nothing() -> None:
    """Do nothing."""


def test_callers_context_is_visible_and_does_not_leak_back(rt):
    """A coroutine sees the caller's variables; the caller does not see the coroutine's."""
    var = contextvars.ContextVar("var")
    var.set("caller")

    async def change() -> str:
        before = var.get()
        var.set("coroutine")
        await asyncio.sleep(0)
        return before

    assert rt.run(change()) == "caller"
    assert var.get() == "caller"
    assert rt.run(change()) == "caller"


def test_self_cancelled_coroutine_raises_asyncio_cancelled_error_with_its_message(rt):
    """The CancelledError passes through `except Exception`, with its message."""

    async def give_up() -> None:
        message = "no use"
        raise asyncio.CancelledError(message)

    with pytest.raises(asyncio.CancelledError, match="no use"), contextlib.suppress(Exception):
        rt.run(give_up())


def test_retry_loop_with_except_exception_does_not_swallow_a_cancellation(rt):
    """A retry loop around the call ends with the first cancellation."""
    tries = []

    async def cancelled() -> None:
        tries.append(1)
        asyncio.current_task().cancel("stop")  # type: ignore[union-attr]
        await asyncio.sleep(60)

    def retrying() -> None:
        for _ in range(3):
            with contextlib.suppress(Exception):
                rt.run(cancelled())

    with pytest.raises(asyncio.CancelledError, match="stop"):
        retrying()
    assert len(tries) == 1


@pytest.mark.parametrize("timeout", [None, 30])
def test_timeout_error_of_the_coroutine_arrives_at_once_as_the_same_object(rt, timeout):
    """A TimeoutError that the coroutine raises is an outcome, not "not ready yet"."""
    raised = TimeoutError("theirs")

    async def fail() -> None:
        raise raised

    began = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        rt.run(fail(), timeout=timeout)
    assert caught.value is raised
    with pytest.raises(TimeoutError) as caught:
        rt.submit(fail()).result(timeout)
    assert caught.value is raised
    assert time.monotonic() - began < 0.05


def test_timeout_error_arrives_on_a_thread_that_polls(rt, monkeypatch):
    """A thread that waits in slices gets it too, and the slices cost almost no CPU time."""
    monkeypatch.setattr(waiting._here, "waiter", waiting.SlicedWaiter(lambda: None))
    raised = TimeoutError("theirs")

    async def fail(seconds: float) -> None:
        await asyncio.sleep(seconds)
        raise raised

    began, cpu = time.monotonic(), time.process_time()
    with pytest.raises(TimeoutError) as caught:
        rt.run(fail(0.5))
    assert caught.value is raised
    assert time.monotonic() - began < 0.6
    assert time.process_time() - cpu < 0.05 * 0.5


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, Custom])
def test_base_exceptions_reach_their_caller_and_the_loop_keeps_serving(rt, kind):
    """Every kind of exception reaches the caller of the coroutine, and no other."""
    raised = kind("theirs")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise raised

    with pytest.raises(kind) as caught:
        rt.run(fail())
    assert caught.value is raised
    assert rt.run(asyncio.sleep(0, "served")) == "served"


def test_background_task_raising_system_exit_does_not_stop_the_loop(rt):
    """A SystemExit in a background task ends neither the loop nor its calls."""

    async def exit_now() -> None:
        raise SystemExit(3)

    async def start() -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(exit_now())

    slow = rt.submit(asyncio.sleep(0.05, "slow"))
    task = rt.run(start())
    assert rt.run(asyncio.sleep(0.01, "served")) == "served"
    assert slow.result() == "slow"
    with pytest.raises(SystemExit):
        task.result()


def test_failing_task_factory_fails_that_call_only(rt):
    """The calls after the failure get their results."""
    fail = [True]

    def factory(loop, coro, **kwargs):
        if fail.pop() if fail else False:
            message = "not today"
            raise RuntimeError(message)
        return asyncio.Task(coro, loop=loop, **kwargs)

    rt.loop.call_soon_threadsafe(rt.loop.set_task_factory, factory)
    rt.run(asyncio.sleep(0)) if not fail else None
    calls = [rt.submit(asyncio.sleep(0, n)) for n in range(3)]
    with pytest.raises(RuntimeError, match="not today"):
        calls[0].result()
    assert [call.result() for call in calls[1:]] == [1, 2]


def test_task_cancelled_before_its_first_step_still_ends_its_call(rt):
    """Cancelling all tasks of the loop also ends calls that have not begun."""

    async def cancel_all() -> list[str]:
        call = rt.submit(nothing_and_wait())
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel("all")
        try:
            await call
        except RuntimeError as error:
            return [str(error)]
        return []

    async def nothing_and_wait() -> None:
        await asyncio.sleep(60)

    assert "all" in rt.run(cancel_all())[0]


def test_exceptions_add_at_most_two_runtime_frames(rt):
    """A traceback leads from the caller to the coroutine with two frames of the runtime at most."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError

    for call in (rt.run, run_sync, lambda coro: rt.submit(coro).result()):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - it has no message
            call(fail())
        names = [Path(frame.filename) for frame in traceback.extract_tb(caught.value.__traceback__)]
        ours = [name for name in names if name.parent.name == "runtime" and "tests" not in name.parts]
        assert len(ours) <= 2, names


def test_locals_and_results_are_freed_without_the_garbage_collector(rt):
    """Neither a reference cycle nor an idle loop keeps an exception or a result alive."""

    async def fail(kept: list[weakref.ref[Thing]]) -> None:
        thing = Thing()
        kept.append(weakref.ref(thing))
        raise ValueError

    async def give() -> Thing:
        return Thing()

    gc.collect()
    gc.disable()
    try:
        kept: list[weakref.ref[Thing]] = []
        for call in (rt.run, lambda coro: rt.submit(coro).result(), lambda coro: rt.submit(coro).exception()):
            with contextlib.suppress(ValueError):
                call(fail(kept))
        result = rt.run(give())
        kept.append(weakref.ref(result))
        del result
        result = rt.submit(give()).result()
        kept.append(weakref.ref(result))
        del result
        rt.run(nothing())
        assert [ref() for ref in kept] == [None] * 5
    finally:
        gc.enable()


def test_memory_is_flat_over_many_calls(rt):
    """20 000 calls (10^5 in the stress form) do not increase the resident size."""
    _assert_flat(rt, 20_000)


@pytest.mark.stress
def test_memory_is_flat_over_1e5_calls(rt):
    """The long form."""
    _assert_flat(rt, 100_000)


def _assert_flat(rt, calls: int) -> None:
    async def many(count: int) -> None:
        for _ in range(count // 100):
            await asyncio.gather(*[rt.submit(nothing()) for _ in range(100)])

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    rt.run(many(calls // 10))
    gc.collect()
    before = resident()
    rt.run(many(calls))
    for _ in range(calls // 10):
        rt.run(nothing())
    assert resident() - before < 4_000_000


def test_anything_but_a_coroutine_is_refused_with_a_hint(rt):
    """The error names awaitables, functions and futures; a refused coroutine is closed."""

    class Awaitable:
        def __await__(self):
            yield

    loop = asyncio.new_event_loop()
    future = loop.create_future()
    try:
        for wrong, kind, hint in [
            (Awaitable(), TypeError, "wrap it"),
            (nothing, TypeError, "call it"),
            (3, TypeError, "expected a coroutine"),
            (future, ValueError, "belongs to a loop"),
        ]:
            for form in (rt.run, rt.submit):
                with pytest.raises(kind, match=hint):
                    form(wrong)
    finally:
        loop.close()
    for timeout in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout must be"):
            rt.run(nothing(), timeout=timeout)
    with pytest.raises(TypeError):
        rt.run(nothing(), timeout="soon")
    closed = nothing()
    rt.close()
    with pytest.raises(RuntimeError):
        rt.run(closed)
    assert closed.cr_frame is None


def test_call_keeps_the_contract_of_futures(rt):
    """as_completed, wait and wrap_future work on call.future(); cancelling the future cancels the call."""
    futures = [rt.submit(asyncio.sleep(0.01 * n, n)).future() for n in (2, 1, 0)]
    assert sorted(f.result() for f in concurrent.futures.as_completed(futures, 5)) == [0, 1, 2]
    assert concurrent.futures.wait(futures, 5).not_done == set()

    async def wrapped() -> int:
        return await asyncio.wrap_future(rt.submit(asyncio.sleep(0, 7)).future())

    assert asyncio.run(wrapped()) == 7
    call = rt.submit(asyncio.sleep(60))
    assert call.future().cancel()
    with pytest.raises(asyncio.CancelledError):
        call.result(5)
    failing = rt.submit(_fail()).future()
    assert isinstance(failing.exception(5), ValueError)


async def _fail() -> None:
    raise ValueError


def test_cancel_from_another_thread_ends_the_wait_within_50_ms(rt):
    """The waiting thread does not poll, and gets the message."""
    call = rt.submit(asyncio.sleep(60))
    times = []

    def cancel() -> None:
        times.append(time.monotonic())
        call.cancel("enough")

    threading.Timer(0.05, cancel).start()
    with pytest.raises(asyncio.CancelledError, match="enough"):
        call.result()
    assert time.monotonic() - times[0] < 0.05
    assert not call.cancel()


def test_result_with_a_time_limit_leaves_the_call_running(rt):
    """As with any future, a caller that stops waiting does not cancel the call."""
    call = rt.submit(asyncio.sleep(0.1, "late"))
    with pytest.raises(TimeoutError, match="keeps running"):
        call.result(0.01)
    assert call.result() == "late"
    assert call.exception() is None
    assert "done" in repr(call)
