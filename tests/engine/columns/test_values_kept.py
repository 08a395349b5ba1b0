"""Whatever an answer or a function holds is in the table, or fails its own cell: nothing is lost, and no run ends."""

from __future__ import annotations

import datetime as dt
import json
import math
import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest

import rowloop as rl
from identifiers import by_repr
from rowloop.engine.columns.sources.json_text import is_json
from rowloop.engine.datasets.journal import Journal
from rowloop.engine.datasets.kept import make_again
from rowloop.engine.datasets.reading import read_metadata, read_result
from ways import by_address

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fake_openai import FakeOpenAI

GROUPS: dict[str, Any] = {"row_group_size": 2, "progress": False}
RESUME: dict[str, Any] = {**GROUPS, "resume": "always"}


def structured(schema: Any, answers: Sequence[str], **fields: Any) -> rl.Recipe:
    """Make a recipe of a structured column `x` with an answer per row, and what a template makes of it."""
    template = fields.pop("template", "{{ x }}")
    model = rl.Model(lambda prompt: answers[int(prompt)])
    x = rl.Structured("x", model="m", prompt="{{ n }}", schema=schema, **{"reasks": 0, **fields})
    columns = [rl.Seed({"n": list(range(len(answers)))}), x, rl.Expression("line", template)]
    return rl.Recipe(models={"m": model}, columns=columns)


def of_function(values: Sequence[Any], **options: Any) -> rl.Recipe:
    """Make a recipe of a function's column `x` with these values."""
    return rl.Recipe(
        columns=[rl.Seed({"n": list(range(len(values)))}), rl.cell(lambda n: values[n], name="x", **options)]
    )


def stored(result: rl.Result) -> list[Any]:
    """Return the values of `x`, read back from the disk."""
    assert result.path is not None
    found = read_result(result.path)
    assert found.to_arrow().schema.equals(result.to_arrow().schema, check_metadata=True)
    (types,) = {str(pq.read_schema(part).field("x")) for part in (result.path / "data").iterdir()}
    assert types == str(found.to_arrow().schema.field("x"))
    values: list[Any] = found.dataset["x"].tolist()
    return values


def queried(files: str, query: str) -> list[Any]:
    """Select one column of the files with DuckDB."""
    with duckdb.connect() as connection:
        connection.read_parquet(files).create_view("files")
        return [value for (value,) in connection.execute(f"SELECT {query}").fetchall()]


class Item(pydantic.BaseModel):
    """Is inside of another."""

    price: int = pydantic.Field(alias="thePrice")


class Order(pydantic.BaseModel):
    """Has aliases, a computed field, and one whose name is chosen."""

    model_config = pydantic.ConfigDict(serialize_by_alias=True)

    total: int = pydantic.Field(alias="theTotal")
    items: list[Item]
    note: str = pydantic.Field(validation_alias=pydantic.AliasChoices("note", "remark"), default="")

    @pydantic.computed_field
    @property
    def twice(self) -> int:
        """Double the total."""
        return 2 * self.total


class Open(pydantic.BaseModel, extra="allow"):
    """Keeps keys that it does not name."""

    name: str


ORDER = {"total": 3, "items": [{"price": 2}], "note": "", "twice": 6}


@pytest.mark.parametrize("names", ["aliases", "names", "both"])
def test_values_carry_the_fields_own_names_whichever_the_answer_uses(server: FakeOpenAI, tmp_path: Path, names: str):
    """In templates and in the table; the model sees the aliases."""
    by_alias = '{"theTotal": 3, "items": [{"thePrice": 2}]}'
    answers = {"aliases": by_alias, "names": '{"total": 3, "items": [{"price": 2}]}'}
    server.configure(reply=f"fixed:{answers.get(names, by_alias.replace('thePrice', 'price'))}")
    template = "{{ x.total }} {{ x['items'][0].price }} {{ x.twice }}"
    columns = [
        rl.Structured("x", model="m", prompt="p", schema=Order),
        rl.Expression("line", template),
    ]
    recipe = rl.Recipe(models={"m": by_address(server.url)}, columns=columns)
    result = recipe.build(tmp_path, 2, progress=False)
    assert stored(result) == [ORDER, ORDER]
    assert result.dataset["line"].tolist() == ["3 2 6"] * 2
    (asked,) = {request.body for request in server.requests()}
    assert b"theTotal" in asked
    assert b"thePrice" in asked
    assert not is_json(result.to_arrow().schema.field("x"))


