"""Text files as seeds: a cell has what the file has, and a prompt shows it as it stands there."""

from __future__ import annotations

import bz2
import csv
import datetime as dt
import gzip
import io
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowloop import Expression, Recipe, RecipeError, Seed
from seed_cells import cells, types

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUIET: Any = {"progress": False}


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, bytes | str], Path]:
    """Write a file."""

    def write(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def shown(seed: Seed, column: str) -> list[str]:
    """Return what templates show of a column."""
    recipe = Recipe(columns=[seed, Expression("shown", f"{{{{ {column} }}}}")])
    return recipe.preview(seed.length, **QUIET).dataset["shown"].tolist()


# CSV


@pytest.mark.parametrize(
    "texts",
    [
        ["02670", "10115"],  # zip codes
        ["10.50", "9.99"],  # prices
        ["NA", "N/A", "null", "None", "nan", "-", "#N/A"],
        ["1", "2.5"],  # an integer would become 1.0
        ["1e3", "2e5"],
        ["true", "false"],
        ["yes", "no"],
        ["+49 30", "0049"],
        ["1,234", "5"],
        ["2024-1-5", "2024-01-05"],
        ["2024-02-30"],
        ["0000-01-01"],
        ["9223372036854775808"],
        ["0x10"],
        ["-0"],
        ["1.0", "NaN"],
        ["inf", "1.5"],
        [" 5", "6"],
        ["0.1", "0.10"],
        ["12345678901234567.5"],
        ["ünïcode", "=1+1", "a\nb", 'say "hi"', "{{ x }}"],
    ],
)
def test_text_that_would_come_back_changed_stays_text(file, texts):
    """Every value is as it stands in the file, in cells and in prompts."""
    content = io.StringIO()
    csv.writer(content).writerows([["x"], *([text] for text in texts)])
    seed = Seed(file("x.csv", content.getvalue()))
    assert cells(seed)["x"] == texts
    assert types(seed)["x"] == "string"
    assert shown(seed, "x") == texts


@pytest.mark.parametrize(
    ("texts", "values", "type_"),
    [
        (["1", "-20", "9007199254740993"], [1, -20, 9007199254740993], "int64"),
        (["0.5", "-1.25", "0.1234567890123456", "1.0"], [0.5, -1.25, 0.1234567890123456, 1.0], "double"),
        (["1e-05", "1e+16", "2.5"], [1e-05, 1e16, 2.5], "double"),  # as Python writes them
        (["True", "False"], [True, False], "bool"),
        (["2024-02-29", "1999-12-31"], [dt.date(2024, 2, 29), dt.date(1999, 12, 31)], "date32[day]"),
    ],
)
def test_text_that_comes_back_unchanged_becomes_what_it_says(file, texts, values, type_):
    """Also beside empty values, which are null."""
    seed = Seed(file("x.csv", "\n".join(["x,y", *(f"{text},1" for text in texts), ",1"])))
    assert cells(seed)["x"] == [*values, None]
    assert types(seed)["x"] == type_
    assert shown(seed, "x") == [*texts, ""]


CELL = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(repr),
    st.floats(-1e6, 1e6).map(lambda value: f"{value:.2f}"),
    st.sampled_from(["", "True", "true", "NA", "007", "1.0", "1.10", "1e5", "-0", "-0.0", "2024-01-01", "0001-01-01"]),
    st.dates().map(str),
)


@given(st.lists(CELL, min_size=1, max_size=12))
def test_no_value_of_a_csv_file_is_shown_other_than_it_stands_there(tmp_path_factory, texts):
    """Whatever the values of a column are, and whatever stands beside them."""
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    with path.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([["n", "x"], *([str(i), text] for i, text in enumerate(texts))])
    found = cells(Seed(path))
    assert found["n"] == list(range(len(texts)))
    assert ["" if value is None else str(value) for value in found["x"]] == texts


def test_a_type_is_decided_by_all_values_not_by_the_first(file):
    """A value at the end of a large file makes the whole column text, from the first row on."""
    numbers = [str(i) for i in range(200_000)]
    seed = Seed(file("x.csv", "\n".join(["x", *numbers, "007"])))
    assert cells(seed)["x"] == [*numbers, "007"]


