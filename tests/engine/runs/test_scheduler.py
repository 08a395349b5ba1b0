"""The scheduler carries out the tracker's commands, and nothing outlives it, however a run ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from rowloop.engine.columns.work import Answer, Await, Fill, InThread, Render
from rowloop.engine.core.errors import CellError, ModelError
from rowloop.engine.core.events import Admit, Commit, Done, Failed, Halted, Restored, Usage
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.policy import ErrorBudget, Policies, RetryPolicy
from rowloop.engine.core.row_groups import Plan
from rowloop.engine.core.store import Store
from rowloop.engine.core.tracker import Tracker
from rowloop.engine.runs.local_executor import LocalExecutor
from rowloop.engine.runs.scheduler import Scheduler
from rowloop.runtime.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rowloop.engine.columns.work import Work
    from rowloop.engine.core.events import Event, Record, Tally
    from rowloop.engine.core.graph import OnError
    from rowloop.engine.core.store import RowGroup

ROW = Node("row", strategy="whole")
NUMBERS = Fill(lambda start, rows: range(start, start + rows))


@dataclass
class Table:
    """A sink that keeps rows, and fails at the row group `breaks_at`."""

    rows: dict[int, list[Any]] = field(default_factory=dict)
    breaks_at: int | None = None
    gate: asyncio.Event | None = None

    async def restore(self, group: RowGroup) -> Restored:
        """Restore nothing."""
        return Restored(group.id, [], {}, [])

    def discard(self, group: int, tally: Tally | None) -> None:
        """Keep nothing."""

    async def commit(self, group: RowGroup, rows: Sequence[int], tally: Tally) -> None:  # noqa: ARG002 - a sink's signature
        """Keep the last column's values by row number."""
        if self.gate is not None:
            await self.gate.wait()
        if group.id == self.breaks_at:
            raise OSError("the disk is full")
        for row in rows:
            self.rows[group.start + row] = group.value(-1, row)


@dataclass
class Witness:
    """An observer that records events and failures, and raises once, at an event of the type `raises_at`."""

    events: list[Event] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    raises_at: type | None = None

    def on_event(self, event: Event) -> None:
        """Write it down."""
        self.events.append(event)
        if self.raises_at is type(event):
            self.raises_at = None
            raise RuntimeError("the observer is broken")

    def on_failure(self, record: Record, group: RowGroup) -> None:  # noqa: ARG002 - an observer's signature
        """Write it down."""
        self.records.append(record)


class Run:
    """A run of one column `y` over the numbers of the rows, or of several that chain."""

    def __init__(  # noqa: PLR0913 - each is a part that some test wants to be another
        self,
        *works: Work,
        rows: int = 10,
        size: int = 5,
        parallel: int = 4,
        on_error: OnError = "drop",
        retry: RetryPolicy | None = None,
        budget: ErrorBudget | None = None,
        sink: Table | None = None,
        witness: Witness | None = None,
    ) -> None:
        """Put the parts together."""
        names = ["row", *(f"y{i}" for i in range(len(works)))]
        nodes = [ROW]
        for i, work in enumerate(works):
            lane = None if isinstance(work, Render) else Lane(f"lane {i}", parallel)
            nodes.append(Node(names[i + 1], (names[i],), lane=lane, on_error=on_error))
        graph = compile_graph(nodes)
        self.sink = sink or Table()
        self.witness = witness or Witness()
        self.store = Store(graph)
        policies = Policies(retry or RetryPolicy(), budget or ErrorBudget(rate=None))
        self.tracker = Tracker(graph, Plan(rows, size), policies)
        self.threads = Threads(8)
        executor = LocalExecutor(graph, [NUMBERS, *works], self.store, self.threads)
        self.scheduler = Scheduler(self.tracker, executor, self.store, self.sink, [self.witness])

    async def __call__(self) -> str | None:
        """Run to the end, and check that no new task is left on the loop."""
        there = asyncio.all_tasks()
        try:
            return await self.scheduler.run()
        finally:
            self.threads.close()
            left = asyncio.all_tasks() - there
            assert not left, f"left behind: {left}"

    @property
    def failures(self) -> list[str]:
        """The messages of the failures for good."""
        return [record.failure.message for record in self.witness.records]


