"""A recipe's templates are checked when it is made: fields against schemas, and braces that are no Jinja."""

from __future__ import annotations

import warnings
from typing import Any

import pydantic
import pytest

import rowloop as rl


class Line(pydantic.BaseModel):
    """An item of a list."""

    name: str


class Order(pydantic.BaseModel):
    """A value with every kind of field."""

    score: int = pydantic.Field(alias="theScore")
    lines: list[Line]
    first: Line | None
    prices: dict[str, int]
    either: Line | str


class Open(pydantic.BaseModel, extra="allow"):
    """A value that may have more fields."""

    name: str


def recipe(template, schema: Any = Order, prompt="x"):
    """Make a recipe in which a template reads a structured column."""
    order = rl.Structured("order", model="m", prompt=prompt, schema=schema)
    return rl.Recipe(models={"m": lambda _: "{}"}, columns=[order, rl.Expression("line", template)])


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ order.scores }}", "no field 'scores' in its schema"),
        ("{{ order.items }}", "no field 'items' in its schema"),
        ("{{ order.lines[0].nme }}", "'nme' in its schema; did you mean 'name'"),
        ("{% for line in order.lines %}{{ line.nme }}{% endfor %}", "'nme' in its schema; did you mean 'name'"),
        ("{{ order.first.nme|upper }}", "'nme' in its schema; did you mean 'name'"),
        ("{{ row['order']['lnes'] }}", "'lnes' in its schema; did you mean 'lines'"),
        ("{% if order.lnes %}x{% endif %}", "'lnes' in its schema; did you mean 'lines'"),
    ],
)
def test_a_field_that_the_schema_lacks_is_refused(template, problem):
    """With the nearest one, and the path of the template."""
    with pytest.raises(rl.RecipeError, match=problem) as raised:
        recipe(template)
    assert raised.value.path == "columns.line.template"


@pytest.mark.parametrize(
    "template",
    [
        "{{ order.score }}{{ order.theScore }}",
        "{{ order.lines[0].name }}{% for line in order.lines %}{{ line.name }}{% endfor %}",
        "{{ order.prices.anything }}{{ order.either.anything }}",
        "{{ order.absent|default('') }}{{ order.get('absent') }}{{ order.items() }}{{ order|tojson }}",
        "{% if order.absent is defined %}{{ order.absent.x }}{% endif %}",
        "{% if 'absent' in order %}{{ order.absent }}{% endif %}",
        "{% set order2 = order %}{{ order2.absent }}",
        "{{ order.lines.absent }}",
    ],
)
def test_what_may_be_there_is_not_refused(template):
    """A field that is there by either name, one whose absence is handled, and whatever is not plain."""
    assert recipe(template).columns == ["order", "line"]


@pytest.mark.parametrize(
    "schema",
    [
        Open,
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
        {"type": "object", "properties": {"a": {}}, "patternProperties": {"^x": {}}},
        {"anyOf": [{"type": "object", "properties": {"a": {}}}, {"type": "object"}]},
        {"allOf": [{"type": "object", "properties": {"a": {}}}, {"properties": {"x": {}}}]},
    ],
)
def test_an_open_schema_allows_any_field(schema):
    """Nothing is refused that an answer may have."""
    assert recipe("{{ order.x }}", schema).columns == ["order", "line"]


def test_a_reference_is_followed_and_a_circle_of_them_is_open():
    """A tree is a common schema."""
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
    schema = {"$ref": "#/$defs/node", "$defs": {"node": node}}
    assert recipe("{{ order.next.next.next }}", schema)
    with pytest.raises(rl.RecipeError, match="did you mean 'next'"):
        recipe("{{ order.next.next.nxt }}", schema)


def test_single_braces_around_a_column_are_warned_about_once():
    """By the recipe, not by each of its compilations."""
    columns = [rl.Category("topic", ["a"]), rl.Text("order", model="m", prompt="About {topic}, {topic}.")]
    with pytest.warns(UserWarning, match=r"columns.order.prompt: {topic} is sent as it is; write {{ topic }}") as seen:
        rl.Recipe(models={"m": lambda _: "x"}, columns=columns).preview(1, engine="sequential")
    assert len(seen) == 1


@pytest.mark.parametrize(
    "prompt", ['{"topic": 1}', "{{ topic }} as {topic}", "{other}", "\\frac{topic}", "{% raw %}{{topic}}{% endraw %}"]
)
def test_other_braces_are_not_warned_about(prompt):
    """JSON, LaTeX, words that are no columns, and columns that are read beside them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = rl.Text("text", model="m", prompt=prompt)
        rl.Recipe(models={"m": lambda _: "x"}, columns=[rl.Category("topic", ["a"]), text])
