"""The tracker against a reference, on random graphs, plans, policies and luck; and against itself with bugs planted.

What has to hold after every event is written down in tracker_reference.py. The machine below only decides what happens.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, TypeAlias

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from rowloop.engine.core import lanes, open_groups, policy, row_groups, tasks, totals
from rowloop.engine.core import tracker as tracker_module
from rowloop.engine.core.events import (
    WHOLE,
    Budgeted,
    Cancelled,
    CommitFailed,
    Committed,
    Done,
    Due,
    Failed,
    Halted,
    Limited,
    Paused,
    Restored,
    Resumed,
    Started,
)
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.policy import ErrorBudget, Policies, RetryPolicy
from rowloop.engine.core.row_groups import Earlier, Plan
from tracker_reference import BROKEN, FATAL, FLAKY, INVALID, LATER, LIMITED, Journal, Setup, Shell

if TYPE_CHECKING:
    from rowloop.engine.core.events import Event, Failure, Reason
    from rowloop.engine.core.graph import OnError

FAST: Final = set(Phase) - {Phase.explain}  # it takes minutes here
QUICK: Final = settings(
    max_examples=2000,
    stateful_step_count=5,
    phases=[Phase.generate],
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
ON_ERRORS: Final[list[list[OnError]]] = [["drop"], ["drop", "null"], ["drop", "null", "raise"]]
ALL: Final = frozenset(range(6))
LOST: Final = st.sampled_from([0, 0, 1, 4, 20])
"""How many lines of the log do not survive when a run is killed."""
REASONS: Final[tuple[Reason, ...]] = ("cancelled", "early_shutdown", "deadline", "failed")


@st.composite
def nodes(draw: st.DrawFn) -> list[Node]:
    """Draw one to six columns in any order, with needs that make chains, diamonds and fans."""
    names = "abcdef"[: draw(st.integers(1, 6))]
    on_error = st.sampled_from(draw(st.sampled_from(ON_ERRORS)))
    one, two = (Lane(name, draw(st.integers(1, 6))) for name in ("one", "two"))
    columns = [
        Node(
            name,
            tuple(draw(st.lists(st.sampled_from(names[:i]), unique=True, max_size=3))) if i else (),
            draw(st.sampled_from(["cell", "cell", "whole"])),
            draw(st.sampled_from([None, one, one, two])),
            draw(on_error),
            tuple(draw(st.sampled_from(names[:i]))) if i and draw(st.integers(0, 9)) == 1 else (),
        )
        for i, name in enumerate(names)
    ]
    wholes = [node for node in columns if node.strategy == "whole"]
    if wholes and draw(st.booleans()):
        stateful = draw(st.sampled_from(wholes))
        columns = [replace(node, stateful=node is stateful) for node in columns]
    return draw(st.permutations(columns))


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    """Draw a run to be."""
    return Setup(
        draw(nodes()),
        Plan(draw(st.integers(1, 40)), draw(st.integers(1, 10)), draw(st.integers(1, 60))),
        RetryPolicy(draw(st.integers(1, 3)), wait=float, longest_wait=2.0),
        ErrorBudget(
            draw(st.integers(1, 10)),
            draw(st.sampled_from([None, None, 0.0, 0.25, 0.5, 1.0])),
            draw(st.sampled_from([None, 1, 2, 5])),
        ),
        draw(st.just(ALL) | st.frozensets(st.integers(0, 5))),
    )


MODULES = (row_groups, open_groups, policy, lanes, totals, tasks, tracker_module)
"""The tracker and the data that it alone changes, in the order in which they import one another."""


class Machine(RuleBasedStateMachine):
    """Decides what happens to a run: which attempt ends and how, which timer goes off, when somebody has had enough."""

    module: ModuleType = tracker_module
    resumed: float = 0.5
    """How many of the runs resume one that was killed, when they begin."""
    shell: Shell

    @initialize(
        setup=setups(), early=st.integers(0, 20), before=st.integers(1, 60), lost=LOST, end=st.integers(0, 2**16)
    )
    def start(self, setup: Setup, early: int, before: int, lost: int, end: int) -> None:
        """Begin, or resume a run that was killed; now and then this one is cancelled at once."""
        self.end = random.Random(end)  # noqa: S311 - no secret
        self.take_up(setup, Journal())
        if self.end.random() < self.resumed:
            self.shell.start()
            self.let_run(before, end, self.end.choice((1.0, 0.9, 0.7)))
            self.take_up(self.shell.killed(lost, 0), self.shell.journal)
        if early == 1:
            self.shell.send(Halted("cancelled"))
        self.shell.start()
        if early == 2:
            self.shell.send(Halted("cancelled"))

    def take_up(self, setup: Setup, journal: Journal) -> None:
        """Resume what the journal has."""
        graph = compile_graph(setup.nodes)
        self.shell = Shell(self.module.Tracker(graph, setup.plan, Policies(setup.retry, setup.budget)), setup, journal)

    @rule(
        at=st.integers(0, 99),
        failure=st.sampled_from([None, None, FLAKY, LATER, LIMITED, BROKEN, BROKEN, FATAL, INVALID]),
    )
    def end_an_attempt(self, at: int, failure: Failure | None) -> None:
        """Give a value, or fail: in a way that another attempt may mend, for good, or for all other cells as well."""
        if self.shell.running:
            self.shell.answer(at, failure)

    @rule(at=st.integers(0, 99))
    def end_a_wait(self, at: int) -> None:
        """Let a timer go off; after Cancel this is one that was on its way already."""
        if self.shell.timers:
            self.shell.due(at)

    @rule(at=st.integers(0, 99), luck=st.integers(0, 9))
    def end_a_commit(self, at: int, luck: int) -> None:
        """Take a row group into the sink, or seldom fail to."""
        if self.shell.commits:
            self.shell.commit(at, ok=luck != 1)

    @rule()
    def end_a_restore(self) -> None:
        """Have in the store what an earlier run had of a row group."""
        if self.shell.restoring:
            self.shell.restore()

    @rule(lost=LOST, more=st.sampled_from([0, 0, 0, 1, 13]))
    def kill(self, lost: int, more: int) -> None:
        """Kill the run, and have another take it up, perhaps to make more rows."""
        self.take_up(self.shell.killed(lost, more), self.shell.journal)
        self.shell.start()

    @rule(at=st.integers(0, 99))
    def end_by_cancellation(self, at: int) -> None:
        """Let a task in flight follow Cancel."""
        if self.shell.running and self.shell.reference.cancelled:
            self.shell.cancel(at)

    @rule(reason=st.sampled_from(REASONS), luck=st.integers(0, 9), steering=st.integers(0, 99))
    def halt_or_steer(self, reason: Reason, luck: int, steering: int) -> None:
        """Have the run end, perhaps when it has; or steer it."""
        if luck == 1 or self.shell.stopped:
            self.shell.send(Halted(reason))
        if luck > 5:
            self.shell.send(self.steered(steering))

    def steered(self, at: int) -> Event:
        """Choose: pause or resume, spend the budget or raise it, change a lane's limit; also what is so already."""
        kinds: list[Event] = [Paused(), Resumed(), Budgeted(None, 1, {}, 0.0, 1), Budgeted(None, 2, {}, 0.0, 1)]
        lanes = self.shell.reference.lanes
        return Limited(at % len(lanes), 1 + at % 7) if at % 5 == 4 and lanes else kinds[at % 4]

    @rule(steps=st.integers(1, 60), seed=st.integers(0, 2**16), health=st.sampled_from([1.0, 0.95, 0.8, 0.5]))
    def let_happen(self, steps: int, seed: int, health: float) -> None:
        """Let a lot happen."""
        self.let_run(steps, seed, health)

    def let_run(self, steps: int, seed: int, health: float) -> None:
        """Let so much happen."""
        rng = random.Random(seed)  # noqa: S311 - no secret
        while steps and self.shell.pending:
            self.shell.step_at_random(rng, health)
            steps -= 1

    @rule(group=st.integers(0, 5), column=st.integers(0, 5), row=st.integers(WHOLE, 9))
    def cause_an_illegal_event(self, group: int, column: int, row: int) -> None:
        """Report what cannot have happened: an error is raised, and nothing has changed."""
        task = group, column % len(self.shell.reference.nodes), row
        events: list[Event] = [Committed(group), CommitFailed(group)] if group not in self.shell.commits else []
        if task not in self.shell.running:
            events += [Done(*task), Failed(*task, BROKEN), Cancelled(*task)]
        elif not self.shell.reference.cancelled:
            events.append(Cancelled(*task))
        if self.shell.started:
            events.append(Started())
        if not (group in self.shell.restoring or self.shell.reference.given_up):
            events.append(Restored(group, [], {}, []))
        before = picture(self.shell.tracker)
        for illegal in events:
            with pytest.raises(self.module.IllegalEventError):
                self.shell.tracker.handle(illegal)
        assert picture(self.shell.tracker) == before
        if task not in self.shell.timers:
            assert self.shell.tracker.handle(Due(*task)) == []

    def teardown(self) -> None:
        """Let the run end, whatever has happened to it."""
        if hasattr(self, "shell") and not self.shell.broken:
            self.shell.finish(self.end, health=self.end.choice((1.0, 0.9, 0.8)))
            event(f"ended: {self.shell.reference.halted}")
            if self.end.random() < self.resumed / 3:
                self.make_up()

    def make_up(self) -> None:
        """Take the run up once more, and let nothing come between: then no row is left."""
        quiet = replace(self.shell.killed(self.end.choice((0, 5)), 0), budget=ErrorBudget(rate=None))
        self.take_up(quiet, self.shell.journal)
        self.shell.start()
        self.shell.finish(self.end)
        assert not self.shell.reference.cut, "rows are left to be worked"


