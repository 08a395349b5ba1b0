"""Shut: an endpoint that refuses everything and does not say for how long, and the probes that find it open. Pure.

Theory of operation
    Where each of n callers waits a random, doubling time after every refusal, an endpoint that has been shut for t
    seconds gets about n / t attempts a second. Probes come at that rate, as if by `_CALLERS` callers, so a long quota
    costs few refusals, and a short pause is noticed soon after it ends. The spaces between them are uneven, so that no
    rhythm of the endpoint hides its open times from them.

    An answer to a probe opens the lane for all requests at once, unless a later probe has been refused: then the
    endpoint was open for a shorter time than it takes to answer. It is likely to do so again, and all that can be had
    of such times are the probes that fall into them. So each answer of this kind brings more callers, and time begins
    again half-way. Where the endpoint was open for a short time only, there are as many callers as it takes to
    notice the next such time in an eighth of it, up to half as many more.

    The lane opens with what the endpoint took before it shut; with twice that where it shut after one round of answers,
    so that the limit had no time to grow; and with half of it where fewer answers came.

Sources: exponential back-off with full jitter (AWS architecture blog); the additive recurrence of the golden ratio,
whose spaces are uneven and leave no gap (Weyl); half-open circuit breakers (Nygard, Release It!).
"""

from __future__ import annotations

from typing import Final

_CALLERS: Final = 16, 24, 64
"""At first; at most to notice a short time; at most in all, where the lane may not have more in flight."""
_MORE: Final = 4
"""Callers that each answer brings which came too late to open the lane."""
_NOTICED: Final = 8
"""The part of an open time in which the next is to be noticed: an eighth."""
_SPAN: Final = 0.5, 120.0
"""Seconds in which each caller probes once: at first, growing with the time that the endpoint is shut, and at most."""
_GOLDEN: Final = 0.6180339887498949


class Shut:
    """Whether an endpoint is shut, since when, and what is remembered of earlier times."""

    __slots__ = (
        "_began",
        "_callers",
        "_lasted",
        "_most",
        "_opened_at",
        "_probes",
        "_refused",
        "_shut_at",
        "limit",
        "since",
    )

    def __init__(self, most: int, now: float) -> None:
        """Start open. `most`: how many requests the lane may have in flight."""
        self.since: float | None = None
        """The time from which the spaces between probes grow; None while it is open."""
        self.limit = 0
        """The limit with which the lane opens again."""
        self._most = most
        self._callers = float(_CALLERS[0])
        self._probes = 0
        self._began = 0  # requests up to here were sent before it shut
        self._refused = 0  # the latest request that was refused
        self._shut_at = self._opened_at = now
        self._lasted = 0.0  # how long it was shut the last time

    def cap(self, most: int) -> None:
        """Take another number of requests that the lane may have in flight."""
        self._most = most
        self.limit = min(self.limit, most)

    def begin(self, now: float, serial: int, taken: int, answers: int) -> None:
        """Shut. The endpoint took `taken` at once and gave `answers` since it opened; `serial` requests were sent."""
        open_for = max(now - self._opened_at, _SPAN[0])
        self._callers = max(self._callers, min(_NOTICED * self._lasted / open_for, _CALLERS[1]))
        self.since = self._shut_at = now
        self._began = self._refused = serial
        if answers < self.limit:
            self.limit = max(1, self.limit // 2)
        else:  # one round of requests was all that it had time for, or it grew by itself
            self.limit = min(self._most, max(taken, 2 * self.limit if answers < 2 * self.limit else self.limit))

    def end(self, now: float) -> None:
        """Open."""
        self.since = None
        self._opened_at = now
        self._lasted = now - self._shut_at

    def refused(self, serial: int) -> None:
        """Learn that a request was refused."""
        self._refused = max(self._refused, serial)

    def answered(self, serial: int, now: float) -> bool:
        """Learn from an answer; return whether it shows that the endpoint is open now."""
        if self.since is None or serial <= self._began:
            return False
        if serial > self._refused:
            return True
        self._callers = min(self._callers + _MORE, max(self._most, _CALLERS[2]))
        self.since = (self.since + now) / 2
        return False

    def next_probe(self, now: float) -> float:
        """Return when to send the probe after the one that is sent now."""
        first, longest = _SPAN
        self._probes += 1
        elapsed = now - (now if self.since is None else self.since)
        space = min(longest, max(first, elapsed)) / self._callers
        return now + space * (0.5 + self._probes * _GOLDEN % 1)
