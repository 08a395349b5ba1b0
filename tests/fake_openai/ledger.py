"""What the server remembers between requests: counts, who asked what how often, and what may still be admitted."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from .behaviour import Behaviour
from .counters import Counters


@dataclass(slots=True)
class Visit:
    """One request, from its arrival until it is answered or lost."""

    ledger: "Ledger"
    model: str = ""
    admitted: bool = False
    recorded: "Arrived | None" = None


@dataclass(slots=True)
class Arrived:
    """A request as aiohttp read it: made into a Recorded when somebody asks for it."""

    method: str
    url: object
    headers: Mapping[str, str]
    body: bytes
    answered_at: float | None = None


class Ledger:
    """The record since the last reset. A request is booked, from arrival to leaving, in the ledger it arrived under."""

    def __init__(self, behaviour: Behaviour) -> None:
        """Open an empty book."""
        self.counters = Counters()
        self.requests: deque[Arrived] = deque(maxlen=behaviour.record)
        self.working = 0
        self.billed = Fraction(0)
        self._asked: set[bytes] = set()
        self._attempts: dict[bytes, int] = {}
        self._in_flight: dict[str, int] = {}

    def arrive(self) -> Visit:
        """Book a request in."""
        counters = self.counters
        counters.requests += 1
        counters.in_flight += 1
        counters.peak = max(counters.peak, counters.in_flight)
        return Visit(self)

    def ask(self, visit: Visit, model: str, key: bytes) -> None:
        """Book what the request asks for, once that is known."""
        counters = self.counters
        visit.model = model
        if key in self._asked:
            counters.repeats += 1
        else:
            self._asked.add(key)
            counters.distinct_prompts += 1
        counters.requests_by_model[model] = counters.requests_by_model.get(model, 0) + 1
        in_flight = self._in_flight[model] = self._in_flight.get(model, 0) + 1
        if in_flight > counters.peak_by_model.get(model, 0):
            counters.peak_by_model[model] = in_flight

    def admit(self, visit: Visit, key: bytes) -> int:
        """Let the request past the limits; return the number of this attempt at the prompt, from 1.

        Refused requests are no attempts: how many there are depends on the moment, and faults must not.
        """
        visit.admitted = True
        self.working += 1
        attempt = self._attempts[key] = self._attempts.get(key, 0) + 1
        return attempt

    def leave(self, visit: Visit) -> None:
        """Book the request out."""
        self.counters.in_flight -= 1
        if visit.model:
            self._in_flight[visit.model] -= 1
        if visit.admitted:
            self.working -= 1

    def record(self, behaviour: Behaviour, visit: Visit, request: Arrived) -> None:
        """Keep the request among the last `behaviour.record` ones."""
        visit.recorded = request
        if self.requests.maxlen != behaviour.record:
            self.requests = deque(self.requests, maxlen=behaviour.record)
        self.requests.append(request)


@dataclass
class Bucket:
    """A budget per minute that refills steadily; it starts full."""

    per_minute: int
    now: float
    level: float = field(init=False)

    def __post_init__(self) -> None:
        """Fill it."""
        self.level = self.per_minute

    def refill(self, now: float) -> None:
        """Add what has come in since the last time."""
        self.level = min(self.per_minute, self.level + (now - self.now) * self.per_minute / 60)
        self.now = now

    def headers(self, what: str) -> bytes:
        """Write the x-ratelimit headers; reset is the time until it is full again."""
        missing = (self.per_minute - self.level) * 60 / self.per_minute
        lines = (("limit", self.per_minute), ("remaining", max(0, int(self.level))), ("reset", _duration(missing)))
        return b"".join(f"x-ratelimit-{name}-{what}: {value}\r\n".encode() for name, value in lines)


class Gate:
    """The limits of one behaviour: windows of time, concurrency, requests and tokens per minute."""

    def __init__(self, behaviour: Behaviour, now: float) -> None:
        """Start with full buckets."""
        self._limit = behaviour.limit
        self._open_for = math.inf if behaviour.open_seconds is None else behaviour.open_seconds
        self._period = behaviour.period
        self._began = now
        self._show = behaviour.ratelimit_headers
        amounts = {"requests": behaviour.requests_per_minute, "tokens": behaviour.tokens_per_minute}
        self._buckets = {what: Bucket(amount, now) for what, amount in amounts.items() if amount}

    def admits(self, working: int, tokens: int, now: float) -> bool:
        """Whether one more request fits; it is taken from the buckets if so."""
        if (now - self._began) % self._period >= self._open_for:
            return False
        if self._limit is not None and working >= self._limit:
            return False
        if not self._buckets:
            return True
        prices = {"requests": 1, "tokens": tokens}
        for bucket in self._buckets.values():
            bucket.refill(now)
        if any(bucket.level < prices[what] for what, bucket in self._buckets.items()):
            return False
        for what, bucket in self._buckets.items():
            bucket.level -= prices[what]
        return True

    def headers(self) -> bytes:
        """Write the x-ratelimit headers, where they are asked for."""
        if not self._show:
            return b""
        return b"".join(bucket.headers(what) for what, bucket in self._buckets.items())


def _duration(seconds: float) -> str:
    """Write a time the way the API does: 120ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{round(rest)}s" if minutes else f"{rest:.1f}s"
