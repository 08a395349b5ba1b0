"""The handle of a run: who owns it, how it is awaited, and what ends it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import rowloop as rl

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

ROWS = 6


class Gate:
    """Cells that begin and then wait until the test lets them through."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.opened = threading.Event()

    def recipe(self) -> rl.Recipe:
        """Return a recipe whose cells wait at the gate."""

        async def value(n: int) -> int:
            self.began.set()
            while not self.opened.is_set():  # noqa: ASYNC110 - it is set in another thread
                await asyncio.sleep(0.001)
            return n * n

        return rl.Recipe(columns=[rl.Seed(pd.DataFrame({"n": range(ROWS)})), rl.cell(value)])

    def start(self, path: Path, **options: Any) -> rl.Run:
        """Start the recipe in the background, and wait until a cell has begun."""
        run = self.recipe().start(path, progress=False, **options)
        assert self.began.wait(20)
        return run


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Return a gate that is open at the end, so that no run waits there for ever."""
    gate = Gate()
    yield gate
    gate.opened.set()


async def time_out(run: rl.Run) -> None:
    """Wait for a run with a limit that it exceeds."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run, 0.02)


async def cancel_the_waiter(run: rl.Run) -> None:
    """Cancel a task that awaits a run."""

    async def wait() -> rl.Result:
        return await run

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def fail_beside_the_waiter(run: rl.Run) -> None:
    """Fail in a TaskGroup whose other task awaits a run."""

    async def wait() -> rl.Result:
        return await run

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await both()


@pytest.mark.parametrize("leave", [time_out, cancel_the_waiter, fail_beside_the_waiter])
def test_a_waiter_that_leaves_does_not_end_the_run(
    tmp_path: Path, gate: Gate, leave: Callable[[rl.Run], Coroutine[Any, Any, None]]
):
    """Another one waits all the while, and gets the complete result."""
    run = gate.start(tmp_path / "out")

    async def main() -> rl.Result:
        async def stay() -> rl.Result:
            return await run

        patient = asyncio.ensure_future(stay())
        await leave(run)
        assert not run.done()
        gate.opened.set()
        return await patient

    assert asyncio.run(main()).status == "complete"
    assert run.result(20).actual == ROWS


def test_a_waiter_whose_loop_is_closed_does_not_end_the_run(tmp_path: Path, gate: Gate):
    """The loop is closed under the waiting task; the run completes."""
    run = gate.start(tmp_path / "out")
    loop = asyncio.new_event_loop()

    async def wait() -> rl.Result:
        return await run

    task = loop.create_task(wait())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    gate.opened.set()
    assert run.result(20).status == "complete"
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    task.get_coro().close()  # type: ignore[union-attr]


def test_cancel_ends_the_run_for_everyone(tmp_path: Path, gate: Gate):
    """All who wait get the result of a cancelled run."""
    run = gate.start(tmp_path / "out")

    async def wait() -> rl.Result:
        return await run

    async def main() -> list[rl.Result]:
        waiters = [asyncio.ensure_future(wait()) for _ in range(3)]
        await asyncio.sleep(0)
        run.cancel()
        return list(await asyncio.gather(*waiters))

    assert [result.status for result in asyncio.run(main())] == ["cancelled"] * 3


@pytest.mark.parametrize("door", ["abuild", "apreview"])
def test_what_a_coroutine_awaits_directly_is_its_own(tmp_path: Path, gate: Gate, door: str):
    """Cancelling `await abuild()` or `await apreview()` cancels the run, and waits for its end."""
    seen: list[str] = []

    class Ends:
        def on_event(self, event: object) -> None:
            seen.append(type(event).__name__)

    async def main() -> None:
        recipe, options = gate.recipe(), {"progress": False, "observers": [Ends()]}
        made = recipe.abuild(tmp_path / "out", **options) if door == "abuild" else recipe.apreview(**options)
        task = asyncio.ensure_future(made)
        assert await asyncio.to_thread(gate.began.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert "Halted" in seen
    assert seen.count("Cancelled") >= 5


@pytest.mark.parametrize("door", ["abuild", "apreview", "workflow"])
def test_a_framework_other_than_asyncio_is_refused_before_anything_begins(tmp_path: Path, door: str):
    """No directory is made and nothing is submitted; the error names the call that works in a thread."""
    asked: list[str] = []
    recipe = rl.Recipe(
        models={"m": rl.Model(lambda prompt: asked.append(prompt) or prompt)},
        columns=[rl.Text("text", model="m", prompt="any")],
    )
    coroutine: Coroutine[Any, Any, Any]
    if door == "workflow":
        coroutine = rl.Workflow([rl.Stage("one", recipe, rows=2)]).abuild(tmp_path / "out")
    else:
        coroutine = recipe.abuild(tmp_path / "out", 2) if door == "abuild" else recipe.apreview(2)
    with pytest.raises(RuntimeError, match=r"none runs in this thread.*recipe\.p?\w*build|recipe\.preview"):
        coroutine.send(None)
    assert asked == []
    assert list(tmp_path.iterdir()) == []


def test_awaiting_a_run_under_another_framework_leaves_it_working(tmp_path: Path, gate: Gate):
    """The wait is refused, and the run completes."""
    run = gate.start(tmp_path / "out")

    async def main() -> None:
        await run

    coroutine = main()
    with pytest.raises(RuntimeError, match="works on asyncio's event loops"):
        coroutine.send(None)
    gate.opened.set()
    assert run.result(20).status == "complete"
