"""Schemas: how a structured answer is checked, and the error of one that does not obey."""

from __future__ import annotations

from typing import Any, Literal

import hypothesis.strategies as st
import msgspec
import pydantic
import pytest
from hypothesis import given

import rowloop as rl
from rowloop.engine.columns.schemas import JsonReader, SchemaLike, json_schema_of


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
