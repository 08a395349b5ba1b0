"""The handle of a run: who owns it, how it is awaited, and what ends it."""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import rowloop as rl
from rowloop.runtime import BlockingCallWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

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
    instead = {"abuild": "recipe.build", "apreview": "recipe.preview", "workflow": "workflow.build"}[door]
    with pytest.raises(RuntimeError, match=rf"none runs in this thread.*`{re.escape(instead)}\(\.\.\.\)` in a thread"):
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


def test_a_run_knows_its_name_and_directory_and_how_it_ended(tmp_path: Path, gate: Gate):
    """Two runs have two names; the status is that of the result, or of the error."""
    run, other = gate.start(tmp_path / "out"), gate.start(tmp_path / "other")
    assert run.id != other.id
    assert (run.path, run.status) == (tmp_path / "out", "running")
    assert str(run.path) in repr(run)
    other.cancel()
    gate.opened.set()
    assert run.wait(20)
    assert run.status == run.result().status == "complete"
    assert other.wait(20)
    assert other.status == "cancelled"


def test_the_status_of_a_run_that_raises_is_that_of_its_error(tmp_path: Path):
    """A missed min_completion has a result; other errors are failures."""

    async def odd(n: int) -> int:
        if n % 2:
            raise ValueError(n)
        return n

    async def none(n: int) -> int:
        raise ValueError(n)

    seed = rl.Seed(pd.DataFrame({"n": range(4)}))
    for function, error, status in ((odd, rl.PartialDatasetError, "partial"), (none, rl.EarlyShutdownError, "failed")):
        recipe = rl.Recipe(columns=[seed, rl.cell(function)])
        run = recipe.start(tmp_path / status, progress=False, min_completion=1.0)
        assert run.wait(20)
        assert run.status == status
        with pytest.raises(error):
            run.result()


def test_waiting_for_a_while_says_whether_the_run_has_ended(tmp_path: Path, gate: Gate):
    """`wait` raises neither TimeoutError nor the error of the run; the message of `result` names the run."""
    run = gate.start(tmp_path / "out")
    assert not run.wait(0.01)
    with pytest.raises(TimeoutError, match=rf"the run of '{tmp_path}/out' on rowloop is not done after 0\.01 s"):
        run.result(0.01)
    gate.opened.set()
    assert run.wait(20)


def test_callbacks_are_called_once_with_the_run_and_may_block(
    tmp_path: Path, gate: Gate, caplog: pytest.LogCaptureFixture
):
    """Before and after the end alike, in the context of who added them; one that raises is logged."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="none")
    seen: queue.SimpleQueue[tuple[rl.Run, str, Any]] = queue.SimpleQueue()
    run = gate.start(tmp_path / "out")

    def broken(_: rl.Run) -> None:
        raise ZeroDivisionError("in the callback")

    def again(ended: rl.Run) -> None:
        seen.put((ended, name.get(), gate.recipe().preview(2, progress=False).status))

    name.set("early")
    run.add_done_callback(broken)
    run.add_done_callback(again)
    gate.opened.set()
    assert seen.get(timeout=20) == (run, "early", "complete")
    name.set("late")
    run.add_done_callback(again)
    assert seen.get(timeout=20) == (run, "late", "complete")
    assert seen.empty()
    for thread in threading.enumerate():
        if thread.name == "rowloop-callback":
            thread.join(20)
    assert [r.exc_info[0] for r in caplog.records if r.exc_info] == [ZeroDivisionError]


def test_changes_gives_snapshots_until_the_end(tmp_path: Path, gate: Gate):
    """The first comes at once, the last when the run has ended; in between only where something has changed."""
    run = gate.start(tmp_path / "out")

    async def main() -> list[rl.ProgressSnapshot]:
        seen = []
        async for snapshot in run.changes(every=0.01):
            seen.append(snapshot)
            if len(seen) == 1:
                for _ in range(5):
                    await asyncio.sleep(0.01)
                gate.opened.set()
        return seen

    seen = asyncio.run(main())
    assert (seen[0].committed, seen[-1].committed) == (0, ROWS)
    assert len({replace(snapshot, elapsed=0.0) for snapshot in map(_hashable, seen)}) == len(seen)
    assert asyncio.run(main())[-1].committed == ROWS  # of a run that has ended, there is one


def _hashable(snapshot: rl.ProgressSnapshot) -> rl.ProgressSnapshot:
    """Return a snapshot without the mappings in it."""
    return replace(snapshot, rate_limited=(), down=(), shared=())  # type: ignore[arg-type] # to be hashed alone


def test_a_reader_of_changes_that_leaves_does_not_end_the_run(tmp_path: Path, gate: Gate):
    """It breaks off after the first snapshot, and another one is cancelled while it waits."""
    run = gate.start(tmp_path / "out")

    async def first() -> None:
        async for _ in run.changes():
            break

    async def all_of_them() -> None:
        async for _ in run.changes(every=60):
            pass

    async def main() -> None:
        await first()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(all_of_them(), 0.02)

    asyncio.run(main())
    assert not run.done()
    gate.opened.set()
    assert run.result(20).status == "complete"


INTERRUPTED = """
import os, signal, threading, time
import rowloop as rl