async def same(value: Any) -> Any:
    """Return the value at once."""
    return value


def test_every_row_keeps_its_position(virtually):
    """Two chained columns over uneven row groups: each row is committed with its own values."""

    async def double(value: int) -> int:
        await asyncio.sleep(value % 3)
        return 2 * value

    run = Run(Await(double), Render(lambda value: value + 1), rows=23, size=5)
    assert virtually(run()) is None
    assert run.sink.rows == {row: 2 * row + 1 for row in range(23)}
    assert not run.store.groups


def test_a_retry_waits_its_time_and_nothing_else_does(virtually):
    """A row that fails twice is retried after 10 and 20 virtual seconds; the others are done at once."""
    tries: dict[int, list[float]] = {}

    async def flaky(value: int) -> int:
        now = asyncio.get_running_loop().time()
        tries.setdefault(value, []).append(now)
        if value == 3 and len(tries[3]) < 3:
            raise ModelError("busy", kind="server", retryable=True)
        return value

    run = Run(Await(flaky), retry=RetryPolicy(attempts=5, wait=lambda attempt: 10.0 * attempt))
    assert virtually(run()) is None
    assert tries.pop(3) == pytest.approx([0, 10, 30])
    assert all(times == [0] for times in tries.values())
    assert run.tracker.totals.retries == 2


def test_no_permit_is_held_while_a_retry_is_waited_for(virtually):
    """With one permit and a minute's wait for row 0, the other nine rows are done in ten seconds."""
    ends: list[float] = []

    async def slow(value: int) -> int:
        await asyncio.sleep(1)
        ends.append(asyncio.get_running_loop().time())
        if value == 0 and len(ends) == 1:
            raise ModelError("busy", kind="server", retryable=True, retry_after=60)
        return value

    run = Run(Await(slow), parallel=1)
    assert virtually(run()) is None
    assert ends[:10] == pytest.approx(range(1, 11))
    assert 62 <= ends[10] <= 68


def test_retry_after_counts_and_rate_limits_never_drop(virtually):
    """Twenty 429s in a row delay a row and do not drop it, however few attempts there are."""
    tries: list[float] = []

    async def limited(value: int) -> int:
        tries.append(asyncio.get_running_loop().time())
        if len(tries) <= 20:
            raise ModelError("slow down", kind="rate_limited", retryable=True, retry_after=5)
        return value

    run = Run(Await(limited), rows=1, retry=RetryPolicy(attempts=1))
    assert virtually(run()) is None
    assert run.sink.rows == {0: 0}
    assert 100 <= tries[-1] <= 110


def test_cancelling_the_caller_leaves_nothing_running(virtually):
    """Cells in flight are cancelled and awaited, complete rows are committed, and the cancellation is raised."""
    cleaned: list[int] = []

    async def cell(value: int) -> int:
        if value < 3:
            return value
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(1)  # a cell may clean up, and is waited for
            cleaned.append(value)
        return value

    async def main() -> None:
        run = Run(Await(cell))
        task = asyncio.create_task(run())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(cleaned) == [3, 4, 5, 6]
        assert run.sink.rows == {0: 0, 1: 1, 2: 2}
        assert run.tracker.halted == "cancelled"
        assert asyncio.get_running_loop().time() < 10

    virtually(main())


def test_a_second_cancellation_does_not_wait_for_the_sink(virtually):
    """The first waits until complete rows are written; the second does not."""

    async def main() -> None:
        sink = Table(gate=asyncio.Event())
        run = Run(Await(same), sink=sink)
        task = asyncio.create_task(run())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.sleep(1)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sink.rows == {}

    virtually(main())


