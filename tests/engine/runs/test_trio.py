"""Under trio: what awaits is refused before anything begins, and what blocks works in a thread."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

import rowloop as rl

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class Counted:
    """A recipe of one column, and a Workflow of it, that count the cells that have begun."""

    def __init__(self) -> None:
        self.cells = 0
        self.recipe = rl.Recipe(columns=[rl.Uniform("n"), rl.cell(self.value)])
        self.workflow = rl.Workflow([rl.Stage("only", self.recipe, rows=3)])

    async def value(self, n: float) -> float:
        """Count the cell."""
        self.cells += 1
        return n


@pytest.mark.parametrize(
    ("begin", "form", "instead"),
    [
        (lambda made, path: made.recipe.abuild(path, 3), "await recipe.abuild(...)", "recipe.build(...)"),
        (lambda made, _: made.recipe.apreview(3), "await recipe.apreview(...)", "recipe.preview(...)"),
        (lambda made, path: made.workflow.abuild(path), "await workflow.abuild(...)", "workflow.build(...)"),
    ],
    ids=["abuild", "apreview", "workflow"],
)
def test_what_awaits_is_refused_under_trio_before_anything_begins(
    begin: Callable[[Counted, Path], Awaitable[Any]], form: str, instead: str, tmp_path: Path
):
    """The error names the call and what to call instead in a thread; no file and no cell has begun."""
    made, path = Counted(), tmp_path / "out"

    async def main() -> None:
        await begin(made, path)

    with pytest.raises(RuntimeError) as caught:
        trio.run(main)
    assert str(caught.value).startswith(f"{form} works on asyncio's event loops")
    assert f"call `{instead}` in a thread" in str(caught.value)
    assert "trio.to_thread.run_sync" in str(caught.value)
    assert made.cells == 0
    assert not path.exists()


def test_a_build_in_a_thread_of_trio_makes_the_rows(tmp_path: Path):
    """What the error suggests works."""
    made = Counted()

    async def main() -> rl.Result:
        return await trio.to_thread.run_sync(partial(made.recipe.build, tmp_path / "out", 3, progress=False))

    assert trio.run(main).actual == made.cells == 3


def test_a_run_is_not_ended_by_a_wait_for_it_under_trio(tmp_path: Path):
    """`await run` and `run.changes()` are refused, and the run works on: it belongs to nobody who waits."""
    opened = threading.Event()

    async def value(n: float) -> float:
        while not opened.is_set():  # noqa: ASYNC110 - it is set in another thread
            await asyncio.sleep(0.001)
        return n

    run = rl.Recipe(columns=[rl.Uniform("n"), rl.cell(value)]).start(tmp_path / "out", 3, progress=False)

    async def waits() -> None:
        await run

    async def reads() -> None:
        async for _ in run.changes():
            pytest.fail("a snapshot without a loop")

    try:
        with pytest.raises(RuntimeError, match=r"run\.changes\(\) works on asyncio's event loops"):
            trio.run(reads)
        with pytest.raises(RuntimeError, match=r"awaiting .* works on asyncio's event loops"):
            trio.run(waits)
        assert not run.done()
    finally:
        opened.set()
    assert run.result(20).status == "complete"
