"""Schemas: how a structured answer is checked, and the error of one that does not obey."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, Literal

import hypothesis.strategies as st
import msgspec
import pydantic
import pytest
from hypothesis import given

import rowloop as rl
from rowloop.engine.columns.schemas import DisobedientError, JsonReader, SchemaLike, json_schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Review(pydantic.BaseModel):
    """A review."""

    stars: int = pydantic.Field(ge=1, le=5)
    verdict: Literal["good", "bad"]
    words: list[str] = []


REVIEW: dict[str, Any] = {
    "type": "object",
    "properties": {
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "verdict": {"enum": ["good", "bad"]},
        "words": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["stars", "verdict"],
    "additionalProperties": False,
}
BOTH = pytest.mark.parametrize("schema", [Review, REVIEW], ids=["pydantic", "JSON Schema"])

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


def refusal(schema: SchemaLike, text: str) -> rl.ModelError:
    """Return the error of a refused answer."""
    with pytest.raises(rl.ModelError) as caught:
        JsonReader(schema).read(text)
    assert (caught.value.kind, caught.value.retryable, caught.value.fatal) == ("invalid_output", False, False)
    return caught.value


@BOTH
def test_an_answer_that_obeys_is_the_value(schema: SchemaLike):
    """Also with white space around it."""
    read = JsonReader(schema).read('\n {"stars": 4, "verdict": "good", "words": ["a"]} ')
    assert read == {"stars": 4, "verdict": "good", "words": ["a"]}


def test_a_pydantic_model_fills_in_its_defaults_and_yields_plain_data():
    """A value in a table is not an object of the user's class."""
    assert JsonReader(Review).read('{"stars": 4, "verdict": "bad"}') == {"stars": 4, "verdict": "bad", "words": []}


@BOTH
@pytest.mark.parametrize(
    "answer",
    [
        "",
        "good",
        "null",
        "[]",
        '{"stars": 4}',
        '{"stars": 6, "verdict": "good"}',
        '{"stars": "many", "verdict": "good"}',
        '{"stars": 4, "verdict": "fair"}',
        '{"stars": 4, "verdict": "good"',
        '{"stars": 4, "verdict": "good"} and more',
        '{"stars": NaN, "verdict": "good"}',
        "[" * 100_000,
        '{"stars": 4, "verdict": "good", "words": ["\\ud800"]}',
    ],
    ids=lambda answer: repr(answer)[:40],
)
def test_an_answer_that_does_not_obey_is_an_error_of_the_model(schema: SchemaLike, answer: str):
    """In one line, with the beginning of the answer."""
    said = str(refusal(schema, answer))
    assert said.startswith("the answer does not obey the schema: ")
    assert "\n" not in said
    assert len(said) < 1000
    assert said.encode()


@pytest.mark.parametrize(
    ("schema", "answer", "says"),
    [
        (Review, '{"stars": 6, "verdict": "good"}', "stars: Input should be less than or equal to 5"),
        (Review, '{"verdict": "good"}', "stars: Field required"),
        (REVIEW, '{"stars": 6, "verdict": "good"}', "6 is greater than the maximum of 5"),
        (REVIEW, '{"verdict": "good"}', '"stars" is a required property'),
        (
            REVIEW,
            '{"stars": 1, "verdict": "good", "more": 1}',
            "Additional properties are not allowed ('more' was unexpected)",
        ),
    ],
)
def test_the_error_names_the_field_and_the_problem(schema: SchemaLike, answer: str, says: str):
    """In the words of the checking library."""
    assert says in str(refusal(schema, answer))


@given(PLAIN)
def test_an_empty_schema_reads_every_json_value_as_it_is(value: Any):
    """It allows everything."""
    assert JsonReader({}).read(msgspec.json.encode(value).decode()) == value


@pytest.mark.parametrize(
    "schema",
    [{"type": "nope"}, {"properties": 5}, {"required": "stars"}, {"$ref": "#/$defs/none"}, {"minimum": "1"}],
    ids=str,
)
def test_an_invalid_json_schema_is_refused_when_the_recipe_is_made(schema: dict[str, Any]):
    """The error names the column and the field, in one line."""
    with pytest.raises(rl.RecipeError, match=r"^Structured\('s'\): schema is not a JSON Schema: ") as caught:
        rl.Structured("s", model="m", prompt="p", schema=schema)
    assert "\n" not in str(caught.value)