def test_halting_keeps_complete_rows(virtually):
    """`halt` ends the run without an exception, with the reason "cancelled"."""

    async def cell(value: int) -> int:
        await asyncio.sleep(value)
        return value

    async def main() -> None:
        run = Run(Await(cell), parallel=10)
        asyncio.get_running_loop().call_later(6.5, run.scheduler.halt)
        assert await run() == "cancelled"
        assert run.sink.rows == {row: row for row in range(7)}
        run.scheduler.halt()  # when it is over, there is nothing to halt

    virtually(main())


def test_halting_before_the_first_cell_has_begun_is_answered(virtually):
    """Workers that were started but never stepped report too; otherwise the run would wait for them for ever."""

    async def main() -> None:
        run = Run(Await(same), parallel=10)
        asyncio.get_running_loop().call_soon(run.scheduler.halt)
        assert await run() == "cancelled"
        assert run.sink.rows == {}

    virtually(main())


def test_a_cell_that_raises_a_cancellation_of_its_own_is_a_failed_cell(virtually):
    """Nobody cancelled the run: the row is dropped, with the reason, and the others continue."""

    async def cell(value: int) -> int:
        if value == 2:
            raise asyncio.CancelledError("mine")
        return value

    run = Run(Await(cell))
    assert virtually(run()) is None
    assert sorted(run.sink.rows) == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert [record.failure.error for record in run.witness.records] == ["CancelledError"]


def test_a_cell_that_awaits_a_cancelled_task_of_its_own_is_a_failed_cell(virtually):
    """The most common way to get a CancelledError that is not ours."""

    async def cell(value: int) -> int:
        if value == 2:
            inner = asyncio.create_task(asyncio.sleep(10))
            await asyncio.sleep(0)
            inner.cancel()
            await inner
        return value

    run = Run(Await(cell))
    assert virtually(run()) is None
    assert len(run.sink.rows) == 9


def test_a_cell_that_swallows_the_cancellation_still_ends_the_run(virtually):
    """A cell that returns a value when it is cancelled has that value; its row is kept."""

    async def cell(value: int) -> int:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return -value
        return value

    async def main() -> None:
        run = Run(Await(cell), rows=4, parallel=4)
        asyncio.get_running_loop().call_later(1, run.scheduler.halt)
        assert await run() == "cancelled"
        assert run.sink.rows == {row: -row for row in range(4)}

    virtually(main())


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=["SystemExit", "KeyboardInterrupt"])
@pytest.mark.parametrize("place", ["task", "thread"])
def test_an_exit_in_a_cell_ends_the_run(error, place):
    """It does not fail the row: the run raises it, with everything else cancelled."""
    cancelled: list[int] = []

    async def leave(value: int) -> int:
        if value == 2:
            raise error
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.append(value)
        return value

    def leave_thread(value: int) -> int:
        if value == 2:
            raise error
        return value

    async def main() -> None:
        run = Run(Await(leave) if place == "task" else InThread(leave_thread))
        await asyncio.wait_for(run(), 10)

    with pytest.raises(type(error)):
        asyncio.run(main())
    assert place == "thread" or sorted(cancelled) == [0, 1, 3]


@pytest.mark.parametrize("event", [Done, Failed])
def test_an_observer_that_raises_once_ends_the_run(virtually, event):
    """Everything in flight is cancelled, and the observer's exception is raised; nothing hangs."""
    cancelled: list[int] = []

    async def cell(value: int) -> int:
        if value == 3:
            raise CellError("bad")
        try:
            await asyncio.sleep(3600 if value else 1)
        except asyncio.CancelledError:
            cancelled.append(value)
            raise
        return value

    async def main() -> None:
        run = Run(Await(cell), witness=Witness(raises_at=event))
        with pytest.raises(RuntimeError, match="the observer is broken"):
            await run()
        if event is Failed:
            assert sorted(cancelled) == [0, 1, 2]
        assert asyncio.get_running_loop().time() < 10

    virtually(main())


