"""RunCircuit: what one run sees of an endpoint's circuit, which other runs may share. Pure.

An open circuit is open for all of them, and the probes are those of all together. Attempts that an outage excuses,
outages and their seconds are those of this run, counted since it began.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from .events import Failed

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .circuit import Circuit, Request
    from .events import Cancelled, Done, Failure, Resized

Lock: TypeAlias = "AbstractContextManager[Any]"
"""Whatever keeps threads apart; what entering it gives is not used."""


class Peers(Protocol):
    """The other runs at the same endpoint."""

    def others(self) -> tuple[int, int]:
        """Return how many requests of other runs are in flight, and how many wait."""
        ...

    def wake_others(self) -> None:
        """Have the other runs look at their lanes: the circuit has opened or closed."""
        ...


class RunCircuit:
    """The circuit of an endpoint, for one run."""

    __slots__ = ("_began", "_circuit", "_lasted", "_lock", "_number", "_outages", "_peers")

    def __init__(self, circuit: Circuit, now: float, number: int = 0, lock: Lock | None = None) -> None:
        """Begin to follow the circuit. `number` tells this run's tasks from those of others."""
        self._circuit = circuit
        self._number = number
        self._lock: Lock = nullcontext() if lock is None else lock
        self._peers: Peers | None = None
        self._began = now
        self._outages = circuit.outages - (circuit.since is not None)
        self._lasted = circuit.lasted(now)

    def share_with(self, peers: Peers) -> None:
        """Take other runs into account."""
        self._peers = peers

    def close(self) -> None:
        """Keep the circuit as it is: the run is over."""
        self._circuit, self._peers = copy.copy(self._circuit), None

    @property
    def since(self) -> float | None:
        """When the outage began, for a later run when it began itself; None while the circuit is closed."""
        since = self._circuit.since
        return None if since is None else max(since, self._began)

    @property
    def outages(self) -> int:
        """How many outages there were since the run began, with the one that it began in."""
        return self._circuit.outages - self._outages

    @property
    def answers(self) -> int:
        """How many answers the endpoint has given."""
        return self._circuit.answers

    def lasted(self, now: float) -> float:
        """Return how many seconds all outages have lasted since the run began."""
        return self._circuit.lasted(now) - self._lasted

    def earliest(self, now: float) -> float:
        """Return when the next request may be sent: `now`, or later."""
        return self._circuit.earliest(now)

    def sent(self, task: Hashable, now: float) -> Request:
        """Count a request that is being sent."""
        if self._circuit.since is None:
            return self._circuit.sent((self._number, task), now)
        with self._lock:
            return self._circuit.sent((self._number, task), now)

    def ended(
        self, request: Request, event: Done | Resized | Failed | Cancelled, now: float, in_flight: int, waiting: int
    ) -> bool:
        """Learn from how a request ended; return whether the attempt is excused.

        `in_flight`, `waiting`: how many other requests of this run there are at this moment.
        """
        circuit, peers = self._circuit, self._peers
        with self._lock:
            if peers is not None and type(event) is Failed:
                others = peers.others()
                in_flight, waiting = in_flight + others[0], waiting + others[1]
            since = circuit.since
            excused = circuit.ended(request, event, now, in_flight, waiting)
        if peers is not None and since != circuit.since:
            peers.wake_others()
        return excused

    def suspects(self, failure: Failure) -> bool:
        """Return whether a failure that has been counted may be one of an outage that is about to be found."""
        return self._circuit.suspects(failure)

    def forgiven(self, task: Hashable) -> int:
        """Return how many attempts of a task an outage has excused since they were counted; once for each."""
        return self._circuit.forgiven((self._number, task))
