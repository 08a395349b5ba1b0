"""Which values a journal stores: what its walk over types finds is what a round trip finds."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from rowloop.engine.core.store import Vector
from rowloop.engine.datasets.journal_records import bodies_of, decode, encode, reads_back

KEYS = st.text(max_size=3) | st.integers() | st.booleans() | st.floats(allow_nan=False) | st.none() | st.binary()
FLOATS = st.lists(st.floats(width=32), max_size=4)
ODD = st.sampled_from([(1,), {1}, 1j, decimal.Decimal(1), uuid.UUID(int=1), dt.date(2026, 1, 1), bytearray(b"x")])
TIMES = st.datetimes(timezones=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=1))])) | st.datetimes()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | TIMES | ODD | FLOATS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
)


def same(one: Any, other: Any) -> bool:
    """Return whether values are equal, of the same types and in the same zones; not a number equals nothing."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    return bool(one == other) and repr(one) == repr(other)


def comes_back(value: Any) -> bool:
    """Return whether a round trip leaves a value as it is."""
    try:
        return same(decode(encode(value), Any), value)
    except (TypeError, ValueError, OverflowError):
        return False


@given(VALUES)
def test_the_walk_and_the_round_trip_agree(value):
    """Without encoding anything, the walk finds out which values are read back unchanged."""
    assert reads_back((value,)) == comes_back(value)


@given(VALUES)
def test_what_is_stored_is_read_back_unchanged(value):
    """Integers of any size included, and a bare number that is none; any other value is left out, alone."""
    ((_, body),) = bodies_of([(0, 1, 2, value), (0, 1, 3, "the next")])
    *stored, last = decode(body, list[tuple[int, int, Any]])
    assert last == (1, 3, "the next")
    assert all(repr(found) == repr(value) for _, _, found in stored)
    assert len(stored) == (type(value) is float or reads_back((value,), digits=True))


@given(FLOATS)
def test_a_vector_is_stored_as_its_bytes(numbers):
    """Four bytes a number, and it comes back as a vector."""
    vector = Vector.of(numbers)
    ((_, body),) = bodies_of([(0, 1, 2, vector)])
    assert len(body) <= 4 * len(numbers) + 10
    ((_, _, found),) = decode(body, list[tuple[int, int, Any]])
    assert type(found) is Vector
    assert found.tobytes() == vector.tobytes()