def test_an_observer_that_raises_at_a_halt_ends_the_run(virtually):
    """Also from a callback of the loop, where an exception would otherwise only be logged."""

    async def cell(value: int) -> int:
        await asyncio.sleep(3600)
        return value

    async def main() -> None:
        run = Run(Await(cell), witness=Witness(raises_at=Halted))
        asyncio.get_running_loop().call_later(1, run.scheduler.halt)
        with pytest.raises(RuntimeError, match="the observer is broken"):
            await run()
        assert asyncio.get_running_loop().time() < 10

    virtually(main())


def test_halting_a_run_that_has_broken_does_nothing(virtually):
    """Run.cancel may be called at any time, also after the end."""

    async def main() -> None:
        run = Run(Await(same), witness=Witness(raises_at=Done))
        with pytest.raises(RuntimeError):
            await run()
        run.scheduler.halt()

    virtually(main())


def test_a_sink_that_fails_ends_the_run_with_its_error(virtually):
    """Earlier row groups stay; cells in flight are cancelled."""

    async def cell(value: int) -> int:
        await asyncio.sleep(3600 if value >= 10 else value)
        return value

    async def main() -> None:
        run = Run(Await(cell), rows=100, sink=Table(breaks_at=1))
        with pytest.raises(OSError, match="the disk is full"):
            await run()
        assert run.sink.rows == {row: row for row in range(5)}
        assert asyncio.get_running_loop().time() < 100

    virtually(main())


def test_an_error_of_the_engine_is_not_taken_for_a_bad_row(virtually):
    """An exception of work that is neither CellError nor ModelError ends the run."""

    async def cell(value: int) -> int:
        raise AssertionError(f"a bug, at {value}")

    run = Run(Await(cell))
    with pytest.raises(AssertionError, match="a bug"):
        virtually(run())
    assert not run.witness.records


def test_an_exception_of_a_users_function_fails_its_row(virtually):
    """Whatever it is."""

    async def cell(value: int) -> int:
        if value % 2:
            raise AssertionError(f"odd: {value}")
        return value

    run = Run(Await(cell, foreign=True))
    assert virtually(run()) is None
    assert sorted(run.sink.rows) == [0, 2, 4, 6, 8]
    assert sorted(run.failures) == [f"odd: {row}" for row in (1, 3, 5, 7, 9)]


def test_a_failed_cell_is_recorded_with_its_attempts(virtually):
    """Three attempts, three failures, one record."""

    async def cell(value: int) -> int:
        if value == 1:
            raise ModelError("busy", kind="server", retryable=True)
        return value

    run = Run(Await(cell), retry=RetryPolicy(attempts=3, wait=lambda _: 1.0))
    virtually(run())
    assert [(record.row, record.attempts) for record in run.witness.records] == [(1, 3)]


def test_usage_reaches_the_observers(virtually):
    """Of answers, and of failed attempts that were paid for."""

    async def cell(value: int) -> Answer:
        if value == 0:
            error = ModelError("no JSON", kind="invalid_output", retryable=False)
            error.usage = Usage(5, 6)
            raise error
        return Answer(value, Usage(1, 2))

    run = Run(Await(cell))
    virtually(run())
    spent = [event.usage for event in run.witness.events if isinstance(event, Done | Failed) and event.usage]
    assert spent.count(Usage(1, 2)) == 9
    assert spent.count(Usage(5, 6)) == 1
    assert run.sink.rows[4] == 4


