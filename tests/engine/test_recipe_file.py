"""Recipes as plain data: YAML and Python round-trip, wrong fields are refused with their path; fingerprints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import jsonschema_rs
import pandas as pd
import pytest
from hypothesis import given, settings

import rowloop as rl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="{}%#"), max_size=20)
"""Any text that holds no template."""
PROMPTS = TEXTS.filter(str.strip)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
ENDPOINT: dict[str, st.SearchStrategy[Any]] = {
    "base_url": st.sampled_from(["http://localhost:8000/v1", "https://example.org"]),
    "api_key_env": st.just("SOME_KEY"),
}
SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "max_parallel": st.integers(1, 500),
    "temperature": st.floats(0, 2),
    "max_tokens": st.integers(1, 10_000),
    "timeout": st.one_of(st.just("auto"), st.floats(0.1, 1000)),
    "price": st.builds(rl.Price, st.floats(0, 100), st.integers(0, 100), cached=st.none() | st.floats(0, 100)),
    "extra": st.dictionaries(NAMES, st.one_of(st.integers(-100, 100), TEXTS, st.booleans(), st.none()), max_size=3),
}
MODELS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"spec": st.just("local:gemma-3-270m")}, optional=SETTINGS),
    st.fixed_dictionaries(
        {"spec": st.sampled_from(["openai:m", "openai:org/model:free"])}, optional={**ENDPOINT, **SETTINGS}
    ),
)
VALUES: st.SearchStrategy[list[Any]] = st.one_of(
    st.lists(TEXTS, min_size=1, max_size=4),
    st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=1, max_size=4),
)


@st.composite
def recipes(draw: st.DrawFn) -> rl.Recipe:
    """Draw a recipe of the kinds of columns that a file can hold, with fields at their default and not."""
    models = {alias: rl.Model(**fields) for alias, fields in draw(st.dictionaries(NAMES, MODELS, min_size=1)).items()}
    names = draw(st.lists(NAMES, min_size=6, max_size=6, unique=True))
    model = st.sampled_from(sorted(models))
    on_error: Any = draw(st.sampled_from(["drop", "null", "raise"]))
    values = draw(VALUES)
    columns = [
        rl.Category(names[0], values, weights=draw(st.sampled_from([None, [1.0 + i for i in range(len(values))]]))),
        rl.Uniform(
            names[1], *draw(st.sampled_from([(), (1, 2), (-0.5, 7.25)])), decimals=draw(st.sampled_from([None, 2]))
        ),
        rl.Expression(names[2], draw(TEXTS), dtype="string", on_error=on_error),
        rl.Text(
            names[3],
            model=draw(model),
            prompt=draw(PROMPTS),
            system=draw(st.none() | TEXTS),
            stop=draw(st.lists(TEXTS, max_size=2)),
            max_tokens=draw(st.none() | st.integers(1, 99)),
            allow_truncated=draw(st.booleans()),
        ),
        rl.Structured(
            names[4], model=draw(model), prompt=draw(PROMPTS), schema={"type": "object", "title": draw(TEXTS)}
        ),
    ]
    processors = draw(
        st.sampled_from([[], [rl.DropColumns(names[:1])], [rl.SchemaTransform({"a": ["b", {"c": "d"}]})]])
    )
    return rl.Recipe(
        models=models, columns=columns, processors=processors, seed=draw(st.none() | st.integers(0, 2**62))
    )


@given(recipes())
@settings(max_examples=25, deadline=None)
def test_python_and_yaml_round_trip(recipe: rl.Recipe):
    """The recipe that is read back has the same data and fingerprint, and obeys the JSON Schema."""
    back = rl.Recipe.from_yaml(recipe.to_yaml())
    assert back.to_dict() == recipe.to_dict()
    assert (back.models, back.columns) == (recipe.models, recipe.columns)
    assert back._compile().fingerprint == recipe._compile().fingerprint
    SCHEMA.validate(recipe.to_dict())


@pytest.mark.parametrize("text", ["\x85", "a\x85b", "a\n\x85", "\u2028 \u2029", " \r\n", "\ufeff", "yes", "1e3"])
def test_text_comes_back_from_yaml_as_it_was(text: str):
    """Also characters that are line breaks in YAML alone, and text that looks like another type."""
    recipe = rl.Recipe(columns=[rl.Category("a", values=[text])])
    assert rl.Recipe.from_yaml(recipe.to_yaml()).to_dict() == recipe.to_dict()


SCHEMA = jsonschema_rs.validator_for(rl.Recipe.json_schema())

RECIPE = """
models:
  m: openai:x
