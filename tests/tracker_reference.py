"""What a tracker must do, written a second time: a reference that watches a run and objects.

`Reference` knows the rules as sets and scans, slow and plain, and shares nothing with the tracker but events and
commands. `Shell` plays the scheduler: it remembers what is in flight and hands every event to both. `Journal` is what
outlives a run that is killed, for the next one to begin with.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from rowloop.engine.core.events import (
    WHOLE,
    Admit,
    Budgeted,
    Cancel,
    Cancelled,
    Commit,
    CommitFailed,
    Committed,
    Discard,
    Done,
    Due,
    Execute,
    Failed,
    Failure,
    Halted,
    Limited,
    Null,
    Paused,
    Record,
    Restored,
    Resumed,
    RunAfter,
    Started,
    Stop,
    Tally,
)
from rowloop.engine.core.graph import compile_graph
from rowloop.engine.core.row_groups import Earlier, Plan

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from rowloop.engine.core.events import Command, Event, Reason
    from rowloop.engine.core.graph import Lane, Node
    from rowloop.engine.core.policy import ErrorBudget, RetryPolicy
    from rowloop.engine.core.tracker import Tracker

RUNNING, DUE, DONE, NULL, FAILED, CUT = "running", "due", "done", "null", "failed", "cut"
VALUE: Final = {DONE, NULL}

Task = tuple[int, int, int]
"""Row group, column, row."""

Fate: TypeAlias = "Callable[[Task], Failure | None]"

BROKEN = Failure("ValueError", "broken for good")
FATAL = Failure("AuthError", "broken for all", fatal=True)
FLAKY = Failure("ServerError", "try again", retryable=True)
LATER = Failure("ServerError", "try again later", retryable=True, retry_after=3.0)
LIMITED = Failure("RateLimitError", "too many", retryable=True, rate_limited=True)
INVALID = Failure("Invalid", "not to be kept", verdict=True)
FAILURES = (BROKEN, FLAKY, LATER, LIMITED, FATAL, INVALID)


@dataclass
class Part:
    """A row group as the reference sees it. A task without a state has not started."""

    id: int
    size: int
    live: set[int]
    state: dict[tuple[int, int], str] = field(default_factory=dict)
    attempts: Counter[tuple[int, int]] = field(default_factory=Counter)
    counted: Counter[tuple[int, int]] = field(default_factory=Counter)
    worked: dict[int, int] = field(default_factory=dict)
    ready: set[tuple[int, int]] = field(default_factory=set)
    dropped: int = 0
    cut: set[int] = field(default_factory=set)
    restoring: bool = False
    committing: bool = False
    over: bool = False


@dataclass
class Setup:
    """One run to be: what a tracker and its reference are made from."""

    nodes: list[Node]
    plan: Plan
    retry: RetryPolicy
    budget: ErrorBudget
    kept: frozenset[int] = frozenset(range(99))
    """The columns whose values the journal keeps; the others are worked anew."""


@dataclass(frozen=True)
class Value:
    """A line of the log: a task was done, a whole column for these rows."""

    group: int
    column: int
    row: int
    rows: set[int]


@dataclass(frozen=True)
class Over:
    """A line of the log: nothing is left to be done in a row group."""

    group: int
    tally: Tally


class Journal:
    """What outlives a run: a log of what ended in it, and the parts."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.log: list[Value | Record | Over] = []
        self.parts: dict[int, list[int]] = {}
        """The rows of each row group that were committed last."""

    def earlier(self, plan: Plan) -> Earlier:
        """Return what the next run starts from, after one with this plan has ended in any way."""
        over = {line.group: line.tally for line in self.log if isinstance(line, Over)}
        return Earlier((*plan.earlier.targets, plan.rows), over, {line.group for line in self.log} - set(over))

    def values(self, group: int) -> list[Value]:
        """Give what was done of a row group."""
        return [line for line in self.log if isinstance(line, Value) and line.group == group]

    def restored(self, group: int, nodes: list[Node]) -> Restored:
        """Give what is known of a row group, but for failures that ended a run: they are to be mended."""
        values = self.values(group)
        failed = [
            (line.column, line.row, None if line.rows is None else list(line.rows))
            for line in self.log
            if isinstance(line, Record) and line.group == group
            if not (line.failure.fatal or nodes[line.column].on_error == "raise")
        ]
        cells = [(value.column, value.row) for value in values if value.row != WHOLE]
        return Restored(group, cells, {value.column: len(value.rows) for value in values if value.row == WHOLE}, failed)


