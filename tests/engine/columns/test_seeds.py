"""Seeds: rows are those of the table, in order and repeated, and anything but a table is refused."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from rowloop import Expression, Recipe, RecipeError, Seed

if TYPE_CHECKING:
    from pathlib import Path


def rows(seed: Seed, number: int, **options: Any) -> list[dict[str, Any]]:
    """Preview a recipe of a seed alone."""
    return Recipe(columns=[seed]).preview(number, progress=False, **options).to_arrow().to_pylist()


TIMES = pd.DatetimeIndex(["2020-01-01", "NaT", "2024-02-29"])
FRAME = pd.DataFrame({
    "i": [1, 2, 3],
    "f": [0.5, math.nan, 2.0],
    "s": ["a", None, "{{ s }}"],
    "b": [True, False, True],
    "t": TIMES,
    "z": TIMES.tz_localize("UTC"),
    "d": [date(2020, 1, 1), None, date(2024, 2, 29)],
    "l": [[1, 2], [], None],
    "o": [{"x": 1}, {"x": None}, None],
    "c": pd.Categorical(["u", "v", "u"]),
    "n": pd.array([1, None, 3], dtype="Int64"),
})  # fmt: skip

VALUES = [
    [1, 0.5, "a", True, datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC), date(2020, 1, 1), [1, 2], {"x": 1}, "u", 1],  # noqa: DTZ001, E501 - one line a row
    [2, None, None, False, None, None, None, [], {"x": None}, "v", None],
    [3, 2.0, "{{ s }}", True, datetime(2024, 2, 29), datetime(2024, 2, 29, tzinfo=UTC), date(2024, 2, 29), None, None, "u", 3],  # noqa: DTZ001, E501 - one line a row
]  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_frame_comes_out_as_it_went_in(size):
    """Numbers, nulls, times, nested values and categories; repeated from the top; whatever the row groups."""
    expected = [dict(zip(FRAME.columns, VALUES[i % 3], strict=True)) for i in range(8)]
    assert rows(Seed(FRAME, repeat=True), 8, row_group_size=size) == expected


def test_types_reach_the_disk(tmp_path):
    """The column types of the parquet file are the data's own."""
    result = Recipe(columns=[Seed(FRAME, repeat=True)]).build(tmp_path / "out", 7, row_group_size=2, progress=False)
    types = {field.name: str(field.type) for field in result.to_arrow().schema}
    assert (types["i"], types["f"], types["n"], types["d"]) == ("int64", "double", "int64", "date32[day]")
    assert types["t"].startswith("timestamp")
    assert result.to_arrow().column("i").to_pylist() == [1, 2, 3, 1, 2, 3, 1]


def test_a_run_shorter_than_the_data_takes_the_first_rows():
    """In order."""
    assert [row["i"] for row in rows(Seed(FRAME), 2)] == [1, 2]


def test_only_the_named_columns_are_taken():
    """In the order of the names."""
    assert [list(row) for row in rows(Seed(FRAME, columns=["s", "i"]), 1)] == [["s", "i"]]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl", "json"])
def test_files_are_read(tmp_path, suffix):
    """Csv, parquet and both kinds of JSON; a str or a Path."""
    frame, path = pd.DataFrame({"a": [1, 2], "b": ["x", "ü"]}), tmp_path / f"data.{suffix}"
    writers = {
        "csv": lambda: frame.to_csv(path, index=False),
        "parquet": lambda: frame.to_parquet(path),
        "jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        "json": lambda: frame.to_json(path, orient="records"),
    }
    writers[suffix]()
    expected = [{"a": 1, "b": "x"}, {"a": 2, "b": "ü"}, {"a": 1, "b": "x"}]
    assert rows(Seed(path, repeat=True), 3) == expected
    assert rows(Seed(str(path), repeat=True), 3) == expected


def test_an_unknown_column_is_refused_with_the_nearest_one():
    """When the recipe is made."""
    with pytest.raises(RecipeError, match=r"no column 'topics'; did you mean 'topic'\?"):
        Recipe(columns=[Seed(pd.DataFrame({"topic": ["x"]}), columns=["topics"])])