def picture(thing: object, *, whole: bool = True) -> object:
    """Take apart a tracker into what can be compared; row groups in queues are shown by their number."""
    if isinstance(thing, dict):
        return {key: picture(value) for key, value in thing.items()}
    if isinstance(thing, list | deque):
        return [picture(value) for value in thing]
    if isinstance(thing, set):
        return set(thing)
    if isinstance(thing, tuple):
        return [picture(value, whole=False) for value in thing]
    if type(thing).__module__ in {module.__name__ for module in MODULES}:
        names = [*getattr(type(thing), "__slots__", ()), *getattr(thing, "__dict__", ())]
        names = [name for name in names if name not in {"out", "_handlers"}] if whole else ["id"]
        return {name: picture(getattr(thing, name)) for name in names}
    return bytes(thing) if isinstance(thing, bytearray) else thing


TestTracker = Machine.TestCase
TestTracker.settings = settings(max_examples=100, stateful_step_count=25, deadline=None, phases=FAST)


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_the_long_form() -> None:
    """The rules hold for thousands of longer runs, too."""
    long = settings(max_examples=2000, stateful_step_count=60, deadline=None, phases=FAST)
    run_state_machine_as_test(Machine, settings=long)


Kill: TypeAlias = tuple[int, int, int]
"""After how many steps, how much of the log is lost, how many rows the next run is to make more."""

