"""Which rows of a table a run takes, and in which order: slices, shuffled tables, and tables that repeat."""

from __future__ import annotations

import collections
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowloop import Expression, Recipe, RecipeError, ResumeError, Seed
from rowloop.engine.columns.sources import blocks
from rowloop.engine.columns.sources.arranging import arranged
from rowloop.engine.columns.sources.blocks import Blocks, in_memory, starts_of
from rowloop.engine.columns.sources.digest import digest_of
from rowloop.engine.columns.sources.order import NOT_TAKEN, Order, Permutation
from seed_cells import cells

if TYPE_CHECKING:
    from pathlib import Path

QUIET: Any = {"progress": False}
N = 20_000
TABLE = pa.table({"n": range(N), "s": [f"text {i}" for i in range(N)]})

# How many rows


def test_a_run_has_a_row_for_each_row_of_the_table(tmp_path):
    """In every way to run a recipe; `recipe.rows` says how many, and a preview has five at most."""
    recipe = Recipe(columns=[Seed({"n": range(7)})])
    assert recipe.rows == 7
    assert recipe.build(tmp_path / "a", **QUIET).actual == 7
    assert recipe.start(tmp_path / "b", **QUIET).result().actual == 7
    assert recipe.preview(**QUIET).actual == 5
    assert Recipe(columns=[Seed({"n": range(3)})]).preview(**QUIET).actual == 3
    assert Recipe(columns=[Seed({"n": range(7)}, rows=slice(2, 6))]).build(tmp_path / "c", **QUIET).actual == 4


def test_the_shortest_table_ends_a_run():
    """But for one that repeats."""
    seven, three = Seed({"a": range(7)}), Seed({"b": range(3)})
    assert Recipe(columns=[seven, three]).rows == 3
    repeated = Recipe(columns=[seven, Seed({"b": range(3)}, repeat=True)])
    assert repeated.rows == 7
    assert repeated.preview(7, **QUIET).to_arrow().column("b").to_pylist() == [0, 1, 2, 0, 1, 2, 0]
    assert Recipe(columns=[Seed({"b": range(3)}, repeat=True)]).rows == 3


@pytest.mark.parametrize("rows", [4, 10**9, np.int64(5)])
def test_more_rows_than_the_table_has_are_refused(tmp_path, rows):
    """Before anything is written, with what to do; `repeat` starts over."""
    problem = rf"^rows: is {rows}, and the seed table has 3 rows; a Seed with repeat=True starts again at the top"
    for run in ("build", "start", "preview"):
        with pytest.raises(RecipeError, match=problem):
            getattr(Recipe(columns=[Seed({"n": range(3)})]), run)(*[tmp_path / "x"] * (run != "preview"), rows=rows)
    assert not (tmp_path / "x").exists()
    again = Recipe(columns=[Seed({"n": range(3)}, repeat=True)]).preview(7, row_group_size=2, **QUIET)
    assert again.to_arrow().column("n").to_pylist() == [0, 1, 2, 0, 1, 2, 0]


def test_without_a_table_a_build_needs_a_number_of_rows(tmp_path):
    """A preview has five."""
    recipe = Recipe(columns=[Expression("e", "x")])
    assert recipe.rows is None
    assert recipe.preview(**QUIET).actual == 5
    with pytest.raises(RecipeError, match=r"^rows: this field is needed"):
        recipe.build(tmp_path / "out")


def test_a_dataset_that_was_made_without_repeat_is_resumed_with_it(tmp_path):
    """The rows that are there are the same ones."""
    Recipe(columns=[Seed({"n": range(3)})], seed=1).build(tmp_path / "out", **QUIET)
    again = Recipe(columns=[Seed({"n": range(3)}, repeat=True)], seed=1)
    assert again.build(tmp_path / "out", 5, resume="always", **QUIET).to_arrow().column("n").to_pylist() == [
        0,
        1,
        2,
        0,
        1,
    ]
    shuffled = Recipe(columns=[Seed({"n": range(3)}, repeat=True, order="shuffled")], seed=1)
    with pytest.raises(ResumeError, match=r"columns\.seed of n\.order is new"):
        shuffled.build(tmp_path / "out", 5, resume="always", **QUIET)


# Which rows