def test_keys_that_a_model_allows_are_kept(server: FakeOpenAI, tmp_path: Path):
    """Those of `extra="allow"` reach the table, through HTTP and back from the disk."""
    answer = {"name": "a", "more": {"deep": [1, "x", None]}, "big": 2**80}
    server.configure(reply=f"fixed:{json.dumps(answer)}", structured=False)
    columns = [rl.Structured("x", model="m", prompt="p", schema=Open), rl.Expression("line", "{{ x.more.deep[1] }}")]
    result = rl.Recipe(models={"m": by_address(server.url)}, columns=columns).build(tmp_path, 2, progress=False)
    assert stored(result) == [answer, answer]
    assert result.dataset["line"].tolist() == ["x", "x"]


class Cat(pydantic.BaseModel):
    """Purrs."""

    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    """Barks."""

    kind: Literal["dog"]
    tricks: list[str]


class Owner(pydantic.BaseModel):
    """Has one of two."""

    pet: Cat | Dog = pydantic.Field(discriminator="kind")
    born: dt.date = dt.date(2020, 1, 1)
    height: Decimal = Decimal("1.50")


class Tree(pydantic.BaseModel):
    """Refers to itself, twice."""

    left: Tree | None = None
    right: Tree | None = None


MIXED: list[tuple[Any, list[Any]]] = [
    ({"type": ["integer", "string"]}, [1, "a"]),
    ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, ["a", 1, "1"]),
    ({"type": "object"}, [{"a": 1}, {"b": [1, "x"]}, {}]),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, [{"a": 1}, {"b": 2}, {}]),
    ({"type": "array"}, [[1], ["a", None], []]),
    ({"type": "array", "items": {}}, [[1], [{"a": 1}], []]),
    ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]}, [["a", 1], ["b", 2]]),
    ({"type": "object", "properties": {"a": {}}}, [{"a": 1}, {"a": "x"}, {}]),
    ({"type": "object", "properties": {}, "additionalProperties": False}, [{}, {}]),
    ({"type": "object", "properties": {"a": {"type": "object"}}}, [{"a": {}}, {"a": {"b": 1}}]),
    ({"enum": [1, "a", None, True]}, [1, "a", True, None]),
    ({"enum": [1, 2]}, [1, 2]),
    ({"const": "a"}, ["a", "a"]),
    ({"type": "null"}, [None, None]),
    ({"type": "integer"}, [1, 2**63, -(2**63)]),
    ({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, [1, 2**64 - 1]),
    ({"type": "number"}, [1.5, 2**60 + 1, 2]),
    ({"type": ["integer", "number"]}, [1, 2.5]),
    ({"type": "object", "properties": {"a": {"type": "integer"}}}, [{"a": 1}, {"a": 2, "b": "more"}, {"a": 2**70}]),
    ({"type": "array", "items": {"type": "object", "properties": {"a": {"const": 1}}}}, [[{"a": 1}], [{"b": 2}]]),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#"}, {"const": 1}]}}}, [1, None]),
    ({"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}}]}, [{"a": "x"}, {"a": "y"}]),
    ({}, [1, "a", [], {}, None, 1.5, True]),
    (Owner, [
        {"pet": {"kind": "cat", "lives": 7}, "born": "2020-01-01", "height": "1.50"},
        {"pet": {"kind": "dog", "tricks": []}, "born": "2021-01-01", "height": "1.0"},
    ]),
    (Tree, [{"left": {"left": None, "right": None}, "right": None}, {"left": None, "right": None}]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "values"), MIXED, ids=by_repr)
def test_every_schema_can_be_a_column(tmp_path: Path, schema: Any, values: list[Any]):
    """Values come back as they were, from the run, from the disk and after a resume; templates see them as well."""
    recipe = structured(schema, [json.dumps(value) for value in values])
    first = recipe.build(tmp_path, 1, **GROUPS)
    assert first.status == "complete"
    result = recipe.build(tmp_path, **RESUME)
    assert (result.status, stored(result)) == ("complete", values)
    assert [isinstance(value, bool) for value in stored(result)] == [isinstance(value, bool) for value in values]


def test_a_schema_decides_once_for_all_parts(tmp_path: Path):
    """The text is JSON that pandas, polars and DuckDB read; the first part is written as the last."""
    values = [{"a": 1}, {"b": [1, {"c": "ü"}]}, {}, {"d": None}]
    schema = {"type": "object", "additionalProperties": True}
    result = structured(schema, [json.dumps(value) for value in values]).build(tmp_path, **GROUPS)
    assert result.to_arrow().column("x").to_pylist() == [
        json.dumps(v, separators=(",", ":"), ensure_ascii=False) for v in values
    ]
    files = str(tmp_path / "data" / "*.parquet")
    texts = {
        "pandas": pd.read_parquet(tmp_path / "data")["x"].tolist(),
        "polars": pl.read_parquet(files)["x"].to_list(),
        "duckdb": queried(files, "x FROM files ORDER BY n"),
    }
    for name, read in texts.items():
        assert [json.loads(text) for text in read] == values, name
    assert queried(files, "x->>'a' FROM files WHERE n = 0") == ["1"]


NUMBERS = {"type": "object", "properties": {"a": {"type": "number"}}, "additionalProperties": True}


class Measured(pydantic.BaseModel, extra="allow"):
    """May hold a number that JSON does not have."""

    a: float


class Strict(pydantic.BaseModel):
    """Has a validator with a bug."""

    a: int

    @pydantic.field_validator("a")
    @classmethod
    def _odd(cls, value: int) -> int:
        return {1: 1, 2: 2}[value]


@pytest.mark.parametrize(
    ("schema", "bad", "says"),
    [
        (Measured, '{"a": NaN}', "expected a value that JSON can hold"),
        (Measured, '{"a": -Infinity}', "expected a value that JSON can hold"),
        (NUMBERS, '{"a": NaN}', "it is not JSON"),
        (Strict, '{"a": 3}', "3"),
    ],
)
@pytest.mark.parametrize("on_error", ["drop", "null"])
def test_an_answer_that_cannot_be_written_fails_its_own_cell(
    tmp_path: Path, schema: Any, bad: str, says: str, on_error: Any
):
    """It is paid for and recorded; all other rows are written."""
    recipe = structured(schema, ['{"a": 1}', bad, '{"a": 2}'], on_error=on_error, template="{{ n }}")
    result = recipe.build(tmp_path, **GROUPS)
    assert result.usage.requests == 3
    (message,) = result.failures["message"]
    assert says in message
    values = [None if value is None else value["a"] for value in stored(result)]
    assert values == ([1, 2] if on_error == "drop" else [1, None, 2])


def test_an_answer_that_cannot_be_written_is_asked_for_again():
    """The model is shown what is wrong."""
    asked: list[str] = []

    def model(prompt: str) -> str:
        asked.append(prompt)
        return '{"a": NaN}' if len(asked) == 1 else '{"a": 1}'

    x = rl.Structured("x", model="m", prompt="p", schema=Measured)
    result = rl.Recipe(models={"m": rl.Model(model)}, columns=[x]).preview(1, progress=False)
    assert result.dataset["x"].tolist() == [{"a": 1.0}]
    assert len(asked) == 2


VARYING: list[list[Any]] = [
    [1, 2, "three", 4],
    ["a", "b", 1, None, 2.5],
    [1, 2, 2**70],
    [2**60 + 1, 1, 0.5, 2],
    [1, 2, {"a": 1}, [1]],
    [{"a": 1}, {"a": 1}, {"a": "x"}],
    [{"a": {}}, {"a": {}}, {"a": {}}],
    [[1], ["a"], [[]]],
    [1.5, True, 2.5],
    [True, 1, "x"],
    [{"a": [1]}, [{"a": 1}], "x", None, 2**64],
]


@pytest.mark.parametrize("values", VARYING, ids=by_repr)
def test_a_functions_values_may_be_of_several_types(tmp_path: Path, values: list[Any]):
    """The column becomes JSON text, earlier parts as well; no value is lost or changes, also after a resume."""
    for rows in (1, 2, len(values)):
        path = tmp_path / str(rows)
        recipe = of_function(values)
        recipe.build(path, rows, **GROUPS)
        result = recipe.build(path, **RESUME)
        assert (result.status, len(result.failures)) == ("complete", 0)
        assert stored(result) == values
        assert [isinstance(value, bool) for value in stored(result)] == [isinstance(value, bool) for value in values]
        assert is_json(result.to_arrow().schema.field("x"))


def test_a_late_value_of_another_type_costs_no_work(tmp_path: Path):
    """A thousand integers, then a text, then a crash of the run: nothing is worked again."""
    worked: list[int] = []
    lock = threading.Lock()

    @rl.cell(max_parallel=1)
    def x(n: int) -> Any:
        with lock:
            worked.append(n)
        return "text" if n == 1000 else n

    recipe = rl.Recipe(columns=[rl.Seed({"n": list(range(1200))}), x])
    options: dict[str, Any] = {"row_group_size": 100, "progress": False}

    def stop(part: Any) -> None:
        if part.row_group == 10:
            raise ValueError("stop")

    with pytest.raises(rl.DatasetGenerationError, match="stop"):
        recipe.build(tmp_path, on_part=stop, **options)
    assert {str(pq.read_schema(part).field("x").type) for part in (tmp_path / "data").iterdir()} == {"string"}
    result = recipe.build(tmp_path, resume="always", **options)
    assert stored(result) == [*range(1000), "text", *range(1001, 1200)]
    assert sorted(worked) == sorted(set(worked)) == list(range(1200))


def test_parts_of_a_crash_while_a_column_became_json_text_are_read_and_mended(tmp_path: Path):
    """One part has the text, another the number that it stands for."""
    values = ["1", "2", 3, "4", 5]
    recipe = of_function(values)
    recipe.build(tmp_path, 4, **GROUPS)
    part = tmp_path / "data" / "part-00000.parquet"
    table = pq.read_table(part, partitioning=None)
    pq.write_table(table.set_column(1, "x", pa.array(["1", "2"])), part)  # as the crash left it
    metadata = read_metadata(tmp_path)
    assert metadata is not None
    journal = Journal(tmp_path / ".rowloop/journal.sqlite")
    make_again(journal, tmp_path, metadata)
    journal.remove_when_closed(removed=False)
    journal.set_checksums({0: None, 1: None})
    journal.close()
    assert read_result(tmp_path).dataset["x"].tolist() == values[:4]
    assert stored(recipe.build(tmp_path, **RESUME)) == values


UNWRITABLE = ["\ud800", {"a": "\ud800"}, object(), [object()], {(1, 2): 3}, 10**5000, 1j]


@pytest.mark.parametrize(
    "value", UNWRITABLE, ids=["half", "half inside", "object", "objects", "keys", "digits", "complex"]
)
@pytest.mark.parametrize("dtype", [None, "string", "int64"])
def test_a_value_that_nothing_can_hold_fails_its_own_cell(tmp_path: Path, value: Any, dtype: str | None):
    """By on_error, before its row group is written; columns that need it do not see it."""
    fine = "a" if dtype == "string" else 1
    values = [fine, value, fine]
    result = of_function(values, dtype=dtype).build(tmp_path / "drop", **GROUPS)
    assert stored(result) == [fine, fine]
    ((row, column, message),) = result.failures[["row", "column", "message"]].to_numpy().tolist()
    assert (row, column) == (1, "x")
    assert "column 'x', row group 0: expected " in message
    assert "but row 1 has " in message
    nulled = of_function(values, dtype=dtype, on_error="null").build(tmp_path / "null", **GROUPS)
    assert nulled.to_arrow().column("x").to_pylist() == [fine, None, fine]
    with pytest.raises(rl.DatasetGenerationError, match=r"^column 'x', row group 0: expected .*, but row 1 has "):
        of_function(values, dtype=dtype, on_error="raise").build(tmp_path / "raise", **GROUPS)


def test_no_column_is_worked_for_a_value_that_cannot_be_written():
    """Nothing is paid for it."""
    asked: list[str] = []

    def model(prompt: str) -> str:
        asked.append(prompt)
        return "yes"

    bad = rl.cell(lambda n: object() if n else "a", name="x")
    columns = [rl.Seed({"n": [0, 1]}), bad, rl.Text("t", model="m", prompt="{{ x }}")]
    result = rl.Recipe(models={"m": rl.Model(model)}, columns=columns).preview(2, progress=False)
    assert (len(result.dataset), asked) == (1, ["a"])


def test_a_batch_function_may_return_any_types(tmp_path: Path):
    """One value per row; one that cannot be written fails the function's rows of the row group, as an error does."""

    @rl.batch
    def x(n: pd.Series[int]) -> list[Any]:
        return [[1, "a", {"k": 1}, None, object(), 5][i] for i in n]

    result = rl.Recipe(columns=[rl.Seed({"n": list(range(6))}), x]).build(tmp_path, **GROUPS)
    assert stored(result) == [1, "a", {"k": 1}, None]
    assert result.failures["row"].tolist() == [4, 5]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 5)], ["2020-01-01", "2020-01-01T05:00:00"]),  # noqa: DTZ001 - the point
        ([b"a", "b"], ["YQ==", "b"]),
        ([pd.NaT, 1], [None, 1]),
        ([pd.Timestamp("2020-01-01"), "x"], ["2020-01-01T00:00:00", "x"]),
        ([math.nan, 1.5, "x"], ["NaN", 1.5, "x"]),
        ([Open(name="a"), 1], [{"name": "a"}, 1]),
    ],
    ids=by_repr,
)
def test_values_that_json_does_not_have_become_text_beside_others(values: list[Any], expected: list[Any]):
    """Times, bytes and the like stand for themselves only in a column of their own."""
    found = of_function(values).preview(len(values), progress=False, row_group_size=1)
    assert [None if value is None or value != value else value for value in found.dataset["x"]] == expected  # noqa: PLR0124