KILLS: Final = st.tuples(st.integers(0, 80), LOST, st.sampled_from([0, 0, 0, 1, 13]))


class Series:
    """Runs of one dataset, one after the other, in which each task ends in the one way that is its own."""

    def __init__(self, setup: Setup, seed: int, module: ModuleType = tracker_module) -> None:
        """Begin the first."""
        self.module = module
        self.seed = seed
        self.rng = random.Random(seed)  # noqa: S311 - no secret
        self.journal = Journal()
        self.limited: set[tuple[int, int, int]] = set()
        self.begin(setup)

    def begin(self, setup: Setup) -> None:
        """Begin a run that resumes what is in the journal."""
        graph = compile_graph(setup.nodes)
        tracker = self.module.Tracker(graph, setup.plan, Policies(setup.retry, setup.budget))
        self.shell = Shell(tracker, setup, self.journal)
        self.shell.start()

    def fate(self, task: tuple[int, int, int]) -> Failure | None:
        """Say how a task ends, whenever it is worked: with a value, perhaps not at once, or with a failure."""
        group, column, row = task
        first, _ = self.shell.reference.bounds[group]
        luck = random.Random(f"{self.seed} {column} {first + row} {row < 0}").random()  # noqa: S311 - no secret
        if luck < 0.2 and task not in self.limited:
            self.limited.add(task)
            return LIMITED
        return None if luck < 0.85 else FLAKY if luck < 0.9 else BROKEN if row != WHOLE or luck < 0.95 else None

    def trouble(self) -> None:
        """Let one thing happen, or somebody stop the run, or a part not be written, or a key be refused."""
        luck = self.rng.random()
        if luck < 0.01:
            self.shell.send(Halted(self.rng.choice(REASONS)))
        elif luck < 0.1 and self.shell.commits:
            self.shell.commit(0, ok=False)
        else:
            self.shell.step(self.rng, lambda task: FATAL if luck > 0.99 else self.fate(task))

    def kill(self, steps: int, lost: int, more: int) -> None:
        """Let so much happen, kill the run and begin another."""
        while steps and self.shell.pending:
            self.trouble()
            steps -= 1
        self.begin(self.shell.killed(lost, more))

    def finish(self) -> dict[int, list[int]]:
        """Run until nothing is left to happen; return the rows that were committed."""
        while self.shell.pending:
            self.shell.step(self.rng, self.fate)
        assert (self.shell.stopped, self.shell.reference.cut) == (True, 0)
        return self.journal.parts


