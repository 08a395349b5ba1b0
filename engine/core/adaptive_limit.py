"""The adaptive limit: how many requests a lane may have in flight, found out from the server's 429s. Pure.

Theory of operation
        growing      one more for each answer while the limit is used (slow start: it doubles each round trip)
        on trial     after a cut to 0.8: no growth until about two round trips have been judged
        probing      at the ceiling, which is what the server last took: one more after a long while, then two, four ...
                     as long as nothing is refused; a refusal makes the next while twice as long
        shut         whatever is sent is refused (a quota is used up): nothing is sent until the server said, and the
                     ceiling is halved, so that in time a quota is spread over its minute

    A burst is all the 429s of requests sent before the cut. They lead to no other cut, but say how large this one is
    to be: a request knows how many were in flight when it was sent, itself included, its level. Slow start may have
    run far ahead by the time of the first 429; where plainly many are refused, 0.8 is of the lowest level among them.

    A burst also tells the share that was refused up there, and the trial the share down here. A server that takes so
    many at once refuses 1 - (1 - share) * limit before / limit now after a cut, mostly none. Where the cut has not
    lowered the share, the 429s have nothing to do with our load: the limit goes back to what it was, and a share like
    that, the noise, is no reason to cut from then on. The noise is learnt where by what we know of the server there
    should be none, from lower shares at any time, and forgotten by halves: it will be put on trial again.

    5xx and time-outs say nothing about how many the server takes. Each costs a few answers' worth of growth.

What is known to go wrong with such limits: a cut for each 429 (one burst, and the limit is 1), cuts for errors that are
not of our making (the same), growth while the limit is not used (it means nothing then), one more a round trip as the
way back from a collapse (it takes for ever), a lane held for the Retry-After of a stray 429.

Sources: slow start and one reduction per round trip (RFC 5681), a remembered ceiling with probing that speeds up
(CUBIC, RFC 9438), spurious reductions that are undone (F-RTO, RFC 5682; Eifel, RFC 4015).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from pydantic import Field

from .spec import spec

Why: TypeAlias = Literal["started", "grown", "rate limited", "not our load", "refused throughout"]

_KEPT: Final = 256
"""Changes that are remembered."""
_PAUSE: Final = 4
"""Answers that one 5xx or time-out costs in growth: where a fifth of all answers are such, there is none."""
_PATIENCE: Final = 4
_MOST_PATIENCE: Final = 16
"""Round trips at the ceiling before it is probed: the first time, and at most."""
_LEAST_ANSWERS: Final = 64
"""Answers before the ceiling is probed, however low it is, so that probes are less than 2 % of all requests."""
_IN_A_ROW: Final = 5
"""429s in a row on trial which mean that everything is refused, if nothing that was sent before is being answered."""
_PLAIN: Final = 3, 0.2
"""So many 429s, and such a share of them, are more than what a cut should leave."""
_CHANGED: Final = 4, 0.5
"""So many 429s, and such a share of them, where there were none before, mean that the server has changed."""
_JUDGED: Final = 24
"""Answers that it takes, at least, to say that 429s are not our doing; two round trips where those are more."""
_MOST_NOISE: Final = 0.35
"""The largest share of 429s that is believed to have nothing to do with our load."""
_TOO_MUCH: Final = 0.45
"""The share of 429s that is cut for whatever the noise."""
_LITTLE: Final = 0.1
"""The largest share of 429s after a cut that has helped for which there is no further one."""
_AS_IF: Final = 20
"""Answers without a 429 that are taken as seen before the first."""
_HOLD: Final = 0.5, 30.0
"""Seconds for which nothing is sent where the server does not say: the first time, doubling, and at most."""


@spec
class AdaptiveLimit:
    """How the number of requests in flight follows what the server takes: it begins at `start` and is at most `most`.

    `cut` is what is left of it after a burst of 429s.
    """

    most: int = Field(default=512, ge=1, strict=True)
    start: int = Field(default=16, ge=1, strict=True)
    cut: float = Field(default=0.8, ge=0.5, lt=1)


class Ticket(NamedTuple):
    """A request that was sent: its number, and how many were in flight with it."""

    serial: int
    level: int


class Change(NamedTuple):
    """What the limit was changed to, when (in the seconds that were passed in) and why. Growth is told every fourth."""

    time: float
    limit: int
    why: Why


@dataclass(slots=True)
class _Shares:
    """How many of some answers were 429s."""

    answers: float = 0
    refused: float = 0

    def add(self, *, refused: bool) -> None:
        self.answers += 1
        self.refused += refused

    def take(self, others: _Shares) -> None:
        """Take others in: forget what there was where it is plainly less now, and half of it when that is much."""
        expected = self.share * others.answers
        if others.refused < expected - 2.5 * math.sqrt(expected):
            self.answers, self.refused = _AS_IF, 0
        elif self.answers > 400:  # noqa: PLR2004 - several trials
            self.answers /= 2
            self.refused /= 2
        self.answers += others.answers
        self.refused += others.refused

    @property
    def share(self) -> float:
        return self.refused / max(1, self.answers)

    def exceed(self, noise: float) -> bool:
        """Tell whether there are more 429s than a share of `noise` explains."""
        if self.answers >= _JUDGED and self.share > _TOO_MUCH:
            return True
        expected = noise * self.answers
        return self.refused > expected + 2.5 * math.sqrt(expected) + (noise > 0.002)  # noqa: PLR2004 - less is none


@dataclass(slots=True)
class _Trial:
    """A cut that is being judged: the ticket it came after, what to go back to, the lowest level refused, shares."""

    began: int
    limit: int
    ceiling: int | None
    lowest: int
    before: _Shares
    since: _Shares = field(default_factory=_Shares)
    doubt: _Shares = field(default_factory=_Shares)
    """The answers that led to it, where the server took as many before: perhaps it is not our load."""


class LimitState:
    """The limit of one lane at one moment. Each ticket that `sent` gave comes back once, in one of the four ways."""

    def __init__(self, policy: AdaptiveLimit, now: float) -> None:
        """Begin with nothing known of the server."""
        self._policy = policy
        self.limit = min(policy.start, policy.most)
        self.in_flight = 0
        self.opens_at = -math.inf
        """Nothing is to be sent before: the server refuses everything."""
        self.history = deque([Change(now, self.limit, "started")], maxlen=_KEPT)
        self._sent = 0
        self._cut_at = 0  # tickets up to here belong to a burst that has had its cut
        self._raised_at = 0  # tickets up to here were sent before the latest probe
        self._ceiling: int | None = None
        self._proven = False  # the ceiling is what the server has taken
        self._trial: _Trial | None = None
        self._window = _Shares()
        self._noise = _Shares(_AS_IF)
        self._paused = 0
        self._waited = 0  # answers at the ceiling, since it was reached or raised
        self._step = 1
        self._patience = _PATIENCE
        self._in_a_row = 0
        self._older_than = 0  # tickets up to here were sent before the trial
        self._older = 0  # so many of them are in flight
        self._holds = 0

    def sent(self) -> Ticket:
        """Take notice of a request that is sent."""
        self.in_flight += 1
        self._sent += 1
        return Ticket(self._sent, self.in_flight)

    def answered(self, ticket: Ticket, now: float) -> None:
        """Take notice of an answer: anything that shows that the server took the request, a 400 as well."""
        used = self.in_flight >= self.limit
        self.in_flight -= 1
        self._older -= ticket.serial <= self._older_than
        if self._trial is not None and ticket.serial > self._trial.began:
            self._in_a_row = 0
        if not self._says_something(ticket, refused=False):
            return
        self._holds = 0
        if self._trial is not None:
            self._judge(self._trial, now)
        elif self._paused:
            self._paused -= 1
        elif used and self.limit < self._policy.most:
            self._grow(ticket, now)

    def rate_limited(self, ticket: Ticket, now: float, retry_after: float | None = None) -> None:
        """Take notice of a 429. `retry_after`: the seconds that the server asked for, capped by the caller."""
        self.in_flight -= 1
        self._older -= ticket.serial <= self._older_than
        telling, trial = self._says_something(ticket, refused=True), self._trial
        if trial is None:
            if telling and self._window.exceed(self._noise.share):
                self._begin_trial(ticket.level, now)
            return
        self._in_a_row += ticket.serial > trial.began
        if self._in_a_row >= _IN_A_ROW and self._older > 0:
            self._in_a_row = 0  # not shut: it is full of those that it took before the trial
            if self.in_flight < self.limit:
                self._set(max(1, self.in_flight), now, "rate limited")
        elif self._in_a_row >= _IN_A_ROW:
            self._shut(trial, now, retry_after)
        elif telling:
            self._judge(trial, now)
        else:
            self._deepen(trial, ticket.level, now)

    def failed(self, ticket: Ticket) -> None:
        """Take notice of a 5xx, a time-out or a broken connection: growth pauses, for up to a round trip."""
        self.in_flight -= 1
        self._older -= ticket.serial <= self._older_than
        self._paused = max(self._paused, min(self._paused + _PAUSE, self.limit))

    def cancelled(self, ticket: Ticket) -> None:
        """Take notice that a request was cancelled."""
        self.in_flight -= 1
        self._older -= ticket.serial <= self._older_than

    # Growth

    def _grow(self, ticket: Ticket, now: float) -> None:
        if self._ceiling is None or self.limit < self._ceiling:
            self._set(self.limit + 1, now, "grown")
            return
        self._waited += ticket.serial > self._raised_at
        climbing = self._step > 1
        if self._waited >= (self.limit if climbing else max(self._patience * self.limit, _LEAST_ANSWERS)):
            self._set(self.limit + self._step, now, "grown")
            self._ceiling = self.limit
            self._raised_at = self._sent
            self._waited = 0
            self._step *= 2

    # Evidence

    def _says_something(self, ticket: Ticket, *, refused: bool) -> bool:
        """Count an answer where it belongs; tell whether it says something about the limit as it is now."""
        trial = self._trial
        if ticket.serial <= self._cut_at:
            if trial is not None:
                trial.before.add(refused=refused)
            return False
        if trial is None and self._window.answers >= max(2 * self.limit, 40):
            if self._window.share <= self._noise.share:
                self._noise.take(self._window)
            self._window = _Shares()
        (self._window if trial is None else trial.since).add(refused=refused)
        return True

    def _judge(self, trial: _Trial, now: float) -> None:
        """Say what the cut has shown, once enough is known or it is plain that too much is refused still."""
        since, limit = trial.since, self.limit
        plain = since.refused >= _PLAIN[0] and since.share >= _PLAIN[1]
        if not plain and since.answers < min(4 * limit, max(_JUDGED, 2 * limit)):
            return
        if not since.exceed(self._noise.share):
            if trial.before.refused < _CHANGED[0] or trial.before.share < _CHANGED[1]:
                self._noise.take(trial.doubt)
            accepted = int(trial.before.answers - trial.before.refused)
            self._end_trial(min(self._ceiling or limit, accepted), since)
            return
        share = trial.before.share
        of_load = max(0.0, 1 - (1 - share) * trial.limit / limit)
        if of_load > share / 2 or since.share > _MOST_NOISE:  # as it would be if the limit were still far too high
            self._cut(trial, now)
        elif since.share <= (share + of_load) / 2:
            self._lowered(since, now)
        elif since.answers >= _JUDGED:
            self._end_trial(trial.ceiling, since)
            self._set(trial.limit, now, "not our load")

    def _lowered(self, since: _Shares, now: float) -> None:
        """Go on from a cut that has helped, but not ended it: live with a few 429s, cut again for more."""
        if since.share < _LITTLE:
            self._end_trial(self.limit, since)
        else:
            self._cut(self._new_trial(self.limit, since), now)

    def _end_trial(self, ceiling: int | None, noise: _Shares) -> None:
        self._noise.take(noise)
        self._ceiling = None if ceiling is None else max(self.limit, ceiling)
        self._proven = ceiling is not None
        self._trial = None
        self._window = _Shares()

    # Cuts

    def _begin_trial(self, level: int, now: float) -> None:
        probed = self._step > 1
        self._patience = min(2 * self._patience, _MOST_PATIENCE) if probed else _PATIENCE
        self._in_a_row = 0
        trial = self._new_trial(level, _Shares(1, 1))
        if self._proven and not probed:
            trial.doubt = self._window
        self._cut(trial, now)

    def _new_trial(self, lowest: int, before: _Shares) -> _Trial:
        self._older_than, self._older = self._sent, self.in_flight
        return _Trial(self._sent, self.limit, self._ceiling, lowest, before)

    def _cut(self, trial: _Trial, now: float) -> None:
        """Cut the limit, as the first of a trial or once more: what is in flight leads to no further cut."""
        ceiling = self.limit - 1
        trial.since = _Shares()
        self._trial = trial
        self._cut_at = self._sent
        self._step, self._waited = 1, 0
        self._set(self._below(self.limit), now, "rate limited")
        self._ceiling = max(self.limit, ceiling)

    def _deepen(self, trial: _Trial, level: int, now: float) -> None:
        """Make the cut of this burst as deep as it should have been: slow start may have doubled the limit since."""
        trial.lowest = min(trial.lowest, level)
        deeper = self._below(max(trial.lowest, (trial.limit + 1) // 2))
        if deeper <= self.limit and trial.before.refused > _PLAIN[0] and trial.before.share >= _PLAIN[1]:
            if deeper < self.limit:
                trial.since = _Shares()
                self._cut_at = self._sent
                self.history.pop()
                self._set(deeper, now, "rate limited")
            self._ceiling = max(deeper, trial.lowest - 1)

    def _below(self, level: int) -> int:
        return max(1, min(level - 1, math.ceil(self._policy.cut * level)))

    def _shut(self, trial: _Trial, now: float, retry_after: float | None) -> None:
        """Send nothing for a while; then begin again from low, up to half of what it was."""
        first, longest = _HOLD
        self.opens_at = now + (retry_after or min(first * 2**self._holds, longest))
        self._holds = min(self._holds + 1, 10)
        self._in_a_row = 0
        self._cut_at = self._sent
        self._set(min(self.limit, max(1, self._policy.start // 4)), now, "refused throughout")
        self._end_trial(trial.limit // 2, _Shares())
        self._proven = False

    def _set(self, limit: int, now: float, why: Why) -> None:
        self.limit = min(limit, self._policy.most)
        if why != "grown" or self.limit >= 1.25 * self.history[-1].limit or self.limit == self._policy.most:
            self.history.append(Change(now, self.limit, why))
