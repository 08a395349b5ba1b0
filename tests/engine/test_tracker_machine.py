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
from typing import TYPE_CHECKING, Final

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from rowloop.engine import lanes, row_groups
from rowloop.engine import tracker as tracker_module
from rowloop.engine.events import WHOLE, Cancelled, CommitFailed, Committed, Done, Due, Failed, Halted, Started
from rowloop.engine.graph import Lane, Node, compile_graph
from rowloop.engine.policy import ErrorBudget, RetryPolicy
from rowloop.engine.row_groups import Plan
from tracker_reference import BROKEN, FATAL, FLAKY, LATER, LIMITED, Setup, Shell

if TYPE_CHECKING:
    from rowloop.engine.events import Event, Failure, Reason
    from rowloop.engine.graph import OnError

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
REASONS: Final[tuple[Reason, ...]] = ("cancelled", "early_shutdown", "failed")


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
    stateful = draw(st.sampled_from(names)) if draw(st.booleans()) else ""
    columns = [replace(node, stateful=node.strategy == "whole" and node.name == stateful) for node in columns]
    return draw(st.permutations(columns))


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    """Draw a run to be."""
    return Setup(
        draw(nodes()),
        Plan(draw(st.integers(1, 40)), draw(st.integers(1, 10)), draw(st.integers(1, 60))),
        RetryPolicy(draw(st.integers(1, 3)), wait=float, longest_wait=2.0),
        ErrorBudget(draw(st.integers(1, 10)), draw(st.sampled_from([None, None, 0.0, 0.25, 0.5, 1.0]))),
    )


MODULES = (row_groups, lanes, tracker_module)
"""The tracker and the data that it alone changes, in the order in which they import one another."""


class Machine(RuleBasedStateMachine):
    """Decides what happens to a run: which attempt ends and how, which timer goes off, when somebody has had enough."""

    module: ModuleType = tracker_module
    shell: Shell

    @initialize(setup=setups(), early=st.integers(0, 30), end=st.integers(0, 2**16))
    def start(self, setup: Setup, early: int, end: int) -> None:
        """Begin; now and then the run is cancelled before it has."""
        self.end = random.Random(end)  # noqa: S311 - no secret
        graph = compile_graph(setup.nodes)
        self.shell = Shell(self.module.Tracker(graph, setup.plan, setup.retry, setup.budget), setup)
        if early == 1:
            self.shell.send(Halted("cancelled"))
        self.shell.send(Started())

    @rule(at=st.integers(0, 99), failure=st.sampled_from([None, None, FLAKY, LATER, LIMITED, BROKEN, BROKEN, FATAL]))
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

    @rule(at=st.integers(0, 99))
    def end_as_told(self, at: int) -> None:
        """Let a task in flight follow Cancel."""
        if self.shell.running and self.shell.reference.cancelled:
            self.shell.cancel(at)

    @rule(reason=st.sampled_from(REASONS), luck=st.integers(0, 9))
    def halt(self, reason: Reason, luck: int) -> None:
        """Have the run end, perhaps when it has."""
        if luck == 1 or self.shell.stopped:
            self.shell.send(Halted(reason))

    @rule(steps=st.integers(1, 60), seed=st.integers(0, 2**16), health=st.sampled_from([1.0, 0.95, 0.8, 0.5]))
    def go_on(self, steps: int, seed: int, health: float) -> None:
        """Let a lot happen."""
        rng = random.Random(seed)  # noqa: S311 - no secret
        while steps and self.shell.pending:
            self.shell.go_on(rng, health)
            steps -= 1

    @rule(group=st.integers(0, 5), column=st.integers(0, 5), row=st.integers(WHOLE, 9))
    def cannot_be(self, group: int, column: int, row: int) -> None:
        """Report what cannot be: an error says so, and nothing has changed."""
        task = group, column % len(self.shell.reference.nodes), row
        events: list[Event] = [Committed(group), CommitFailed(group)] if group not in self.shell.commits else []
        if task not in self.shell.running:
            events += [Done(*task), Failed(*task, BROKEN), Cancelled(*task)]
        elif not self.shell.reference.cancelled:
            events.append(Cancelled(*task))
        if self.shell.reference.parts:
            events.append(Started())
        before = picture(self.shell.tracker)
        for illegal in events:
            with pytest.raises(self.module.IllegalEventError):
                self.shell.tracker.handle(illegal)
        assert picture(self.shell.tracker) == before
        if task not in self.shell.timers:
            assert self.shell.tracker.handle(Due(*task)) == []

    def teardown(self) -> None:
        """Let the run go to its end, whatever has happened to it."""
        if hasattr(self, "shell") and not self.shell.broken:
            self.shell.finish(self.end, health=self.end.choice((1.0, 0.9, 0.8)))
            event(f"ended: {self.shell.reference.halted}")