@settings(max_examples=30, phases=FAST)
@given(setups(), st.lists(KILLS, min_size=1, max_size=4), st.integers(0, 2**16))
def test_runs_that_are_killed_make_the_rows_of_one_that_is_not(setup: Setup, kills: list[Kill], seed: int) -> None:
    """Whenever it is killed, whatever else goes wrong before, however much of the log is lost, and with rows added."""
    nodes = [replace(node, on_error="drop" if node.on_error == "raise" else node.on_error) for node in setup.nodes]
    setup = replace(setup, nodes=nodes, budget=ErrorBudget(rate=None))
    killed = Series(setup, seed)
    for kill in kills:
        killed.kill(*kill)
    parts = killed.finish()
    plan = killed.shell.setup.plan
    undisturbed = Series(replace(setup, plan=replace(plan, earlier=Earlier(plan.earlier.targets))), seed)
    assert parts == undisturbed.finish()
    totals, others = killed.shell.tracker.totals, undisturbed.shell.tracker.totals
    assert (totals.committed, totals.dropped) == (others.committed, others.dropped)


DROPS: Final = "        self._tasks.do_without(group, column, event.row, rows, cut=halts)\n"

# Slips one could make: what is there in the tracker, and what stands in its place in the planted version. That a halted
# run tries nothing again has a plain test, and so has that nothing is released where no row is left: rows for which it
# matters are rare in runs at random.
SLIPS: Final = {
    "a permit is not given back": ("lane.in_flight -= 1\n        excused", "excused"),
    "one permit too many is given": ("lane.in_flight < lane.limit", "lane.in_flight <= lane.limit"),
    "a lane in which something changed is not filled": ("self._touched.append(lane)", "pass"),
    "a column keeps its turn": ("lane.turn.rotate(-1)", "pass"),
    "a dropped cell costs its column the turn": ("elif ready:", "else:"),
    "what was dropped in the queue is run": ("return task if ready else None", "return task"),
    "a dropped row's children are released": ("if group.alive[row]:\n            for", "if True:\n            for"),
    "a cell does not wait for a whole column": (" and not group.missing_whole[child] and", " and"),
    "a whole column does not wait for the last cell": ("if not group.left[id_]:", "if group.left[id_] == 1:"),
    "a whole column does not see its rows go": ("whole = () if self.live else (WHOLE,)", "whole = ()"),
    "rows go one by one": ("self.alive[row] = 0", "self.alive[row] = row != gone[0]"),
    "a skipped whole column counts as worked": ("worked = 0 if state == SKIPPED else worked", "pass"),
    "whole columns count rows dropped before": ("worked[column] = group.live", "worked[column] = group.size"),
    "a nulled cell takes its row along": ('if column.on_error == "null":', "if False:"),
    "a rate limit counts as an attempt": ("counted += counts - rate_limited", "counted += counts"),
    "a cell has nine lives": ("counted: int = 0", "counted: int = -9"),
    "a retry waits behind the others": ("lane.queues[column].rotate(1)", "pass"),
    "a retry does not wait": ("][event.row] = DUE", "][event.row] = 1  # READY"),
    "a retry that is given up still counts": ("-= group.state[column][row] == DUE", "-= 0"),
    "a halted run waits for its retries": ("frozenset({WAITING, READY, DUE})", "frozenset({WAITING, READY})"),
    "a halted run runs on": ("elif self.halted is None and", "elif"),
    "a paused run runs on": ("is None and not self.paused:", "is None:"),
    "a spent budget gives up at once": ('= reason, reason == "budget"', "= reason, False"),
    "a spent budget ends a paused run": ("if self._draining and not (self.paused or", "if self._draining and not ("),
    "a spent budget does not wait for what is in flight": (" or self.totals.running):", "):"),
    "a raised budget saves nothing": ("self.halted, self._draining = None, False", "pass"),
    "a new limit is not kept to": ("            lane.limit = limit", "            pass"),
    "rows cut off count as dropped": ("(event.row,), cut=True)", "(event.row,))"),
    "a failure does not outrank a cancellation": (
        'reason if reason == "failed" or self.halted == "budget" else self.halted', "self.halted"
    ),
    "a failed run commits": ("if not group.live or self.failed:", "if not group.live:"),
    "transient failures spend the error budget": ("not (failure.retryable or", "not ("),
    "rows that are not valid spend the error budget": ("retryable or failure.verdict)", "retryable)"),
    "old failures are never forgotten": ("failed_at.popleft()", "break"),
    "dropped rows are committed": ("Commit(group.id, group.live_rows(), ", "Commit(group.id, range(group.size), "),
    "dropped rows count as committed": ("committed += group.live", "committed += group.size"),
    "row groups are admitted without bound": ("and len(self.by_id) < self._most", ""),
    "full lanes do not hold up the next row group": ("self.congested += 1", "pass"),
    "full lanes hold up the next row group for ever": ("self.congested -= 1", "pass"),
    "one row group is admitted at a time": ("while not (self._lanes", "if not (self._lanes"),
    "a stateful column does not wait for its turn": ("+= turn.group != group.id", "+= 0"),
    "a turn is not passed on": ("if column.stateful:", "if False:"),
    "Stop comes twice": ("self._stopped = True", "pass"),
}  # fmt: skip

