"""Limits that follow the endpoint, paces, giving up on rate limits, and cost budgets, in the tracker."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from rowloop.engine.core.bounds import Pace
from rowloop.engine.core.events import (
    Budgeted,
    Cancel,
    Cancelled,
    Commit,
    Committed,
    Done,
    Due,
    Execute,
    Failed,
    Failure,
    Halted,
    IllegalEventError,
    Limited,
    Paused,
    Record,
    RunAfter,
    Started,
    Stop,
    Usage,
    Wake,
    Woken,
)
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.policy import CostBudget, CostOf, ErrorBudget, Policies, RetryPolicy
from rowloop.engine.core.row_groups import Plan
from rowloop.engine.core.tracker import Tracker
from rowloop.engine.models.usage import Asked

if TYPE_CHECKING:
    from rowloop.engine.core.events import Command, Event

OFF = ErrorBudget(rate=None)
LIMITED = Failure("ModelError", "too many", retryable=True, rate_limited=True, retry_after=7.0)
BROKEN = Failure("ModelError", "no")


def tracker(
    *lanes: Lane, rows: int = 20, retry: RetryPolicy | None = None, cost: CostBudget | None = None, needs: bool = False
) -> Tracker:
    """Make a tracker with a column in each lane, none of which needs another, or each the one before."""
    names = [f"c{i}" for i in range(len(lanes))]
    nodes = [
        Node(name, (names[i - 1],) if needs and i else (), lane=lane)
        for i, (name, lane) in enumerate(zip(names, lanes, strict=True))
    ]
    policies = Policies(retry or RetryPolicy(3, float, longest_wait=60), OFF, cost)
    return Tracker(compile_graph(nodes), Plan(rows), policies)


def ran(commands: list[Command], column: int = 0) -> list[int]:
    """Give the rows that are to be run."""
    return [command.row for command in commands if isinstance(command, Execute) and command.column == column]


def test_the_limit_follows_the_answers_and_keeps_its_history():
    """It doubles while it is used, and a burst of 429s cuts it once; the lane's state has it."""
    run = tracker(Lane("m", limit=64, start=2), rows=60)
    flying = ran(run.handle(Started()))
    assert len(flying) == 2
    for now in (1.0, 2.0):
        flying = [row for done in flying for row in ran(run.handle(Done(0, 0, done), now))]
    assert (len(flying), run.lanes[0].limit, run.lanes[0].in_flight) == (8, 8, 8)
    for row in flying:
        run.handle(Failed(0, 0, row, LIMITED), 3.0)
    (changes,) = run.limits.values()
    assert [change.why for change in changes][-1] in {"rate limited", "refused throughout"}
    assert run.lanes[0].limit < 8
    assert changes[-1].time == 3.0


def test_a_lane_without_a_start_has_a_fixed_limit():
    """It needs no clock, and has no history."""
    run = tracker(Lane("f", limit=3))
    assert len(ran(run.handle(Started()))) == 3
    assert (run.timed, run.limits) == (False, {})
    with pytest.raises(IllegalEventError, match="lane 0 has a fixed limit and is never woken"):
        run.handle(Woken(0))


def test_a_lane_that_is_refused_throughout_waits_for_retry_after_and_no_other_lane_does():
    """One timer is set for the lane; meanwhile another lane is filled as usual."""
    shut, other = Lane("shut", 16, start=16), Lane("other", 2)
    run = tracker(shut, other, rows=40)
    flying = ran(run.handle(Started()))
    wakes: list[Wake] = []
    while flying and not wakes:
        commands = run.handle(Failed(0, 0, flying.pop(0), LIMITED), 1.0)
        wakes = [command for command in commands if isinstance(command, Wake)]
        flying += ran(commands)
    assert wakes == [Wake(7.0, 0)]
    assert ran(run.handle(Done(0, 1, 0), 2.0), column=1) == [2]
    assert not any(isinstance(command, Wake) for command in run.handle(Done(0, 1, 1), 3.0))
    assert ran(run.handle(Woken(0), 8.0)) != []


def test_requests_per_minute_are_spaced():
    """Sixty a minute: one a second, however many permits there are."""
    run = tracker(Lane("m", limit=8, pace=Pace(requests_per_minute=60)))
    commands = run.handle(Started())
    assert ran(commands) == [0]
    assert commands[-1] == Wake(1.0, 0)
    assert run.handle(Done(0, 0, 0), 0.25) == []  # the timer is set already
    assert ran(run.handle(Woken(0), 1.0)) == [1]