def picture(thing: object, *, whole: bool = True) -> object:
    """Take apart a tracker into what can be compared; row groups in queues are told by their number."""
    if isinstance(thing, dict):
        return {key: picture(value) for key, value in thing.items()}
    if isinstance(thing, list | deque):
        return [picture(value) for value in thing]
    if isinstance(thing, tuple):
        return [picture(value, whole=False) for value in thing]
    if type(thing).__module__ in {module.__name__ for module in MODULES}:
        names = [*getattr(type(thing), "__slots__", ()), *getattr(thing, "__dict__", ())]
        names = [name for name in names if name not in {"_out", "_handlers"}] if whole else ["id"]
        return {name: picture(getattr(thing, name)) for name in names}
    return bytes(thing) if isinstance(thing, bytearray) else thing


TestTracker = Machine.TestCase
TestTracker.settings = settings(max_examples=150, stateful_step_count=30, deadline=None, phases=FAST)


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_the_long_form() -> None:
    """The rules hold for thousands of longer runs, too."""
    long = settings(max_examples=2000, stateful_step_count=60, deadline=None, phases=FAST)
    run_state_machine_as_test(Machine, settings=long)


# Slips one could make: what is there in the tracker, and what stands in its place in the planted version. That a halted
# run tries nothing again has a plain test: rows for which it matters are rare in runs at random.
SLIPS: Final = {
    "a permit is not given back": ("lane.in_flight -= 1", "pass"),
    "one permit too many is given": ("lane.in_flight < lane.limit", "lane.in_flight <= lane.limit"),
    "a lane in which something changed is not filled": ("self._touched.append(lane)", "pass"),
    "a column keeps its turn": ("self.turn.rotate(-1)", "pass"),
    "a dropped cell costs its column the turn": ("elif ready:", "else:"),
    "what was dropped in the queue is run": ("return task if ready else None", "return task"),
    "a dropped row's children are released": ("if group.alive[row]:\n            for", "if True:\n            for"),
    "an empty row group's children are released": ("if group.live:\n            for", "if True:\n            for"),
    "a cell does not wait for a whole column": (" and not group.missing_whole[child] and", " and"),
    "a whole column does not wait for the last cell": ("if not left[column.id]:", "if left[column.id] == 1:"),
    "a whole column does not see its rows go": ("whole = () if group.live else (WHOLE,)", "whole = ()"),
    "rows go one by one": ("group.alive[row] = 0", "group.alive[row] = row != rows[0]"),
    "a skipped whole column counts as worked": ("0 if state == SKIPPED else group.worked", "group.worked"),
    "whole columns count rows dropped before": ("worked[column] = group.live", "worked[column] = group.size"),
    "a nulled cell takes its row along": ('if column.on_error == "null":', "if False:"),
    "a rate limit counts as an attempt": ("counted + (not event.failure.rate_limited)", "counted + 1"),
    "a cell has nine lives": ("(0, 0))", "(0, -9))"),
    "a retry waits behind the others": ("self.queues[column].rotate(1)", "pass"),
    "a retry does not wait": ("][event.row] = DUE", "][event.row] = READY"),
    "a retry that is given up still counts": ("self.totals.waiting_to_retry -= state == DUE", "pass"),
    "a halted run waits for its retries": ("frozenset({WAITING, READY, DUE})", "frozenset({WAITING, READY})"),
    "a halted run goes on": ("if self.halted is None:\n            self", "if True:\n            self"),
    "rows cut off count as dropped": ("(event.row,), cut=True)", "(event.row,))"),
    "a failure does not outrank a cancellation": ('"failed" if reason == "failed" else self.halted', "self.halted"),
    "a failed run commits": ('if not group.live or self.halted == "failed":', "if not group.live:"),
    "transient failures spend the error budget": ("if not event.failure.retryable:", "if True:"),
    "old failures are never forgotten": ("failed_at.popleft()", "break"),
    "dropped rows are committed": ("Commit(group.id, group.live_rows(), ", "Commit(group.id, range(group.size), "),
    "dropped rows count as committed": ("committed += group.live", "committed += group.size"),
    "row groups are admitted without bound": ("and len(self._groups) < self._open_groups", ""),
    "full lanes do not hold up the next row group": ("self._congested += 1", "pass"),
    "full lanes hold up the next row group for ever": ("self._congested -= 1", "pass"),
    "one row group is admitted at a time": ("while self._wants_rows():", "if self._wants_rows():"),
    "a stateful column does not wait for its turn": ("+= turn.group != group.id", "+= 0"),
    "a turn is not passed on": ("self._pass_on(group, column)", "pass"),
    "a turn is lost where a row group is through before it": ("while self.group in self._over:", "if group == before:"),
    "Stop comes twice": ("self._stopped = True", "pass"),
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


@pytest.mark.parametrize(("old", "new"), SLIPS.values(), ids=SLIPS)
def test_a_slip_in_the_tracker_is_caught(old: str, new: str) -> None:
    """The machine finds each bug that is planted, so that it would have found it had we made it."""
    module = planted(old, new)
    with pytest.raises((AssertionError, LookupError)):  # a rule that does not hold, or what the slip leads to
        run_state_machine_as_test(type("Planted", (Machine,), {"module": module}), settings=QUICK)
