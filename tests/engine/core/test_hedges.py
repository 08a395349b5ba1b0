"""Second requests in the tracker: whatever the order in which requests end, permits come back once and few are sent."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowloop.engine.core.events import (
    Budgeted,
    Commit,
    Committed,
    Done,
    Due,
    Execute,
    Failed,
    Failure,
    Hedge,
    HedgeEnded,
    IllegalEventError,
    Paused,
    Resumed,
    RunAfter,
    Slow,
    Started,
    Stop,
    Usage,
    Woken,
)
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.policy import CostBudget, Policies, RetryPolicy
from rowloop.engine.core.row_groups import Plan
from rowloop.engine.core.tracker import Tracker

FLAKY = Failure("ModelError(server)", "broken", retryable=True, kind="server")
LIMITED = Failure("ModelError(rate_limited)", "slow down", retryable=True, rate_limited=True, kind="rate_limited")
PAID = Usage(10, 5, 1.0)
Task = tuple[int, int, int]


class Run:
    """A run of one column, and what is in flight in it."""

    def __init__(self, rows: int, *, limit: int = 50, cost: CostBudget | None = None) -> None:
        """Begin."""
        graph = compile_graph([Node("a", lane=Lane("writer", limit, start=limit))])
        retry = RetryPolicy(attempts=3, wait=lambda _: 1.0)
        self.tracker = Tracker(graph, Plan(rows, rows), Policies(retry=retry, cost=cost))
        self.running: list[Task] = []
        self.hedged: list[Task] = []
        self.due: list[Task] = []
        self.done: list[Task] = []
        self.sent = self.hedges = 0
        self.now = 0.0
        self.limit = limit
        self.stopped = False
        self.send(Started())

    def send(self, event: object) -> None:
        """Send an event, and note what follows."""
        for command in self.tracker.handle(event, self.now):  # type: ignore[arg-type]  # an event of many kinds
            if isinstance(command, Execute):
                self.running.append((command.group, command.column, command.row))
                self.sent += 1
            elif isinstance(command, Hedge):
                task = command.group, command.column, command.row
                assert task in self.running
                assert task not in self.hedged
                self.hedged.append(task)
                self.hedges += 1
            elif isinstance(command, RunAfter):
                self.due.append((command.group, command.column, command.row))
            elif isinstance(command, Commit):
                self.send(Committed(command.group))
            elif isinstance(command, Stop):
                self.stopped = True
        (lane,) = self.tracker.lanes
        assert lane.in_flight == len(self.running) + len(self.hedged) <= self.limit
        assert self.hedges <= 0.03 * (self.sent + self.hedges)

    def answer(self, task: Task, failure: Failure | None = None) -> None:
        """End a cell; if it has two requests, the other is cancelled first."""
        if task in self.hedged:
            self.end_one(task)
        self.running.remove(task)
        if failure is None:
            self.done.append(task)
            self.send(Done(*task, PAID))
        else:
            self.send(Failed(*task, failure))

    def end_one(self, task: Task, failure: Failure | None = None) -> None:
        """End one of the two requests of a cell."""
        self.hedged.remove(task)
        self.send(HedgeEnded(*task, failure, PAID if failure is None else None))

    def work(self, cells: int) -> None:
        """Answer so many cells."""
        for _ in range(cells):
            self.answer(self.running[0])


def slow(run: Run, *tasks: Task) -> list[Task]:
    """Report cells as slow; return those that have two requests then."""
    for task in tasks:
        run.send(Slow(*task))
    return run.hedged


@given(st.integers(0, 2**16), st.integers(1, 60))
def test_permits_come_back_once_and_few_second_requests_are_sent(seed: int, limit: int):
    """Random orders of answers, failures, slow cells, pauses and ends of either request: all cells end, once."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    run = Run(120, limit=limit)
    while not run.stopped:
        run.now += dice.random()
        kind = dice.choice(["answer", "answer", "slow", "slow", "one fails", "fails", "429", "pause", "due"])
        task = dice.choice(run.running) if run.running else None
        if kind == "pause":
            run.send(Paused())
            run.send(Resumed())
        elif task is not None and kind == "slow" and task not in run.hedged:
            run.send(Slow(*task))
        elif kind == "one fails" and run.hedged:
            run.end_one(dice.choice(run.hedged), dice.choice([FLAKY, LIMITED]))
        elif task is not None and kind in {"fails", "429"} and dice.random() < 0.2:
            run.answer(task, FLAKY if kind == "fails" else LIMITED)
        elif task is not None and kind == "answer":
            run.answer(task)
        elif run.due:
            run.send(Due(*run.due.pop()))
        run.now += 30 * (not run.running)
        if not (run.running or run.due or run.stopped):
            run.send(Woken(0))
    (lane,) = run.tracker.lanes
    assert lane.in_flight == 0
    assert len(set(run.done)) == len(run.done)
    assert run.tracker.totals.committed + run.tracker.totals.dropped == 120


