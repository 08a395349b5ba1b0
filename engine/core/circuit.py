"""The circuit of an endpoint: during an outage requests wait, and single probes find its end. Pure.

Theory of operation
        closed       requests are sent
        open         the endpoint does not work: nothing is sent before the next probe is due
        half-open    open, and a probe is in flight

    Connection errors, time-outs and 5xx are failures here; whatever else the endpoint sends is an answer. An answer to
    a request that was sent after the first failure closes the circuit. The circuit opens only after a success, so an
    endpoint that never answered fails a run as before.

    It opens after so many failures without an answer in between as chance brings about once in a million. The share of
    failures until then gives that number, so an endpoint that fails at a steady rate has no outage. There must also be
    as many as there are requests in flight: a balancer that loses one of its servers cuts many connections at once.
    A row counts once among time-outs and 5xx, which some prompts always lead to; connection errors count each time. At
    the end of a run, when the last rows wait for their next attempts, there are not so many: then two connection errors
    are enough, and one failure of any kind soon after an outage.

    Failures count as attempts of their rows until the circuit opens, and are forgiven then: all since the last answer
    that would have closed it. While it is open no failure counts, nor does a later one of a request that was sent
    before the outage ended. A row whose last attempt fails is therefore undecided until such an answer arrives (the row
    has failed) or the circuit opens (it has not).

    Probes come at intervals of an eighth of the outage so far. They are uneven, so that no rhythm of the endpoint
    hides its good times.

Sources: circuit breakers (Nygard, Release It!); the additive recurrence of the golden ratio (Weyl).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from .events import Failed

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .events import Cancelled, Done, Failure, Resized, Usage

State: TypeAlias = Literal["closed", "open", "half-open"]

_DOWN: Final = frozenset({"connection", "timeout", "server", "truncated"})
_EACH: Final = frozenset({"connection", "truncated"})
"""Kinds of failure that count each time, also for the same row."""
_UNSENT: Final = frozenset({None, "empty_prompt", "too_large", "function"})
"""Failures without a request, which show nothing about the endpoint."""
_LEAST: Final = 5
_ALONE: Final = 2
"""The failures of connections that are enough where nothing else is in flight or waits."""
_RECENT: Final = 60.0
"""Seconds after an outage in which one failure is enough where nothing else is in flight or waits."""
_CHANCE: Final = 1e-6
_AS_IF: Final = 3.0, 10.0
"""The share of failures starts as if so many of so many requests had failed."""
_MOST_SHARE: Final = 0.95
_REMEMBERED: Final = 512
"""The outcomes after which earlier ones count half."""
_PART: Final = 8
_SPACE: Final = 0.5, 30.0
"""Seconds between probes, at least and at most."""
_GOLDEN: Final = 0.6180339887498949


class Request(NamedTuple):
    """A request in flight: its task, when it was sent, how many outages had ended by then, whether it is a probe."""

    task: Hashable
    at: float
    ended: int
    probe: bool


class Circuit:
    """Whether one endpoint works. Times are seconds of any clock that does not go back."""

    __slots__ = (
        "_began", "_closed", "_evidence", "_failures", "_forgiven", "_lasted", "_next", "_outcomes", "_probes",
        "_probing", "_succeeded", "_suspects", "_unreachable", "answers", "outages", "since",
    )  # fmt: skip

    def __init__(self) -> None:
        """Start closed, without having seen a success."""
        self.since: float | None = None
        """When the outage began, by its first failure; None while the circuit is closed."""
        self.outages = 0
        self.answers = 0
        self._lasted = 0.0
        self._succeeded = False
        self._suspects: dict[Hashable, int] = {}  # the failures that may be of an outage, by task
        self._unreachable = False  # all of them are connection errors
        self._began = 0.0  # the first of them
        self._closed = -math.inf
        self._evidence = 0
        self._forgiven: dict[Hashable, int] = {}
        self._failures, self._outcomes = _AS_IF
        self._next = -math.inf
        self._probes = self._probing = 0

    @property
    def state(self) -> State:
        """The state, by its standard name."""
        if self.since is None:
            return "closed"
        return "half-open" if self._probing else "open"

    def lasted(self, now: float) -> float:
        """Return how many seconds all outages have lasted so far."""
        return self._lasted + (0.0 if self.since is None else now - self.since)

    def earliest(self, now: float) -> float:
        """Return when the next request may be sent: `now`, or later."""
        return now if self.since is None else max(now, self._next)

    def sent(self, task: Hashable, now: float) -> Request:
        """Count a request that is being sent."""
        probe = self.since is not None
        if probe:
            self._probing += 1
            self._schedule(now)
        return Request(task, now, self._ended, probe)

    def ended(
        self, request: Request, event: Done | Resized | Failed | Cancelled, now: float, in_flight: int, waiting: int
    ) -> bool:
        """Learn from how a request ended; return whether the attempt is excused.

        `in_flight`, `waiting`: how many others there are at this moment.

        A success without a request shows nothing: the response cache answered it.
        """
        if request.probe and request.ended == self._ended:
            self._probing -= 1
        if type(event) is Failed:
            if self._failed(request, event.failure, now):
                return True
            if self._suspects and self._evidence >= self._needed(in_flight, waiting, now):
                self._open(now)
                return True
            return False
        usage: Usage | None = getattr(event, "usage", None)
        if usage is not None and getattr(usage, "requests", True):  # an Asked has 0 of them
            self._succeeded = True
            self._answered(request, now)
        return False

    @property
    def has_worked(self) -> bool:
        """Whether the endpoint has answered a request."""
        return self._succeeded

    def probe_now(self, now: float) -> None:
        """Make the next probe due: nobody has looked at the endpoint for a time."""
        self._next = now

    def forget(self, number: int) -> None:
        """Forget the tasks of a run that is over: they are pairs of this number and the task itself."""
        for tasks in (self._suspects, self._forgiven):
            for task in [task for task in tasks if isinstance(task, tuple) and task[0] == number]:
                del tasks[task]
        if not self._suspects:
            self._evidence = 0

    def suspects(self, failure: Failure) -> bool:
        """Return whether a failure that has been counted may be one of an outage that is about to be found."""
        return self._succeeded and is_outage(failure)

    def forgiven(self, task: Hashable) -> int:
        """Return how many attempts of a task an outage has excused since they were counted; once for each."""
        return self._forgiven.pop(task, 0) if self._forgiven else 0

    @property
    def _ended(self) -> int:
        return self.outages - (self.since is not None)

    def _failed(self, request: Request, failure: Failure, now: float) -> bool:
        """Count a failure that may be of an outage; return whether it is one of an outage that has been found."""
        if not is_outage(failure):
            if failure.kind not in _UNSENT and failure.kind not in _DOWN:
                self._answered(request, now)
            return False
        if self.since is not None or request.ended < self._ended:
            return True
        if not self._succeeded:
            return False
        if not self._suspects:
            self._began = now
        each = failure.kind in _EACH
        self._evidence += each or request.task not in self._suspects
        self._unreachable = each and (self._unreachable or not self._suspects)
        self._suspects[request.task] = self._suspects.pop(request.task, 0) + 1  # the latest comes last
        return False

    def _needed(self, in_flight: int, waiting: int, now: float) -> int:
        """Return the number of failures in a row that chance brings about too rarely."""
        if not (in_flight or waiting):
            if now < self._closed + _RECENT:
                return 1
            if self._unreachable:
                return _ALONE
        share = min(_MOST_SHARE, self._failures / self._outcomes)
        return max(_LEAST, in_flight, math.ceil(math.log(_CHANCE) / math.log(share)))

    def _open(self, now: float) -> None:
        task = next(reversed(self._suspects))
        self._suspects[task] -= 1  # the failure that opens the circuit is excused at once
        for task, count in self._suspects.items():
            self._forgiven[task] = self._forgiven.get(task, 0) + count
        self._suspects = {}
        self._evidence = 0
        self.since = self._began
        self.outages += 1
        self._probing = 0
        self._schedule(now)

    def _answered(self, request: Request, now: float) -> None:
        self._evidence = 0
        if (self._suspects or self.since is not None) and request.at < self._began:
            return  # it was sent before the failures, and shows nothing about the time since
        self.answers += 1
        if self.since is not None:
            self._lasted += now - self.since
            self.since, self._closed = None, now
            self._probing = 0
        failures = sum(self._suspects.values()) if self._suspects else 0
        self._failures += failures
        self._outcomes += 1 + failures
        if failures:
            self._suspects = {}
        if self._outcomes > _REMEMBERED:
            self._failures /= 2
            self._outcomes /= 2

    def _schedule(self, now: float) -> None:
        self._probes += 1
        least, most = _SPACE
        space = min(most, max(least, (now - self._began) / _PART))
        self._next = now + space * (0.5 + 0.5 * (self._probes * _GOLDEN % 1))


def is_outage(failure: Failure) -> bool:
    """Return whether a failure is one that an outage leads to."""
    return failure.kind in _DOWN and failure.retryable and not failure.fatal