def test_empty_is_null_and_nothing_else_is(file):
    """Quoted or not; a prompt shows nothing for it."""
    seed = Seed(file("x.csv", 'a,b\n1,\n2,""\n3,NA\n'))
    assert cells(seed) == {"a": [1, 2, 3], "b": [None, None, "NA"]}
    assert shown(seed, "b") == ["", "", "NA"]


def test_types_are_set_by_column(file):
    """By Arrow's names, Arrow types or Python's own; they reach the table."""
    path = file("x.csv", "zip,n,p,d\n2670,1,2,2024-01-01\n00501,2,,2024-01-02\n")
    seed = Seed(path, types={"zip": "string", "n": str, "p": "float64", "d": pa.string()})
    assert cells(seed) == {
        "zip": ["2670", "00501"],
        "n": ["1", "2"],
        "p": [2.0, None],
        "d": ["2024-01-01", "2024-01-02"],
    }
    assert cells(Seed(path, types={"zip": "int64"}))["zip"] == [2670, 501]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"types": {"zap": "string"}}, r"columns\.seed\.types: names 'zap', .*did you mean 'zip'"),
        ({"types": {"zip": "text"}}, r"columns\.seed\.types\.zip: 'text' is not a type"),
        ({"types": {"name": "int64"}}, r"columns\.seed\.types: 'name' has a value that is not int64: .*'Ann'"),
        ({"separator": "::"}, r"Seed\(.*separator: String should have at most 1 character"),
        ({"encoding": "latin-99"}, r"columns\.seed\.encoding: unknown encoding: latin-99"),
        ({"columns": ["nam"]}, r"columns\.seed\.columns: .*no column 'nam'; did you mean 'name'"),
    ],
)
def test_options_that_do_not_fit_the_file_are_refused(file, options, problem):
    """When the recipe is made, naming the option and the value."""
    with pytest.raises(RecipeError, match=problem):
        Recipe(columns=[Seed(str(file("x.csv", "zip,name\n02670,Ann\n")), **options)])


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("x.csv", "a;b\n1;x,y\n", {"separator": ";"}),
        ("x.tsv", "a\tb\n1\tx,y\n", {}),
        ("x.csv", b'\xef\xbb\xbfa,b\r\n1,"x,y"\r\n', {}),
        ("x.csv", '\n\na,b\n1,"x,y"', {}),
        ("x.csv", 'a,b\n1,"x,y"\n'.encode("utf-16"), {"encoding": "utf-16"}),
        ("x.csv.gz", gzip.compress(b"a,b\n", mtime=0) + gzip.compress(b'1,"x,y"\n', mtime=0), {}),
        ("x.CSV.bz2", bz2.compress(b'a,b\n1,"x,y"\n'), {}),
    ],
)
def test_dialects_and_compressions_of_delimited_text(file, name, content, options):
    """The separator, the encoding, line ends and members of a compressed file make no difference."""
    assert cells(Seed(file(name, content), **options)) == {"a": [1], "b": ["x,y"]}


def test_text_that_is_not_utf_8_names_the_way_out(file):
    """A wrong encoding is not guessed."""
    path = file("x.csv", "name\nZoë\n".encode("cp1252"))
    with pytest.raises(RecipeError, match=r'cannot read .*choose another encoding, such as encoding="cp1252"'):
        Recipe(columns=[Seed(path)])
    assert cells(Seed(path, encoding="cp1252")) == {"name": ["Zoë"]}


def test_columns_without_a_name_and_with_the_same_name_are_kept(file):
    """The index that DataFrame.to_csv writes has no name."""
    assert cells(Seed(file("x.csv", ",a,a\n0,1,2\n"))) == {"Unnamed: 0": [0], "a": [1], "a.1": [2]}


