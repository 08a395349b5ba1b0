"""The deadline of a run: it ends at a time of the clock, whatever it is doing, and can be resumed."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

import rowloop as rl
from rowloop.adapters.providers.function import CallableProvider
from rowloop.engine.core.events import Cancel
from rowloop.engine.datasets.journal import Journal
from rowloop.engine.datasets.reading import read_result

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rowloop.runtime import Runtime

QUIET: Any = {"progress": False, "row_group_size": 4}


def slow(seconds: float, ended: list[int] | None = None) -> rl.Recipe:
    """Make a recipe whose rows take so many seconds one after the other, by a model that is a function."""

    async def model(prompt: str) -> str:
        await asyncio.sleep(seconds)
        if ended is not None:
            ended.append(int(prompt))
        return prompt

    return rl.Recipe(
        models={"m": rl.Model(model, max_parallel=1)},
        columns=[rl.Seed({"n": range(40)}), rl.Text("text", model="m", prompt="{{ n }}")],
    )


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Have models of functions connect for ever; the event is set when one does."""
    connecting = threading.Event()

    async def connect(*_: object) -> None:
        connecting.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(CallableProvider, "connect", connect)
        yield connecting


def test_a_deadline_ends_a_run_with_its_reason_and_what_is_whole_is_kept(tmp_path: Path, virtual_runtime: Runtime):
    """Ten of forty rows take 100 s; the one in flight is cancelled, and a resumed run repeats no answer."""
    ended: list[int] = []
    recipe = slow(10, ended)
    result = recipe.build(tmp_path / "out", deadline=105, runtime=virtual_runtime, **QUIET)
    assert (result.status, result.reason, result.actual) == ("partial", "deadline: 105 s are over", 10)
    assert result.metadata["reason"] == result.reason
    assert ended == list(range(10))
    again = recipe.build(tmp_path / "out", resume="always", runtime=virtual_runtime, **QUIET)
    assert (again.status, again.reason, again.actual) == ("complete", None, 40)
    assert ended == list(range(40))


def test_a_run_that_ends_before_its_deadline_is_complete(virtual_runtime: Runtime):
    """The deadline leaves nothing behind."""
    result = slow(1).preview(5, deadline=6, runtime=virtual_runtime, progress=False)
    assert (result.status, result.reason) == ("complete", None)


def test_the_last_record_says_how_to_resume(tmp_path: Path, virtual_runtime: Runtime, caplog: pytest.LogCaptureFixture):
    """After the reason."""
    slow(10).build(tmp_path, deadline=15, runtime=virtual_runtime, **QUIET)
    lines = caplog.records[-1].getMessage().splitlines()
    assert "  reason    deadline: 15 s are over" in lines
    assert lines[-1] == f'  ended early by deadline; to resume: build("{tmp_path}", 40, resume="always")'


def test_a_deadline_before_the_first_row_raises_an_error_that_names_it(tmp_path: Path, virtual_runtime: Runtime):
    """Nothing is left, so the run failed; it can be resumed all the same."""
    with pytest.raises(rl.EarlyShutdownError, match=r"^no row was completed; deadline: 5 s are over$"):
        slow(10).build(tmp_path, deadline=5, runtime=virtual_runtime, **QUIET)
    assert slow(10).build(tmp_path, resume="always", runtime=virtual_runtime, **QUIET).status == "complete"


def test_a_deadline_while_the_run_connects_ends_it_and_leaves_the_directory_alone(
    tmp_path: Path, virtual_runtime: Runtime, request: pytest.FixtureRequest
):
    """The rows that overwrite=True would have replaced are there."""
    made = slow(1).build(tmp_path, 7, runtime=virtual_runtime, **QUIET)
    request.getfixturevalue("hanging")
    with pytest.raises(rl.EarlyShutdownError, match="deadline: 5 s are over"):
        slow(1).build(tmp_path, deadline=5, runtime=virtual_runtime, overwrite=True, **QUIET)
    left = read_result(tmp_path)
    assert (left.status, left.metadata) == ("complete", made.metadata)
    assert left.to_arrow().num_rows == 7


def test_a_deadline_while_a_resumed_run_connects_returns_the_rows_that_are_there(
    tmp_path: Path, virtual_runtime: Runtime, request: pytest.FixtureRequest
):
    """They are the result, with the reason; the next resume completes them."""
    slow(10).build(tmp_path, deadline=45, runtime=virtual_runtime, **QUIET)
    request.getfixturevalue("hanging")
    result = slow(10).build(tmp_path, deadline=5, resume="always", runtime=virtual_runtime, **QUIET)
    assert (result.status, result.reason, result.actual) == ("partial", "deadline: 5 s are over", 4)
    assert pq.read_table(tmp_path / "data").num_rows == 4


def test_a_run_can_be_cancelled_while_it_connects(tmp_path: Path, hanging: threading.Event):
    """An endpoint that hangs at the start holds nobody up."""
    run = slow(1).start(tmp_path, **QUIET)
    assert hanging.wait(20)
    run.cancel()
    result = run.result(20)
    assert (result.status, result.reason, result.actual) == ("cancelled", "cancelled", 0)


def test_a_deadline_while_values_are_restored_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The journal takes longer than the deadline to read; the next run asks for nothing that was answered."""
    ended: list[int] = []
    recipe, kept, stuck = slow(0, ended), threading.Event(), [True]

    @recipe.column
    async def hangs(text: str) -> str:
        if text == "2" and stuck:
            kept.set()
            await asyncio.Event().wait()
        return text

    run = recipe.start(tmp_path, **QUIET)
    assert kept.wait(20)
    run.cancel()
    rows, recall, over = run.result(20).actual, Journal.recall, threading.Event()
    stuck.clear()

    class Watching:
        def on_event(self, event: object) -> None: ...

        def on_command(self, command: object) -> None:
            if isinstance(command, Cancel):
                over.set()

    def slowly(journal: Journal, row_group: int) -> Any:
        assert over.wait(20)
        return recall(journal, row_group)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "recall", slowly)
        result = recipe.build(tmp_path, resume="always", deadline=0.2, observers=[Watching()], **QUIET)
    assert (result.reason, result.actual) == ("deadline: 0.2 s are over", rows)
    asked = len(ended)
    assert recipe.build(tmp_path, resume="always", **QUIET).status == "complete"
    assert sorted(ended) == list(range(40))
    assert len(ended) - asked == 40 - asked


@pytest.mark.parametrize("deadline", [0, -1, "soon", float("nan")])
def test_a_deadline_that_is_no_time_is_refused(deadline: Any):
    """By its name, before anything starts."""
    with pytest.raises(rl.RecipeError, match=r"^deadline: "):
        slow(0).preview(1, deadline=deadline, progress=False)