def test_every_request_of_a_cell_counts_in_the_pace():
    """Three requests of sixty a minute: the next may go after three seconds."""
    run = tracker(Lane("m", limit=1, pace=Pace(requests_per_minute=60)))
    run.handle(Started())
    assert run.handle(Done(0, 0, 0, Asked(requests=3)), 0.5) == [Wake(2.5, 0)]


def test_tokens_per_minute_are_estimated_first_and_corrected_by_the_answers():
    """A minute of 6,000 tokens: after an answer of 3,000 the next request waits for half a minute."""
    run = tracker(Lane("m", limit=1, pace=Pace(tokens_per_minute=6000)))
    run.handle(Started())
    (wake,) = run.handle(Done(0, 0, 0, Usage(2000, 1000)), 1.0)
    assert wake == Wake(29.0, 0)


def test_a_lane_reports_since_when_it_is_rate_limited():
    """From the first 429 to the next answer."""
    run = tracker(Lane("m", 3, start=3), rows=9)
    run.handle(Started())
    run.handle(Failed(0, 0, 0, LIMITED), 4.0)
    run.handle(Failed(0, 0, 1, LIMITED), 5.0)
    assert run.lanes[0].rate_limited_since == 4.0
    run.handle(Done(0, 0, 2), 6.0)
    assert run.lanes[0].rate_limited_since is None


def test_what_a_shut_endpoint_refuses_waits_for_the_lane_alone():
    """Its own wait would grow while the lane sends single probes, and outlast the time in which it is open."""
    run = tracker(Lane("m", 8, start=8), rows=50)
    refused = msgspec.structs.replace(LIMITED, retry_after=None)
    flying, waits, now = deque(ran(run.handle(Started()))), list[float](), 0.0
    while len(waits) < 60:
        now += 0.01
        commands = run.handle(Failed(0, 0, flying.popleft(), refused), now)
        waits += [command.delay for command in commands if isinstance(command, RunAfter)]
        for command in commands:  # what is due, or woken, is appended
            if isinstance(command, RunAfter):
                commands += run.handle(Due(0, 0, command.row), now)
            elif isinstance(command, Wake):
                now += command.delay
                commands += run.handle(Woken(0), now)
        flying += ran(commands)
    assert waits[0] == 1.0
    assert waits[-20:] == [0.0] * 20
    assert run.limits["m"][-1].why == "refused throughout"


def test_a_rate_limit_delays_until_it_is_given_up():
    """Off by default; else the task fails once it has been refused for so long, and another attempt was no use."""
    patient = tracker(Lane("m", 1, start=1), rows=1)
    patient.handle(Started())
    for now in (0.0, 1e3, 1e6):
        assert isinstance(patient.handle(Failed(0, 0, 0, LIMITED), now)[0], RunAfter)
        patient.handle(Due(0, 0, 0), now + 200)
        patient.handle(Woken(0), now + 300)
    run = tracker(Lane("m", 1), rows=1, retry=RetryPolicy(give_up_after=10, wait=lambda _: 4.0))
    assert run.timed
    run.handle(Started())
    delays = []
    for now in (5.0, 12.5, 15.0):
        answer = run.handle(Failed(0, 0, 0, LIMITED), now)[0]
        delays.append(answer.delay if isinstance(answer, RunAfter) else answer)
        run.handle(Due(0, 0, 0), now)
    assert isinstance(delays[0], float)
    assert delays[1] == 2.5
    assert isinstance(delays[2], Record)


def test_no_request_starts_once_the_budget_is_spent():
    """What is in flight is paid for: it is awaited, not cancelled, and rows that are whole are committed."""
    run = tracker(Lane("m", 2), rows=5, cost=CostBudget(None, 100, {}))
    assert ran(run.handle(Started())) == [0, 1]
    assert run.handle(Done(0, 0, 0, Usage(60, 40))) == []
    assert run.halted == "budget"
    (commit,) = run.handle(Done(0, 0, 1, Usage(60, 40)))
    assert isinstance(commit, Commit)
    assert (list(commit.rows), commit.tally.cut) == ([0, 1], True)
    assert run.handle(Committed(0)) == [Stop("budget")]


