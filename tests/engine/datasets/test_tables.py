"""Frames: row groups become tables of one schema, and a value that does not fit is named and not changed."""

from __future__ import annotations

import base64
from enum import Enum
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given
from pydantic import BaseModel

from identifiers import by_repr
from rowloop.engine.columns.sources.json_text import frame_of
from rowloop.engine.core.errors import DatasetGenerationError
from rowloop.engine.core.events import Admit
from rowloop.engine.core.graph import Node, compile_graph
from rowloop.engine.core.store import RowGroup
from rowloop.engine.datasets.tables import Frames, arrow_type_of_schema, concatenated, conformed


def group(values: list[Any], id_: int = 0, start: int = 0) -> RowGroup:
    """Make a row group of one column."""
    made = RowGroup(Admit(id_, start, len(values)), compile_graph([Node("x")]))
    made.values[0] = values
    return made


def table(frames: Frames, values: list[Any], **where: int) -> pa.Table:
    """Make a table of all the rows of a group."""
    return frames.table(group(values, **where), range(len(values)))


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        ([1], [2.5], pa.float64()),
        ([2.5], [1], pa.float64()),
        ([1, 2.5], [3], pa.float64()),
        ([None], [1], pa.int64()),
        ([None], ["a"], pa.string()),
        (["a"], [None], pa.string()),
        ([{}], [{"a": 1}], pa.struct([("a", pa.int64())])),
        ([{"a": 1}], [{"b": "x"}], pa.struct([("a", pa.int64()), ("b", pa.string())])),
        ([{"a": 1}], [{"a": 1.5}], pa.struct([("a", pa.float64())])),
        ([{"a": 1}], [{"a": 1, "b": [1]}], pa.struct([("a", pa.int64()), ("b", pa.list_(pa.int64()))])),
        ([{"a": 1, "b": 2}], [{"a": 3}], pa.struct([("a", pa.int64()), ("b", pa.int64())])),
        ([[]], [[1]], pa.list_(pa.int64())),
        ([[1]], [[]], pa.list_(pa.int64())),
        ([[{"a": 1}]], [[{"b": 1}]], pa.list_(pa.struct([("a", pa.int64()), ("b", pa.int64())]))),
    ],
)
def test_a_type_that_was_inferred_widens(first, then, expected):
    """To a type that holds both groups' values; the version shows whether earlier tables need widening."""
    frames = Frames(["x"], [None])
    before = table(frames, first)
    version = frames.version
    after = table(frames, then)
    assert after.schema == frames.schema == pa.schema([("x", expected)])
    assert (frames.version > version) == (before.schema != after.schema)
    assert before.cast(frames.schema).num_rows == len(first)


def lacking(expected: Any, found: Any) -> Any:
    """Take out of a dict the keys that are None: a struct has them all."""
    if isinstance(expected, dict) and isinstance(found, dict):
        assert all(value is None for key, value in found.items() if key not in expected)
        return {key: lacking(value, found[key]) for key, value in expected.items()}
    return found


PLAIN = st.one_of(st.none(), st.integers(-(2**53), 2**53))


@given(
    st.lists(
        st.lists(st.one_of(st.none(), st.dictionaries(st.sampled_from("abc"), PLAIN, min_size=1)), min_size=1),
        min_size=1,
    )
)
def test_no_value_is_lost_however_types_widen(groups):
    """Groups of dicts with any keys: every value of every group is in the final tables."""
    frames = Frames(["x"], [None])
    tables = [table(frames, values, id_=i) for i, values in enumerate(groups)]
    found = pa.concat_tables([made.cast(frames.schema) for made in tables]).column("x").to_pylist()
    expected = [value for values in groups for value in values]
    assert [lacking(one, other) for one, other in zip(expected, found, strict=True)] == expected


def test_only_live_rows_are_taken():
    """By their offsets."""
    assert Frames(["x"], [None]).table(group([1, 2, 3]), [0, 2]).column("x").to_pylist() == [1, 3]


def test_an_inferred_type_is_not_narrowed_by_later_values():
    """Whole floats stay floats."""
    frames = Frames(["x"], [None])
    table(frames, [0.5])
    assert table(frames, [1, 2]).column("x").to_pylist() == [1.0, 2.0]
    assert frames.version == 1