may_end, began = threading.Event(), threading.Event()

async def value(n: int) -> int:
    import asyncio
    began.set()
    while not may_end.is_set():
        await asyncio.sleep(0.001)
    return n

recipe = rl.Recipe(columns=[rl.Seed([{"n": 1}]), rl.cell(value)])
run = recipe.start("out", progress=False)
began.wait()
main = threading.main_thread().ident

def interrupt():
    while not sys._current_frames()[main].f_code.co_filename.endswith("waiting.py"):
        pass
    signal.pthread_kill(main, signal.SIGINT)

import sys
for call in (run.result, run.wait, run.result):
    threading.Thread(target=interrupt).start()
    try:
        call()
    except KeyboardInterrupt:
        print("interrupted", run.done(), flush=True)
may_end.set()
print(run.result().status)
"""


@pytest.mark.outside
def test_ctrl_c_in_a_wait_leaves_the_run_and_says_so_once(tmp_path: Path):
    """The warning names the run and the calls that the user can make, and nothing internal."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.stdout == "interrupted False\n" * 3 + "complete\n", done.stderr
    assert done.stderr.count("run.cancel() ends it, run.result() waits for it again") == 1
    assert f"the run of '{tmp_path}/out' continues in the background" in done.stderr
    assert "rt." not in done.stderr
    assert "Execution" not in done.stderr


def test_messages_of_blocking_calls_name_what_the_user_wrote(tmp_path: Path, gate: Gate):
    """A blocking call in a coroutine is refused or warned of with the method of the recipe that would work."""
    recipe, run = gate.recipe(), gate.start(tmp_path / "out")
    gate.opened.set()
    run.result(20)

    async def host() -> None:
        with pytest.warns(
            BlockingCallWarning, match=r"write `await recipe.apreview\(...\)` .* `recipe.preview\(...\)`"
        ):
            recipe.preview(1, progress=False)
        with pytest.warns(BlockingCallWarning, match=r"write `await recipe.abuild\(...\)` .* `recipe.build\(...\)`"):
            recipe.build(tmp_path / "b", progress=False)
        gate.opened.clear()
        waiting = recipe.start(tmp_path / "c", progress=False)
        with pytest.warns(BlockingCallWarning, match=r"write `await run` .* `run.wait\(\)`"):
            assert not waiting.wait(0.01)
        gate.opened.set()
        await waiting

    asyncio.run(host())

    async def nested(n: int) -> int:
        recipe.build(tmp_path / "d", progress=False)
        return n

    result = rl.Recipe(columns=[rl.Seed([{"n": 1}, {"n": 2}]), rl.cell(nested, on_error="null")]).preview(
        progress=False
    )
    assert set(result.failures["error"]) == {"DeadlockError"}
    assert "Use `await recipe.abuild(...)` here" in result.failures["message"][0]