def test_a_schema_may_refer_to_itself():
    """A column can hold trees."""

    class Tree(pydantic.BaseModel):
        """A tree."""

        children: list[Tree] = []

    for schema in (Tree, json_schema_of(Tree)):
        assert JsonReader(schema).read('{"children": [{"children": []}]}') == {"children": [{"children": []}]}
        refusal(schema, '{"children": [5]}')


@pytest.fixture
def address() -> Iterator[tuple[str, Callable[[], bool]]]:
    """Return the address of a server that nobody may connect to, and a function that returns whether somebody did."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)

        def connected() -> bool:
            try:
                server.accept()
            except BlockingIOError:
                return False
            return True

        yield f"http://127.0.0.1:{server.getsockname()[1]}", connected


OUTSIDE: list[dict[str, Any]] = [
    {"$ref": "URL/x.json"},
    {"type": "object", "properties": {"a": {"items": {"$ref": "URL/x.json#/a"}}}},
    {"$id": "URL/root.json", "$ref": "x.json"},
    {"$defs": {"unused": {"$ref": "URL/x.json"}}},
    {"$dynamicRef": "URL/x.json#a"},
    {"$schema": "URL/meta.json", "type": "string"},
    {"$schema": "https://json-schema.org/draft/2019-09/schema", "$id": "URL/a", "$ref": "other"},
    {"$ref": "FILE"},
    {"allOf": [{"type": "object"}, {"$ref": "FILE#/$defs/a"}]},
    {"$ref": "urn:example:x"},
    {"$ref": "other.json"},
    {"$ref": "../other.json#/a"},
    {"$ref": "https://example.org/x.json"},
]


@pytest.mark.parametrize("schema", OUTSIDE, ids=str)
def test_a_reference_out_of_the_schema_is_refused_by_name_and_nothing_is_fetched(
    schema: dict[str, Any], address: tuple[str, Callable[[], bool]], tmp_path: Path
):
    """Neither an address nor a file is read, whichever keyword names it."""
    url, connected = address
    file = tmp_path / "x.json"
    file.write_text('{"$defs": {"a": {}}, "const": "secret"}')
    text = json.dumps(schema).replace("URL", url).replace("FILE", file.as_uri())
    with pytest.raises(
        rl.RecipeError, match=r"^Structured\('s'\): schema refers to '.*', which is not in it"
    ) as caught:
        rl.Structured("s", model="m", prompt="p", schema=json.loads(text))
    assert "secret" not in str(caught.value)
    assert not connected()


INSIDE: list[dict[str, Any]] = [
    {"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}},
    {"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"type": "integer"}}},
    {"$ref": "#x", "$defs": {"a": {"$anchor": "x", "type": "integer"}}},
    {"$dynamicRef": "#x", "$defs": {"a": {"$dynamicAnchor": "x", "type": "integer"}}},
    {"$id": "https://example.org/root", "$ref": "a", "$defs": {"a": {"$id": "a", "type": "integer"}}},
    {"$ref": "urn:example:a", "$defs": {"a": {"$id": "urn:example:a", "type": "integer"}}},
    {"$schema": "http://json-schema.org/draft-07/schema#", "items": {"$ref": "#"}, "type": "integer"},
]


@pytest.mark.parametrize("schema", INSIDE, ids=str)
def test_references_within_the_schema_work(schema: dict[str, Any]):
    """By pointer, anchor and id."""
    reader = JsonReader(schema)
    assert reader.read("7") == 7
    with pytest.raises(DisobedientError):
        reader.read('"seven"')


def test_a_name_that_looks_like_a_reference_is_none():
    """A property called $ref, and values that hold one."""
    JsonReader({"properties": {"$ref": {"type": "string"}}, "enum": [{"$ref": "http://127.0.0.1:9/"}]})


def test_a_schema_that_contains_itself_or_is_nested_without_end_is_refused():
    """Before anything walks it."""
    circle: dict[str, Any] = {}
    circle["items"] = circle
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"items": deep}
    for schema in (circle, deep):
        with pytest.raises(rl.RecipeError, match=r"^Structured\('s'\)"):
            rl.Structured("s", model="m", prompt="p", schema=schema)