def corrupt(tmp_path: Path, name: str) -> Path:
    """Write a file whose contents do not fit its name."""
    path = tmp_path / name
    path.write_bytes(b'\x00\xff{"a": [')
    return path


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pd.DataFrame(), "no rows"),
        (pd.DataFrame({"a": []}), "no rows"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column names"),
        (pd.DataFrame({1: [2]}), "column names must be text"),
        (pd.DataFrame({"a": [1, "x"]}), "does not fit into a table"),
        (pd.DataFrame({"a": [complex(1, 2)]}), "does not fit into a table"),
        (pd.DataFrame({"a": [2**70]}), "does not fit into a table"),
        (pd.DataFrame({"a": ["\ud800"]}, dtype=object), "does not fit into a table"),
        (pd.DataFrame({"a": pd.period_range("2020", periods=1, freq="Y")}), "make it text, numbers or timestamps"),
        (pd.Series([1]), "takes a DataFrame or a path, not Series"),
        ({"a": 1}, "column 'a' is of the type int; a dict holds one list per column"),
        ("data.xlsx", "is none of .csv"),
        ("", "is none of .csv"),
        ("nowhere.csv", "cannot read 'nowhere.csv'"),
        ("nowhere.parquet", "cannot read 'nowhere.parquet'"),
    ],
)
def test_data_that_is_not_a_table_is_refused_when_the_recipe_is_made(data, says):
    """In one sentence, with the path."""
    with pytest.raises(RecipeError, match=rf"^columns\.seed\.data: .*{says}"):
        Recipe(columns=[Seed(data)])


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.jsonl", "x.json"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    """Also if the reader raises an error of its own."""
    with pytest.raises(RecipeError, match="cannot read"):
        Recipe(columns=[Seed(corrupt(tmp_path, name))])


def test_a_directory_is_refused(tmp_path):
    """Whatever it is called."""
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(RecipeError, match="cannot read"):
        Recipe(columns=[Seed(tmp_path / "x.csv")])


def test_later_changes_to_the_frame_have_no_effect():
    """A recipe keeps the data it was made with."""
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    recipe = Recipe(columns=[Seed(frame)])
    frame.loc[0, "a"] = 99
    assert recipe.preview(2, progress=False).dataset["a"].tolist() == [1, 2]


def test_a_file_is_read_once_however_often_the_recipe_grows(tmp_path):
    """Adding columns to a recipe does not read the data again."""
    path = tmp_path / "x.csv"
    path.write_text("a\n1\n")
    recipe = Recipe(columns=[Seed(path)])
    path.unlink()

    @recipe.column
    def twice(a: int) -> int:
        return 2 * a

    assert recipe.preview(1, progress=False).dataset["twice"].tolist() == [2]


def test_other_data_makes_another_fingerprint():
    """Two recipes that differ in a value of the seed data are not the same recipe; equal data makes equal ones."""

    def fingerprint(*values: int) -> str:
        recipe = Recipe(columns=[Seed(pd.DataFrame({"a": values}))], seed=1)
        return recipe.preview(1, progress=False).metadata["recipe_fingerprint"]

    assert fingerprint(1, 2) == fingerprint(1, 2) != fingerprint(1, 3)


def test_seed_values_are_text_to_templates():
    """A value that looks like a template is not rendered."""
    recipe = Recipe(columns=[Seed(FRAME), Expression("e", "<{{ s }}>")])
    assert recipe.preview(3, progress=False).dataset["e"].tolist() == ["<a>", "<>", "<{{ s }}>"]


def test_the_data_of_the_user_is_not_written_into_the_recipe():
    """The metadata describes a frame and does not contain it."""
    described = Recipe(columns=[Seed(pd.DataFrame({"a": ["private"] * 1000}))]).to_yaml()
    assert "private" not in described
    assert "1000 rows" in described
