"""Observers given as an option of a run: they see everything, in every way to run a recipe, and a slow one is named."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import rowloop as rl
from identifiers import by_repr
from rowloop.engine.core.events import (
    WHOLE,
    Commit,
    Committed,
    Done,
    Due,
    Event,
    Execute,
    Failed,
    Restored,
    Started,
    Stop,
)
from rowloop.engine.telemetry.outside import OutsideObserver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rowloop.engine.core.events import Command, Record
    from rowloop.engine.core.graph import Graph
    from rowloop.engine.core.row_groups import Plan
    from rowloop.engine.core.store import RowGroup

ROWS = 23
OPTIONS: dict[str, Any] = {
    "row_group_size": 5,
    "progress": False,
    "retry": rl.RetryPolicy(attempts=3, wait=lambda _: 0.001),
    "error_budget": rl.ErrorBudget(rate=None),
}


class Everything:
    """An observer with all four methods, which adds up what it sees per column."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.commands: list[Command] = []
        self.completed: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.failed_rows: list[tuple[str, int, Any]] = []
        self.worked: dict[tuple[int, int], int] = {}

    def on_start(self, graph: Graph, plan: Plan) -> None:
        self.graph, self.plan = graph, plan

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Done | Failed):
            name = self.graph.columns[event.column].name
            self.attempts[name] += 1
            if isinstance(event, Done):
                self.completed[name] += 1 if event.row != WHOLE else self.worked[event.group, event.column]
        elif isinstance(event, Restored):
            for column, _ in event.cells:
                self.completed[self.graph.columns[column].name] += 1

    def on_command(self, command: Command) -> None:
        self.commands.append(command)
        if isinstance(command, Execute) and command.rows is not None:
            self.worked[command.group, command.column] = len(command.rows)

    def on_failure(self, record: Record, group: RowGroup) -> None:
        name = self.graph.columns[record.column].name
        self.failed[name] += 1
        self.failed_rows.append((name, self.plan.row(record.group, record.row), group.value(0, record.row)))

    def count(self, kind: type) -> int:
        """Return the number of events of a kind."""
        return sum(type(event) is kind for event in self.events)


def recipe() -> rl.Recipe:
    """Make columns that succeed, that fail for some rows, and that are retried for some."""
    refused: set[str] = set()

    def model(prompt: str) -> str:
        if prompt.endswith("7") and prompt not in refused:
            refused.add(prompt)
            raise rl.ModelError("busy", kind="server", retryable=True)
        return f"<{prompt}>"

    @rl.cell
    def picky(n: int) -> int:
        if n % 6 == 2:
            raise ValueError(f"not {n}")
        return n

    @rl.batch
    def place(n: pd.Series[int]) -> list[int]:
        return n.rank().astype(int).tolist()

    return rl.Recipe(
        models={"m": rl.Model(model)},
        columns=[
            rl.Seed(pd.DataFrame({"n": range(ROWS)})),
            picky,
            place,
            rl.Text("text", model="m", prompt="row {{ n }}"),
            rl.Expression("line", "{{ picky }}: {{ text }}"),
        ],
        seed=1,
    )


def by_preview(_: Path, **options: Any) -> rl.Result:
    """Preview."""
    return recipe().preview(ROWS, **options)


def by_build(path: Path, **options: Any) -> rl.Result:
    """Build."""
    return recipe().build(path, ROWS, **options)


def by_abuild(path: Path, **options: Any) -> rl.Result:
    """Build from a coroutine, in a loop of its own."""
    return asyncio.run(recipe().abuild(path, ROWS, **options))


def by_start(path: Path, **options: Any) -> rl.Result:
    """Start in the background and wait."""
    return recipe().start(path, ROWS, **options).result(30)


def by_workflow(path: Path, **options: Any) -> rl.Result:
    """Build the one stage of a workflow."""
    (result,) = rl.Workflow([rl.Stage("only", recipe(), rows=ROWS)]).build(path, **options)
    return result


every_way = pytest.mark.parametrize("way", [by_preview, by_build, by_abuild, by_start, by_workflow])