columns:
- {name: topic, type: category, values: [a, b]}
- {name: text, type: text, model: m, prompt: "About {{ topic }}"}
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("models:", "modles:", "modles: unknown field; did you mean 'models'?"),
        ("m: openai:x", "m: {sepc: openai:x}", "models.m.sepc: unknown field; did you mean 'spec'?"),
        ("m: openai:x", "m: {spec: openai:x, max_parallel: 0}", "models.m.max_parallel: Input should be greater than"),
        (
            "m: openai:x",
            "m: {spec: openai:x, price: {prompt: -1, completion: 2}}",
            "models.m.price.prompt: Input should",
        ),
        ("m: openai:x", "m: {spec: openai:x, price: {prompt: 1}}", "models.m.price.completion: this field is needed"),
        ("m: openai:x", "m: {spec: openai:x, price: 5}", "models.m.price: Input should be a dictionary"),
        (
            "m: openai:x",
            "m: {spec: openai:x, price: {promt: 1, completion: 2}}",
            "models.m.price.promt: unknown field; did you mean 'prompt'?",
        ),
        (
            "m: openai:x",
            "m: {spec: openai:x, price: {prompt: 1, completion: 2, casual: 0}}",
            "models.m.price.casual: unknown field",
        ),
        ("m: openai:x", "m: {spec: openai:x, api_key: sk-1}", "models.m.api_key: a file must not contain a key; name"),
        ("m: openai:x", "m: [openai]", 'models.m: must be "provider:name" or a mapping'),
        ("m: openai:x", "- openai:x", "models: must be a mapping from a name to a model"),
        (
            "type: category",
            "type: categori",
            "columns.topic.type: unknown type of column 'categori'; did you mean 'category'?",
        ),
        ("type: category, ", "", "columns.topic.type: this field is needed; choose from: category, "),
        ("values: [a, b]", "value: [a, b]", "columns.topic.value: unknown field; did you mean 'values'?"),
        ("values: [a, b]", "values: 5", "columns.topic.values: Input should be a valid list"),
        ("model: m", "model: n", "columns.text.model: unknown model 'n'; choose from: m"),
        ("{{ topic }}", "{{ topics }}", "columns.text: needs the unknown column 'topics'; did you mean 'topic'?"),
        ("{{ topic }}", "{{ topic", "columns.text: prompt is not a template: "),
        ("name: topic, ", "", "columns.0.name: this field is needed"),
        ("columns:", "seed: x\ncolumns:", "seed: must be a whole number"),
        ("columns:", "processors: {a: b}\ncolumns:", "processors: must be a list"),
        (
            "columns:",
            "processors: [{type: drop}]\ncolumns:",
            "processors.0.type: unknown type of processor 'drop'; choose from: drop_columns",
        ),
        ("columns:", "columns: [", "the recipe is not YAML: "),
    ],
)
def test_a_wrong_field_is_refused_with_its_path_and_the_nearest_right_name(old: str, new: str, says: str):
    """The first mistake, in one line."""
    assert RECIPE.count(old) == 1
    with pytest.raises(rl.RecipeError) as caught:
        rl.Recipe.from_yaml(RECIPE.replace(old, new))
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_named(tmp_path: Path):
    """By its path."""
    with pytest.raises(rl.RecipeError, match=r"cannot read the recipe '.*nowhere.yaml': No such file"):
        rl.Recipe.from_yaml(tmp_path / "nowhere.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(rl.RecipeError, match=r"cannot read the recipe '.*bytes.yaml': not text"):
        rl.Recipe.from_yaml(str(tmp_path / "bytes.yaml"))
    (tmp_path / "right.yaml").write_text(RECIPE)
    assert rl.Recipe.from_yaml(tmp_path / "right.yaml").columns == ["topic", "text"]


def test_yaml_that_builds_objects_is_refused():
    """A recipe file is data, not a program."""
    with pytest.raises(rl.RecipeError, match="not YAML: could not determine a constructor"):
        rl.Recipe.from_yaml("columns: !!python/object/apply:os.getcwd []\n")


def test_functions_are_named_and_keys_left_out():
    """A file cannot hold a function, so it is refused when read back."""
    recipe = rl.Recipe(
        models={"m": rl.Model("openai:x", api_key="sk-secret", client=lambda: None)},  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - pydantic makes it a secret
        columns=[rl.Uniform("u"), rl.batch(lambda u: u, name="f", stateful=True)],
        processors=[lambda frame: frame],
    )
    data = recipe.to_dict()
    assert data["models"] == {"m": "openai:x"}
    assert data["columns"][1] == {"name": "f", "type": "function", "needs": ["u"], "whole": True, "stateful": True}
    assert data["processors"] == [{"type": "python", "name": "<lambda>"}]
    with pytest.raises(rl.RecipeError, match=r"columns\.f\.type: unknown type of column 'function'"):
        rl.Recipe.from_yaml(recipe.to_yaml())


# Fingerprints


def fingerprint(recipe: rl.Recipe) -> str:
    """Return the fingerprint, which is equal for recipes that make the same table."""
    return recipe._compile().fingerprint


def a_recipe(**changes: Any) -> rl.Recipe:
    """Make a recipe with something in it changed."""
    parts: dict[str, Any] = {
        "models": {"m": rl.Model("openai:x", base_url="http://localhost/v1")},
        "columns": [
            rl.Seed(pd.DataFrame({"a": [1, 2]})),
            rl.Text("t", model="m", prompt="{{ a }}"),
            rl.cell(name="f")(lambda t: t + "1"),
        ],
        "seed": 1,
    }
    return rl.Recipe(**{**parts, **changes})


CHANGES: dict[str, Callable[[], rl.Recipe]] = {
    "another seed": lambda: a_recipe(seed=2),
    "another model": lambda: a_recipe(models={"m": rl.Model("openai:y", base_url="http://localhost/v1")}),
    "another temperature": lambda: a_recipe(
        models={"m": rl.Model("openai:x", base_url="http://localhost/v1", temperature=1)}
    ),
    "another prompt": lambda: a_recipe(columns=[*a_recipe()._columns[:1], rl.Text("t", model="m", prompt="{{ a }}!")]),
    "other data": lambda: a_recipe(columns=[rl.Seed(pd.DataFrame({"a": [1, 3]})), *a_recipe()._columns[1:]]),
    "other code": lambda: a_recipe(columns=[*a_recipe()._columns[:2], rl.cell(name="f")(lambda t: t + "2")]),
    "another order": lambda: a_recipe(columns=a_recipe()._columns[::-1]),
    "a processor": lambda: a_recipe(processors=[rl.DropColumns(["a"])]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_table_changes_the_fingerprint(change: str):
    """Two recipes of the same parts have the same fingerprint."""
    assert fingerprint(a_recipe()) == fingerprint(a_recipe())
    assert fingerprint(CHANGES[change]()) != fingerprint(a_recipe())


def test_a_key_does_not_change_the_fingerprint():
    """A run can be resumed with another key."""
    keys = [rl.Model("openai:x", api_key=key) for key in ("sk-1", "sk-2")]  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - pydantic makes it a secret
    assert len({fingerprint(a_recipe(models={"m": model})) for model in keys}) == 1
