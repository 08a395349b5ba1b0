"""The adaptive limit, in a simulation of servers on twenty seeds each, and by its rules in any order."""

from __future__ import annotations

import math
import random
from statistics import mean
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import rowloop as rl
from rowloop.engine.core.bounds import AdaptiveLimit
from rowloop.engine.core.limits.adaptive_limit import Change, LimitState, Ticket
from rowloop.engine.core.limits.shut import Shut
from rowloop.engine.core.limits.waits import Waits
from simulated_server import Client, Fixed, Ran, Server, plain_loop, room

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = range(20)
LUCK = {"429": 0.05, "500": 0.05, "cut": 0.02}


def adaptive(most: int = 256, start: int = 16) -> LimitState:
    """Give a limit that knows nothing yet."""
    return LimitState(AdaptiveLimit(most=most, start=start), 0.0)


def run(limit: LimitState, rows: int, seed: int, /, until: float = math.inf, **server: Any) -> Ran:
    """Simulate one run."""
    random.seed(seed)  # the jitter of RetryPolicy
    return Client(limit, Server(random.Random(seed), **server), rows).run(until)  # noqa: S311 - no secret


def answer(limit: LimitState, *tickets: Ticket, now: float = 0.0) -> None:
    """Have requests answered."""
    for ticket in tickets:
        limit.answered(ticket, now)


def fill(limit: LimitState, now: float = 0.0) -> list[Ticket]:
    """Send as many as may be sent."""
    return [limit.sent(now) for _ in range(room(limit, now))]


def settled(most: int = 64) -> tuple[LimitState, list[Ticket]]:
    """Give a limit that is at its most, with as many in flight, all of them sent there."""
    limit = adaptive(most, start=most)
    for ticket in fill(limit):
        answer(limit, ticket)
        fill(limit)
    return limit, [Ticket(most + 1 + n, most) for n in range(most)]


# What it does


def test_slow_start_doubles_each_round_trip():
    """Each answer makes room for two requests, from `start` to `most`."""
    limit = adaptive(most=100, start=4)
    flights, in_flight = [], fill(limit)
    while limit.limit < 100:
        flights.append(len(in_flight))
        sent: list[Ticket] = []
        for ticket in in_flight:
            answer(limit, ticket)
            sent += fill(limit)
        in_flight = sent
    assert flights == [4, 8, 16, 32, 64]


def test_it_grows_only_while_it_is_used():
    """A lane that has little to do learns nothing about the server."""
    limit = adaptive()
    for _ in range(200):
        answer(limit, limit.sent(0.0))
    assert limit.limit == 16


def test_a_cap_holds_at_once_and_what_has_been_learnt_below_it_stays():
    """The limit falls to a lower cap, grows up to it and no further, and goes on growing when the cap is raised."""
    limit = adaptive(most=256, start=16)
    fill(limit)
    limit.cap(5, 1.0)
    assert limit.limit == 5
    assert limit.history[-1] == Change(1.0, 5, "capped")
    assert limit.earliest(1.0) == math.inf  # sixteen are still in flight
    limit = adaptive(most=256, start=4)
    limit.cap(9, 0.0)
    for _ in range(10):
        answer(limit, *fill(limit))
    assert limit.limit == 9
    limit.cap(40, 2.0)
    for _ in range(60):
        answer(limit, *fill(limit))
    assert limit.limit == 40


@given(
    caps=st.lists(st.tuples(st.integers(1, 80), st.integers(1, 60)), min_size=1, max_size=8),
    server=st.integers(1, 60),
    seed=st.integers(0, 2**16),
)
def test_no_cap_is_exceeded_whatever_the_endpoint_does(caps: list[tuple[int, int]], server: int, seed: int):
    """After each change, nothing is sent while as many are in flight as the cap says; the limit is never below one."""
    limit, now = adaptive(most=64, start=16), 0.0
    rng = random.Random(seed)  # noqa: S311 - no secret
    flying: list[Ticket] = []
    for most, turns in caps:
        limit.cap(most, now)
        for _ in range(turns):
            now += 0.1
            assert 1 <= limit.limit <= most
            while limit.earliest(now) <= now:
                assert len(flying) < most
                flying.append(limit.sent(now))
            for _ in range(rng.randint(0, len(flying))):
                ticket = flying.pop(rng.randrange(len(flying)))
                if ticket.level > server:
                    limit.rate_limited(ticket, now, rng.choice([None, 0.3]))
                else:
                    limit.answered(ticket, now)