def assert_counts_agree(seen: Everything, result: rl.Result) -> None:
    """Check what an observer has added up against the metadata."""
    columns = result.metadata["columns"]
    assert {c["name"]: c["completed"] for c in columns} == {c["name"]: seen.completed[c["name"]] for c in columns}
    assert {c["name"]: c["failed"] for c in columns} == {c["name"]: seen.failed[c["name"]] for c in columns}


@every_way
@pytest.mark.parametrize("engine", ["async", "sequential"])
def test_an_observer_sees_every_event_and_its_counts_are_those_of_the_metadata(
    tmp_path: Path, way: Callable[..., rl.Result], engine: str
):
    """Completed and failed cells, retries, requests and row groups, in every way to run a recipe."""
    seen = Everything()
    result = way(tmp_path / "out", observers=[seen], engine=engine, **OPTIONS)
    metadata = result.metadata
    assert (result.status, result.dropped) == ("partial", 4)
    assert_counts_agree(seen, result)
    assert seen.count(Due) == metadata["retries"] > 0
    assert seen.attempts["text"] == result.usage.requests
    assert seen.count(Committed) == len(metadata["parts"]) == sum(type(c) is Commit for c in seen.commands)
    assert sorted(seen.failed_rows) == [("picky", n, n) for n in (2, 8, 14, 20)]
    assert (type(seen.events[0]), type(seen.commands[-1])) == (Started, Stop)


def test_every_stage_of_a_workflow_is_seen(tmp_path: Path):
    """The observer gets the columns of each stage before its first event."""
    seen = Everything()
    first = rl.Recipe(columns=[rl.Seed(pd.DataFrame({"n": range(3)}))])
    second = rl.Recipe(columns=[rl.Seed(columns=["n"]), rl.Expression("line", "{{ n }}")])
    workflow = rl.Workflow([rl.Stage("first", first, rows=3), rl.Stage("second", second)])
    workflow.build(tmp_path, observers=[seen], progress=False)
    workflow.preview(3, observers=[seen], progress=False)
    assert seen.count(Started) == 4
    assert seen.completed == {"n": 12, "line": 6}


def test_cells_of_an_earlier_run_are_seen_as_restored(tmp_path: Path):
    """Restored and new cells together are those of the metadata."""
    called: list[int] = []
    all_called = threading.Event()
    hang = True

    @rl.cell
    async def slow(n: int, text: str) -> str:
        called.append(n)
        if len(called) == 5:
            all_called.set()
        if hang and n >= 3:
            await asyncio.Event().wait()
        return f"{n}: {text}"

    made = rl.Recipe(
        models={"m": rl.Model(lambda prompt: f"<{prompt}>")},
        columns=[rl.Seed(pd.DataFrame({"n": range(5)})), rl.Text("text", model="m", prompt="{{ n }}"), slow],
    )

    run = made.start(tmp_path, 5, progress=False)
    assert all_called.wait(20)
    run.cancel()
    assert run.result(20).status == "cancelled"
    hang = False
    seen = Everything()
    result = made.build(tmp_path, 5, resume="always", observers=[seen], progress=False)
    assert result.status == "complete"
    assert seen.count(Restored) == 1
    assert (seen.attempts["text"], seen.attempts["slow"]) == (0, 2)
    assert_counts_agree(seen, result)


def test_one_method_is_enough():
    """An observer need not have the others."""

    class Short:
        def __init__(self) -> None:
            self.count = 0

        def on_event(self, event: Event) -> None:
            self.count += isinstance(event, Done)

    short, seen = Short(), Everything()
    recipe().preview(5, observers=(short, seen), progress=False)
    assert short.count == seen.count(Done) > 5


@pytest.mark.parametrize(
    ("observers", "says"),
    [
        (5, "observers: takes a list of observers, not 5"),
        ("on_event", "observers: takes a list of observers, not 'on_event'"),
        (Everything(), "observers: takes a list of observers, not <"),
        ([5], "observers: takes objects with a method on_event, not 5"),
        ([Everything(), object()], "observers: takes objects with a method on_event, not <object object"),
    ],
    ids=by_repr,
)
def test_an_object_without_on_event_is_refused(observers: Any, says: str):
    """Before anything is worked."""
    with pytest.raises(rl.RecipeError) as caught:
        recipe().preview(1, observers=observers, progress=False)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize("method", ["on_event", "on_start", "on_failure", "on_command"])
