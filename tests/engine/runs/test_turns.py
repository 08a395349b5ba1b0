"""A cell takes no turn of the event loop beyond those of its own call, and cells that never wait leave it turns."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rowloop as rl
from rowloop.engine.runs import slices
from rowloop.engine.runs.slices import Slices
from rowloop.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator


class Counting(asyncio.SelectorEventLoop):
    """asyncio's own loop, which counts its turns."""

    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc] # the method that makes one turn, which has no public name


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    """Give a loop, and have every slice over at once: a worker that is to yield does so after each cell."""
    monkeypatch.setattr(slices, "_SECONDS", 0.0)
    loop = Counting()
    yield loop
    loop.close()


async def by_a_future(prompt: str) -> str:
    """Answer as a client does: a later callback of the loop sets the result of a future."""
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    loop.call_soon(answer.set_result, prompt)
    return await answer


async def at_once(prompt: str) -> str:
    """Answer without waiting."""
    return prompt


def turns_per_call(loop: Counting, call: Callable[[int], object]) -> float:
    """Return by how many turns the second forty calls lengthen a run of forty."""
    counts = []
    for calls in (40, 40, 80):  # the first run loads modules, in threads
        before = loop.turns
        call(calls)
        counts.append(loop.turns - before)
    return (counts[2] - counts[1]) / 40


def test_a_cell_takes_the_turns_of_its_call_and_no_other(loop: Counting):
    """One request is in flight at a time, so nothing shares its turns."""

    def bare(calls: int) -> None:
        async def ask() -> None:
            for _ in range(calls):
                await by_a_future("text")

        runtime.run(ask())

    recipe = rl.Recipe(
        models={"m": rl.Model(by_a_future, max_parallel=1)},
        columns=[rl.Uniform("n"), rl.Text("answer", model="m", prompt="{{ n }}")],
    )
    with Runtime(loop_factory=lambda: loop) as runtime:
        alone = turns_per_call(loop, bare)
        whole = turns_per_call(loop, lambda calls: recipe.preview(calls, progress=False, runtime=runtime))
    assert alone == pytest.approx(2, abs=0.1)
    assert whole < alone + 0.2


def test_cells_that_never_wait_leave_turns_to_others(loop: Counting):
    """A worker whose calls are answered at once yields when its slice is over, here after each cell."""
    recipe = rl.Recipe(
        models={"m": rl.Model(at_once, max_parallel=1)},
        columns=[rl.Uniform("n"), rl.Text("answer", model="m", prompt="{{ n }}")],
    )
    with Runtime(loop_factory=lambda: loop) as runtime:
        whole = turns_per_call(loop, lambda calls: recipe.preview(calls, progress=False, runtime=runtime))
    assert whole == pytest.approx(1, abs=0.2)


class Stopped(Exception):  # noqa: N818 - a signal of the test
    """Thrown into the work where it waits."""


@given(st.lists(st.booleans(), max_size=6), st.sampled_from(["returns", "raises"]))
def test_watched_work_behaves_as_awaited_work(throws: list[bool], ends: str):
    """Whatever is thrown into it wherever it waits, it ends as under a plain await, and `waited` shows if it waited."""

    async def work() -> int:
        caught = 0
        for _ in throws:
            try:
                await asyncio.sleep(0)
            except Stopped:
                caught += 1
        if ends == "raises":
            raise LookupError(str(caught))
        return caught

    async def plain() -> int:
        return await work()

    async def watched() -> int:
        return await slices_.watch(work())

    slices_ = Slices()
    assert _driven(watched(), throws) == _driven(plain(), throws)
    if ends == "returns":
        assert slices_.waited == bool(throws)


def test_watched_work_is_closed_with_its_task():
    """A coroutine that is closed while it waits closes the work, whose `finally` runs."""
    closed = []

    async def work() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            closed.append(True)

    async def watched() -> None:
        await Slices().watch(work())

    coroutine = watched()
    coroutine.send(None)
    coroutine.close()
    assert closed == [True]


def _driven(coroutine: Coroutine[object, None, int], throws: list[bool]) -> tuple[int, str]:
    """Step a coroutine to its end, and throw where `throws` has it; return the number of steps, and how it ended."""
    steps = iter([False, *throws])
    for number in range(len(throws) + 2):
        try:
            if next(steps, False):
                coroutine.throw(Stopped())
            else:
                coroutine.send(None)
        except (StopIteration, LookupError) as ended:
            return number, repr(ended)
    raise AssertionError("the coroutine does not end")