@pytest.fixture(params=["in memory", "on the disk"])
def table(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the table as an object, or as a file that is read in blocks."""
    if request.param == "in memory":
        return TABLE
    monkeypatch.setattr(blocks, "IN_MEMORY_BYTES", 1000)
    pq.write_table(TABLE, tmp_path / "x.parquet", row_group_size=6_000)
    return tmp_path / "x.parquet"


@pytest.mark.parametrize(
    "rows",
    [
        slice(10),
        slice(N - 5, None),
        slice(-3, None),
        slice(5_990, 6_010),
        slice(None, None, 1_000),
        slice(None, None, -7),
    ],
)
def test_a_slice_of_the_table(table, rows):
    """As of a list; in blocks of any size."""
    expected = list(range(N))[rows]
    seed = Seed(table, rows=rows)
    assert seed.length == len(expected)
    assert cells(seed) == {"n": expected, "s": [f"text {i}" for i in expected]}


def test_a_slice_in_a_recipe_file():
    """As text, there and back."""
    recipe = Recipe.from_dict({"columns": [{"type": "seed", "data": [{"n": i} for i in range(9)], "rows": "2:8:3"}]})
    assert recipe.preview(**QUIET).to_arrow().column("n").to_pylist() == [2, 5]
    assert recipe.to_dict()["columns"][0]["rows"] == "2:8:3"
    assert Recipe(columns=[Seed({"n": range(9)}, rows=slice(4))]).to_dict()["columns"][0]["rows"] == ":4"


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("5", 'takes "first:end" or "first:end:step"'),
        ("a:b", "invalid literal"),
        (slice("a", "b"), "takes a slice of whole numbers"),
        (slice(0, 5, 0), "with a step other than 0"),
        (5, "instance of slice"),
        (slice(9, 9), "takes none of the 9 rows"),
    ],
)
def test_a_slice_that_is_none_is_refused(rows, problem):
    """When the recipe is made."""
    with pytest.raises(RecipeError, match=rf"rows: .*{problem}"):
        Recipe(columns=[Seed({"n": range(9)}, rows=rows)])


# Shuffled


def test_shuffled_rows_are_all_rows_once_and_follow_the_seed(table):
    """The same for the same seed, in memory and on the disk; another for another; whole rows, not columns."""
    found = cells(Seed(table, order="shuffled"), key=7)
    assert sorted(found["n"]) == list(range(N))
    assert found["s"] == [f"text {n}" for n in found["n"]]
    assert found == cells(Seed(TABLE, order="shuffled"), key=7)
    assert found["n"] != cells(Seed(table, order="shuffled"), key=8)["n"]
    assert sum(a == b for a, b in zip(found["n"], range(N), strict=True)) < 20


def test_a_short_run_takes_rows_from_anywhere_and_a_longer_one_goes_on_with_others(table):
    """A thousand rows are spread over the table as a sample is."""
    first = cells(Seed(table, order="shuffled"), rows=1_000)["n"]
    assert cells(Seed(table, order="shuffled"), rows=3_000)["n"][:1_000] == first
    tenths = collections.Counter(number * 10 // N for number in first)
    assert all(60 < tenths[tenth] < 140 for tenth in range(10))


def test_a_slice_is_shuffled_within_itself(table):
    """The order is of the rows that are taken."""
    found = cells(Seed(table, rows=slice(100, 9_000, 3), order="shuffled"))["n"]
    assert sorted(found) == list(range(100, 9_000, 3)) != found


def test_tables_beside_each_other_are_shuffled_apart():
    """Rows of two tables meet at random."""
    recipe = Recipe(
        columns=[Seed({"a": range(100)}, order="shuffled"), Seed({"b": range(100)}, order="shuffled")], seed=1
    )
    made = recipe.preview(100, **QUIET).to_arrow()
    assert made.column("a") != made.column("b")


def test_shuffled_rows_are_the_same_in_every_run_of_a_recipe(tmp_path):
    """Whatever its row groups, and also where it is resumed, without a seed of its own too."""
    recipe = Recipe(columns=[Seed(TABLE, order="shuffled")])
    first = recipe.build(tmp_path / "out", 500, row_group_size=30, **QUIET).to_arrow().column("n").to_pylist()
    more = recipe.build(tmp_path / "out", 1_000, resume="always", **QUIET).to_arrow().column("n").to_pylist()
    assert more[:500] == first
    assert len(set(more)) == 1_000


def test_a_shuffled_table_on_the_disk_is_read_once(tmp_path, monkeypatch):
    """However many row groups the run has."""
    monkeypatch.setattr(blocks, "IN_MEMORY_BYTES", 1000)
    pq.write_table(TABLE, tmp_path / "x.parquet", row_group_size=1_000)
    recipe = Recipe(columns=[Seed(tmp_path / "x.parquet", order="shuffled")], seed=1)
    loaded: list[int] = []
    load = Blocks.load
    monkeypatch.setattr(Blocks, "load", lambda self, number: loaded.append(number) or load(self, number))
    result = recipe.build(tmp_path / "out", N, row_group_size=100, **QUIET)
    assert sorted(result.dataset["n"]) == list(range(N))
    assert sorted(loaded) == list(range(20))


# The parts of it


@given(st.integers(1, 3_000), st.text())
def test_a_permutation_is_one(size, key):
    """Every number once, and back again."""
    numbers = np.arange(size)
    permuted = Permutation(size, key).forwards(numbers)
    assert sorted(permuted) == list(range(size))
    assert (Permutation(size, key).backwards(permuted) == numbers).all()


def test_every_order_of_a_few_rows_is_as_likely_as_any_other():
    """24 orders of 4 rows, drawn 12,000 times."""
    drawn = collections.Counter(tuple(Permutation(4, str(key)).forwards(np.arange(4))) for key in range(12_000))
    assert set(drawn) == set(itertools.permutations(range(4)))
    assert all(350 < times < 650 for times in drawn.values())


@given(st.integers(1, 50), st.slices(50), st.none() | st.text())
def test_positions_lead_to_rows_and_back(size, part, key):
    """Rows that are left out have no position."""
    rows = range(size)[part]
    if not rows:
        return
    order = Order(rows, key)
    taken = order.rows_at(np.arange(len(rows)))
    assert sorted(taken) == sorted(rows)
    positions = order.positions_of(np.arange(size))
    assert positions[taken].tolist() == list(range(len(rows)))
    assert set(positions[[row for row in range(size) if row not in rows]]) <= {NOT_TAKEN}


SIZES = st.lists(st.integers(0, 5), min_size=1, max_size=6)


@given(SIZES, st.data())
def test_any_stretch_of_any_blocks(sizes, data):
    """Also of empty ones; in order and shuffled, the same as of the table in memory."""
    whole = pa.table({"n": range(sum(sizes))})
    starts = starts_of(sizes)
    cut = Blocks(whole.schema, starts, lambda i: whole.slice(starts[i], sizes[i]))
    start = data.draw(st.integers(0, cut.rows))
    rows = data.draw(st.integers(0, cut.rows - start))
    assert cut.read(start, rows).equals(whole.slice(start, rows))
    if not cut.rows:
        return
    order = Order(range(cut.rows), data.draw(st.text(max_size=3)))
    expected = arranged(in_memory(whole), order, cut.rows).read(start, rows)
    assert arranged(cut, order, cut.rows).read(start, rows).equals(expected)


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "s": st.none() | st.text(max_size=3),
            "l": st.none() | st.lists(st.none() | st.integers(0, 9), max_size=3),
            "o": st.none()
            | st.fixed_dictionaries({"x": st.none() | st.floats(), "y": st.lists(st.text(max_size=1), max_size=2)}),
            "b": st.none() | st.booleans(),
            "d": st.none() | st.dates(),
            "m": st.none() | st.decimals(-99, 99, places=2),
            "z": st.none() | st.binary(max_size=3),
        }
    ),
    min_size=1,
    max_size=4,
)
SCHEMA = pa.schema(
    {
        "s": pa.string(),
        "l": pa.list_(pa.int64()),
        "o": pa.struct([("x", pa.float64()), ("y", pa.list_(pa.string()))]),
        "b": pa.bool_(),
        "d": pa.date32(),
        "m": pa.decimal128(5, 2),
        "z": pa.binary(),
    }
)


@settings(max_examples=30)
@given(ROWS, st.integers(0, 4), st.integers(0, 3))
def test_a_digest_is_of_the_values_alone(rows, cut, changed):
    """However they are cut, stored and padded; another value anywhere is another digest."""
    whole = pa.Table.from_pylist(rows, SCHEMA)
    expected = digest_of(in_memory(whole))
    cut = min(cut, len(rows))
    padded = pa.concat_tables([whole, whole]).slice(len(rows) - cut, len(rows))
    halves = pa.concat_tables([padded.slice(cut), padded.slice(0, cut)]).combine_chunks()
    assert digest_of(in_memory(pa.concat_tables([whole.slice(0, cut), whole.slice(cut)]))) == expected
    assert digest_of(in_memory(halves)) == expected
    large = whole.set_column(0, "s", whole.column("s").cast(pa.large_string()).dictionary_encode())
    assert digest_of(in_memory(large)) == expected
    row = rows[changed % len(rows)]
    other = {"s": (row["s"] or "") + "x", "b": not row["b"], "l": [*(row["l"] or []), 1], "z": (row["z"] or b"") + b"x"}
    for name, value in other.items():
        table = pa.Table.from_pylist([{**one, name: value} if one is row else one for one in rows], SCHEMA)
        assert digest_of(in_memory(table)) != expected


def test_a_digest_is_of_names_and_types_too():
    """The integer 1 is not the float 1, and a column has a name."""
    tables = [
        pa.table({"a": [1, 2]}),
        pa.table({"a": [1.0, 2.0]}),
        pa.table({"b": [1, 2]}),
        pa.table({"a": ["1", "2"]}),
        pa.table({"a": [[1], [2]]}),
        pa.table({"a": [[1, 2], []]}),
        pa.table({"a": [None, 1, 2]}),
        pa.table({"a": [1, None, 2]}),
        pa.table({"a": ["12"]}),
        pa.table({"a": pa.array([{"k": 1}], pa.map_(pa.string(), pa.int64()))}),
        pa.table({"a": pa.array([{"k": 2}], pa.map_(pa.string(), pa.int64()))}),
    ]
    assert len({digest_of(in_memory(table)) for table in tables}) == len(tables)
