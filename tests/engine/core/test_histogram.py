"""Latency: quantiles of any number of times in bounded memory."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rowloop.engine.core.histogram import Latency

TIMES = st.lists(st.floats(1e-5, 1e5), min_size=1, max_size=200)


@given(TIMES, st.floats(0.01, 1))
def test_a_quantile_is_never_too_low_and_less_than_five_percent_too_high(times: list[float], share: float):
    """The quantile is exact to the width of a bucket."""
    latency = Latency()
    for seconds in times:
        latency.add(seconds)
    exact = sorted(times)[max(0, -int(-share * len(times) // 1) - 1)]
    assert exact <= latency.quantile(share) * (1 + 1e-9)
    assert latency.quantile(share) <= exact * 1.05


def test_a_million_times_take_bounded_memory():
    """However many times are added, there are no more buckets than their range has."""
    latency = Latency()
    for i in range(1_000_000):
        latency.add((i % 10_000 + 1) / 100)
    assert latency.count == 1_000_000
    assert len(latency._buckets) < 16 * 14
    assert latency.quantile(0.5) == pytest.approx(50, rel=0.05)


def test_no_times_have_the_quantile_zero_and_zero_seconds_can_be_added():
    """The edges: nothing seen, and what took no time at all."""
    latency = Latency()
    assert latency.quantile(0.99) == 0
    latency.add(0.0)
    assert latency.quantile(0.99) == 0