def test_a_price_per_token_is_counted_by_column_and_failures_cost_too():
    """A refused answer has been paid for as well."""
    prices: dict[int, CostOf] = {
        0: lambda usage: usage.prompt_tokens * 0.001 + usage.completion_tokens * 0.01,
        1: lambda usage: usage.completion_tokens * 0.1,
    }
    cost = CostBudget(1.0, None, prices)
    run = tracker(Lane("a", 1), Lane("b", 1), rows=5, cost=cost)
    run.handle(Started())
    run.handle(Done(0, 0, 0, Usage(100, 10)))  # 0.2
    run.handle(Failed(0, 1, 0, BROKEN, Usage(999, 7)))  # 0.7
    assert run.halted is None
    run.handle(Done(0, 0, 1, Usage(0, 10)))  # 0.1
    assert run.halted == "budget"


def test_an_attempt_of_unknown_cost_counts_as_much_as_the_mean_of_its_column():
    """A request that got no answer may be billed; a budget that left it out would be exceeded."""
    prices: dict[int, CostOf] = {column: lambda usage: usage.prompt_tokens or None for column in (0, 1)}
    budget = CostBudget(10.0, None, prices).paid(0, Usage())  # nothing is known yet
    for tokens in (2, 0, 4, 0):
        budget = budget.paid(0, Usage(tokens))
    assert budget.dollars == 2 + 2 + 4 + 3
    assert budget.paid(1, Usage()).dollars == 11
    assert budget.paid(2, Usage(5)) == replace(budget, tokens=11)  # a column without a price
    assert budget.spent


def test_cancelling_ends_the_wait_for_requests_in_flight():
    """Cancelling outranks the budget."""
    run = tracker(Lane("m", 2), rows=5, cost=CostBudget(None, 1, {}))
    run.handle(Started())
    run.handle(Done(0, 0, 0, Usage(1, 1)))
    assert run.handle(Halted("cancelled")) == [Cancel()]
    run.handle(Cancelled(0, 0, 1))
    assert run.handle(Committed(0)) == [Stop("cancelled")]


def test_a_budget_that_is_spent_before_the_run_begins_ends_it_at_once():
    """Nothing is admitted."""
    run = tracker(Lane("m", 1), rows=5, cost=CostBudget(None, 100, {}, tokens=100))
    assert run.handle(Started()) == [Stop("budget")]


def test_what_earlier_runs_have_spent_counts():
    """One token is left, so the first answer ends the run."""
    run = tracker(Lane("m", 1), rows=5, cost=CostBudget(None, 100, {}, tokens=99))
    run.handle(Started())
    run.handle(Done(0, 0, 0, Usage(1, 0)))
    assert run.halted == "budget"


def test_a_spent_budget_that_is_raised_before_the_end_of_what_is_in_flight_costs_no_row():
    """Its retries and what waits for its cells are still there; raised later, the rows are gone."""
    raised = Budgeted(None, 1000, {}, 0.0, 100)
    for late in (False, True):
        run = tracker(Lane("m", 3), Lane("n", 1), rows=4, cost=CostBudget(None, 100, {}), needs=True)
        run.handle(Started())
        assert run.handle(Done(0, 0, 0, Usage(60, 40))) == []
        assert run.halted == "budget"
        assert [type(command) for command in run.handle(Failed(0, 0, 1, LIMITED))] == [RunAfter]
        assert run.handle(Due(0, 0, 1)) == []
        if late:
            run.handle(Done(0, 0, 2))
        again = run.handle(raised)
        assert run.halted == ("budget" if late else None)
        assert (ran(again, 0), ran(again, 1)) == (([], []) if late else ([1, 3], [0]))


def test_a_run_that_is_cancelled_with_a_spent_budget_gives_up_at_once():
    """What has not started is skipped before the last task in flight has ended, and a larger budget is too late."""
    run = tracker(Lane("m", 2), rows=5, cost=CostBudget(None, 1, {}))
    run.handle(Started())
    run.handle(Done(0, 0, 0, Usage(1, 1)))
    assert (run.over, run.totals.columns[0].skipped) == (False, 0)
    run.handle(Halted("cancelled"))
    assert (run.over, run.totals.columns[0].skipped) == (True, 3)
    assert run.handle(Budgeted(None, 100, {}, 0.0, 2)) == []
    assert run.halted == "cancelled"