def test_large_integers_beside_nulls_keep_their_digits_in_pandas():
    """Which would make floats of them."""
    big = 2**53 + 1
    for values in ([big, None, 2], [{"a": big}, {"a": None}, {"a": 2}], [[big, None], [], [2]], [[{"a": [big, None]}]]):
        assert of_function(values).preview(len(values), progress=False).dataset["x"].tolist() == values
    assert of_function([1, None]).preview(2, progress=False).dataset["x"].dtype == "float64"


@pytest.mark.serial
def test_time_does_not_grow_with_the_number_of_keys(tmp_path: Path):
    """A map with other keys in each row, from a model and from a function."""
    answers = [json.dumps({f"k{n}-{i}": i for i in range(20)}) for n in range(400)]
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    options: dict[str, Any] = {"row_group_size": 20, "progress": False}
    begun = time.perf_counter()
    result = structured(schema, answers, template="{{ n }}").build(tmp_path / "model", **options)
    assert stored(result) == [json.loads(answer) for answer in answers]
    result = of_function([json.loads(answer) for answer in answers]).build(tmp_path / "function", **options)
    assert stored(result) == [json.loads(answer) for answer in answers]
    assert time.perf_counter() - begun < 20


def counted(frame: pd.DataFrame) -> pd.DataFrame:
    """Look into a column of mixed values, and leave it."""
    assert all(isinstance(value, dict) for value in frame["x"])
    return frame.assign(keys=[len(value) for value in frame["x"]])