class Reference:
    """Takes in each event before the tracker does, and each answer after; asserts that the answer is right."""

    def __init__(self, setup: Setup) -> None:
        """Begin with nothing admitted."""
        self.setup = setup
        ids = {node.name: i for i, node in enumerate(setup.nodes)}
        self.nodes = setup.nodes
        self.lanes = compile_graph(setup.nodes).lanes
        self.needs = [[ids[need] for need in node.needs + node.after] for node in setup.nodes]
        self.parts: dict[int, Part] = {}
        self.over = setup.plan.earlier.over
        self.bounds = _bounds(setup.plan)
        self.to_come = [group for group in range(len(self.bounds)) if group not in self.over]
        self.halted: Reason | None = None
        self.stopped = False
        self.cancelled = False
        self.given_up = False
        """Whether what has not started never will."""
        self.paused = False
        self.limits: dict[Lane, int] = {}
        self.outcomes: list[list[bool]] = [[] for _ in setup.nodes]
        self.failed_now = [0 for _ in setup.nodes]
        self.failed_cells: list[list[tuple[int, int]]] = [[] for _ in setup.nodes]
        self.expected: list[Command] = []
        self.halting: Reason | None = None
        self.touched: set[int] = set()
        self.again: set[Task] = set()
        self.in_lane: Counter[Lane] = Counter()
        self.on_the_spot = 0
        self.stale: Counter[Lane] = Counter()
        self.waiting: Counter[int] = Counter()
        self.lead: Counter[tuple[int, int]] = Counter()
        self.dropped = sum(tally.dropped for tally in self.over.values())
        self.committed = sum(tally.live for tally in self.over.values())
        self.cut = self.retries = 0
        self.cut_short: list[int] = []
        self.counts = {group: [(*count, 0) for count in tally.columns] for group, tally in self.over.items()}

    # What happened

    def before(self, event: Event) -> None:
        """Work out what the event means: what ends, which rows go, and what must be answered."""
        self.expected, self.halting, self.touched = [], None, set()
        self._take_in(event)
        self._touch_next()
        for id_ in self.touched:
            self._refresh(self.parts[id_])
        if self.halted is not None and self.halting == "failed":
            self.halted = "failed"

    def _take_in(self, event: Event) -> None:
        match event:
            case Restored(group) if self.parts[group].restoring:
                self._restored(self.parts[group], event)
            case Done(group, column, row):
                self._end(group, column, row, DONE)
                self._outcome(column, failed=False)
            case Failed(group, column, row, failure):
                self._failed(self.parts[group], column, row, failure)
            case Cancelled(group, column, row):
                part = self._end(group, column, row, CUT)
                self._drop(part, self._rows(part, row), cut=True)
            case Due(group, column, row) if self.parts[group].state.get((column, row)) == DUE:
                del self.parts[group].state[column, row]
                self.again.add((group, column, row))
                self.touched.add(group)
            case Committed(group):
                part = self.parts[group]
                self.committed += len(part.live)
                self._close(part)
            case CommitFailed(group):
                part = self.parts[group]
                self._drop(part, part.live, cut=True)
                self._close(part)
                self.halting = "failed"
            case _:
                self._steer(event)

    def _steer(self, event: Event) -> None:
        match event:
            case Halted(reason) if not self.stopped:
                self.halting = reason
            case Paused():
                self.paused = True
            case Resumed():
                self.paused = False
            case Limited(lane, limit):
                self.limits[self.lanes[lane]] = limit
            case Budgeted(None, most, _, _, tokens) if not self.stopped:
                spent = most is not None and tokens >= most
                if spent and self.halted is None:
                    self.halted = "budget"
                elif not spent and self.halted == "budget" and not self.given_up:
                    self.halted = None

    def _restored(self, part: Part, event: Restored) -> None:
        part.restoring = False
        part.state = dict.fromkeys([*event.cells, *((column, WHOLE) for column in event.wholes)], DONE)
        part.worked = dict(event.wholes)
        for column, row, rows in event.failed:
            null = self.nodes[column].on_error == "null"
            part.state[column, row] = NULL if null else FAILED
            part.worked[column] = len(rows or ())
            if null:
                self.expected.append(Null(part.id, column, row))
            else:
                self._drop(part, {row} if rows is None else rows, cut=False)
        self.touched.add(part.id)

    def _end(self, group: int, column: int, row: int, state: str) -> Part:
        part = self.parts[group]
        assert part.state[column, row] == RUNNING
        part.state[column, row] = state
        lane = self.nodes[column].lane
        if lane is None:
            self.on_the_spot -= 1
        else:
            self.in_lane[lane] -= 1
        self.touched.add(group)
        return part

    def _failed(self, part: Part, column: int, row: int, failure: Failure) -> None:
        task = column, row
        part.attempts[task] += 1
        part.counted[task] += not failure.rate_limited
        again = failure.retryable and (failure.rate_limited or part.counted[task] < self.setup.retry.attempts)
        rows = self._rows(part, row)
        if again and (self.given_up or not rows & part.live):
            self._end(part.id, *task, CUT)
            self._drop(part, rows, cut=True)
        elif again:
            self._end(part.id, *task, DUE)
            self.retries += 1
            self.expected = [RunAfter(self._delay(failure, part.attempts[task]), part.id, *task)]
        else:
            of = sorted(part.live | part.cut) if row == WHOLE else None
            self.expected = [Record(part.id, *task, failure, part.attempts[task], of)]
            on_error = self.nodes[column].on_error
            if failure.fatal or on_error == "raise":
                self.halting = "failed"
            self._end(part.id, *task, NULL if on_error == "null" else FAILED)
            if on_error == "null":
                self.expected.append(Null(part.id, *task))
            else:
                self._drop(part, rows, cut=self.halting is not None)  # what ends a run is tried again in the next one
            self.failed_cells[column].append((part.id, 0 if row == WHOLE else row))
            self.failed_now[column] += 1
            self._outcome(column, failed=not (failure.retryable or failure.verdict))

    def _delay(self, failure: Failure, attempts: int) -> float:
        if failure.retry_after is not None:
            return min(failure.retry_after, self.setup.retry.longest_wait)
        return self.setup.retry.wait(attempts)

    def _outcome(self, column: int, *, failed: bool) -> None:
        budget = self.setup.budget
        counted = any(self.outcomes[column][-budget.window :])
        self.outcomes[column].append(failed)
        first = self.failed_cells[column][: budget.window]
        earlier = sum(place < max(first) for place in self._places_in_flight(column)) if first else 0
        if earlier and counted and not failed and len(self.outcomes[column]) == self.failed_now[column] + 1:
            self.outcomes[column], self.failed_now[column] = [False], 0
        if len(self.outcomes[column]) > self.failed_now[column]:
            earlier = 0
        latest = self.outcomes[column][-budget.window :]
        if budget.rate is None or not any(latest):
            return
        full = len(latest) == budget.window and sum(latest) / (len(latest) + earlier) >= budget.rate
        if full or (self._is_hopeless(column) and sum(latest) / len(latest) >= budget.rate):
            self.halting = self.halting or (None if self.halted else "early_shutdown")

    def _is_hopeless(self, column: int) -> bool:
        """Return whether nothing has succeeded, and the first cells of a column have failed, one after the other."""
        most = self.setup.budget.without_success
        if most is None or len(self.outcomes[column]) < most:
            return False
        if any(self._succeeded(i) for i, node in enumerate(self.nodes) if i == column or node.lane is not None):
            return False
        before = min(self._places_in_flight(column), default=(len(self.bounds), 0))
        return sum(place < before for place in self.failed_cells[column][: self.setup.budget.window]) >= most

    def _succeeded(self, column: int) -> bool:
        """Return whether a cell of a column has succeeded, in this run or an earlier one."""
        now = any(self._count(part, column, over=False)[0] for part in self.parts.values())
        return now or any(tally.columns[column][0] for tally in self.over.values())

    def _places_in_flight(self, column: int) -> list[tuple[int, int]]:
        return [
            (part.id, max(row, 0))
            for part in self._open()
            for (of, row), state in part.state.items()
            if of == column and state in {RUNNING, DUE}
        ]

    @staticmethod
    def _rows(part: Part, row: int) -> set[int]:
        return set(part.live) if row == WHOLE else {row}

    def _drop(self, part: Part, rows: Iterable[int], *, cut: bool) -> None:
        gone = part.live & set(rows)
        part.live -= gone
        if cut:
            part.cut |= gone
            self.cut += len(gone)
        else:
            part.dropped += len(gone)
            self.dropped += len(gone)
        for (column, row), state in part.state.items():
            if state == DUE and (row in gone or not part.live):
                part.state[column, row] = CUT
        for column, row in part.ready:
            lane = self.nodes[column].lane
            if lane is not None and (row in gone or not part.live):
                self.stale[lane] += 1

    def _close(self, part: Part) -> None:
        part.over = True
        self.touched.add(part.id)
        part.restoring = part.committing = False
        if part.cut:
            self.cut_short.append(part.id)

    # What may start

    def _refresh(self, part: Part) -> None:
        """Say anew which tasks of a row group could start now."""
        self.waiting.subtract(column for column, _ in part.ready)
        idle = self.given_up or part.over or part.committing or part.restoring
        part.ready = set() if idle else set(self._ready(part))
        self.waiting.update(column for column, _ in part.ready)
        for a, b in list(self.lead):
            if not (self.waiting[a] and self.waiting[b]):
                self.lead[a, b] = 0

    def _ready(self, part: Part) -> Iterable[tuple[int, int]]:
        for column, node in enumerate(self.nodes):
            if node.strategy == "whole":
                turn = not node.stateful or self._next(column) is part
                if (
                    turn
                    and part.live
                    and (column, WHOLE) not in part.state
                    and self._all_over(part, self.needs[column])
                ):
                    yield column, WHOLE
            elif self._all_over(part, [need for need in self.needs[column] if self.nodes[need].strategy == "whole"]):
                cells = [need for need in self.needs[column] if self.nodes[need].strategy == "cell"]
                for row in part.live:
                    if (column, row) not in part.state and all(part.state.get((c, row)) in VALUE for c in cells):
                        yield column, row

    def _touch_next(self) -> None:
        """See that a row group is looked at whose turn it may be, because of what happened to another."""
        parts = [self._next(column) for column, node in enumerate(self.nodes) if node.stateful and self.touched]
        self.touched.update(part.id for part in parts if part is not None)

    def _next(self, column: int) -> Part | None:
        """Give the first row group that is not through with a column."""
        return next((part for part in self._open() if not self._over(part, column)), None)

    def _all_over(self, part: Part, columns: Iterable[int]) -> bool:
        return all(self._over(part, column) for column in columns)

    def _over(self, part: Part, column: int) -> bool:
        """Return whether a column has a value for every live row, and nothing of it is in flight."""
        if self.nodes[column].strategy == "whole":
            return part.state.get((column, WHOLE)) in VALUE or not (part.live or self._in_flight(part, column))
        return not self._in_flight(part, column) and all(part.state.get((column, row)) in VALUE for row in part.live)

    @staticmethod
    def _in_flight(part: Part, column: int) -> bool:
        return any(state == RUNNING and of == column for (of, _), state in part.state.items())

    # What was answered

    def after(self, commands: list[Command]) -> None:
        """Assert that the answer is the right one, command by command and as a whole."""
        assert not (self.stopped and commands), "a command after Stop"
        self._assert_expected([c for c in commands if isinstance(c, Record | Null | RunAfter)])
        halts = not self.cancelled and self.halting is not None
        assert sum(isinstance(c, Cancel) for c in commands) == halts, "Cancel comes once, when the run is halted"
        if self.halting == "failed":
            assert not any(isinstance(c, Commit | Execute) for c in commands), (
                "a run that fails starts and commits nothing"
            )
        if self._drained() and not any(isinstance(c, Execute) for c in commands):
            self._give_up_the_rest()
        for command in commands:
            assert not self.stopped, "a command after Stop"
            match command:
                case Admit():
                    self._admit(command)
                case Execute(group, column, row, rows):
                    self._run(self.parts[group], column, row)
                    live = sorted(self.parts[group].live) if row == WHOLE else None
                    assert live == (None if rows is None else list(rows)), "not the live rows"
                case Commit(group, rows, tally):
                    self._commit(self.parts[group], list(rows), tally)
                case Discard(group, tally):
                    part = self.parts[group]
                    assert self._finished(part), "a row group was freed before it was over"
                    assert not part.live or self.halted == "failed", "live rows were thrown away"
                    self._drop(part, part.live, cut=True)
                    assert tally == (None if part.cut or self.halted == "failed" else self._tally(part)), "miscounted"
                    self._close(part)
                case Cancel():
                    self._cancel()
                case Stop(reason):
                    assert reason == self.halted, "the wrong reason"
                    self.stopped = True
        self._assert_nothing_forgotten()

    def _assert_expected(self, answers: list[Command]) -> None:
        assert len(answers) == len(self.expected), (answers, self.expected)
        for got, want in zip(answers, self.expected, strict=True):
            if isinstance(got, RunAfter) and isinstance(want, RunAfter):
                assert want.delay <= got.delay <= want.delay * 1.1, "neither the policy's wait nor the endpoint's"
                assert (got.group, got.column, got.row) == (want.group, want.column, want.row)
            elif isinstance(got, Record) and got.rows is not None:
                assert msgspec.structs.replace(got, rows=list(got.rows)) == want
            else:
                assert got == want

    def _admit(self, command: Admit) -> None:
        group, plan = self.to_come.pop(0), self.setup.plan
        known = group in plan.earlier.begun
        assert command == Admit(group, *self.bounds[group], known)
        assert command.rows > 0
        assert not self._holds(), "a row group was admitted while nothing may start"
        assert not self.on_the_spot, "a row group was admitted while one was being prepared"
        assert not self._restoring(), "a row group was admitted while one was being restored"
        assert not any(self._backlog(lane) >= self._limit(lane) for lane in self.lanes), "admitted into a full lane"
        part = self.parts[group] = Part(group, command.rows, set(range(command.rows)), restoring=known)
        assert len(self._open()) <= plan.open_groups, "too many row groups open"
        self._refresh(part)
        self.touched.add(part.id)

    def _run(self, part: Part, column: int, row: int) -> None:
        task = column, row
        assert not self.given_up, "something was run that was given up"
        assert not (self._holds() and self.nodes[column].lane), "a lane was filled while nothing may start"
        assert task in part.ready, f"{task} ran early, twice, or for a row that is gone"
        part.ready.remove(task)
        if (part.id, *task) in self.again:
            self.again.remove((part.id, *task))
        else:
            assert not (self.again and self._due_again(column)), "a retry that is due waits behind others"
        part.state[task] = RUNNING
        if row == WHOLE:
            part.worked[column] = len(part.live)
        lane = self.nodes[column].lane
        if lane is None:
            self.on_the_spot += 1
        else:
            self.in_lane[lane] += 1
            assert self.in_lane[lane] <= self._limit(lane), "more in flight than the lane takes"
            self._take_turn(column)
        self.waiting[column] -= 1
        self.touched.add(part.id)

    def _due_again(self, column: int) -> bool:
        """Tell whether cells of a column wait that have been tried before, so that no other may go before them."""
        self.again = {task for task in self.again if task[1:] in self.parts[task[0]].ready}
        return any(of == column for _, of, _ in self.again)

    def _take_turn(self, column: int) -> None:
        """While two columns of a lane both have cells waiting, neither gets ahead by more than a turn."""
        lane = self.nodes[column].lane
        for other, node in enumerate(self.nodes):
            if other != column and node.lane == lane and self.waiting[other]:
                self.lead[column, other] += 1
                self.lead[other, column] -= 1
                assert self.lead[column, other] <= 1, "columns that share a lane get uneven shares"
                if self.waiting[column] == 1:
                    self.lead[column, other] = self.lead[other, column] = 0

    def _commit(self, part: Part, rows: list[int], tally: Tally) -> None:
        assert self._finished(part), "a row group was committed before it was over"
        assert not part.committing, "committed twice"
        assert self.halted != "failed", "a failed run commits nothing more"
        assert rows == sorted(part.live), "not the live rows"
        assert rows, "an empty commit"
        assert tally == self._tally(part), "miscounted"
        part.committing = True

    def _tally(self, part: Part) -> Tally:
        counts = [self._count(part, column, over=True) for column in range(len(self.nodes))]
        columns = tuple((completed, failed, skipped) for completed, failed, skipped, _ in counts)
        assert all(sum(count) == part.size for count in columns), "a row is not counted just once"
        return Tally(len(part.live), part.dropped, columns, bool(part.cut))

    def _cancel(self) -> None:
        """Note that the run is cancelled, for the reason that counts most."""
        self.cancelled = True
        self.halted = self.halting
        if not self.given_up:
            self._give_up_the_rest()

    def _drained(self) -> bool:
        """Tell whether the budget is spent and nothing is in flight, so that a larger one has come too late."""
        flying = self.on_the_spot or self.in_lane.total() or self._restoring()
        return self.halted == "budget" and not (self.given_up or self.paused or flying)

    def _give_up_the_rest(self) -> None:
        """Cut off every row that is not whole but for what is in flight."""
        self.given_up = True
        for part in self._open():
            if not part.committing:
                self._drop(part, {row for row in part.live if not self._saved(part, row)}, cut=True)
                self._refresh(part)
                self.touched.add(part.id)

    def _saved(self, part: Part, row: int) -> bool:
        started = {RUNNING, *VALUE}
        return all(
            part.state.get((column, WHOLE if node.strategy == "whole" else row)) in started
            for column, node in enumerate(self.nodes)
        )

    def _finished(self, part: Part) -> bool:
        return RUNNING not in part.state.values() and self._all_over(part, range(len(self.nodes)))

    # What must hold between events

    def _assert_nothing_forgotten(self) -> None:
        for id_ in self.touched:
            part = self.parts[id_]
            assert (part.over or part.committing) == self._finished(part), "a row group is stuck, or over too early"
        for lane in self.lanes:
            full = self.in_lane[lane] >= self._limit(lane)
            assert full or self._holds() or not self._backlog(lane), "a lane has room and cells wait"
        for column, node in enumerate(self.nodes):
            assert node.lane is not None or not self.waiting[column], "a task without a lane waits"
        plan = self.setup.plan
        more = bool(self.to_come)
        assert plan.row_groups == len(self.bounds)
        if more and not self._holds():
            full = any(self._backlog(lane) + self.stale[lane] >= self._limit(lane) for lane in self.lanes)
            busy = self.on_the_spot or self._restoring()
            assert full or busy or len(self._open()) == plan.open_groups, "rows wait to be admitted"
        assert self.stopped == (not self._open() and (self.given_up or not more)), "Stop is missing, or too early"

    def _holds(self) -> bool:
        """Tell whether lanes may start nothing."""
        return self.paused or self.halted is not None

    def _limit(self, lane: Lane) -> int:
        return self.limits.get(lane, lane.limit)

    def _backlog(self, lane: Lane) -> int:
        return sum(self.waiting[column] for column, node in enumerate(self.nodes) if node.lane == lane)

    def _open(self) -> list[Part]:
        return [part for part in self.parts.values() if not part.over]

    def _restoring(self) -> bool:
        return any(part.restoring for part in self._open())

    def assert_totals(self, tracker: Tracker) -> None:
        """Recount the tracker's totals from the states."""
        for id_ in self.touched:
            part = self.parts[id_]
            self.counts[id_] = [self._count(part, column, over=part.over) for column in range(len(self.nodes))]
            if part.over:
                assert all(sum(count[:3]) == part.size for count in self.counts[id_]), "a row is not counted just once"
        totals = tracker.totals
        assert totals.running == self.on_the_spot + self.in_lane.total()
        assert totals.waiting_to_retry == sum(state == DUE for part in self._open() for state in part.state.values())
        assert (totals.committed, totals.dropped, totals.retries) == (self.committed, self.dropped, self.retries)
        assert totals.groups_over == len(self.over) + len(self.parts) - len(self._open())
        assert totals.cut_short == self.cut_short
        assert tracker.halted == self.halted
        for column, count in enumerate(totals.columns):
            of = [counts[column] for counts in self.counts.values()]
            completed, failed, skipped, perhaps = (sum(counts[i] for counts in of) for i in range(4))
            assert (count.completed, count.failed) == (completed, failed)
            assert skipped <= count.skipped <= skipped + perhaps
        if not self._open():
            self._assert_every_row_counted_once(tracker)

    def _assert_every_row_counted_once(self, tracker: Tracker) -> None:
        rows = sum(self.bounds[group][1] for group in {*self.parts, *self.over})
        for count in tracker.totals.columns:
            assert count.completed + count.failed + count.skipped == rows, "a row is counted twice, or not at all"
        assert tracker.totals.committed + tracker.totals.dropped + self.cut == rows, "a row is lost"

    def _count(self, part: Part, column: int, *, over: bool) -> tuple[int, int, int, int]:
        """Count the cells of a column: completed, failed, skipped, and those that may be called skipped already."""
        if self.nodes[column].strategy == "cell":
            states = [part.state.get((column, row)) for row in range(part.size)]
            gone = sum(state is None and row not in part.live for row, state in enumerate(states))
            return states.count(DONE), states.count(NULL) + states.count(FAILED), states.count(CUT) + gone, 0
        state = part.state.get((column, WHOLE))
        worked = part.worked.get(column, 0)
        if state in {DONE, NULL, FAILED}:
            return worked * (state == DONE), worked * (state != DONE), part.size - worked, 0
        over = over or state == CUT
        return 0, 0, part.size * over, part.size * (not over and state is None and not part.live)


