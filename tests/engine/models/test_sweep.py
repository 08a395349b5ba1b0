"""Sweep: one timer for all, and a Deadline that ends attempts exactly as asyncio.timeout would."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Literal

import looptime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowloop.engine.core.errors import ModelError
from rowloop.engine.models.deadline import Deadline
from rowloop.engine.models.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

OnCancel = Literal["pass it on", "clean up first", "raise another error", "return all the same", "cancel itself too"]

LIMIT = 5.0
OUTSIDE = st.lists(st.sampled_from([0.0, 3.0, 4.999, 5.0, 5.001, 6.0, 8.0]), max_size=3)
ON_CANCEL = st.sampled_from(OnCancel.__args__)


async def answer(seconds: float, on_cancel: OnCancel) -> str:
    """Answer after some time, if any; react to a cancellation as some code does."""
    try:
        if seconds:
            await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if on_cancel == "clean up first":
            await asyncio.sleep(2.0)
        elif on_cancel == "raise another error":
            raise ValueError("broken by the cancellation") from None
        elif on_cancel == "return all the same":
            return "an answer all the same"
        elif on_cancel == "cancel itself too":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        raise
    return "an answer"


async def by_sweep(given_answer: Awaitable[str]) -> str:
    """Wait within the time limit of a Deadline."""
    return (await Deadline(LIMIT).enforce(given_answer))[0]


async def by_timeout(given_answer: Awaitable[str]) -> str:
    """Wait within the time limit of asyncio's own."""
    try:
        async with asyncio.timeout(LIMIT):
            return await given_answer
    except TimeoutError:
        raise ModelError("", kind="timeout", retryable=True) from None


async def story(
    limited: Callable[[Awaitable[str]], Awaitable[str]], seconds: float, on_cancel: OnCancel, outside: list[float]
) -> tuple[object, ...]:
    """Return how it ends, when, and how many cancellations are left to whoever is further out."""

    async def attempt() -> tuple[object, ...]:
        try:
            try:
                async with asyncio.timeout(7.0):
                    ended: object = await limited(answer(seconds, on_cancel))
            except (ModelError, ValueError, TimeoutError, asyncio.CancelledError) as error:
                ended = type(error)
            task = asyncio.current_task()
            return ended, task and task.cancelling(), asyncio.get_running_loop().time()
        finally:
            await asyncio.sleep(0)

    task = asyncio.create_task(attempt())
    for at in outside:
        asyncio.get_running_loop().call_at(at, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return "cancelled while it ended", asyncio.get_running_loop().time()


@given(st.sampled_from([0.0, 1.0, 5.0, 5.0005, 6.0, 30.0]), ON_CANCEL, OUTSIDE)
def test_an_attempt_ends_as_with_a_timeout_of_asyncio(seconds: float, on_cancel: OnCancel, outside: list[float]):
    """The same outcome, at the same time, with the same cancellations left, whoever cancels and however it reacts."""

    def ending(limited: Callable[[Awaitable[str]], Awaitable[str]]) -> tuple[object, ...]:
        with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=0, end=100)) as runner:
            return runner.run(story(limited, seconds, on_cancel, outside))

    assert ending(by_sweep) == ending(by_timeout)


def test_a_cancellation_at_the_same_moment_is_not_taken_for_a_timeout(virtually):
    """Whoever cancels the task learns that it was cancelled, also where the time was over in the same turn."""

    async def main():
        task = asyncio.create_task(by_sweep(answer(100.0, "pass it on")))
        asyncio.get_running_loop().call_at(LIMIT, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    virtually(main())


def test_deadlines_within_deadlines_end_by_the_nearest(virtually):
    """The inner one's error passes through the outer one, which cancels nothing then."""

    async def main():
        for outer, inner in ((3.0, 5.0), (5.0, 3.0), (3.0, 3.0)):
            loop = asyncio.get_running_loop()
            began = loop.time()
            with pytest.raises(ModelError, match="no answer within timeout=3 s"):
                await Deadline(outer).enforce(Deadline(inner).enforce(asyncio.sleep(100)))
            assert loop.time() - began == pytest.approx(3)
            task = asyncio.current_task()
            assert task is not None
            assert not task.cancelling()

    virtually(main())


def test_a_limit_that_is_over_before_the_first_wait_ends_the_first_wait():
    """Code that blocks the loop for longer than its time is ended where it first waits."""

    async def blocking() -> None:
        time.sleep(0.03)  # noqa: ASYNC251 - it blocks
        await asyncio.sleep(60)

    async def main():
        with pytest.raises(ModelError):
            await Deadline(0.01).enforce(blocking())

    began = time.monotonic()
    asyncio.run(main())
    assert 0.03 <= time.monotonic() - began < 10


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("begin"), st.floats(0, 3)),
            st.tuples(st.just("end"), st.integers(0, 9)),
            st.tuples(st.just("change"), st.sampled_from([0.5, 1.0, 4.0, math.inf])),
            st.tuples(st.just("wait"), st.floats(0, 3)),
        ),
        max_size=30,
    )
)
def test_items_expire_on_time_whatever_begins_ends_and_changes(steps: list[tuple[str, float]]):
    """Each expires when it has lasted for the time of that moment, within two milliseconds, and once."""

    async def main():
        loop = asyncio.get_running_loop()
        began: dict[int, float] = {}
        expired: list[int] = []

        def expire(item: int) -> None:
            assert loop.time() - began.pop(item) >= sweep.seconds - 0.002
            expired.append(item)

        sweep = Sweep(2.0, expire)
        for number, (step, amount) in enumerate(steps):
            if step == "begin":
                began[number] = loop.time()
                sweep.add(number, loop.time(), loop)
            elif step == "end" and began:
                item = list(began)[int(amount) % len(began)]
                del began[item]
                sweep.remove(item)
            elif step == "change":
                sweep.change(amount, loop)
            await asyncio.sleep(amount if step == "wait" else 0.002)
            assert all(loop.time() - at < sweep.seconds + 0.002 for at in began.values())
            assert len(sweep) == len(began)
        assert len(expired) == len(set(expired))
        sweep.change(1.0, loop)
        await asyncio.sleep(1.002)
        assert not began

    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=0, end=1000)) as runner:
        runner.run(main())


def test_an_idle_sweep_leaves_no_timer_on_the_loop(virtually):
    """A loop that ends with the last timer ends at once, also after many attempts with a limit of ten minutes."""

    async def main():
        deadline = Deadline(600.0)
        await asyncio.gather(*[deadline.enforce(asyncio.sleep(1)) for _ in range(20)])
        assert deadline._sweep._timer is None
        assert asyncio.get_running_loop().time() == pytest.approx(1)

    virtually(main())


def test_many_attempts_share_one_timer(virtually):
    """A timer per attempt costs a tenth of a request; one is enough, as the oldest attempt expires first."""

    async def main():
        loop = asyncio.get_running_loop()
        deadline, timers = Deadline(600.0), []
        call_at = loop.call_at
        loop.call_at = lambda when, *args, **kwargs: timers.append(when) or call_at(when, *args, **kwargs)  # type: ignore[method-assign]  # counts
        waits = [asyncio.create_task(deadline.enforce(asyncio.Event().wait())) for _ in range(100)]
        await asyncio.sleep(0)
        assert timers == [600.0]
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)

    virtually(main())