def test_processors_see_values_and_not_their_text(tmp_path: Path):
    """after_batch gets them decoded, and they are JSON text again in the table."""
    values = [{"a": 1}, {"b": [1, "x"]}, {"c": {}, "d": 1}]
    recipe = structured({"type": "object"}, [json.dumps(value) for value in values])
    made = rl.Recipe(models=recipe.models, columns=recipe._columns, processors=[counted])
    result = made.build(tmp_path, **GROUPS)
    assert stored(result) == values
    assert result.dataset["keys"].tolist() == [1, 1, 2]


@pytest.mark.parametrize("keep", ["x.str.len() == 1", lambda frame: frame["x"].map(len) == 1])
def test_a_stages_filter_and_explode_see_values_and_not_their_text(keep: str | Callable[[Any], Any]):
    """And the next stage gets them as they were."""
    answers = ["[1]", '["a", {"k": 1}]', '[{"k": [2]}]', "[]"]
    first = structured({"type": "array"}, answers)
    then = rl.Recipe(columns=[rl.Seed(columns=["x"]), rl.Expression("line", "{{ x }}")])
    stages = [rl.Stage("first", first, filter=keep), rl.Stage("then", then)]
    assert rl.Workflow(stages).preview(4)[-1].dataset["x"].tolist() == [[1], [{"k": [2]}]]
    stages = [rl.Stage("first", first, explode="x"), rl.Stage("then", then)]
    assert rl.Workflow(stages).preview(4)[-1].dataset["x"].tolist() == [1, "a", {"k": 1}, {"k": [2]}]
    frame = first.preview(4, progress=False).dataset
    assert rl.Stage("first", first, explode="x").passed_on(frame)["x"].tolist() == [1, "a", {"k": 1}, {"k": [2]}]
