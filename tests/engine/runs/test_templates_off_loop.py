"""Costly templates are rendered beside the loop, so that no cell, display or other run waits for them."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import rowloop as rl
from rowloop.runtime import Runtime
from rowloop.runtime.watchdog import LIMIT

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 6
BUSY = "{% for i in range(20000) %}{{ (a ~ i)|upper }}{% endfor %}"
"""A tenth of a second or so, within the bounds."""
LONG = "{% set long = 'a' * 10**6 %}"
SEARCHED = "{% for i in range(40000) %}{{ 'ab' in long }}{% endfor %}"
SLOW = LONG + SEARCHED
"""More than the time limit."""


class Where(str):
    """A text that knows where it was rendered."""

    __slots__ = ("threads",)

    def __str__(self) -> str:
        """Note the thread."""
        self.threads.add(threading.current_thread().name)
        return "text"

    @classmethod
    def new(cls) -> Where:
        """Make one that was not rendered yet."""
        made = cls("text")
        made.threads = set[str]()
        return made


async def echo(prompt: str) -> str:
    """Answer with the prompt's length."""
    return str(len(prompt))


def preview(*columns: Any, runtime: Runtime | None = None, rows: int = ROWS, **options: Any) -> rl.Result:
    """Preview columns over a seed column `a`."""
    recipe = rl.Recipe(
        models={"m": rl.Model(echo)}, columns=[rl.Seed(pd.DataFrame({"a": ["x"] * rows})), *columns], **options
    )
    return recipe.preview(rows, progress=False, runtime=runtime)


async def lateness(stop: asyncio.Event) -> float:
    """Return how late a beat of the loop was at most by this process's own work, in seconds."""
    worst = 0.0
    while not stop.is_set():
        began, worked = time.monotonic(), time.process_time()
        await asyncio.sleep(0.01)
        worst = max(worst, min(time.monotonic() - began - 0.01, time.process_time() - worked))
    return worst


@pytest.mark.serial
@pytest.mark.parametrize(
    "column",
    [
        rl.Expression("b", BUSY),
        rl.Text("b", model="m", prompt=BUSY),
        rl.Text("b", model="m", prompt="x", system=BUSY),
        rl.Structured("b", model="m", prompt=BUSY, schema={"type": "integer"}),
        rl.Expression("b", SLOW, on_error="null"),
    ],
    ids=["expression", "text", "system", "structured", "slow"],
)
def test_a_costly_template_holds_up_no_beat_of_the_loop(column):
    """Never for longer than the watchdog allows."""
    with Runtime() as runtime:
        stop = asyncio.Event()
        beats = runtime.submit(lateness(stop))
        preview(column, runtime=runtime, rows=2 if SLOW in str(column) else 6)
        runtime.run(set_event(stop))
        assert beats.result() < LIMIT


async def set_event(event: asyncio.Event) -> None:
    """Set it, in its loop."""
    event.set()


def test_only_costly_templates_leave_the_loop():
    """A cheap one is not worth the way to a thread and back."""
    where = {"quick": Where.new(), "slow": Where.new()}

    def quick(a: str) -> str:  # noqa: ARG001 - what a column needs
        return where["quick"]

    def slow(a: str) -> str:  # noqa: ARG001 - what a column needs
        return where["slow"]

    cheap, costly = "{{ quick ~ a|upper }}", "{% for i in range(2) %}{{ slow ~ a }}{% endfor %}"
    columns = [
        *(rl.cell(quick), rl.cell(slow)),
        *(rl.Expression("cheap", cheap), rl.Text("asked", model="m", prompt=cheap)),
        *(rl.Expression("costly", costly), rl.Text("asked_costly", model="m", prompt=costly)),
    ]
    with Runtime("loop") as runtime:
        preview(*columns, runtime=runtime)
        loop = runtime.run(name_of_thread())
    assert where["quick"].threads == {loop}
    assert where["slow"].threads
    assert all(name.startswith("rowloop-template") for name in where["slow"].threads)


async def name_of_thread() -> str:
    """Return the name of the loop's thread."""
    return threading.current_thread().name


@pytest.mark.serial
def test_a_template_that_takes_too_long_fails_its_cell_by_name():
    """And the others are rendered after it."""
    source = LONG + "{% if a == 'slow' %}" + SEARCHED + "{% else %}{{ a }}{% endif %}"
    data = pd.DataFrame({"a": ["slow", "x", "y", "slow", "z"]})
    recipe = rl.Recipe(columns=[rl.Seed(data), rl.Expression("b", source)])
    result = recipe.preview(progress=False, error_budget=rl.ErrorBudget(window=100))
    problem = "columns.b.template: the template takes more than 2 s"
    assert [message[: len(problem)] for message in result.failures["message"]] == [problem] * 2
    assert list(result.dataset["b"]) == ["x", "y", "z"]


def test_a_bomb_fails_its_cell_by_name():
    """In whichever field it is."""
    bomb = "{{ 'a' * 10**9 }}"
    result = preview(
        rl.Expression("b", bomb, on_error="null"),
        rl.Text("c", model="m", prompt="{% for i in range(10**5) %}" + bomb + "{% endfor %}", on_error="null"),
        rl.Text("d", model="m", prompt="x", system="{% for i in range(9) %}" + bomb + "{% endfor %}", on_error="null"),
        rows=1,
    )
    names = [message.partition(": ")[0] for message in result.failures["message"]]
    assert sorted(names) == ["columns.b.template", "columns.c.prompt", "columns.d.system"]


def test_a_costly_template_gives_what_a_cheap_one_gives():
    """The same values, types and draws, in the order of the rows."""
    drawn = rl.Expression("drawn", "{{ range(1000)|list|random }}")
    number = rl.Expression("number", "{% for i in range(3) %}{{ i }}{% endfor %}", dtype="int64")
    first, second = (preview(drawn, number, rows=40, seed=3).dataset for _ in range(2))
    assert list(first["drawn"]) == list(second["drawn"])
    assert len(set(first["drawn"])) > 20
    assert list(first["number"]) == [12] * 40
    assert str(first["number"].dtype) == "int64"


@pytest.mark.serial
def test_a_cancelled_run_waits_for_no_render(tmp_path: Path):
    """A render that has begun ends by itself; on a busy machine it may do so before the run, but not each time."""
    assert any(ends_while_it_renders(tmp_path / str(n)) for n in range(5))


def ends_while_it_renders(path: Path) -> bool:
    """Cancel a run while it renders, and return whether it still renders when the run has ended."""
    for thread in rendering():  # of the test before
        thread.join(10)
    recipe = rl.Recipe(columns=[rl.Seed(pd.DataFrame({"a": ["x"] * 50})), rl.Expression("b", SLOW)])
    with Runtime() as runtime:
        run = recipe.start(path, progress=False, runtime=runtime)
        while not (threads := rendering()):
            assert not run.done()
        run.cancel()
        assert run.result().status == "cancelled"
        renders = bool(rendering())
    for thread in threads:
        thread.join(10)
    assert not rendering()
    return renders


def rendering() -> list[threading.Thread]:
    """Return the threads that render."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("rowloop-template")]
