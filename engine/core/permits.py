"""Permits: how many requests of a lane may be in flight, and when the next one may be sent. Pure.

Theory of operation
    The tracker asks for the permits of each lane once, when a run is set up, with a function from a Lane (`PermitsOf`).
    They `begin` when the run does, and `close` when it is over. By default a lane has permits of its own:

        FixedLimit   a number that only the user changes; the lane counts by itself, so that a task costs nothing extra
        Throttle     a limit that follows the endpoint, and a pace (throttle.py)
        Share        a part of such a limit that several runs share (shared_limit.py)

    A source that is shared hands each run a `Permits` of its own, which forwards to it: the source then knows who
    asks. It may be shared by the runs of a process, or divide a lease that other processes hold parts of as well.

    `earliest` is asked before every request and once more when the lane stops sending, so a source always knows how
    many requests of each run are waiting, also that there are none any more. It uses that to divide permits, and to
    find the runs to wake: when permits become free through somebody else, it calls the `wake` of a run that is waiting
    for them, from any thread. The run then asks again. A source wakes no run that has nothing waiting, except when
    the endpoint has changed.

    Every `sent` is followed by one `ended`, also when a run breaks off. Times are seconds of the clock that the shell
    uses. Runs that share a source use the same clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .events import Cancelled, Done, Failed, Resized
    from .graph import Lane
    from .limits.adaptive_limit import Change
    from .run_circuit import RunCircuit

Permit = TypeVar("Permit")
"""What a source wants to remember of one request."""


@dataclass(frozen=True, slots=True)
class FixedLimit:
    """A number of permits that follows nothing and is not shared."""

    limit: int


class Permits(Protocol[Permit]):
    """The permits of one lane in one run."""

    @property
    def limit(self) -> int:
        """How many may be in flight now, those of other runs included."""
        ...

    @property
    def runs(self) -> int:
        """The most runs that have shared the permits while this one lasted, itself included."""
        ...

    @property
    def circuit(self) -> RunCircuit | None:
        """The circuit of the endpoint; None before the run begins, and for what is no endpoint."""
        ...

    @property
    def history(self) -> Sequence[Change]:
        """How the limit has changed; empty where it never does."""
        ...

    @property
    def rate_limited_since(self) -> float | None:
        """The time since which every request has been rate limited; None after an answer."""
        ...

    @property
    def shut(self) -> bool:
        """Whether the endpoint refuses everything for an unknown time, so that the next requests are single probes.

        Requests that it refused need no waits of their own then.
        """
        ...

    def begin(self, now: float) -> None:
        """Begin: the run may now ask for permits."""
        ...

    def close(self, now: float) -> None:
        """Leave the permits to others: the run is over, and every request has ended."""
        ...

    def cap(self, most: int, now: float) -> None:
        """Change how many may ever be in flight; a limit that follows the endpoint stays below."""
        ...

    def earliest(self, waiting: int, now: float) -> float:
        """Return when the next of the `waiting` requests may be sent.

        `now`: one may be sent at once. Later: not before then. Infinity: not before a request has ended, here or in
        another run, which then calls `wake`.
        """
        ...

    def sent(self, now: float) -> Permit:
        """Take a permit for a request that is being sent."""
        ...

    def ended(self, permit: Permit, event: Done | Resized | Failed | Cancelled, now: float) -> None:
        """Give a permit back, with how its request ended."""
        ...


Wake: TypeAlias = Callable[[], None]
PermitsOf: TypeAlias = "Callable[[Lane, Wake], Permits[Any] | FixedLimit]"
"""From a lane, and what to call when permits become free, to its permits. Any: each source has its own permits."""