def test_a_slow_cell_waits_for_a_permit_and_gets_the_next_one():
    """While all permits are in use, a slow cell comes before cells that have not been sent."""
    run = Run(300, limit=10)
    run.work(100)
    task = run.running[0]
    assert slow(run, task) == []
    run.answer(run.running[-1])
    assert run.hedged == [task]


def test_at_most_three_in_a_hundred_get_a_second_request():
    """Of a hundred cells that were sent, three."""
    run = Run(100)
    run.work(60)
    run.work(35)
    assert len(run.running) == 5
    assert len(slow(run, *run.running)) == 3


def test_no_second_request_for_ten_seconds_after_a_429():
    """The endpoint has enough to do."""
    run = Run(100)
    run.work(60)
    run.work(20)
    first, second, third, *_ = run.running
    run.answer(first, LIMITED)
    run.answer(second)
    run.now += 9
    assert slow(run, third) == []
    run.now += 2
    assert slow(run, third) == [third]


def test_no_second_request_near_the_end_of_a_budget():
    """From nine tenths of a budget on, of tokens or of dollars."""
    for cost in (CostBudget(None, 1000, {}), CostBudget(1.0, None, {0: lambda _: 1 / 67})):
        run = Run(100, limit=90, cost=cost)
        run.work(59)
        run.send(Slow(*run.running[0]))
        assert len(run.hedged) == 1
        run.work(2)
        run.send(Slow(*run.running[5]))
        assert not run.hedged


def test_no_second_request_while_paused():
    """Nothing new starts."""
    run = Run(100)
    run.work(60)
    run.send(Paused())
    assert slow(run, run.running[0]) == []
    run.send(Resumed())
    assert slow(run, run.running[0]) == [run.running[0]]


def test_both_requests_count_towards_a_budget():
    """The tokens of a cancelled request are an estimate; the budget ends the run rather too early than too late."""
    run = Run(100, cost=CostBudget(None, 10_000, {}))
    run.work(60)
    before = run.tracker.cost
    assert before is not None
    (task,) = slow(run, run.running[0])
    run.answer(task)
    after = run.tracker.cost
    assert after is not None
    assert after.tokens - before.tokens == 30
    run.send(Budgeted(None, 1, {}, 0.0, 1))
    assert run.tracker.halted == "budget"


def test_events_of_second_requests_that_cannot_be_are_refused():
    """A second second request, the end of one that was not sent, a slow cell that is not in flight."""
    run = Run(100)
    run.work(60)
    task = run.running[0]
    with pytest.raises(IllegalEventError):
        run.send(HedgeEnded(*task))
    assert slow(run, task) == [task]
    with pytest.raises(IllegalEventError):
        run.send(Slow(*task))
    with pytest.raises(IllegalEventError):
        run.send(Slow(0, 0, 0))


def test_the_end_of_a_run_gives_the_permits_of_second_requests_back():
    """Also of a run that broke off: others may share them."""
    run = Run(100)
    run.work(60)
    slow(run, run.running[0])
    run.tracker.close(run.now)
    (lane,) = run.tracker.lanes
    assert lane.in_flight == len(run.running)
