"""MicroBatcher: which items share a call, whose error is whose, and when a call ends; with calls that the test ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowloop.engine.columns.microbatch import MicroBatcher, in_task, in_thread


class Calls:
    """Threads whose calls end when the test says so."""

    def __init__(self) -> None:
        self.under_way: list[tuple[Any, Any, Any]] = []

    def submit(self, function: Any, inputs: Any, ended: Any) -> None:
        """Note the call."""
        self.under_way.append((function, inputs, ended))

    def end(self) -> None:
        """Make it."""
        function, inputs, ended = self.under_way.pop()
        try:
            ended(function(*inputs), None)
        except ValueError as error:
            ended(None, error)


async def turns(number: int = 2) -> None:
    """Let the loop make a few turns."""
    for _ in range(number):
        await asyncio.sleep(0)


def test_items_that_are_ready_at_once_share_a_call_and_later_ones_the_next():
    """Without those that were cancelled meanwhile; an error reaches every caller."""
    seen = []

    def work(rows: list[Any]) -> list[int]:
        seen.append([x for (x,) in rows])
        if len(seen) == 3:
            raise ValueError("no")
        return [x + 1 for (x,) in rows]

    async def run() -> None:
        calls = Calls()
        start: Any = in_thread(calls, work)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - a stand-in
        batcher: MicroBatcher[Any, int] = MicroBatcher(start, size=1024, parallel=1)
        first = [asyncio.create_task(batcher.call((x,))) for x in range(3)]
        await turns()
        later = [asyncio.create_task(batcher.call((x,))) for x in range(3, 6)]
        await turns(1)
        first[0].cancel()
        later[1].cancel()
        await turns(1)
        calls.end()
        assert await asyncio.gather(*first[1:]) == [2, 3]
        calls.end()
        assert await asyncio.gather(later[0], later[2]) == [4, 6]
        last = asyncio.create_task(batcher.call((9,)))
        await turns()
        calls.end()
        with pytest.raises(ValueError, match="no"):
            await last
        assert not calls.under_way

    asyncio.run(run())
    assert seen == [[0, 1, 2], [3, 5], [9]]


def test_a_call_in_a_thread_keeps_its_turn_when_all_its_callers_have_left():
    """They leave at once; the next call begins when the thread has finished, which nobody can cancel."""

    async def run() -> None:
        calls = Calls()
        start: Any = in_thread(calls, list)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - a stand-in
        batcher: MicroBatcher[int, int] = MicroBatcher(start, size=8, parallel=1)
        left = asyncio.create_task(batcher.call(1))
        await turns()
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        next_one = asyncio.create_task(batcher.call(2))
        await turns()
        assert len(calls.under_way) == 1
        calls.end()
        assert len(calls.under_way) == 1
        calls.end()
        assert await next_one == 2

    asyncio.run(run())


def test_a_call_whose_callers_left_before_it_began_is_not_made():
    """The batcher works on with those who come after them."""

    async def run() -> None:
        made: list[list[int]] = []

        async def work(items: list[int]) -> list[int]:
            made.append(list(items))
            return items

        batcher = MicroBatcher(in_task(work), size=8)
        left = [asyncio.create_task(batcher.call(x)) for x in range(2)]
        left[0].cancel()
        left[1].cancel()
        await asyncio.wait(left)
        gone = asyncio.create_task(batcher.call(2))
        asyncio.get_running_loop().call_soon(gone.cancel)
        assert await batcher.call(3) == 3
        await asyncio.wait([gone])
        assert made == [[3]]

    asyncio.run(run())


def test_a_call_that_cannot_be_started_is_an_error_of_its_callers():
    """Such as a thread that the system refuses; the next call is made all the same."""

    async def run() -> None:
        refusals = [RuntimeError("can't start new thread")]

        def start(items: list[int], ended: Any) -> None:
            if refusals:
                raise refusals.pop()
            ended(items, None)

        batcher: MicroBatcher[int, int] = MicroBatcher(start, size=8, parallel=1)
        with pytest.raises(RuntimeError, match="can't start"):
            await batcher.call(1)
        assert await batcher.call(2) == 2

    asyncio.run(run())


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 5),
    st.none() | st.integers(1, 3),
)
def test_every_caller_gets_its_own_value_within_the_limits(plan: list[Any], size: int, parallel: int | None):
    """Whenever callers come and leave, and however long calls take: no call is too large, none too many are made."""
    under_way = most = 0
    made: list[int] = []

    async def work(items: list[tuple[int, int]]) -> list[int]:
        nonlocal under_way, most
        assert 1 <= len(items) <= size
        under_way += 1
        most = max(most, under_way)
        made.extend(number for number, _ in items)
        await turns(items[0][1])
        under_way -= 1
        return [number for number, _ in items]

    async def run() -> None:
        batcher = MicroBatcher(in_task(work), size=size, parallel=parallel)
        callers = []
        for number, (pause, length, leaves) in enumerate(plan):
            await turns(pause)
            caller = asyncio.create_task(batcher.call((number, length)))
            if leaves:
                asyncio.get_running_loop().call_later(0, caller.cancel)
            callers.append(caller)
        values = await asyncio.gather(*callers, return_exceptions=True)
        for number, (value, (_, _, leaves)) in enumerate(zip(values, plan, strict=True)):
            assert value == number or (leaves and isinstance(value, asyncio.CancelledError))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    assert len(made) == len(set(made))
    assert most <= (parallel or len(plan))
