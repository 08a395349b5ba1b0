"""Sizes of values: about what they take in memory, at the cost of a few looks."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rowloop.engine.columns.sizes import size_of, size_of_all


@dataclass
class Holder:
    """An object with a value inside."""

    value: Any


class Hostile:
    """An object that cannot even be looked at."""

    @property
    def nbytes(self) -> int:
        """Raise."""
        raise SystemError


TEXT = "x" * 10_000


@pytest.mark.parametrize(
    ("value", "bytes_"),
    [
        (TEXT, 10_000),
        (TEXT.encode(), 10_000),
        (bytearray(10_000), 10_000),
        ("é" * 10_000, 10_000),
        ("字" * 10_000, 20_000),
        (array("f", bytes(10_000)), 10_000),
        (np.zeros(2_500, "float32"), 10_000),
        (np.zeros((2, 2_500), "float32")[0], 10_000),
        (pa.array([TEXT]), 10_000),
        ({"a": {"b": [TEXT]}}, 10_000),
        ([TEXT] * 3, 30_000),
        ((TEXT, TEXT), 20_000),
        ({TEXT}, 10_000),
        ({TEXT: None}, 10_000),
        (Holder([TEXT]), 10_000),
        ([float(i) for i in range(10_000)], 320_000),
        ([str(i) + TEXT for i in range(1000)], 10_000_000),
        ([{"a": [TEXT, TEXT]}] * 1000, 20_000_000),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_a_value_counts_with_what_is_in_it(value: object, bytes_: int) -> None:
    """A sample of a long list stands for all of it."""
    assert bytes_ <= size_of(value) <= bytes_ * 1.1 + 1500


@pytest.mark.parametrize("value", ["", b"", Hostile(), Hostile, object()])
def test_whatever_a_value_is_it_has_a_size(value: object) -> None:
    """Also where its own methods raise."""
    assert 0 < size_of(value) < 3000


@pytest.mark.parametrize("value", [None, True, 1, 2.0])
def test_numbers_are_not_counted(value: object) -> None:
    """Alone; in a list they are."""
    assert size_of(value) == 0
    assert size_of([value]) > 0


def test_a_value_in_itself_has_a_size() -> None:
    """The looks are bounded."""
    value: list[Any] = ["x"]
    value.append(value)
    assert 0 < size_of(value) < 100_000


def test_a_large_value_costs_no_more_looks_than_a_small_one() -> None:
    """A million numbers in lists of lists."""
    value = [[[float(i)] * 100 for i in range(100)] for _ in range(100)]
    began = time.process_time()
    assert 8_000_000 < size_of(value) < 40_000_000
    assert time.process_time() - began < 0.05


def test_a_column_counts_with_all_of_its_values() -> None:
    """Each one, not a sample; a column without values takes nothing."""
    assert 10_000 < size_of_all([None] * 999 + [TEXT]) < 11_000
    assert size_of_all(None) == 0