def _bounds(plan: Plan) -> list[tuple[int, int]]:
    """Cut the rows into row groups, one after the other: (first row, rows)."""
    bounds = []
    start = 0
    while start < plan.rows:
        end = min([start + plan.row_group_size, plan.rows, *(t for t in plan.earlier.targets if t > start)])
        bounds.append((start, end - start))
        start = end
    return bounds


class Shell:
    """What is in flight, as a scheduler has it; sends each event to the tracker under the reference's eyes."""

    def __init__(self, tracker: Tracker, setup: Setup, journal: Journal) -> None:
        """Begin with nothing in flight."""
        self.tracker = tracker
        self.setup = setup
        self.journal = journal
        self.reference = Reference(setup)
        self.values: dict[Task, set[int]] = {}
        """What the store has: the values of tasks; whole columns have them for some rows."""
        self.started = False
        self.restoring: list[int] = []
        self.running: list[Task] = []
        self.timers: list[Task] = []
        self.commits: dict[int, Commit] = {}
        self.broken = False
        """Whether a rule was broken: what comes after that says nothing."""

    @property
    def pending(self) -> bool:
        """Tell whether anything can still happen by itself."""
        return bool(self.running or self.timers or self.commits or self.restoring)

    @property
    def stopped(self) -> bool:
        """Tell whether the run is over."""
        return self.reference.stopped

    def send(self, event: Event) -> None:
        """Hand over what happened, and do what is said."""
        self.broken = True
        if isinstance(event, Done) and event.column in self.setup.kept:
            task = event.group, event.column, event.row
            self.journal.log.append(Value(*task, self.values[task]))
        self.reference.before(event)
        commands = self.tracker.handle(event)
        self.reference.after(commands)
        self.reference.assert_totals(self.tracker)
        for command in commands:
            self._follow(command)
        if not self.pending:
            assert self.stopped or self.reference.paused, "nothing is in flight, no timer waits, and there is no Stop"
        self.broken = False

    def _follow(self, command: Command) -> None:
        match command:
            case Admit(group, known=True):
                self.restoring.append(group)
            case Execute(group, column, row, rows):
                self.running.append((group, column, row))
                self.values[group, column, row] = set(rows or ())
            case RunAfter(_, group, column, row):
                self.timers.append((group, column, row))
            case Null(group, column, row):
                self.values[group, column, row] = set(range(self.reference.parts[group].size))
            case Record():
                self.journal.log.append(command)
            case Commit(group, rows):
                assert all(self._has(group, column, row) for column in range(len(self.setup.nodes)) for row in rows)
                self.commits[group] = command
            case Discard(group, tally) if tally is not None:
                self.journal.log.append(Over(group, tally))

    def _has(self, group: int, column: int, row: int) -> bool:
        """Tell whether a row has a value for a column."""
        if self.setup.nodes[column].strategy == "cell":
            return (group, column, row) in self.values
        return row in self.values.get((group, column, WHOLE), ())

    def start(self) -> None:
        """Begin."""
        self.send(Started())
        self.started = True

    def answer(self, at: int, failure: Failure | None = None) -> None:
        """End the attempt that is `at` in the list of those in flight."""
        task = self.running.pop(at % len(self.running))
        self.send(Done(*task) if failure is None else Failed(*task, failure))

    def cancel(self, at: int) -> None:
        """Report a task as cancelled."""
        self.send(Cancelled(*self.running.pop(at % len(self.running))))

    def due(self, at: int) -> None:
        """Let a timer go off."""
        self.send(Due(*self.timers.pop(at % len(self.timers))))

    def commit(self, at: int, *, ok: bool = True) -> None:
        """End a commit."""
        command = self.commits.pop(list(self.commits)[at % len(self.commits)])
        if ok:
            self.journal.parts[command.group] = list(command.rows)
            if not command.tally.cut:
                self.journal.log.append(Over(command.group, command.tally))
        self.send(Committed(command.group) if ok else CommitFailed(command.group))

    def restore(self) -> None:
        """Put what is known of a row group into the store."""
        group = self.restoring.pop()
        self.values |= {(group, value.column, value.row): value.rows for value in self.journal.values(group)}
        self.send(self.journal.restored(group, self.setup.nodes))

    def killed(self, lost: int, more: int) -> Setup:
        """Lose all but the journal, and of that what was last written; give the run that takes up from there."""
        log, plan = self.journal.log, self.setup.plan
        del log[max(0, len(log) - lost) :]
        plan = Plan(plan.rows + more, plan.row_group_size, plan.open_rows, self.journal.earlier(plan))
        return replace(self.setup, plan=plan)

    def step(self, rng: random.Random, fate: Fate) -> None:
        """Let one thing happen, whichever; `fate` says how an attempt ends."""
        kinds = [kind for kind in ("running", "timers", "commits", "restoring") if getattr(self, kind)]
        kind = rng.choice([*kinds, "running"] if self.running else kinds)
        at = rng.randrange(1 << 16)
        if kind == "timers":
            self.due(at)
        elif kind == "commits":
            self.commit(at)
        elif kind == "restoring":
            self.restore()
        elif self.reference.cancelled and rng.random() < 0.5:
            self.cancel(at)
        else:
            at %= len(self.running)
            self.answer(at, fate(self.running[at]))

    def step_at_random(self, rng: random.Random, health: float = 1.0) -> None:
        """Let one thing happen, whichever; an attempt succeeds with the probability `health`."""
        if rng.random() > 0.95 + health / 20:
            self.send(Halted(rng.choice(("cancelled", "early_shutdown", "failed"))))
        else:
            weights = 8, 8, 4, 4, 1 + 4 * self.reference.cancelled, 4
            self.step(rng, lambda _: None if rng.random() < health else rng.choices(FAILURES, weights)[0])

    def finish(self, rng: random.Random, health: float = 1.0) -> None:
        """Run until nothing is left to happen."""
        while self.pending or self.reference.paused:
            if self.pending:
                self.step_at_random(rng, health)
            else:
                self.send(Resumed())
        assert self.stopped
