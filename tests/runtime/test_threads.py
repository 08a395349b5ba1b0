"""Threads: results and exceptions come back, waits can be cancelled, and there are no more threads than are of use."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from typing import TYPE_CHECKING, Any

import pytest

from rowloop.runtime.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.fixture
def threads() -> Iterator[Threads]:
    """Give up to four threads, and see that they end."""
    made = Threads(4, "tested")
    yield made
    made.close()
    for thread in alive():
        thread.join(10)
    assert not alive()


def alive() -> list[threading.Thread]:
    """List the threads under test."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("tested")]


def test_results_and_arguments_go_through(threads):
    """A thousand calls, each with its own."""

    async def main() -> list[int]:
        return await asyncio.gather(*[threads.call(pow, i, 2) for i in range(1000)])

    assert asyncio.run(main()) == [i * i for i in range(1000)]


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError("mine"), SystemExit(2)])
def test_what_the_function_raises_is_raised_where_it_is_awaited(threads, error):
    """The same object, whatever it is."""

    def fail() -> None:
        raise error

    async def main() -> None:
        try:
            await threads.call(fail)
        except BaseException as raised:  # noqa: BLE001 - whatever it is
            assert raised is error or (type(raised) is type(error) and raised.args == error.args)  # noqa: PT017
        else:
            pytest.fail("nothing was raised")

    asyncio.run(main())


def test_stop_iteration_becomes_an_error_that_a_future_can_carry(threads):
    """A bare one would end the coroutine that awaits it."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"the function raised StopIteration\(\)"):
            await threads.call(next, iter(()))

    asyncio.run(main())


def test_the_function_sees_the_callers_context_variables_and_keeps_its_own(threads):
    """As with asyncio.to_thread."""

    def swap(value: str) -> str:
        before = VARIABLE.get()
        VARIABLE.set(value)
        return before

    async def main() -> None:
        VARIABLE.set("callers")
        assert await threads.call(swap, "first") == "callers"
        assert await threads.call(swap, "second") == "callers"
        assert VARIABLE.get() == "callers"

    asyncio.run(main())


def test_fast_functions_share_a_few_threads():
    """One call after the other needs one; a second may come when a call is taken up late."""
    threads = Threads(64, "tested")

    async def main() -> None:
        assert not alive()
        for _ in range(200):
            await threads.call(int)
        assert 1 <= len(alive()) < 16
        threads.close()

    asyncio.run(main())
    for thread in alive():
        thread.join(10)


def test_slow_functions_get_as_many_threads_as_there_are_calls_and_no_more_than_the_limit(threads):
    """Three calls that wait for each other need three; of twenty, four run at once."""
    meet = threading.Barrier(3)
    gate, running = threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        running.release()
        gate.wait(10)

    async def main() -> None:
        await asyncio.gather(*[threads.call(meet.wait, 10) for _ in range(3)])
        assert len(alive()) <= 4
        waiting = [asyncio.create_task(threads.call(wait)) for _ in range(20)]
        for _ in range(4):
            await asyncio.to_thread(running.acquire, timeout=10)
        assert len(alive()) == 4
        assert not running.acquire(blocking=False)
        gate.set()
        await asyncio.gather(*waiting)

    asyncio.run(main())


def test_a_cancelled_wait_ends_at_once_and_its_function_is_not_begun_later(threads):
    """What has begun cannot be stopped; what was still queued never runs."""
    began, go_on = threading.Semaphore(0), threading.Event()
    ran: list[int] = []

    def block() -> None:
        began.release()
        go_on.wait(10)

    async def main() -> None:
        blocking = [asyncio.create_task(threads.call(block)) for _ in range(4)]
        for _ in range(4):
            await asyncio.to_thread(began.acquire, timeout=10)
        queued = [asyncio.create_task(threads.call(ran.append, i)) for i in range(3)]
        await asyncio.sleep(0)
        for task in (*blocking, *queued):
            task.cancel()
        done, _ = await asyncio.wait([*blocking, *queued], timeout=5)
        assert len(done) == 7
        go_on.set()
        assert await threads.call(lambda: "usable") == "usable"
        assert not ran

    asyncio.run(main())


def test_closing_lets_what_is_queued_go(threads):
    """After the end of a run, no function of it begins."""
    began, go_on = threading.Semaphore(0), threading.Event()
    ran: list[Any] = []

    def block() -> None:
        began.release()
        go_on.wait(10)

    async def main() -> None:
        for _ in range(4):
            threads.submit(block, (), lambda *_: None)
        for _ in range(4):
            await asyncio.to_thread(began.acquire, timeout=10)
        threads.submit(ran.append, (1,), lambda *_: None)
        threads.close()
        go_on.set()
        for thread in alive():
            await asyncio.to_thread(thread.join, 10)
        assert not ran

    asyncio.run(main())


def test_a_result_that_comes_after_the_loop_is_gone_is_nobodys():
    """The thread ends without a word."""
    threads = Threads(1, "tested")
    began, go_on = threading.Event(), threading.Event()

    def block() -> None:
        began.set()
        go_on.wait(10)

    async def main() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await threads.call(block)
        await asyncio.to_thread(began.wait, 10)
        threads.close()

    asyncio.run(main())
    go_on.set()
    for thread in alive():
        thread.join(10)


def test_the_threads_do_not_hold_up_the_end_of_the_process():
    """They are daemons: a function that never returns does not keep the interpreter."""
    threads = Threads(1, "tested")
    go_on = threading.Event()

    async def main() -> None:
        threads.submit(go_on.wait, (10,), lambda *_: None)
        await asyncio.sleep(0)
        assert all(thread.daemon for thread in alive())
        threads.close()

    asyncio.run(main())
    go_on.set()
    for thread in alive():
        thread.join(10)
