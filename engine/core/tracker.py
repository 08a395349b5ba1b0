"""The tracker: the only place where the state of a run changes. Events in, commands out; no clock, no IO, no asyncio.

Theory of operation
    A run is a row of row groups, and a row group is a small table of task states. A task is one cell, or a whole
    column of a row group (`row=WHOLE`). Its life:

        WAITING -> READY -> RUNNING -> DONE | FAILED
                     ^         |                        SKIPPED: the row was dropped, or the run was halted,
                     +- DUE <--+  (a retry)             before the task had ended

    WAITING becomes READY when counters reach zero, never by a scan: `missing[column][row]` counts the cells of this
    row, and `missing_whole[column]` the whole columns of this group, that are still awaited. READY becomes RUNNING when
    the column's lane has a permit, and at once where it has no lane. `Tasks.settle` is the only place where a task
    ends: it counts the task and starts its children. A row group is committed when its number of `open` columns reaches
    zero.

    A task that fails for good drops its row, nulls its cell or halts the run, as its column says. When a row is
    dropped, its tasks that have not started are skipped. Those in flight end by themselves, without another attempt,
    and release nothing, as their children are skipped already. Once no row is left, whole columns are skipped too. Rows
    that are dropped together are all taken out before any task is released, so that no column starts for rows that are
    about to go.

    What an earlier run had of a row group is put back before anything of the group starts: `Admit.known` asks the shell
    for the values, `Restored` reports them, and those tasks end as if they had just been worked. Row groups that are
    over are never opened.

    While a run is paused, lanes start nothing: tasks in flight end, and so does the work without a lane that follows
    from them. A spent budget does the same first. If it is raised before the last task in flight has ended, the run
    continues as if nothing had been; else the run is halted. A paused run with a spent budget is not halted.

    Halting (cancelled, failed, too many failures, budget spent, deadline): what has not started is skipped, the shell
    cancels what is in flight, and `Stop` follows when the last task has ended. Rows that are whole by then are
    committed, unless the run failed. Rows lost to a halt are cut off, not dropped, and so is the row whose failure was
    the reason: a later run can still work them. Therefore nothing may start that would do without them, and a whole
    column that fails is recorded as failed for the rows that were cut off, too.

    The tracker decides and `Tasks` carries out: what each event means is here, what a task starts or skips is there.

    An illegal event (such as Done for a task that is not running) raises IllegalEventError, and nothing has changed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from . import events
from .events import WHOLE, IllegalEventError
from .hedges import Hedges
from .lanes import Lanes
from .policy import CostBudget, Outcomes, Policies
from .row_groups import DONE, DUE, FAILED, RUNNING
from .tasks import Tasks
from .throttle import own_permits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .events import Command, Event, Reason, Usage
    from .graph import Graph
    from .lane_queue import LaneState
    from .limits.adaptive_limit import Change
    from .policy import Exhausted
    from .row_groups import GroupState, Plan

_SPARING: Final = 0.9
"""From this share of a budget on, no cell gets a second request."""


class Tracker:
    """The state of one run. `handle` is the only way to change it; everything else only reads."""

    def __init__(self, graph: Graph, plan: Plan, policies: Policies | None = None) -> None:
        """Take what to do; nothing starts before the event Started."""
        policies = policies or Policies()
        self.graph = graph
        self.plan = plan
        self._lanes = Lanes(graph, policies.permits or own_permits(policies.retry), policies.outage_after)
        self._tasks = Tasks(graph, plan, self._lanes)
        self._hedges = Hedges(self._lanes)
        self._open = self._tasks.open
        self._groups = self._open.by_id
        self._sizes = self._open.sizes
        self.totals = self._tasks.totals
        self.halted: Reason | None = None
        self.exhausted: Exhausted | None = None
        """What has spent the error budget."""
        self.paused = False
        self.outage: tuple[str, float] | None = None
        """The lane whose endpoint has been down too long, and for how many seconds."""
        self._retry = policies.retry
        self._cost = policies.cost
        self._cancelled = False
        self._draining = False  # the budget is spent, and nothing has been given up yet
        self._columns = graph.columns
        self._counts = self.totals.columns
        self._queued = [column.id for column in graph.columns if column.lane is not None]
        self._outcomes = [Outcomes(policies.errors) for _ in graph.columns]
        self.timed = policies.retry.give_up_after is not None or bool(self._lanes.metered)
        """Whether `handle` needs the time."""
        self._now = self._began = 0.0
        self._started = False
        self._stopped = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.Started: self._on_started,
            events.Restored: self._on_restored,
            events.Done: self._on_done,
            events.Resized: self._on_resized,
            events.Failed: self._on_failed,
            events.Cancelled: self._on_cancelled,
            events.Due: self._on_due,
            events.Slow: self._on_slow,
            events.HedgeEnded: self._on_hedge_ended,
            events.Committed: self._on_committed,
            events.CommitFailed: self._on_commit_failed,
            events.Woken: self._on_woken,
            events.Halted: self._on_halted,
            events.Paused: self._on_paused,
            events.Resumed: self._on_resumed,
            events.Limited: self._on_limited,
            events.Budgeted: self._on_budgeted,
        }

    def handle(self, event: Event, now: float = 0.0) -> list[Command]:
        """Apply an event and return the commands that follow from it, in order.

        `now`: the seconds of any clock that does not go back, the same for all runs that share permits. Needed only
        where the tracker is `timed`.
        """
        self._now = now
        tasks = self._tasks
        out = tasks.out = []
        self._handlers[type(event)](event)
        if self._hedges.waiting:
            self._hedge_waiting()
        if self._draining and not (self.paused or tasks.on_the_spot or self.totals.running):
            self._skip_the_rest()
        elif self.halted is None and not self.paused:
            tasks.fill(now)
        while self._lanes.undecided and self.halted is None and not self.paused and self._decide():
            tasks.fill(now)
        if not (self._groups or self._stopped) and (self.over or self._open.all_admitted):
            self._stopped = True
            out.append(events.Stop(self.halted))
        return out

    def on_permits(self, look: Callable[[int], None]) -> None:
        """Have a function called with a lane's number when another run has freed permits for it.

        It is called from any thread, and has to lead to the event Woken.
        """
        self._lanes.on_permits = look

    def close(self, now: float) -> None:
        """Give back the permits of all that is in flight. For the end of a run, also of one that broke off."""
        self._hedges.close(now)
        self._lanes.close(now)

    @property
    def over(self) -> bool:
        """Whether the run is halted, and what had not started has been skipped."""
        return self._tasks.over

    @property
    def began(self) -> float:
        """When the run began, by the clock that is passed in."""
        return self._began

    @property
    def lanes(self) -> list[LaneState]:
        """The lanes at this moment, in the order of the graph's."""
        return self._lanes.states(self._began, self._now)

    @property
    def limits(self) -> dict[str, Sequence[Change]]:
        """How the limits that follow an endpoint have changed during this run, by lane."""
        return self._lanes.limits(self._began)

    @property
    def cost(self) -> CostBudget | None:
        """The budget of costs, with what is spent so far."""
        return self._cost

    @property
    def committing(self) -> list[int]:
        """The row groups that the sink is writing."""
        return [group.id for group in self._groups.values() if group.committing]

    # What happened

    def _on_started(self, _: events.Started) -> None:
        if self._started:
            raise IllegalEventError("the run has started already")
        self._started = True
        self._began = self._now
        self._lanes.begin(self._now)
        if self._cost is not None:
            self._tasks.out += self._cost.crossed()
            if self._cost.spent:
                self._halt("budget")

    def _on_restored(self, event: events.Restored) -> None:
        group = self._groups.get(event.group)
        if group is None and self.over:
            return  # its rows have been cut off meanwhile
        if group is None or not group.restoring:
            raise IllegalEventError(f"row group {event.group} is not being restored")
        group.check(event)
        group.restoring = False
        self._tasks.on_the_spot -= 1
        for column, size in event.sizes.items():
            group.bytes += size
            self._sizes[column] += size
        ended = group.restore(event)
        for column, row, rows in event.failed:  # before anything is released
            self._tasks.do_without(group, self._columns[column], row, rows)
        for column, row, state in ended:
            self._tasks.settle(group, self._columns[column], row, state)
        if group.open:
            self._tasks.start(group, group.startable_roots())

    def _on_done(self, event: events.Done) -> None:
        tasks = self._tasks
        group = tasks.release(event, self._now)
        outcomes = self._outcomes[event.column]
        outcomes.ended += 1
        if event.size:
            group.bytes += event.size
            self._sizes[event.column] += event.size
        tasks.settle(group, self._columns[event.column], event.row, DONE)
        if outcomes.failed_at:
            if outcomes.have_first_success():
                outcomes.forget_overtaking(self._open.in_flight(event.column))
            self._judge(event.column)
        if self._cost is not None and event.usage is not None:
            self._pay(self._cost, event.column, event.usage)

    def _on_resized(self, event: events.Resized) -> None:
        """Continue with other rows; only in the sequential engine, where nothing else of the group is in flight."""
        group = self._tasks.release(event, self._now)
        self._outcomes[event.column].ended += 1
        group.bytes += event.size
        self._sizes[event.column] += event.size
        if event.rows:
            group.resize(event.rows)
            group.worked[event.column] = event.rows
        else:
            dropped = self.totals.dropped, group.dropped
            self._tasks.drop(group, group.live_rows())
            self.totals.dropped, group.dropped = dropped  # the column took them out, no failure did
        self._tasks.settle_whole(group, self._columns[event.column], DONE)

    def _on_failed(self, event: events.Failed) -> None:
        group = self._tasks.release(event, self._now)
        failure, now, lane = event.failure, self._now, self._tasks.lane_of[event.column]
        counts, limited = 1 if lane is None else lane.counts(event, excused=self._tasks.excused), failure.rate_limited
        failed, counted, since = group.count_attempt(event.column, event.row, now, rate_limited=limited, counts=counts)
        delay = self._retry.delay(failure, failed, counted, max(0.0, now - since))
        gone = self.over or not (group.live if event.row == WHOLE else group.alive[event.row])
        self._hedges.waiting.pop((event.group, event.column, event.row), None)
        if limited and lane is not None:
            self._hedges.rate_limited(lane, now)
        undecided = delay is None and not gone and self._lanes.suspend(lane, event, failed)
        if delay is None and not undecided:
            self._fail(group, event, failed)
        elif gone:
            self._tasks.give_up(group, event)
        else:
            self.totals.waiting_to_retry += 1
            group.state[event.column][event.row] = DUE
            if delay is not None:
                self._retry_after(self._lanes.wait(lane, failure, delay), event)
        if self._cost is not None and event.usage is not None:
            self._pay(self._cost, event.column, event.usage)

    def _on_cancelled(self, event: events.Cancelled) -> None:
        if not self._cancelled:
            raise IllegalEventError(f"{event}, but nothing has been cancelled")
        self._tasks.give_up(self._tasks.release(event, self._now), event)

    def _on_due(self, event: events.Due) -> None:
        group = self._groups.get(event.group)
        if group is not None and group.is_in(DUE, event.column, event.row):  # else dropped or halted while it waited
            self.totals.waiting_to_retry -= 1
            self._tasks.ready(group, event.column, event.row, first=True)

    def _on_slow(self, event: events.Slow) -> None:
        """Send a second request for a cell, unless the run is about to end or spends the last of a budget."""
        group = self._groups.get(event.group)
        if group is None or not group.is_in(RUNNING, event.column, event.row):
            raise IllegalEventError(f"{event} for a task that is not running")
        self._hedge(group, event)

    def _hedge(self, group: GroupState, event: events.Slow) -> None:
        near = self._cost is not None and self._cost.is_near(_SPARING)
        if near or self.halted is not None or self.paused or not group.alive[event.row]:
            return
        lane, count = self._tasks.lane_of[event.column], self._counts[event.column]
        if self._hedges.take(event, lane, count, self._now):
            self._tasks.out.append(events.Hedge(event.group, event.column, event.row))

    def _hedge_waiting(self) -> None:
        """Send the second requests for which there are permits now, before the lanes are filled."""
        waiting, self._hedges.waiting = self._hedges.waiting, {}
        for event in waiting.values():
            group = self._groups.get(event.group)
            if group is not None and group.is_in(RUNNING, event.column, event.row):
                self._hedge(group, event)

    def _on_hedge_ended(self, event: events.HedgeEnded) -> None:
        self._hedges.give_back(event, self._now)
        if self._cost is not None and event.usage is not None:
            self._pay(self._cost, event.column, event.usage)

    def _on_committed(self, event: events.Committed) -> None:
        group = self._open.committing(event.group)
        self.totals.committed += group.live
        self._tasks.close_group(group)

    def _on_commit_failed(self, event: events.CommitFailed) -> None:
        self._tasks.lose(self._open.committing(event.group))
        self._halt("failed")

    def _on_woken(self, event: events.Woken) -> None:
        lane = self._lanes.queues[event.lane]
        if lane.permits is None:
            raise IllegalEventError(f"lane {event.lane} has a fixed limit and is never woken")
        lane.wakes_at = -math.inf
        if self.halted is None and not self.paused and self._now >= self._lanes.gives_up_at(lane):
            self.outage = lane.name, self._now - (lane.circuit.since if lane.circuit and lane.circuit.since else 0.0)
            self._halt("outage")
        if not lane.touched:
            self._lanes.touch(lane)

    # What comes from outside

    def _on_halted(self, event: events.Halted) -> None:
        if not self._stopped:
            self._halt(event.reason)

    def _on_paused(self, _: events.Paused) -> None:
        self.paused = True
        self._lanes.stop(self._now)

    def _on_resumed(self, _: events.Resumed) -> None:
        self.paused = False
        self._lanes.touch_all()

    def _on_limited(self, event: events.Limited) -> None:
        self._lanes.cap(event.lane, event.limit, self._now)

    def _on_budgeted(self, event: events.Budgeted) -> None:
        known = {} if self._cost is None else self._cost.known
        self._cost = CostBudget(event.max_cost, event.max_tokens, event.prices, event.dollars, event.tokens, known)
        if self._cost.spent and self.halted is None and not self._stopped:
            self._halt("budget")
        elif self._draining and not self._cost.spent:
            self.halted, self._draining = None, False
            self._lanes.touch_all()

    # How a task fails

    def _fail(self, group: GroupState, event: events.Failed, attempts: int) -> None:
        """End a task that failed for good: drop the row, null the cell or halt the run."""
        column, failure = self._columns[event.column], event.failure
        rows = group.undropped() if event.row == WHOLE else None
        self._tasks.out.append(events.Record(group.id, column.id, event.row, failure, attempts, rows))
        halts = failure.fatal or column.on_error == "raise"
        if halts:  # before a row goes or the task has ended: that might start what waited for them, or commit the group
            self._halt("failed")
        self._tasks.do_without(group, column, event.row, rows, cut=halts)
        self._tasks.settle(group, column, event.row, FAILED)
        counts = not (failure.retryable or failure.verdict)
        self._outcomes[column.id].add_failure((group.id, max(event.row, 0)), counts=counts)
        self._judge(column.id)

    def _retry_after(self, delay: float, event: events.Failed) -> None:
        self.totals.retries += 1
        self._tasks.out.append(events.RunAfter(delay, event.group, event.column, event.row))

    def _decide(self) -> bool:
        """End or retry the undecided tasks of a lane about which something is known now; return whether there are."""
        tasks, excused = self._lanes.decided(self.totals.waiting_to_retry)
        for event, attempts in tasks:
            group = self._groups.get(event.group)
            if group is None or not group.is_in(DUE, event.column, event.row):
                continue  # dropped or halted while it waited
            if excused:
                self._retry_after(0.0, event)
            else:
                self.totals.waiting_to_retry -= 1
                group.state[event.column][event.row] = RUNNING  # else its row would skip it
                self._fail(group, event, attempts)
        return bool(tasks)

    def _pay(self, cost: CostBudget, column: int, usage: Usage) -> None:
        """Add the cost of an attempt; once the budget is spent, no other attempt begins."""
        self._cost = paid = cost.paid(column, usage)
        self._tasks.out += paid.crossed(cost)
        if paid.spent and self.halted is None:
            self._halt("budget")

    def _judge(self, column: int) -> None:
        """End the run if the error budget of a column is spent."""
        outcomes = self._outcomes[column]
        if self.halted is None and outcomes.are_bad:
            nothing = not any(self._counts[i].completed for i in (column, *self._queued))
            exhausted = outcomes.exhausted(self._open.in_flight(column), nothing_succeeded=nothing)
            if exhausted is not None:
                self.exhausted = exhausted._replace(column=column)
                self._halt("early_shutdown")

    # How a run ends early

    def _halt(self, reason: Reason) -> None:
        """End the run early: skip what has not started, and cancel the rest unless only the budget is spent.

        "failed" outranks the other reasons, and each of those outranks "budget".
        """
        self._tasks.failed |= reason == "failed"
        if reason != "budget" and not self._cancelled:
            self._cancelled = True
            self._tasks.out.append(events.Cancel())
        if self.halted is None:
            self._lanes.stop(self._now)
            self.halted, self._draining = reason, reason == "budget"
            if not self._draining:
                self._skip_the_rest()
            return
        self.halted = reason if reason == "failed" or self.halted == "budget" else self.halted
        if self._draining and reason != "budget":
            self._skip_the_rest()

    def _skip_the_rest(self) -> None:
        self._tasks.over, self._draining = True, False
        for group in list(self._groups.values()):
            if not group.committing:
                self._tasks.drop(group, group.unfinished(), cut=True)