def test_a_row_longer_than_a_piece_is_read(file):
    """A row of several megabytes, in the middle of a file, with nothing lost before or after it."""
    long = "x" * 3_000_000
    many = [f"{i},short" for i in range(100_000)]
    seed = Seed(file("x.csv", "\n".join(["n,text", *many, f"-1,{long}", *many])))
    found = cells(seed)
    assert found["n"] == [*range(100_000), -1, *range(100_000)]
    assert found["text"][100_000] == long


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it is empty"),
        ("a,b\n1,2,3\n", r"Expected 2 columns, got 3: 1,2,3 \(columns are separated by ','\)"),
        ("a,b\n", "has no rows"),
    ],
)
def test_csv_that_is_no_table_is_refused(file, content, problem):
    """With the row that does not fit."""
    with pytest.raises(RecipeError, match=rf"^columns\.seed\.data: .*{problem}"):
        Recipe(columns=[Seed(file("x.csv", content))])


# JSON

SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.sampled_from(["00123", "1.10", "2024-01-01", "2024-01-01T00:00:00Z", "NaN", ""]),
)
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)
)


def strict(value: Any) -> Any:
    """Make values comparable with their types and the order of their keys."""
    return json.dumps(value)


@given(
    st.lists(
        st.fixed_dictionaries({}, optional={"a": VALUE, "b": SCALAR, "c": st.lists(st.floats(0, 1) | st.integers())})
    )
)
def test_json_values_are_what_the_file_says(tmp_path_factory, records):
    """Of every type and every mix of types; a key that a record lacks is null."""
    records.append({"n": 1})
    path = tmp_path_factory.mktemp("json") / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    found = cells(Seed(path))
    for name, values in found.items():
        assert strict(values) == strict([record.get(name) for record in records])


JSON = '{"s":"00123","v":"1.10","d":"2024-01-01","i":12345678901234567}\n{"s":"x","v":"2","d":null,"i":null}\n'


def test_strings_stay_strings_and_integers_beside_null_stay_exact(file):
    """No text becomes a number or a date, and no integer a float."""
    seed = Seed(file("x.jsonl", JSON))
    expected = {"s": ["00123", "x"], "v": ["1.10", "2"], "d": ["2024-01-01", None], "i": [12345678901234567, None]}
    assert cells(seed) == expected
    assert types(seed) == {"s": "string", "v": "string", "d": "string", "i": "int64"}
    assert Recipe(columns=[seed]).preview(2, **QUIET).to_arrow().to_pydict() == expected


def test_numbers_of_two_kinds_keep_their_kind_in_prompts(file):
    """1 beside 2.5 is shown as 1; the table's column is one of floats."""
    seed = Seed(file("x.jsonl", '{"n": 1}\n{"n": 2.5}\n{"n": null}\n'))
    assert shown(seed, "n") == ["1", "2.5", ""]
    assert Recipe(columns=[seed]).preview(3, **QUIET).to_arrow().to_pydict() == {"n": [1.0, 2.5, None]}


def test_integers_of_any_size_are_exact(file):
    """Up to 64 bits they are numbers in the table; what is larger is text there, and a number in prompts."""
    large = [2**64 - 1, 2**70, -(2**70)]
    assert cells(Seed(file("x.jsonl", f'{{"n": {2**64 - 1}}}\n{{"n": 1}}')))["n"] == [2**64 - 1, 1]
    seed = Seed(file("y.jsonl", "\n".join(f'{{"n": {number}}}' for number in large)))
    assert cells(seed)["n"] == large
    assert shown(seed, "n") == [str(number) for number in large]


def test_mixed_types_lose_nothing(file):
    """Neither in cells nor on the way to the disk."""
    values = [1, "1", None, {"a": 1}, {"b": [True]}, [1, "x"], 0.5]
    seed = Seed(file("x.jsonl", "\n".join(json.dumps({"m": value}) for value in values)))
    assert strict(cells(seed)["m"]) == strict(values)
    written = Recipe(columns=[seed]).preview(len(values), **QUIET).to_arrow().column("m").to_pylist()
    assert [None if text is None else json.loads(text) for text in written] == values


def test_objects_have_the_keys_that_they_have(file):
    """Not those of all rows."""
    seed = Seed(file("x.jsonl", '{"o": {"a": 1}}\n{"o": {"b": 2}}\n'))
    assert cells(seed)["o"] == [{"a": 1}, {"b": 2}]
    assert shown(seed, "o") == ["{'a': 1}", "{'b': 2}"]
    same = Seed(file("y.jsonl", '{"o": {"a": 1, "b": null}}\n{"o": {"a": 2, "b": "x"}}\n'))
    assert types(same)["o"] == "struct<a: int64, b: string>"


