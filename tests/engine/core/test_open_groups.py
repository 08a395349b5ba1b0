"""The memory that open row groups may take: what is opened beside what is open, and that a run always proceeds."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from rowloop.engine.core.events import WHOLE, Admit, Commit, Committed, Done, Execute, Restored, Started, Stop
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.row_groups import Earlier, Plan
from rowloop.engine.core.tracker import Tracker
from virtual_run import VirtualRun

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from rowloop.engine.core.events import Command, Event


class Worked:
    """A run of which every task is worked, in random order, with values of given sizes."""

    def __init__(self, nodes: list[Node], plan: Plan, sizes: dict[int, int], seed: int) -> None:
        """Begin. `sizes` has the bytes of a value by column."""
        self.tracker = Tracker(compile_graph(nodes), plan)
        self.plan = plan
        self.held: dict[int, int] = {}
        self.most = self.committed = 0
        self.opened: list[tuple[int, int]] = []
        """The bytes that were held when another row group was opened, and its rows; once one has been committed."""
        self._sizes = sizes
        self._luck = random.Random(seed)  # noqa: S311 - not a secret
        self._pending: list[Command] = []
        self.stopped = False
        self._take(Started())

    def finish(self, *, slow_sink: bool = False) -> None:
        """Work until nothing is left to do; with a slow sink, commits end when nothing else is left."""
        while self._pending:
            at = self._luck.randrange(len(self._pending))
            if slow_sink:
                at = next((i for i, one in enumerate(self._pending) if not isinstance(one, Commit)), at)
            command = self._pending.pop(at)
            if isinstance(command, Execute):
                rows = self.plan.size(command.group) if command.row == WHOLE else 1
                size = self._sizes[command.column] * rows
                self.held[command.group] += size
                self._take(Done(command.group, command.column, command.row, size=size))
            elif isinstance(command, Admit):
                self.held[command.group] += 10
                self._take(Restored(command.group, [], {}, [], {0: 10}))
            elif isinstance(command, Commit):
                self.held.pop(command.group)
                self.committed += len(command.rows)
                self._take(Committed(command.group))

    def _take(self, event: Event) -> None:
        for command in self.tracker.handle(event):
            if isinstance(command, Admit):
                if self.committed and self.held:
                    self.opened.append((sum(self.held.values()), command.rows))
                self.held[command.group] = 0
                self.most = max(self.most, len(self.held))
            self.stopped |= isinstance(command, Stop)
            if isinstance(command, Execute | Commit) or (isinstance(command, Admit) and command.known):
                self._pending.append(command)


NEEDS = st.sampled_from([("n",), ("a",), ("n", "a")])


@st.composite
def columns(draw: st.DrawFn) -> list[Node]:
    """Draw a whole column and up to three that need it, or each other, in lanes or without."""
    lanes = st.sampled_from([None, Lane("one", 2), Lane("two", 7)])
    nodes = [Node("n", strategy="whole"), Node("a", ("n",), lane=draw(lanes))]
    for name in "bc"[: draw(st.integers(0, 2))]:
        whole = draw(st.booleans())
        stateful = whole and draw(st.booleans())
        nodes.append(Node(name, draw(NEEDS), "whole" if whole else "cell", draw(lanes), stateful=stateful))
    return nodes


@settings(max_examples=150)
@given(
    columns(),
    st.integers(1, 60),
    st.integers(1, 9),
    st.integers(1, 4000),
    st.lists(st.integers(0, 500), min_size=4, max_size=4),
    st.sets(st.integers(0, 8)),
    st.integers(0, 2**16),
)
def test_whatever_the_memory_is_all_rows_are_committed(  # noqa: PLR0913, PLR0917 - what hypothesis draws
    nodes: list[Node], rows: int, size: int, memory: int, sizes: list[int], begun: set[int], seed: int
) -> None:
    """Also where one row group is larger than the memory, and where an earlier run has begun some."""
    earlier = Earlier(begun={group for group in begun if group * size < rows})
    run = Worked(nodes, Plan(rows, size, earlier=earlier, memory=memory), dict(enumerate(sizes)), seed)
    run.finish()
    assert (run.committed, run.stopped) == (rows, True)
    per_row = sum(sizes[: len(nodes)])
    assert all(2 * held + 3 * per_row * rows <= memory for held, rows in run.opened)


@pytest.mark.parametrize(("memory", "most"), [(None, 50), (1, 1), (4_900, 1), (5_000, 2), (21_000, 10)])
def test_row_groups_are_opened_while_they_fit_twice_and_a_table_of_the_next_one_as_well(
    memory: int | None, most: int
) -> None:
    """A row group of 1,000 bytes takes up to twice as much, and as much again while it is written."""
    nodes = [Node("n", strategy="whole"), Node("a", ("n",), lane=Lane("one", 1000))]
    run = Worked(nodes, Plan(500, 10, memory=memory), {0: 100, 1: 0}, seed=1)
    run.finish(slow_sink=True)
    assert (run.committed, run.most) == (500, most)


class Watch:
    """Counts the bytes of values from the events of a run."""

    def __init__(self) -> None:
        self.most = 0
        self._held: Counter[int] = Counter()

    def on_event(self, event: Event) -> None:
        """Count what is stored and what is freed."""
        if isinstance(event, Done):
            self._held[event.group] += event.size
            self.most = max(self.most, self._held.total())
        elif isinstance(event, Committed):
            del self._held[event.group]


@pytest.mark.parametrize(
    ("memory", "at_least", "at_most"),
    [(100_000, 30_000, 50_000), (60_000, 20_000, 30_000), (1_000, 10_000, 12_000), (None, 400_000, 10**9)],
)
def test_values_that_wait_to_be_written_hold_up_the_next_row_groups(
    memory: int | None, at_least: int, at_most: int, virtually: Callable[[Coroutine[Any, Any, Any]], Any]
) -> None:
    """The sink takes a second for each row group, the model none: without a bound, all values would wait there."""

    async def answer(n: int) -> str:
        return f"{n:01000}"

    run = VirtualRun(answer, rows=400, row_group_size=10, writing=1.0, memory=memory, observers=[(watch := Watch())])
    virtually(run())
    assert run.tracker.totals.committed == 400
    assert at_least <= watch.most <= at_most