def test_a_paused_run_with_a_spent_budget_ends_when_all_its_rows_are_made():
    """Nothing is left that a larger budget could be for."""
    run = tracker(Lane("m", 2), rows=2, cost=CostBudget(None, 1, {}))
    run.handle(Started())
    run.handle(Paused())
    run.handle(Done(0, 0, 0, Usage(1, 1)))
    (commit,) = run.handle(Done(0, 0, 1, Usage(1, 1)))
    assert isinstance(commit, Commit)
    assert run.handle(Committed(0)) == [Stop("budget")]


def test_as_many_rows_are_admitted_as_a_new_limit_can_use():
    """A lane of two that may have ten keeps ten waiting; one that may have one again asks for no more than that."""
    graph = compile_graph([Node("c", lane=Lane("m", 2))])
    run = Tracker(graph, Plan(60, 3), Policies(RetryPolicy(3, float), OFF))
    assert ran(run.handle(Started())) == [0, 1]
    started = ran(run.handle(Limited(0, 10)))
    assert len(started) == 8
    assert 10 <= run.lanes[0].ready < 13
    assert run.lanes[0].limit == 10
    assert run.handle(Limited(0, 1)) == []
    ready = run.lanes[0].ready
    assert run.handle(Done(0, 0, 0)) == []
    assert run.lanes[0].ready == ready


@pytest.mark.parametrize("event", [Limited(1, 2), Limited(-1, 2), Limited(0, 0)])
def test_a_limit_that_no_lane_can_have_is_illegal(event: Limited):
    """An error is raised, and nothing has changed."""
    run = tracker(Lane("m", 2), rows=5)
    with pytest.raises(IllegalEventError):
        run.handle(event)
    assert len(ran(run.handle(Started()))) == 2


@st.composite
def lanes(draw: st.DrawFn) -> list[Lane]:
    """Draw lanes of every kind."""
    paces = st.sampled_from([None, Pace(120), Pace(None, 6000), Pace(6000, 60_000)])
    return [
        Lane(f"m{i}", draw(st.integers(1, 40)), draw(st.none() | st.integers(1, 20)), draw(paces))
        for i in range(draw(st.integers(1, 3)))
    ]


def outcome(command: Command, now: float, rng: random.Random, share: float) -> tuple[float, Event] | None:
    """Say what a command leads to, and when; an endpoint that refuses a share of requests recovers after 300 s."""
    match command:
        case Execute(group, column, row):
            ends = now + rng.uniform(0.1, 1)
            refused = rng.random() < share * (ends < 300)
            return ends, Failed(group, column, row, LIMITED) if refused else Done(group, column, row, Usage(50, 50))
        case RunAfter(delay, group, column, row):
            return now + delay, Due(group, column, row)
        case Wake(delay, lane):
            return now + delay, Woken(lane)
        case Commit(group):
            return now, Committed(group)
    return None


@given(of=lanes(), rows=st.integers(1, 60), seed=st.integers(0, 2**16), needs=st.booleans(), share=st.floats(0, 0.9))
@settings(max_examples=40)
def test_no_run_gets_stuck_whatever_the_limits_do(of: list[Lane], rows: int, seed: int, needs: bool, share: float):  # noqa: FBT001
    """With 429s at any rate, every row comes out, never more than a lane's most are in flight, and counts add up."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    run = tracker(*of, rows=rows, needs=needs, retry=RetryPolicy(3, lambda _: 0.1, longest_wait=5))
    numbers = itertools.count()
    due: list[tuple[float, int, Event]] = []
    now, commands = 0.0, run.handle(Started(), 0.0)
    while Stop(None) not in commands:
        for found in (outcome(command, now, rng, share) for command in commands):
            if found is not None:
                heapq.heappush(due, (found[0], next(numbers), found[1]))
        assert all(state.in_flight <= lane.limit for lane, state in zip(of, run.lanes, strict=True))
        assert due, "nothing is in flight, no timer waits, and there is no Stop"
        now, _, event = heapq.heappop(due)
        commands = run.handle(event, now)
    assert run.totals.committed == rows
    assert all(count.completed == rows for count in run.totals.columns)