# That rows which go are gone before anything is released has a plain test, and so has for which rows a whole column was
# worked, or failed: it matters seldom, too.
SLIPS_IN_RESUMING: Final = {
    "a restored cell is run again": (" and group.state[child][row] == WAITING:", ":"),
    "a restored cell is run again, for a whole column is over": (
        "if state[row] == WAITING and", "if (row >= 0 or state[row] == WAITING) and"
    ),
    "a restored whole column is run again": (
        "if state[row] == WAITING and", "if (row < 0 or state[row] == WAITING) and"
    ),
    "a row group is admitted while one is restored": (
        "restoring:\n            self.on_the_spot += 1", "restoring:\n            pass"
    ),
    "a row group begins before it is restored": (
        "        else:\n            self.start(group, group", "        self.start(group, group"
    ),
    "a restored row group does not begin": (
        "if group.open:\n            self._tasks.start(group, group.startable_roots())", ""
    ),
    "a turn comes to a row group before it is restored": ("[] if following.restoring else tasks", "tasks"),
    "a restored row group is never through": ("= False\n        self._tasks.on_the_spot -= 1", "= False"),
    "a row group is restored twice": ("group.restoring = False\n", "pass\n"),
    "a row group must be restored before the run is halted": ("return  # its rows", "pass  # its rows"),
    "restored failures come too late": (
        "group.restore(event)", "group.restore(event)\n        self._tasks.start(group, group.startable_roots())"
    ),
    "restored failures drop nothing": ("self._tasks.do_without(group, self._columns[column], row, rows)", "pass"),
    "restored cells have not been done": ("            self.state[column][row] = state", "            pass"),
    "a turn is lost where a row group is through before it": ("while self.group in self._over:", "if group == before:"),
    "row groups that are over have a turn": ("self.end(group)", "pass"),
    "row groups that are over are worked again": ("while group in self._plan.earlier.over:", "while False:"),
    "the first row groups are worked again": ("self._unfinished(0)", "0"),
    "totals begin with nothing": ("for tally in earlier.over.values():", "for tally in ():"),
    "totals begin without the rows that were dropped": ("totals.dropped += tally.dropped", "pass"),
    "a tally does not say that rows were cut off": ("bool(self.cut))", "False)"),
    "a row group that was cut is over": ("not (group.cut or ", "not ("),
    "a row group of a failed run is over": ("(group.cut or self.failed)", "bool(group.cut)"),
    "dropped rows are in no tally": ("self.dropped += len(gone)", "pass"),
    "what ends the run drops its row first": ("        if halts:  #", DROPS + "        if halts:  #"),
    "rows of what ends the run are dropped": ("cut=halts)", "cut=False)"),
}  # fmt: skip