@pytest.mark.parametrize(
    ("type_", "values", "says"),
    [
        ("int64", [1, 2, "three", "four"], r"expected int64, but row 102 has 'three' \(str\)"),
        ("int64", [1, 2.5], r"expected int64, but row 101 has 2.5 \(float\)"),
        ("int64", [1, 2**63], r"expected int64, but row 101 has 9223372036854775808 \(int\)"),
        ("string", ["a", b"\xff", 1], r"expected string, but row 10[12] has "),
        ("string", ["a", 1], r"expected string, but row 101 has 1 \(int\)"),
        ("string", ["\ud800"], r"expected string, but row 100 has '\\\\?ud800' \(str\)"),
        ("bool", [True, 1], r"expected bool, but row 101 has 1 \(int\)"),
        ("int64", [1, 2, None, "three"], r"expected int64, but row 103 has 'three' \(str\)"),
        (pa.list_(pa.int64()), [[1], 2], r"expected list<item: int64>, but row 101 has 2 \(int\)"),
        (None, [{"a": 1}, {"a": "\ud800"}], r"expected values of one type, but row 101 has \{'a': '.*'\} \(dict\)"),
        (None, [1, object()], r"expected values of one type, but row 101 has <object object"),
        (None, [1, 10**5000], r"expected values of one type, but row 101 has a value without a repr .* \(int\)"),
        ("string", ["x" * 1000, 1], r"but row 101 has 1 \(int\)"),
        ("int64", [1.0, 2.0, 0.5], r"expected int64, but row 102 has 0.5 \(float\)"),
        ("int64", [1, "x" * 1000], r"but row 101 has 'x{79} \(str\)"),
        ({"type": "integer"}, [1, object()], r"expected int64, but row 101 has <object object"),
        ({"type": "object"}, [{}, object()], r"expected string, but row 101 has <object object"),
    ],
)
def test_a_misfit_is_named(type_, values, says):
    """With column, row group, the run's row number, the value and what was expected."""
    with pytest.raises(DatasetGenerationError, match=rf"^column 'x', row group 7: .*{says}") as raised:
        table(Frames(["x"], [type_]), values, id_=7, start=100)
    assert (raised.value.column, raised.value.row_group) == ("x", 7)
    str(raised.value).encode()


def test_a_misfit_of_a_later_group_is_named():
    """The type of one group is that of the next."""
    frames = Frames(["x"], ["int64"])
    table(frames, [1])
    with pytest.raises(DatasetGenerationError, match=r"expected int64, but row 12 has 'a' \(str\)"):
        table(frames, [1, None, "a", 3], start=10)
    frames = Frames(["x"], [None])
    table(frames, [1])
    with pytest.raises(DatasetGenerationError, match=r"expected int64, but row 12 has '\\ud800' \(str\)"):
        table(frames, [1, None, "\ud800", 3], start=10)
    assert table(frames, [2]).schema == pa.schema([("x", pa.int64())])


def test_a_misfit_is_named_by_its_own_number_when_rows_are_gone():
    """Row numbers are the run's, not those of the live rows."""
    with pytest.raises(DatasetGenerationError, match="row 13 has 'a'"):
        Frames(["x"], ["int64"]).table(group([1, 2, 3, "a"], start=10), [0, 3])


def test_finding_a_misfit_among_many_is_quick():
    """A hundred thousand values, the last of which does not fit: not a hundred thousand attempts."""
    with pytest.raises(DatasetGenerationError, match="row 100000 has 'a'"):
        table(Frames(["x"], ["int64"]), [*range(100_000), "a"])
    with pytest.raises(DatasetGenerationError, match="row 100000 has <object"):
        table(Frames(["x"], [None]), [*range(100_000), object()])


class Level(Enum):
    """A choice."""

    LOW = "low"
    HIGH = "high"


class Inner(BaseModel):
    """Is referred to."""

    a: int
    b: float | None = None


class Outer(BaseModel):
    """Has one of everything."""

    name: str
    done: bool
    inner: Inner
    maybe: Inner | None
    many: list[Inner]
    level: Level
    levels: list[Level] | None = None


class Tree(BaseModel):
    """Refers to itself."""

    value: int
    children: list[Tree]


def test_a_models_schema_becomes_a_struct():
    """References, optional members, lists and choices."""
    inner = pa.struct([("a", pa.int64()), ("b", pa.float64())])
    schema = Outer.model_json_schema()
    assert arrow_type_of_schema(schema, schema) == pa.struct([
        ("name", pa.string()),
        ("done", pa.bool_()),
        ("inner", inner),
        ("maybe", inner),
        ("many", pa.list_(inner)),
        ("level", pa.string()),
        ("levels", pa.list_(pa.string())),
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer"}, pa.int64()),
        ({"type": ["integer", "null"]}, pa.int64()),
        ({"type": ["null", "string"]}, pa.string()),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, pa.float64()),
        ({"oneOf": [{"type": "boolean"}]}, pa.bool_()),
        ({"enum": ["a", "b"]}, pa.string()),
        ({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, pa.list_(pa.list_(pa.int64()))),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"type": "string"}}}, pa.string()),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, pa.struct([("a", pa.string())])),
        ({}, None),
        ({"type": "null"}, None),
        ({"type": ["integer", "string"]}, None),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, None),
        ({"enum": ["a", 1]}, None),
        ({"type": "array"}, None),
        ({"type": "object"}, None),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, None),
        ({"type": "object", "properties": {"a": {}}}, None),
        ({"$ref": "#/$defs/nowhere"}, None),
        ({"$ref": "https://example.com/schema"}, None),
        (Tree.model_json_schema(), None),
        ({"enum": [1, 2, None]}, pa.int64()),
        ({"enum": [1, True]}, None),
        ({"enum": [2**63]}, None),
        ({"const": 1.5}, pa.float64()),
        ({"const": {"a": 1}}, None),
        ({"type": ["integer", "number", "null"]}, pa.float64()),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, pa.float64()),
        ({"anyOf": [{"type": "string"}, {"enum": ["a"]}, {"const": None}]}, pa.string()),
        ({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, pa.uint64()),
        ({"type": "integer", "minimum": -(2**70)}, None),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "string"}}}, pa.string()),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "string"}}}, pa.string()),
        ({"$ref": "#/$defs/a", "properties": {"b": {}}, "$defs": {"a": {"type": "string"}}}, None),
        ({"type": "array", "items": True}, None),
        ({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "string"}}, None),
        ({"type": "object", "properties": {}, "additionalProperties": False}, None),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True}, None),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "patternProperties": {"^x": {}}}, None),
        ({"type": "object", "properties": {"a": {"type": "null"}}}, None),
        ({"$ref": "#"}, None),
    ],
    ids=by_repr,
)
def test_a_json_schema_becomes_a_type_if_it_has_one(schema, expected):
    """If it leaves something open, or refers to itself, it has none."""
    assert arrow_type_of_schema(schema, schema) == expected