def test_a_type_holds_for_all_of_a_json_file(file):
    """What comes late changes no value that came before."""
    values = [*range(50_000), "007"]
    seed = Seed(file("x.jsonl", "\n".join(json.dumps({"v": value}) for value in values)))
    assert cells(seed)["v"] == values


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", '{"a":1,"b":"x"}\n\n{"a":2,"b":"y"}\n'),
        ("x.ndjson", b'\xef\xbb\xbf{"a":1,"b":"x"}\r\n{"a":2,"b":"y"}'),
        ("x.json", ' [ {"a":1,"b":"x"} ,\n{"a":2,"b":"y"}] \n'),
        ("x.json", '{"a":{"0":1,"1":2},"b":{"0":"x","1":"y"}}'),
        ("x.json", '{"a":[1,2],"b":["x","y"]}'),
        ("x.json", '{"a":1,"b":"x"}\n{"a":2,"b":"y"}\n'),
        ("x.jsonl.gz", gzip.compress(b'{"a":1,"b":"x"}\n{"a":2,"b":"y"}\n', mtime=0)),
        ("x.json.gz", gzip.compress(b'[{"a":1,"b":"x"},{"a":2,"b":"y"}]', mtime=0)),
        ("x.json", '[{"a":1,"b":"x"},{"a":2,"b":"y"}]'.encode("utf-16")),
    ],
)
def test_every_form_of_json_is_read(file, name, content):
    """Lines, a list, and the form of DataFrame.to_json."""
    options: Any = {"encoding": "utf-16"} if content[:2] == b"\xff\xfe" else {}
    assert cells(Seed(file(name, content), **options)) == {"a": [1, 2], "b": ["x", "y"]}


def test_a_large_list_is_read_piece_by_piece(file):
    """Records that lie across pieces, one larger than many of them, and text that looks like the end of a list."""
    records = [{"n": i, "t": "}],[{é" * (i % 7)} for i in range(60_000)]
    records[30_000]["t"] = "]" * 5_000_000
    found = cells(Seed(file("x.json", json.dumps(records, ensure_ascii=False, indent=1))))
    assert found == {name: [record[name] for record in records] for name in ("n", "t")}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("x.jsonl", '{"a":1}\n{"a":', "line 2: Input data was truncated"),
        ("x.jsonl", '{"a":1},{"a":2}\n', "line 1: JSON is malformed: trailing characters"),
        ("x.jsonl", '{"a":1}\n[1]\n', "line 2: Expected `object`, got `array`"),
        ("x.jsonl", '{"a":NaN}\n', "line 1: JSON is malformed"),
        ("x.jsonl", '{"a":1e999}\n', "line 1: Number out of range"),
        ("x.json", '[{"a":1} {"a":2}]', "expected ',', not '{'"),
        ("x.json", '[{"a":1}] 5', "something follows the list"),
        ("x.json", '[{"a":1}, 5]', "record 2: Expected `object`, got `int`"),
        ("x.json", '{"a":[1,2],"b":["x"]}', "column 'b' has 1 rows and 'a' has 2"),
        ("x.json", "", "truncated"),
        ("x.json", "[]", "no rows"),
    ],
)
def test_json_that_is_no_table_is_refused(file, name, content, problem):
    """With the line or the record."""
    with pytest.raises(RecipeError, match=rf"^columns\.seed\.data: .*{problem}"):
        Recipe(columns=[Seed(file(name, content))])


def test_types_of_json_values_are_set_by_column(file):
    """A number becomes the text that it has in the file."""
    seed = Seed(
        file("x.jsonl", '{"zip": 2670, "p": 1.10, "n": "5", "m": {"a": 1}}\n'),
        types={"zip": str, "p": str, "n": int, "m": str},
    )
    assert cells(seed) == {"zip": ["2670"], "p": ["1.10"], "n": [5], "m": ['{"a": 1}']}
