"""The caller's context variables reach all code of the user's: a tracer's spans have the run's span as their parent."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import rowloop as rl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPAN: contextvars.ContextVar[str] = contextvars.ContextVar("SPAN", default="none")


class Seen:
    """The value of the variable wherever the user's code ran."""

    def __init__(self) -> None:
        self.spans: dict[str, set[str]] = defaultdict(set)

    def note(self, where: str) -> None:
        """Keep the variable's value."""
        self.spans[where].add(SPAN.get())

    def recipe(self) -> rl.Recipe:
        """Return a recipe with code of the user's in every place that takes some."""

        async def asynchronous(n: int) -> int:
            self.note("async function")
            return n

        def synchronous(n: int) -> int:
            self.note("sync function")
            return n

        def whole(n: pd.Series[int]) -> pd.Series[int]:
            self.note("batch function")
            return n

        def model(prompt: str) -> str:
            self.note("sync model")
            return prompt

        async def amodel(prompt: str) -> str:
            self.note("async model")
            return prompt

        def check(n: int) -> bool:
            self.note("validator")
            return n >= 0

        note = self.note

        class Noting(rl.Processor):
            def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
                note("before_batch")
                return frame

            def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:  # noqa: ARG002 - the interface
                note("after_batch")
                return frame

            def after_generation(self, frame: pd.DataFrame) -> pd.DataFrame:
                note("after_generation")
                return frame

        return rl.Recipe(
            models={"m": rl.Model(model), "a": rl.Model(amodel)},
            columns=[
                rl.Seed(pd.DataFrame({"n": range(20)})),
                rl.cell(asynchronous),
                rl.cell(synchronous),
                rl.batch(whole),
                rl.Text("text", model="m", prompt="{{ n }}"),
                rl.Text("atext", model="a", prompt="{{ n }}"),
                rl.Validate("valid", check=check),
            ],
            processors=[Noting()],
        )

    @property
    def options(self) -> dict[str, Any]:
        """Return options with the other callbacks."""
        note = self.note

        class Observing:
            def on_event(self, event: object) -> None:
                note(f"on_event {type(event).__name__}")

            def on_start(self, *_: object) -> None:
                note("on_start")

            def on_command(self, command: object) -> None:
                note(f"on_command {type(command).__name__}")

        return {
            "observers": [Observing()],
            "on_part": lambda _: note("on_part"),
            "progress": False,
            "row_group_size": 5,
        }


def build(recipe: rl.Recipe, path: Path, options: dict[str, Any]) -> None:
    """Block."""
    recipe.build(path, **options)


def abuild(recipe: rl.Recipe, path: Path, options: dict[str, Any]) -> None:
    """Await."""
    asyncio.run(recipe.abuild(path, **options))


def start(recipe: rl.Recipe, path: Path, options: dict[str, Any]) -> None:
    """Start, and wait in another thread."""
    run = recipe.start(path, **options)
    thread = threading.Thread(target=run.result)
    thread.start()
    thread.join(30)


def preview(recipe: rl.Recipe, _path: Path, options: dict[str, Any]) -> None:
    """Keep the rows in memory."""
    recipe.preview(20, **options)


@pytest.mark.parametrize("call", [build, abuild, start, preview])
def test_the_callers_context_reaches_all_code_of_the_users(
    tmp_path: Path, call: Callable[[rl.Recipe, Path, dict[str, Any]], None]
):
    """Each of two runs that share the threads of a model has its own value everywhere."""
    for value in ("first", "second"):
        seen = Seen()
        token = SPAN.set(value)
        call(seen.recipe(), tmp_path / value, seen.options)
        SPAN.reset(token)
        functions = {"async function", "sync function", "batch function", "sync model", "async model", "validator"}
        frames = {"before_batch", "after_batch", "after_generation", "on_part"}
        events = {"on_start", "on_event Started", "on_event Done", "on_event Committed", "on_command Commit"}
        assert functions | frames | events <= set(seen.spans)
        assert {where: spans for where, spans in seen.spans.items() if spans != {value}} == {}


def test_a_cancellation_is_observed_in_the_runs_own_context(tmp_path: Path):
    """Whoever cancels may be in another context, such as that of a request handler."""
    seen, began = Seen(), threading.Event()

    async def hang(n: int) -> int:
        began.set()
        await asyncio.sleep(3600)
        return n

    SPAN.set("caller")
    run = rl.Recipe(columns=[rl.Seed(pd.DataFrame({"n": range(20)})), rl.cell(hang)]).start(tmp_path, **seen.options)
    assert began.wait(20)
    contextvars.Context().run(run.cancel)
    assert run.result(20).status == "cancelled"
    assert seen.spans["on_event Halted"] == seen.spans["on_event Cancelled"] == {"caller"}