def test_never_more_than_the_lane_has_room_for(virtually):
    """Four permits: four at once, and all four used."""
    now = most = 0

    async def cell(value: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(1)
        now -= 1
        return value

    run = Run(Await(cell), rows=50, parallel=4)
    virtually(run())
    assert most == 4


VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("VARIABLE", default=-1)


def test_the_context_of_a_cell_is_not_visible_to_another(virtually):
    """Cells share workers, but no context variables; they see what the caller had set."""

    async def cell(value: int) -> int:
        seen = VARIABLE.get()
        VARIABLE.set(value)
        return seen

    async def main() -> None:
        VARIABLE.set(7)
        run = Run(Await(cell), Await(cell), rows=50)
        await run()
        assert set(run.sink.rows.values()) == {7}

    virtually(main())


def test_threads_see_the_callers_context_and_keep_theirs_apart():
    """The same for functions that run in threads."""

    def cell(value: int) -> int:
        seen = VARIABLE.get()
        VARIABLE.set(value)
        return seen

    async def main() -> None:
        VARIABLE.set(7)
        run = Run(InThread(cell), InThread(cell), rows=50)
        await run()
        assert set(run.sink.rows.values()) == {7}

    asyncio.run(main())


@pytest.mark.parametrize("columns", [1, 3])
def test_long_runs_of_instantaneous_cells_let_others_have_the_loop(columns):
    """20,000 cells that never wait: a task beside them is kept waiting for no longer than a fraction of the run."""

    async def main() -> None:
        gaps: list[float] = []

        async def heartbeat() -> None:
            last = time.thread_time()
            while True:
                await asyncio.sleep(0)
                gaps.append(time.thread_time() - last)
                last = time.thread_time()

        beating = asyncio.create_task(heartbeat())
        run = Run(*[Await(same)] * columns, rows=20_000 // columns, size=1000, parallel=128)
        await run.scheduler.run()
        beating.cancel()
        assert max(gaps) < 0.05, f"the loop was held for {max(gaps):.3f} s of its thread's time"

    gc.freeze()  # what other tests have left on the heap is not to be collected here, which takes longer than any cell
    try:
        asyncio.run(main())
    finally:
        gc.unfreeze()


def test_a_small_group_is_committed_before_a_larger_one_that_began_earlier(virtually):
    """Row groups end in any order."""

    async def cell(value: int) -> int:
        await asyncio.sleep(100 if value == 0 else 1)
        return value

    run = Run(Await(cell), rows=10, parallel=10)
    virtually(run())
    assert list(run.sink.rows) == [*range(5, 10), *range(5)]


def test_a_cancelled_run_does_not_wait_for_a_thread_that_cannot_be_stopped():
    """The thread continues; its result is thrown away."""
    began, resume = threading.Event(), threading.Event()

    def cell(value: int) -> int:
        began.set()
        resume.wait(20)
        return value

    async def main() -> None:
        run = Run(InThread(cell), rows=1)
        task = asyncio.create_task(run.scheduler.run())
        await asyncio.to_thread(began.wait, 20)
        run.scheduler.halt()
        assert await asyncio.wait_for(task, 5) == "cancelled"
        assert run.sink.rows == {}
        resume.set()
        run.threads.close()

    asyncio.run(main())


def test_a_nulled_cell_lets_its_children_work(virtually):
    """on_error="null": the child gets None, and the row stays."""

    async def cell(value: int) -> int:
        if value == 1:
            raise CellError("bad")
        return value

    run = Run(Await(cell), Render(str), rows=3, on_error="null")
    virtually(run())
    assert run.sink.rows == {0: "0", 1: "None", 2: "2"}
    assert len(run.witness.records) == 1


def test_an_error_budget_ends_the_run_early(virtually):
    """Ten bad rows in a row, and no further cell begins."""
    begun: list[int] = []

    async def cell(value: int) -> int:
        begun.append(value)
        await asyncio.sleep(1)
        raise CellError("bad")

    run = Run(Await(cell), rows=1000, parallel=2, budget=ErrorBudget())
    assert virtually(run()) == "early_shutdown"
    assert len(begun) <= 12


def test_the_store_holds_open_row_groups_only(virtually):
    """Every admitted group is committed or discarded, and its values are freed."""
    commands: list[type] = []

    async def cell(value: int) -> int:
        if 5 <= value < 10:
            raise CellError("bad")
        return value

    run = Run(Await(cell), rows=15)
    handle = run.tracker.handle

    def listening(event: Event, now: float) -> Any:
        out = handle(event, now)
        commands.extend(type(command) for command in out)
        return out

    run.tracker.handle = listening  # type: ignore[method-assign] # a tap
    virtually(run())
    assert commands.count(Admit) == 3
    assert commands.count(Commit) == 2
    assert not run.store.groups