def test_an_observer_whose_method_is_async_is_refused(method: str):
    """Nobody would await it."""

    async def called(*_: object) -> None: ...

    observer = Everything()
    setattr(observer, method, called)
    with pytest.raises(rl.RecipeError, match=rf"^observers: Everything\.{method} is async; the methods of an observer"):
        recipe().preview(1, observers=[observer], progress=False)


# Slow observers


class Watched:
    """An outside observer whose calls take as long as `seconds` says, on a clock of its own."""

    def __init__(self, **methods: Callable[..., None]) -> None:
        self.now = 0.0
        self.seconds = 0.0

        def take_time(*_: object) -> None:
            self.now += self.seconds

        observer: Any = type("Slow", (), {"on_event": staticmethod(take_time), **methods})()
        self.outside = OutsideObserver(observer, clock=lambda: self.now)
        self.outside.begin(None, None)  # type: ignore[arg-type] # it has no on_start

    def see(self, events: int, seconds: float, between: float) -> None:
        """See so many events, each of which takes so many seconds, so many seconds apart."""
        self.seconds = seconds
        for _ in range(events):
            self.now += between
            self.outside.on_event(Due(0, 0, 0))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings about observers."""
    messages = [record.getMessage() for record in caplog.records]
    return [message for message in messages if message.startswith("observer ")]


def test_an_observer_that_takes_a_notable_share_of_the_time_is_named_once(caplog: pytest.LogCaptureFixture):
    """A twentieth of the time since the run began, once that is a tenth of a second."""
    watched = Watched()
    watched.see(1, seconds=0.09, between=0.0)
    watched.outside.check()
    watched.see(1000, seconds=0.004, between=0.1)
    watched.outside.check()
    assert warnings(caplog) == []
    watched.see(1000, seconds=0.007, between=0.1)
    watched.outside.check()
    watched.outside.check()
    (warning,) = warnings(caplog)
    assert warning.startswith(
        "observer Slow has taken 5% of the run's time (11.1 of 211.1 s): it runs on the event loop"
    )


def test_an_observer_that_takes_long_for_one_call_is_named_at_once(caplog: pytest.LogCaptureFixture):
    """With what it was called for; a second long call is not reported again."""
    watched = Watched()
    watched.see(1, seconds=0.099, between=100.0)
    assert warnings(caplog) == []
    watched.see(2, seconds=0.25, between=100.0)
    (warning,) = warnings(caplog)
    assert warning.startswith("observer Slow took 0.25 s for one call (Due): it runs on the event loop, and every cell")


def test_all_methods_of_an_observer_are_timed(caplog: pytest.LogCaptureFixture):
    """Failures and commands as well as events."""

    def take_time(*_: object) -> None:
        watched.now += 0.05

    names = ["on_failure", "on_command"]
    watched = Watched(**{name: staticmethod(take_time) for name in names})
    for name in names:
        getattr(watched.outside, name)(None, None)
    watched.outside.check()
    (warning,) = warnings(caplog)
    assert warning.startswith("observer Slow has taken 100% of the run's time (0.1 of 0.1 s)")
    assert warning.endswith(
        "it runs on the event loop and slows down every cell; do the slow part in a thread of its own"
    )


def test_a_slow_observer_of_a_run_is_named_and_a_fast_one_beside_it_is_not(caplog: pytest.LogCaptureFixture):
    """Both kinds of warning come before the report, which is the last record of the run."""

    class Sluggish:
        def on_event(self, event: Event) -> None:
            if isinstance(event, Committed):
                time.sleep(0.11)  # what it is warned of

    with caplog.at_level("INFO", "rowloop"):
        recipe().preview(4, observers=[Everything(), Sluggish()], progress=False)
    long, share = warnings(caplog)
    assert long.startswith("observer Sluggish took 0.11 s for one call (Committed)")
    assert share.startswith("observer Sluggish has taken ")
    assert caplog.records[-1].getMessage().startswith("partial: ")


def test_a_run_without_observers_of_the_users_times_nothing(monkeypatch: pytest.MonkeyPatch):
    """Not one wrapper is made."""

    def refuse(*_: object) -> None:
        raise AssertionError("nothing is to be wrapped")

    monkeypatch.setattr(OutsideObserver, "__init__", refuse)
    assert recipe().preview(3, progress=False).actual == 2
