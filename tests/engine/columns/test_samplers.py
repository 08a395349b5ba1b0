"""Samplers: values depend on the seed, the column and the row, and follow the weights and bounds."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from rowloop import Category, RecipeError, Uniform
from rowloop.engine.columns.column import Binding
from rowloop.engine.columns.sources.python_values import python_value
from rowloop.runtime.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Sequence


def drawn(column: Category | Uniform, stretches: Sequence[tuple[int, int]], seed: int = 1) -> list[Any]:
    """Draw stretches of rows (first, number), one after the other."""
    fill = column.bind(Binding(seed, Threads(1), {}, {})).fill
    return [value for start, rows in stretches for value in fill(start, rows)]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(0, 2**40), st.randoms())
@pytest.mark.parametrize("column", [Category("c", list(range(50))), Uniform("u"), Uniform("w", 0, 99, decimals=0)])
def test_values_do_not_depend_on_the_row_groups(column, sizes, offset, random):
    """A row has the same value however rows are grouped, and in whatever order the groups are worked."""
    stretches, start = [], offset
    for size in sizes:
        stretches.append((start, size))
        start += size
    whole = drawn(column, [(offset, start - offset)])
    assert drawn(column, stretches) == whole
    shuffled = list(enumerate(stretches))
    random.shuffle(shuffled)
    by_place = {place: drawn(column, [stretch]) for place, stretch in shuffled}
    assert [value for place in sorted(by_place) for value in by_place[place]] == whole


def test_another_seed_or_another_name_draws_other_values():
    """Two columns of the same values are not copies of each other."""
    column, other = Category("a", list(range(1000))), Category("b", list(range(1000)))
    first = drawn(column, [(0, 100)])
    assert first == drawn(column, [(0, 100)])
    assert first != drawn(column, [(0, 100)], seed=2)
    assert first != drawn(other, [(0, 100)])


@pytest.mark.parametrize("weights", [None, [1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4], [1000, 0, 1, 1], [0, 0, 0, 5]])
def test_categories_are_as_frequent_as_their_weights(weights):
    """Chi-square over 20,000 draws stays below a bound that one in a million fair samples exceeds."""
    n, shares = 20_000, weights or [1, 1, 1, 1]
    counts = Counter(drawn(Category("c", [0, 1, 2, 3], weights), [(0, n)]))
    expected = [n * share / sum(shares) for share in shares]
    assert all(counts[i] == 0 for i in range(4) if expected[i] == 0)
    assert sum((counts[i] - e) ** 2 / e for i, e in enumerate(expected) if e) < 30.7


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ([1], "1 weights for 2 values"),
        ([], "0 weights for 2 values"),
        ([1, -1], "must not be negative"),
        ([0, 0], "not all of them 0"),
        ([1, math.nan], "weights.1: Input should be a finite number"),
        ([1, math.inf], "weights.1: Input should be a finite number"),
        ([1e308, 1e308], "weights must"),
        (["a", 1], "weights.0: Input should be a valid number"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, says):
    """When the column is made; the error names it."""
    with pytest.raises(RecipeError, match=rf"^Category\('c'\).*{says}"):
        Category("c", ["x", "y"], weights)


def test_a_category_without_values_is_refused():
    """Nothing could be drawn."""
    with pytest.raises(RecipeError, match=r"^Category\('c'\)\.values: "):
        Category("c", [])


def test_values_of_mixed_types_are_refused_before_the_run():
    """A table could not hold them, and a run would fail only after paying for a row group."""
    column = Category("c", ["x", 1])
    with pytest.raises(
        RecipeError, match=r"^columns\.c\.values: all values of a column must be of one type, and these are not"
    ):
        column.arrow_type()


def test_the_type_holds_values_that_are_drawn_late():
    """A rare float among integers does not change the table's type midway; None fits anywhere."""
    assert Category("c", [1, 2, 2.5], [1, 1, 0]).arrow_type() == pa.float64()
    assert Category("c", [None, "x"]).arrow_type() == pa.string()
    assert Category("c", [[1], []]).arrow_type() == pa.list_(pa.int64())


@given(st.floats(-1e12, 1e12, allow_subnormal=False), st.floats(0, 1e12, allow_subnormal=False), st.integers(0, 2**30))
def test_a_uniform_number_is_between_its_bounds(low, width, start):
    """Whatever the bounds are, also when they are equal."""
    high = low + width
    values = drawn(Uniform("u", low, high), [(start, 20)])
    assert all(low <= value <= high and type(value) is float for value in values)


@given(st.integers(-(2**52), 2**52), st.integers(0, 2**52), st.integers(0, 2**30))
def test_a_whole_uniform_number_is_an_integer_between_its_bounds(low, width, start):
    """Both ends included."""
    high = min(low + width, 2**52)
    values = drawn(Uniform("u", low, high, decimals=0), [(start, 20)])
    assert all(low <= value <= high and type(value) is int for value in values)


def test_whole_uniform_numbers_reach_both_ends_equally_often():
    """A die."""
    counts = Counter(drawn(Uniform("u", 1, 6, decimals=0), [(0, 60_000)]))
    assert sorted(counts) == [1, 2, 3, 4, 5, 6]
    assert sum((count - 10_000) ** 2 / 10_000 for count in counts.values()) < 35.9


def test_uniform_numbers_fill_their_range():
    """Deciles of 20,000 draws, by the same bound as above."""
    counts = Counter(int(value) for value in drawn(Uniform("u", 0, 10), [(0, 20_000)]))
    assert sum((counts[i] - 2_000) ** 2 / 2_000 for i in range(10)) < 45.1


def test_decimals_are_rounded_to():
    """Two of them."""
    assert all(value == round(value, 2) for value in drawn(Uniform("u", 0, 1, decimals=2), [(0, 100)]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"low": 2, "high": 1}, "low=2 is above high=1"),
        ({"low": 0.5, "high": 2, "decimals": 0}, "must be whole numbers"),
        ({"decimals": -1}, r"\.decimals: Input should be greater than or equal to 0"),
        ({"low": math.nan}, r"\.low: Input should be a finite number"),
        ({"high": math.inf}, r"\.high: Input should be a finite number"),
        ({"low": -1.7e308, "high": 1.7e308}, r"the range from low=-1\.7e\+308 to high=1\.7e\+308 is too large"),
        ({"high": 1e17, "decimals": 0}, r"the range from low=0 to high=1e\+17 is too large"),
        ({"low": 1e17, "high": 1e17, "decimals": 0}, r"below 2\*\*53"),
        ({"hihg": 2}, "hihg: unknown field; did you mean 'high'"),
    ],
)
def test_impossible_bounds_are_refused(arguments, says):
    """When the column is made; the error names it."""
    with pytest.raises(RecipeError, match=rf"^Uniform\('u'\).*{says}"):
        Uniform("u", **arguments)


def test_lists_within_values_are_converted_once():
    """One that is in several places, or contains itself, is so in the copy; arrays within it are lists."""
    inner: list[Any] = [np.int64(1), np.array([2.5])]
    given: dict[str, Any] = {"a": inner, "b": (inner, np.str_("x"))}
    given["c"] = given
    found = python_value(given)
    assert found["a"] == [1, [2.5]]
    assert found["b"] == [[1, [2.5]], "x"]
    assert found["b"][0] is found["a"]
    assert found["c"] is found
    assert type(found["a"][0]) is int
    bomb: Any = np.int64(1)
    for _ in range(40):
        bomb = [bomb] * 9
    copy = python_value(bomb)
    assert copy[0] is copy[8]
