"""Threads: results and errors come back, waits can be cancelled, and no more threads start than are useful."""

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
    """Return up to four threads, and check that they end."""
    made = Threads(4, "tested")
    yield made
    made.close()
    for thread in alive():
        thread.join(10)
    assert not alive()


def alive() -> list[threading.Thread]:
    """List the threads under test."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("tested")]


def test_each_call_gets_its_own_arguments_and_result(threads):
    """A thousand calls at once."""

    async def main() -> list[int]:
        return await asyncio.gather(*[threads.call(pow, i, 2) for i in range(1000)])

    assert asyncio.run(main()) == [i * i for i in range(1000)]


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError("mine"), SystemExit(2)])
def test_error_of_the_function_is_raised_where_it_is_awaited(threads, error):
    """Every kind of exception arrives as the same object."""

    def fail() -> None:
        raise error

    async def main() -> None:
        try:
            await threads.call(fail)
        except BaseException as raised:  # noqa: BLE001 - every kind is caught
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


def test_function_sees_the_callers_context_variables_and_keeps_its_own(threads):
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
    """Calls one after the other need one thread; a few more start if a call is picked up late."""
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
    """Three calls that wait for each other get three threads; of twenty calls, four run at once."""
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


def test_cancelled_wait_ends_at_once_and_its_function_does_not_begin_later(threads):
    """A function that has begun cannot be stopped; one that is still queued never runs."""
    began, release = threading.Semaphore(0), threading.Event()
    ran: list[int] = []

    def block() -> None:
        began.release()
        release.wait(10)

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
        release.set()
        assert await threads.call(lambda: "usable") == "usable"
        assert not ran

    asyncio.run(main())


def test_closing_drops_queued_calls(threads):
    """A queued function does not begin after the close."""
    began, release = threading.Semaphore(0), threading.Event()
    ran: list[Any] = []

    def block() -> None:
        began.release()
        release.wait(10)

    async def main() -> None:
        for _ in range(4):
            threads.submit(block, (), lambda *_: None)
        for _ in range(4):
            await asyncio.to_thread(began.acquire, timeout=10)
        threads.submit(ran.append, (1,), lambda *_: None)
        threads.close()
        release.set()
        for thread in alive():
            await asyncio.to_thread(thread.join, 10)
        assert not ran

    asyncio.run(main())


def test_result_after_the_end_of_the_loop_is_discarded():
    """The thread ends without an error."""
    threads = Threads(1, "tested")
    began, release = threading.Event(), threading.Event()

    def block() -> None:
        began.set()
        release.wait(10)

    async def main() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await threads.call(block)
        await asyncio.to_thread(began.wait, 10)
        threads.close()

    asyncio.run(main())
    release.set()
    for thread in alive():
        thread.join(10)


def test_threads_do_not_delay_the_end_of_the_process():
    """They are daemons: a function that never returns does not keep the interpreter alive."""
    threads = Threads(1, "tested")
    release = threading.Event()

    async def main() -> None:
        threads.submit(release.wait, (10,), lambda *_: None)
        await asyncio.sleep(0)
        assert all(thread.daemon for thread in alive())
        threads.close()

    asyncio.run(main())
    release.set()
    for thread in alive():
        thread.join(10)


def test_threads_without_a_call_for_the_idle_time_end_and_start_again():
    """Ten rounds of calls, each after the threads of the last one have ended."""
    threads = Threads(4, "tested", idle=0.02)

    async def main() -> list[int]:
        return await asyncio.gather(*[threads.call(pow, i, 2) for i in range(50)])

    for _ in range(10):
        assert asyncio.run(main()) == [i * i for i in range(50)]
        for thread in alive():
            thread.join(10)
        assert not alive()
    threads.close()


def test_no_call_is_lost_between_the_end_of_a_thread_and_the_next_call():
    """The idle time is nothing, so threads end all the time while calls come."""
    threads = Threads(2, "tested", idle=0.0)

    async def main() -> None:
        for i in range(3000):
            assert await asyncio.wait_for(threads.call(pow, i, 2), 10) == i * i

    asyncio.run(main())
    threads.close()
    for thread in alive():
        thread.join(10)
    assert not alive()
