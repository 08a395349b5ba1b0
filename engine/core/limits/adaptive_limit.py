"""The adaptive limit: how many requests a lane may have in flight, learnt from the endpoint's 429s. Pure.

Theory of operation
        growing      one more for each answer while the limit is used up (slow start: it doubles each round trip)
        on trial     after a cut to 0.8: no growth until the answers of about two round trips have been judged
        probing      at the ceiling, the highest limit that the server has taken: after a long while one more, then two,
                     four ... as long as nothing is refused; a refusal doubles the wait before the next probe
        shut         every request is refused (a quota is used up). Where the server says for how long, nothing is sent
                     until then, and the ceiling is halved, so that in time a quota is spread over its minute; unless
                     that brings fewer answers, as the server opens in windows of time. Where it does not say it,
                     single probes find out when it opens (shut.py), and what it took before is sent again

    "Refused" means answered with 429. A burst is all 429s of requests that were sent before the cut. They lead to no
    second cut, but decide how deep this one is. Each request knows its level: how many were in flight when it was sent,
    itself included. Slow start may have run far past the server's limit by the time of the first 429. Where clearly
    many requests are refused, the limit is therefore cut to 0.8 of the lowest level that was refused.

    The burst shows the share of refusals above the cut, the trial shows the share below it. A server with a fixed limit
    that refused this share before refuses 1 - (1 - share) * limit before / limit now after the cut, which is mostly
    none. If the cut has not lowered the share, the 429s have nothing to do with our load: the limit returns to what it
    was, and from then on this share counts as noise, for which there is no cut. Noise is learnt wherever no refusals
    are due to our load, and from lower shares at any time. It is forgotten by halves, so it is put on trial again.

    5xx and timeouts do not show how many requests the server takes. Each costs a few answers' worth of growth.

Known mistakes of such limits: a cut for every 429 (after one burst the limit is 1), cuts for errors that our load does
not cause (the same), growth while the limit is not used up (it proves nothing), recovery from a collapse by one per
round trip (it takes for ever), a lane held up by the Retry-After of a stray 429.

Sources: slow start and one reduction per round trip (RFC 5681), a remembered ceiling with probing that speeds up
(CUBIC, RFC 9438), spurious reductions that are undone (F-RTO, RFC 5682; Eifel, RFC 4015).
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from .evidence import AS_IF, JUDGED, Shares, Trial
from .shut import Shut
from .waits import Waits

Why: TypeAlias = Literal[
    "started", "grown", "rate limited", "not our load", "refused throughout", "open again", "capped"
]

_KEPT: Final = 256
"""How many changes are kept."""
_PAUSE: Final = 4
"""Answers without growth after each 5xx or timeout: where a fifth of all answers fail so, nothing grows."""
_PATIENCE: Final = 4
_MOST_PATIENCE: Final = 16
"""Round trips at the ceiling before it is probed: at first, and at most."""
_LEAST_ANSWERS: Final = 64
"""The least number of answers before the ceiling is probed: probes stay below 2 % of all requests."""
_IN_A_ROW: Final = 5
"""So many 429s in a row on trial mean that everything is refused, unless earlier requests are still in flight."""
_CLEAR: Final = 3, 0.2
"""At least so many 429s, and at least this share: more than a cut that was deep enough leaves."""
_CHANGED: Final = 4, 0.5
"""At least so many 429s, and at least this share, where there were none before: the server has changed."""
_MOST_NOISE: Final = 0.35
"""The largest share of 429s that is believed to have nothing to do with our load."""
_LITTLE: Final = 0.1
"""The largest share of 429s for which a cut that has helped is not followed by another."""


class Policy(Protocol):
    """The bounds of a limit: it begins at `start` and is at most `most`. A burst of 429s multiplies it by `cut`."""

    @property
    def most(self) -> int: ...  # noqa: D102 - the class describes it

    @property
    def start(self) -> int: ...  # noqa: D102

    @property
    def cut(self) -> float: ...  # noqa: D102


class Ticket(NamedTuple):
    """A request that was sent: its number, and how many were in flight with it."""

    serial: int
    level: int


class Change(NamedTuple):
    """A change of the limit: when, to what, and why. Growth is recorded in steps of a quarter.

    `time` is in seconds of the clock that is passed in, and on a Result in seconds of the run.
    """

    time: float
    limit: int
    why: Why


class LimitState:
    """The limit of one lane at one moment.

    Each ticket from `sent` comes back once: it was `answered`, `rate_limited`, `failed` or `cancelled`.
    """

    def __init__(self, policy: Policy, now: float) -> None:
        """Start knowing nothing about the server."""
        self._most, self._cut_to = policy.most, policy.cut
        self.limit = min(policy.start, policy.most)
        self.in_flight = 0
        self.history = deque([Change(now, self.limit, "started")], maxlen=_KEPT)
        self._opens_at = -math.inf  # nothing may be sent before this time, as the server refuses everything
        self._shut = Shut(policy.most, now)
        self._taken = 0  # the highest level of a request that was answered since the server opened
        self._answers = 0  # so many were, since then
        self._waits = Waits(policy.start)
        self._sent = 0
        self._cut_at = 0  # tickets up to here belong to a burst that has led to its cut
        self._raised_at = 0  # tickets up to here were sent before the latest probe
        self._ceiling: int | None = None
        self._proven = False  # the ceiling is what the server has taken
        self._trial: Trial | None = None
        self._window = Shares()
        self._noise = Shares(AS_IF)
        self._paused = 0
        self._waited = 0  # answers at the ceiling, since it was reached or raised
        self._step = 1
        self._patience = _PATIENCE
        self._in_a_row = 0
        self._older_than = 0  # tickets up to here were sent before the trial
        self._older = 0  # so many of them are in flight

    @property
    def shut(self) -> bool:
        """Whether the server refuses everything and does not say for how long: the lane sends single probes."""
        return self._shut.since is not None

    @property
    def room(self) -> int:
        """How many more requests may be in flight now; less than none after a cut."""
        return (self.limit if self._shut.since is None else self._most) - self.in_flight

    def held(self, now: float) -> bool:
        """Return whether nothing may be sent now, whatever is in flight."""
        return self._opens_at > now

    def earliest(self, now: float) -> float:
        """Return when the next request may be sent: `now`, later, or infinity while as many as may be are in flight."""
        if self.in_flight >= (self.limit if self._shut.since is None else self._most):
            return math.inf
        return max(now, self._opens_at)

    def sent(self, now: float) -> Ticket:
        """Count a request that is being sent."""
        self.in_flight += 1
        self._sent += 1
        if self._shut.since is not None:
            self._opens_at = self._shut.next_probe(now)
        return Ticket(self._sent, self.in_flight)

    def answered(self, ticket: Ticket, now: float) -> None:
        """Learn from an answer: from anything that shows that the server took the request, also a 400."""
        used = self.in_flight >= self.limit
        self.in_flight -= 1
        self._older -= ticket.serial <= self._older_than
        self._answers += 1
        self._taken = max(self._taken, ticket.level)
        if self._shut.since is not None:
            if self._shut.answered(ticket.serial, now):
                self._open(now)
            return
        if self._trial is not None and ticket.serial > self._trial.began:
            self._in_a_row = 0
        if not self._add(ticket, refused=False):
            return
        if self._trial is not None:
            self._judge(self._trial, now)
        elif self._paused:
            self._paused -= 1
        elif used and self.limit < self._most:
            self._grow(ticket, now)

    def rate_limited(self, ticket: Ticket, now: float, retry_after: float | None = None) -> None:
        """Learn from a 429. `retry_after`: the seconds that the server asks to wait, capped by the caller."""
        self.in_flight -= 1
        self._older -= ticket.serial <= self._older_than
        if self._shut.since is not None:
            self._shut.refused(ticket.serial)
            if retry_after:
                self._shut.end(now)
                self._hold(self._ceiling or self._shut.limit, now, retry_after)
            return
        current, trial = self._add(ticket, refused=True), self._trial
        if trial is None:
            if current and self._window.exceed(self._noise.share):
                self._begin_trial(ticket.level, now)
            return
        self._in_a_row += ticket.serial > trial.began
        if self._in_a_row >= _IN_A_ROW and self._older > 0:
            if self.in_flight < self.limit:  # not shut: it is busy with requests that it took before the trial
                if (
                    self._in_a_row > _IN_A_ROW and self.history[-1].why == "rate limited"
                ):  # one step down after the other is one change
                    self.history.pop()
                self._set(max(1, self.in_flight), now, "rate limited")
        elif self._in_a_row >= _IN_A_ROW:
            self._refused_throughout(trial, now, retry_after)
        elif current:
            self._judge(trial, now)
        else:
            self._deepen(trial, ticket.level, now)

    def failed(self, ticket: Ticket) -> None:
        """Learn from a 5xx, a timeout or a broken connection: growth pauses, for up to a round trip."""
        self.in_flight -= 1
        self._older -= ticket.serial <= self._older_than
        self._paused = max(self._paused, min(self._paused + _PAUSE, self.limit))

    def cap(self, most: int, now: float) -> None:
        """Take another upper bound; what has been learnt below it stays."""
        self._most = most
        self._shut.cap(most)
        if self._ceiling is not None:
            self._ceiling = min(self._ceiling, most)
        if self.limit > most:
            self._set(most, now, "capped")

    def start_at(self, start: int, now: float) -> None:
        """Raise the limit to where a run would start, unless a cut has shown that it is too much."""
        if not (self._cut_at or self.shut) and self.limit < start:
            self._set(start, now, "started")

    def cancelled(self, ticket: Ticket) -> None:
        """Forget a request: it was cancelled, or is to have no effect."""
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

    def _add(self, ticket: Ticket, *, refused: bool) -> bool:
        """Count an answer where it belongs; return whether it shows something about the present limit."""
        trial = self._trial
        if ticket.serial <= self._cut_at:
            if trial is not None:
                trial.before.add(refused=refused)
            return False
        if trial is None and self._window.answers >= max(2 * self.limit, 40):
            if self._window.share <= self._noise.share:
                self._noise.take(self._window)
            self._window = Shares()
        (self._window if trial is None else trial.since).add(refused=refused)
        return True

    def _judge(self, trial: Trial, now: float) -> None:
        """Decide what the cut has shown, once enough answers are in or clearly too many are still refused."""
        since, limit = trial.since, self.limit
        clear = since.refused >= _CLEAR[0] and since.share >= _CLEAR[1]
        if not clear and since.answers < min(4 * limit, max(JUDGED, 2 * limit)):
            return
        if not since.exceed(self._noise.share):
            if trial.before.refused < _CHANGED[0] or trial.before.share < _CHANGED[1]:
                self._noise.take(trial.doubt)
            accepted = int(trial.before.answers - trial.before.refused)
            self._end_trial(min(self._ceiling or limit, accepted), since)
            return
        share = trial.before.share
        of_load = max(0.0, 1 - (1 - share) * trial.limit / limit)
        if of_load > share / 2 or since.share > _MOST_NOISE:  # consistent with a limit that is still far too high
            self._cut(trial, now)
        elif since.share <= (share + of_load) / 2:
            self._lowered(since, now)
        elif since.answers >= JUDGED:
            self._end_trial(trial.ceiling, since)
            self._set(trial.limit, now, "not our load")

    def _lowered(self, since: Shares, now: float) -> None:
        """Handle a cut that has helped, but not ended the refusals: accept a few 429s, cut again for more."""
        if since.share < _LITTLE:
            self._end_trial(self.limit, since)
        else:
            self._cut(self._new_trial(self.limit, since), now)

    def _end_trial(self, ceiling: int | None, noise: Shares) -> None:
        self._noise.take(noise)
        self._ceiling = None if ceiling is None else max(self.limit, ceiling)
        self._proven = ceiling is not None
        self._trial = None
        self._window = Shares()

    # Cuts

    def _begin_trial(self, level: int, now: float) -> None:
        probed = self._step > 1
        self._patience = min(2 * self._patience, _MOST_PATIENCE) if probed else _PATIENCE
        self._in_a_row = 0
        trial = self._new_trial(level, Shares(1, 1))
        if self._proven and not probed:
            trial.doubt = self._window
        self._cut(trial, now)

    def _new_trial(self, lowest: int, before: Shares) -> Trial:
        self._older_than, self._older = self._sent, self.in_flight
        return Trial(self._sent, self.limit, self._ceiling, lowest, before)

    def _cut(self, trial: Trial, now: float) -> None:
        """Cut the limit, for the first time in a trial or again: requests in flight lead to no further cut."""
        ceiling = self.limit - 1
        trial.since = Shares()
        self._trial = trial
        self._cut_at = self._sent
        self._step, self._waited = 1, 0
        self._set(self._below(self.limit), now, "rate limited")
        self._ceiling = max(self.limit, ceiling)

    def _deepen(self, trial: Trial, level: int, now: float) -> None:
        """Deepen the cut of this burst to the right level: slow start may have doubled the limit meanwhile."""
        trial.lowest = min(trial.lowest, level)
        deeper = self._below(max(trial.lowest, (trial.limit + 1) // 2))
        if deeper <= self.limit and trial.before.refused > _CLEAR[0] and trial.before.share >= _CLEAR[1]:
            if deeper < self.limit:
                trial.since = Shares()
                self._cut_at = self._sent
                self.history.pop()
                self._set(deeper, now, "rate limited")
            self._ceiling = max(deeper, trial.lowest - 1)

    def _below(self, level: int) -> int:
        return max(1, min(level - 1, math.ceil(self._cut_to * level)))

    # Shut

    def _refused_throughout(self, trial: Trial, now: float, retry_after: float | None) -> None:
        """Send nothing for as long as the server asks, else single probes until it opens."""
        if retry_after:
            self._waits.wait(trial.limit, self._taken, self._answers)
            self._taken = self._answers = 0
            self._hold(self._waits.ceiling, now, retry_after)
            return
        self._shut.begin(now, self._sent, self._taken or self.limit, self._answers)
        self._opens_at = self._shut.next_probe(now)
        self._begin_anew(None, min(self.limit, self._shut.limit), now, "refused throughout")

    def _hold(self, ceiling: int | None, now: float, retry_after: float) -> None:
        """Send nothing for a while, then begin with another ceiling: low, but for windows of time."""
        self._opens_at = now + retry_after
        self._begin_anew(ceiling, self._waits.first, now, "refused throughout")

    def _open(self, now: float) -> None:
        """Send as much again as the server took before it shut."""
        self._shut.end(now)
        self._opens_at = -math.inf
        self._taken = self._answers = 0
        self._begin_anew(None, self._shut.limit, now, "open again")

    def _begin_anew(self, ceiling: int | None, limit: int, now: float, why: Why) -> None:
        """Forget what answers to earlier requests have shown, except the noise."""
        self._in_a_row = 0
        self._cut_at = self._sent
        self._set(limit, now, why)
        self._end_trial(ceiling, Shares())
        self._proven = False

    def _set(self, limit: int, now: float, why: Why) -> None:
        self.limit = min(limit, self._most)
        if why != "grown" or self.limit >= 1.25 * self.history[-1].limit or self.limit == self._most:
            self.history.append(Change(now, self.limit, why))