def test_one_cut_for_a_burst_of_429s():
    """Of 64 requests in flight every one is refused: the limit is cut once, to 0.8."""
    limit, tickets = settled()
    for ticket in tickets:
        limit.rate_limited(ticket, 1.0)
    assert [change.limit for change in limit.history] == [64, 52]
    assert limit.history[-1] == Change(1.0, 52, "rate limited")


def test_slow_starts_overshoot_costs_one_burst():
    """However far the doubling has gone beyond it, what was refused tells the server's limit of 40 at once."""
    limit = adaptive()
    ran = run(limit, 1000, 0, limit=lambda _: 40)
    cuts = [change for change in limit.history if change.why == "rate limited"]
    assert cuts[0].limit == 33
    burst = [time for time, outcome, _ in ran.answers if outcome == "429" and time < cuts[1].time]
    assert len(burst) <= 40 + 4
    assert burst[-1] - burst[0] <= 0.25


@pytest.mark.parametrize("trouble", [1, 64])
def test_5xx_and_timeouts_pause_growth_and_cut_nothing(trouble: int):
    """Each costs four answers' worth of growth, a storm of them a round trip."""
    limit = adaptive(start=32)
    for _ in range(trouble):
        limit.failed(limit.sent(0.0))
    assert limit.limit == 32
    paused = min(4 * trouble, 32)
    for _ in range(paused):
        fill(limit)
        answer(limit, Ticket(10**6, 32))
    assert limit.limit == 32
    fill(limit)
    answer(limit, Ticket(10**6, 32))
    assert limit.limit == 33


def test_where_everything_is_refused_the_lane_waits_for_retry_after():
    """A used-up quota: five refusals in a row after the cut, and nothing is sent until Retry-After is over."""
    limit, tickets = settled()
    for ticket in tickets:
        limit.rate_limited(ticket, 1.0, 20.0)
    assert room(limit, 1.0) == 52
    for ticket in fill(limit, 1.0)[:5]:
        limit.rate_limited(ticket, 2.0, 20.0)
    assert limit.history[-1].why == "refused throughout"
    assert room(limit, 21.9) == 0
    for _ in range(47):
        limit.cancelled(Ticket(0, 0))
    assert (room(limit, 22.0), limit.earliest(2.0)) == (16, 22.0)


def test_a_busy_server_is_not_mistaken_for_one_that_refuses_everything():
    """It refuses at once while what it took before is still being answered: there is no wait for Retry-After."""
    ran = [run(adaptive(256, start=256), 2000, seed, limit=lambda _: 64, refusal=0.005) for seed in range(5)]
    assert all(one.seconds <= 1.15 * 2000 * 0.25 / 64 for one in ran)
    limit = adaptive(256, start=256)
    run(limit, 2000, 0, limit=lambda _: 64, refusal=0.005)
    assert "refused throughout" not in {change.why for change in limit.history}


def test_a_stray_429_with_a_long_retry_after_holds_nothing_up():
    """One request of 64 is asked to come back in an hour: the others go on at once."""
    limit, tickets = settled()
    limit.rate_limited(tickets[0], 1.0, 3600.0)
    answer(limit, *tickets[1:], now=1.1)
    assert room(limit, 1.1) == limit.limit == 52


def test_the_history_is_bounded_and_has_reasons():
    """An endless run with a server that is never the same keeps the latest changes only."""
    limit = adaptive()
    run(limit, 50_000, 0, latency=0.05, limit=lambda now: 10 if now % 2 < 1 else 60)
    assert len(limit.history) == 256
    assert {change.why for change in limit.history} >= {"grown", "rate limited"}
    times = [change.time for change in limit.history]
    assert times == sorted(times)


# What it comes to