def test_a_schema_that_stands_for_billions_of_fields_has_no_type():
    """Each of forty names stands for two of the next; one that refers to itself twice is no slower."""
    defs: dict[str, Any] = {
        str(i): {"type": "object", "properties": {name: {"$ref": f"#/$defs/{i + 1}"} for name in "ab"}}
        for i in range(40)
    }
    schema = {"$ref": "#/$defs/0", "$defs": {**defs, "40": {"type": "string"}}}
    assert arrow_type_of_schema(schema, schema) is None
    schema = {"$ref": "#/$defs/0", "$defs": {**defs, "40": {"$ref": "#/$defs/0"}}}
    assert arrow_type_of_schema(schema, schema) is None
    schema = {"$ref": "#/$defs/27", "$defs": {**defs, "40": {"type": "string"}}}
    assert arrow_type_of_schema(schema, schema) is None


TEXT = pa.field("x", pa.string(), metadata={b"rowloop.json": b""})


@pytest.mark.parametrize(
    ("type_", "groups"),
    [
        (None, [[1], ["a"], [2.5]]),
        (None, [["a"], ["b"], [1]]),
        (None, [[1.5], [True], [None]]),
        (None, [[{"a": 1}], [[1]]]),
        (None, [[b"a", None], [None, "a"]]),
        ({"type": "integer"}, [[1], [2**63]]),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, [[{"a": 1}], [{"b": 1}]]),
    ],
    ids=by_repr,
)
def test_a_column_without_one_type_is_json_text_from_then_on(type_, groups):
    """Earlier tables conform to it, each value as it was; a resume continues with it."""
    frames = Frames(["x"], [type_])
    made = [table(frames, values, id_=i) for i, values in enumerate(groups)]
    assert frames.schema.equals(pa.schema([TEXT]), check_metadata=True)
    whole = concatenated(conformed(frames, made))
    assert whole.schema.equals(frames.schema, check_metadata=True)
    found = frame_of(whole)["x"].tolist()
    expected = [base64.b64encode(v).decode() if isinstance(v, bytes) else v for values in groups for v in values]
    assert [lacking(one, other) for one, other in zip(expected, found, strict=True)] == expected
    again = Frames(["x"], [type_])
    again.resume(frames.schema)
    assert table(again, groups[0]).schema.equals(pa.schema([TEXT]), check_metadata=True)
    assert concatenated([made[0], whole]).schema.equals(frames.schema, check_metadata=True)


def test_integers_that_no_float_holds_become_json_text_when_floats_come():
    """The earlier table decides: its integers would lose digits."""
    frames = Frames(["x"], [None])
    made = [table(frames, values) for values in ([2**60 + 1], [0.5])]
    assert frames.schema.field("x").type == pa.float64()
    assert frame_of(concatenated(conformed(frames, made)))["x"].tolist() == [2**60 + 1, 0.5]


def test_objects_with_many_different_keys_become_json_text():
    """At once in one group, and after some groups; objects that all have the same keys are a struct."""
    frames = Frames(["x"], [None])
    values = [{str(i): i} for i in range(100)]
    assert table(frames, values).schema.equals(pa.schema([TEXT]), check_metadata=True)
    frames = Frames(["x"], [None])
    for i in range(20):
        table(frames, values[i : i + 1])
    assert frames.schema.equals(pa.schema([TEXT]), check_metadata=True)
    frames = Frames(["x"], [None])
    assert pa.types.is_struct(table(frames, [{str(i): i for i in range(100)}] * 3).schema.field("x").type)


def test_values_that_obey_a_models_schema_fit_its_type():
    """They are the same afterwards."""
    value = {
        "name": "n", "done": True, "inner": {"a": 1, "b": None}, "maybe": None, "many": [{"a": 2, "b": 0.5}],
        "level": "low", "levels": None,
    }  # fmt: skip
    Outer.model_validate(value)
    assert table(Frames(["x"], [Outer.model_json_schema()]), [value, None]).column("x").to_pylist() == [value, None]