def planted(old: str, new: str) -> ModuleType:
    """Load the tracker and its data modules with a slip in one of them, beside the real ones."""
    sources = {module.__name__: Path(str(module.__file__)).read_text() for module in MODULES}
    found = sum(source.count(old) for source in sources.values())
    assert found == 1, f"the tracker has changed: {old!r} is there {found} times, not once"
    module = tracker_module
    with pytest.MonkeyPatch.context() as patch:
        for name, source in sources.items():
            module = ModuleType(name)
            vars(module)["__package__"] = tracker_module.__package__
            patch.setitem(sys.modules, name, module)  # the next one imports from it; dataclasses look themselves up
            exec(compile(source.replace(old, new), name, "exec"), vars(module))  # noqa: S102 - it is our own
    return module


def test_every_slip_can_be_planted() -> None:
    """A change of the tracker that leaves a slip without its place is noticed at once, not by the long tests."""
    sources = [Path(str(module.__file__)).read_text() for module in MODULES]
    slips = {**SLIPS, **SLIPS_IN_RESUMING}
    assert {slip for slip, (old, _) in slips.items() if sum(source.count(old) for source in sources) != 1} == set()


@pytest.mark.stress
@pytest.mark.parametrize(("old", "new"), SLIPS.values(), ids=SLIPS)
def test_a_slip_in_the_tracker_is_caught(old: str, new: str) -> None:
    """The machine finds each bug that is planted, so that it would have found it had we made it."""
    assert_caught(planted(old, new), resumed=0)


@pytest.mark.stress
@pytest.mark.parametrize(("old", "new"), SLIPS_IN_RESUMING.values(), ids=SLIPS_IN_RESUMING)
def test_a_slip_in_resuming_is_caught(old: str, new: str) -> None:
    """The same for what only matters in a run that resumes an earlier one."""
    assert_caught(planted(old, new), resumed=1)


def assert_caught(module: ModuleType, resumed: float) -> None:
    """Assert that the machine finds a rule that does not hold, or stumbles over what the slip leads to."""
    with pytest.raises((AssertionError, LookupError, module.IllegalEventError)):
        run_state_machine_as_test(type("Planted", (Machine,), {"module": module, "resumed": resumed}), settings=QUICK)