@pytest.mark.parametrize("spread", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("refusal", [None, 0.005])
def test_it_finds_a_servers_limit_of_40_within_20_percent_and_holds_it(spread: float, refusal: float | None):
    """Nine tenths of the steady state are spent there, with less than 2 % of 429s, fast or slow ones, in every run."""
    for seed in SEEDS:
        ran = run(adaptive(), 2500, seed, limit=lambda _: 40, spread=spread, refusal=refusal)
        begin, end = 0.4 * ran.seconds, 0.95 * ran.seconds
        limits = ran.limits(begin, end)
        assert 32 <= limits[len(limits) // 20] <= limits[-len(limits) // 20] <= 48, seed
        assert ran.share("429", begin) < 0.02, seed


@pytest.mark.parametrize("most", [1, 3, 12, 300])
def test_small_and_large_limits_are_found_as_well(most: int):
    """A server that takes one at a time is worked one at a time."""
    for seed in SEEDS[:5]:
        ran = run(adaptive(512), 20 * most + 600, seed, limit=lambda _: most)
        limits = ran.limits(0.4 * ran.seconds, 0.9 * ran.seconds)
        assert 0.8 * most <= limits[len(limits) // 10] <= limits[-len(limits) // 10] <= 1.2 * most
        assert ran.share("429", 0.4 * ran.seconds) < 0.02


@pytest.mark.parametrize("refusal", [None, 0.1, 0.005])
def test_a_limit_of_64_below_256_costs_at_most_a_third_more_than_the_ideal(refusal: float | None):
    """2,000 rows at 0.25 s, 64 at once, take 7.8 s at best: never more than 1.3 times that."""
    for seed in SEEDS:
        ran = run(adaptive(256), 2000, seed, limit=lambda _: 64, refusal=refusal)
        assert ran.seconds <= 1.3 * 2000 * 0.25 / 64


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_429s_that_have_nothing_to_do_with_our_load_do_not_collapse_it(share: float):
    """The time is at most 1.5 times that of a fixed limit of 64, which has the same waits at the end, on average."""
    faults = LUCK | {"429": share}
    plain = [run(Fixed(64), 2000, seed, latency=0.05, faults=faults).seconds for seed in SEEDS]
    ours = [run(adaptive(64), 2000, seed, latency=0.05, faults=faults) for seed in SEEDS]
    assert mean(ran.seconds for ran in ours) <= 1.5 * mean(plain)
    assert all(ran.dropped <= 2 for ran in ours)
    assert mean(ran.limits()[len(ran.answers) // 2] for ran in ours) >= 40


@pytest.mark.parametrize("most", [2, 4, 8])
def test_429s_that_have_nothing_to_do_with_our_load_do_not_collapse_a_small_limit(most: int):
    """The same with few in flight, where little can be seen in a round trip."""
    plain = [run(Fixed(most), 500, seed, latency=0.05, faults=LUCK).seconds for seed in SEEDS]
    ours = [run(adaptive(most), 500, seed, latency=0.05, faults=LUCK).seconds for seed in SEEDS]
    assert mean(ours) <= 1.5 * mean(plain)


@pytest.mark.parametrize("refusal", [None, 0.005])
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_it_follows_a_limit_that_changes(spread: float, refusal: float | None):
    """40, then 10, then 80: a few round trips to come down, some forty to go up, of its own accord."""
    for seed in SEEDS[:8]:
        ran = run(
            adaptive(),
            10**5,
            seed,
            until=60,
            limit=lambda now: 40 if now < 20 else 10 if now < 40 else 80,
            spread=spread,
            refusal=refusal,
        )
        assert next(time for time, _, limit in ran.answers if time > 20 and limit <= 12) < 22.5
        assert next(time for time, _, limit in ran.answers if time > 40 and limit >= 64) < 52
        assert ran.share("429") < 0.05


def test_a_real_limit_is_found_behind_429s_that_are_not():
    """40 at once, and 2 % refused whatever the load: within a third of it, and few more refused than must be."""
    runs = [run(adaptive(), 3000, seed, limit=lambda _: 40, faults={"429": 0.02}, spread=0.3) for seed in SEEDS]
    assert mean(ran.limits()[len(ran.answers) // 2] for ran in runs) == pytest.approx(40, rel=0.2)
    assert mean(ran.share("429", 0.4 * ran.seconds) for ran in runs) < 0.04


@pytest.mark.parametrize("retry_after", [1.0, None])
def test_a_quota_per_minute_is_used_up_without_a_storm(retry_after: float | None):
    """600 per minute, with Retry-After or without: 1,500 rows end early in the third minute, with few 429s."""
    limit = adaptive()
    ran = run(limit, 1500, 0, per_minute=600, refusal=0.01, retry_after=retry_after)
    assert ran.seconds < 120 + 45
    assert ran.share("429") < 0.4
    assert "refused throughout" in {change.why for change in limit.history}


def test_a_quota_is_spread_over_its_minute_in_time():
    """Each time that it is used up too soon, less is in flight in the next minute, and less is refused at its end."""
    ran = run(adaptive(), 2500, 0, per_minute=600, refusal=0.01)
    refused = [
        sum(60 * n <= time < 60 * n + 60 for time, outcome, _ in ran.answers if outcome == "429") for n in range(4)
    ]
    assert max(refused[1:]) < refused[0] / 2


# Where refusals come in windows of time


def open_for(seconds: float, period: float, phase: float = 0.0) -> Callable[[float], float]:
    """Give the limit of a server that takes anything for some seconds of each period, and nothing for the rest."""
    return lambda now: math.inf if (now + phase) % period < seconds else 0


@pytest.mark.parametrize("latency", [0.1, 0.25, 0.6, 1.0, 3.0])
@pytest.mark.parametrize(("seconds", "period"), [(1.0, 4.0), (0.5, 2.0), (10.0, 60.0)])
@pytest.mark.parametrize("phase", [0.0, 0.7])
def test_refusals_in_windows_cost_no_more_time_than_in_a_plain_loop(
    latency: float, seconds: float, period: float, phase: float
):
    """The server does not say when it opens: at most 1.1 times as long as where each row waits at random."""
    windows = {"latency": latency, "refusal": 0.01, "retry_after": None, "limit": open_for(seconds, period, phase)}
    for seed in SEEDS[:3]:
        plain = plain_loop(Server(random.Random(seed), **windows), 400, 64)  # noqa: S311 - no secret
        ours = run(adaptive(64, start=64), 400, seed, until=1.1 * plain.seconds, **windows)
        assert ours.done == 400, (seed, plain.seconds)


def test_a_window_is_used_up_from_its_first_probe():
    """1 s of every 4 is open, which holds four round trips of 64: 1,000 rows take six windows, and few are refused."""
    for seed in SEEDS:
        limit = adaptive(64, start=64)
        ran = run(limit, 1000, seed, latency=0.25, refusal=0.01, retry_after=None, limit=open_for(1.0, 4.0))
        assert len(limit.history) < 6 * 10  # each way down is one change or two
        assert ran.seconds <= 5 * 4 + 1.3
        assert ran.share("429") < 0.5


@pytest.mark.parametrize("retry_after", [1.0, 3.0])
def test_windows_are_used_up_where_the_server_says_how_long_to_wait(retry_after: float):
    """Half the ceiling would bring half the answers, so it is halved once; a wait that was no use changes nothing."""
    for seed in SEEDS[:5]:
        limit = adaptive(64, start=64)
        options: dict[str, Any] = {"latency": 0.25, "refusal": 0.01, "limit": open_for(1.0, 4.0, 1.5)}
        ran = run(limit, 1000, seed, retry_after=retry_after, **options)
        assert ran.seconds < 40
        assert ran.share("429") < 0.65


def test_waits_spread_a_quota_and_leave_windows_alone():
    """As many answers with half the limit: half again. Fewer: no ceiling, and what was taken is sent at once."""
    waits = Waits(16)
    assert (waits.ceiling, waits.first) == (None, 4)
    for answers, ceiling in [(600, 32), (0, 32), (590, 16), (610, 8)]:
        waits.wait(2 * ceiling, 2 * ceiling, answers)
        assert (waits.ceiling, waits.first) == (ceiling, 4)
    waits.wait(8, 8, 300)
    assert (waits.ceiling, waits.first) == (None, 8)
    waits.wait(64, 64, 900)
    assert (waits.ceiling, waits.first) == (None, 64)


def test_an_endpoint_that_is_shut_for_ten_minutes_gets_few_probes():
    """The probes come at growing intervals, of twelve seconds at most."""
    limit = adaptive(256)
    ran = run(limit, 2000, 0, refusal=0.01, retry_after=None, limit=lambda now: 0 if 1 <= now < 601 else math.inf)
    assert [change.why for change in limit.history].count("open again") == 1
    assert sum(outcome == "429" and time > 3 for time, outcome, _ in ran.answers) < 160
    assert ran.seconds < 601 + 12 + 2 * 2000 * 0.25 / 256


def test_late_answers_of_a_shut_endpoint_open_nothing_and_bring_more_probes():
    """A later probe was refused: the endpoint was open for less time than an answer takes."""
    shut = Shut(64, 0.0)
    shut.begin(10.0, 100, 64, 64)
    shut.refused(102)
    before = shut.next_probe(20.0)
    assert not shut.answered(100, 20.0)  # sent before it shut
    assert not shut.answered(101, 20.0)
    assert shut.next_probe(20.0) < before
    assert shut.answered(103, 21.0)


def test_a_lane_opens_with_half_where_the_endpoint_shuts_at_once_again():
    """And with twice as much where it shut after one round of answers, else with what was taken."""
    shut, opens_with = Shut(64, 0.0), []
    for taken, answers in [(20, 100), (20, 30), (40, 40), (9, 9), (0, 0), (30, 500)]:
        shut.begin(0.0, 0, taken, answers)
        shut.end(0.0)
        opens_with.append(shut.limit)
    assert opens_with == [20, 40, 64, 32, 16, 30]


def test_a_short_open_time_is_looked_for_more_often():
    """Shut for 16 s: half as often again where it was open for 2 s, as usual where it was open for an hour."""
    spaces = []
    for open_for in (2.0, 3600.0):
        shut = Shut(64, 0.0)
        shut.begin(10.0, 0, 64, 64)
        shut.end(26.0)
        shut.begin(26.0 + open_for, 0, 64, 64)
        now = 26.0 + open_for + 16.0
        spaces.append(max(shut.next_probe(now) - now for _ in range(50)))
    assert spaces[0] == pytest.approx(1.5 * 16 / 24, rel=0.05)
    assert spaces[1] == pytest.approx(1.5 * 16 / 16, rel=0.05)


# What holds in any order of events


@st.composite
def stories(draw: st.DrawFn) -> tuple[AdaptiveLimit, list[tuple[str, int]]]:
    """Draw a policy, and what happens: how an attempt ends, and which of those in flight it is."""
    policy = AdaptiveLimit(
        most=draw(st.integers(1, 100)), start=draw(st.integers(1, 100)), cut=draw(st.floats(0.5, 0.99))
    )
    kinds = draw(
        st.sampled_from([["answered"], ["answered", "rate_limited"], ["answered", "rate_limited", "failed", "fill"]])
    )
    steps = st.tuples(st.sampled_from([*kinds, "answered", "cancelled"]), st.integers(0, 99))
    return policy, draw(st.lists(steps, max_size=300))


@settings(deadline=None)
@given(stories(), st.sampled_from([None, 0.5, 20.0]))
def test_whatever_happens_the_rules_hold(story: tuple[AdaptiveLimit, list[tuple[str, int]]], asked: float | None):
    """The limit stays within 1 and `most`; 429s never raise it but back to where it was; nothing grows while paused."""
    policy, steps = story
    limit, in_flight, now, highest = LimitState(policy, 0.0), list[Ticket](), 0.0, 0
    for what, which in steps:
        now += 0.01
        in_flight += fill(limit, now)
        if not in_flight:
            now = limit.earliest(now)
            continue
        before, paused = limit.limit, limit._paused
        cut_at = limit._cut_at
        if what != "fill":
            ticket = in_flight.pop(which % len(in_flight))
            more = (now, asked) if what == "rate_limited" else (now,) if what == "answered" else ()
            end: Callable[..., None] = getattr(limit, what)
            end(ticket, *more)
            if what == "rate_limited" and ticket.serial <= cut_at and limit.limit < before:
                assert limit.limit >= policy.cut * ((highest + 1) // 2) - 1  # the one cut of this burst, deepened
        assert 1 <= limit.limit <= policy.most
        assert limit.in_flight == len(in_flight)
        assert len(limit.history) <= 256
        why = limit.history[-1].why
        if limit.limit > before:
            assert what in {"answered", "rate_limited"}
            assert why in {"grown", "started", "not our load", "open again"} or limit.limit == before + 1
            assert what == "answered" or why == "not our load"
            assert why in {"not our load", "open again"} or not paused
        highest = max(highest, limit.limit)


@given(st.integers(1, 64), st.randoms(use_true_random=False))
def test_at_most_one_cut_for_a_burst_in_whatever_order_it_comes(refused: int, rng: random.Random):
    """All 429s of requests that were in flight together make one cut, and never below half of that."""
    limit, tickets = settled()
    rng.shuffle(tickets)
    for n, ticket in enumerate(tickets):
        if n < refused:
            limit.rate_limited(ticket, 1.0, 1.0)
        else:
            answer(limit, ticket, now=1.0)
    assert [change.limit for change in limit.history] == [64, 52]


@pytest.mark.parametrize(("field", "value"), [("most", 0), ("start", 0), ("cut", 1.0), ("cut", 0.1), ("most", 1.5)])
def test_an_impossible_policy_is_refused(field: str, value: float):
    """The error names the field."""
    fields: dict[str, Any] = {field: value}
    with pytest.raises(rl.RecipeError, match=f"AdaptiveLimit.{field}"):
        AdaptiveLimit(**fields)
