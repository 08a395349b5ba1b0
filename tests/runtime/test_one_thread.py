"""OneThread: work is done in order, in its caller's context, and all that is queued is done before the end."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING

import pytest

from rowloop.runtime.one_thread import OneThread

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.fixture
def one() -> Iterator[OneThread]:
    """Return a thread for this test, and check that it ends."""
    made = OneThread("tested-one")
    yield made
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "tested-one"]


def test_work_is_done_in_order_by_one_thread(one: OneThread):
    """Calls of several coroutines and posted work share the order in which they were made."""
    done: list[tuple[int, int]] = []

    def note(number: int) -> int:
        done.append((number, threading.get_ident()))
        return number

    async def main() -> list[int]:
        calls = []
        for i in range(0, 100, 2):
            one.post(lambda i=i: note(i))
            calls.append(asyncio.ensure_future(one.call(lambda i=i: note(i + 1))))
            await asyncio.sleep(0)
        return list(await asyncio.gather(*calls))

    assert asyncio.run(main()) == list(range(1, 100, 2))
    assert [number for number, _ in done] == list(range(100))
    assert len({thread for _, thread in done}) == 1


def test_calls_run_in_a_copy_of_the_callers_context(one: OneThread):
    """They see the variables of the task that calls, and change none of them."""

    def change() -> str:
        seen = VARIABLE.get()
        VARIABLE.set("changed")
        return seen

    async def main(value: str) -> tuple[str, str]:
        VARIABLE.set(value)
        return await one.call(change), VARIABLE.get()

    assert asyncio.run(main("first")) == ("first", "first")
    assert asyncio.run(main("second")) == ("second", "second")


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError("mine"), SystemExit(2)])
def test_what_the_work_raises_is_raised_where_it_is_awaited(one: OneThread, error: BaseException):
    """The thread works on."""

    def fail() -> None:
        raise error

    async def main() -> int:
        try:
            await one.call(fail)
        except BaseException as raised:  # noqa: BLE001 - every kind is caught
            assert type(raised) is type(error)  # noqa: PT017
            assert raised.args == error.args  # noqa: PT017
        return await one.call(lambda: 7)

    assert asyncio.run(main()) == 7


def test_work_of_a_cancelled_wait_is_not_begun(one: OneThread):
    """What has begun is finished, and its result discarded."""
    began, release, done = threading.Event(), threading.Event(), []

    def first() -> None:
        began.set()
        assert release.wait(10)
        done.append("first")

    async def main() -> None:
        running = asyncio.ensure_future(one.call(first))
        queued = asyncio.ensure_future(one.call(lambda: done.append("second")))
        assert await asyncio.to_thread(began.wait, 10)
        running.cancel()
        queued.cancel()
        await asyncio.wait([running, queued])
        release.set()
        await one.call(lambda: done.append("third"))

    asyncio.run(main())
    assert done == ["first", "third"]


def test_other_threads_may_post_work_and_wait_for_it(one: OneThread):
    """Eight threads begin at once: one thread serves them all, and each gets its own result or error."""
    begin, served, got = threading.Barrier(8), set[int](), set[int]()

    def ask(number: int) -> None:
        begin.wait(10)
        got.add(one.run(lambda: served.add(threading.get_ident()) or number))
        with pytest.raises(ZeroDivisionError):
            one.run(lambda: 1 // 0)

    threads = [threading.Thread(target=ask, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert got == set(range(8))
    assert len(served) == 1


def test_close_does_what_is_queued_first_and_refuses_more():
    """It waits for the end of the thread; closing twice is harmless."""
    one, done = OneThread("tested-one"), []
    for i in range(100):
        one.post(lambda i=i: done.append(i))
    one.close()
    one.close()
    assert done == list(range(100))
    with pytest.raises(RuntimeError, match="tested-one is closed"):
        one.post(lambda: None)
