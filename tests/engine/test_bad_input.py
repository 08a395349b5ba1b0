"""Bad input: whatever is wrong with a call, one error names the field before anything is paid for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import rowloop as rl
from directories import contents
from rowloop.engine.core.errors import shown
from rowloop.engine.runs.settings import RunOptions

if TYPE_CHECKING:
    from collections.abc import Callable

NAN = math.nan
HALF = "\ud800"
"""A lone surrogate: half of a character."""

CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.fixture
def asked() -> list[str]:
    """Return the prompts that the model has been paid for."""
    return []


@pytest.fixture
def recipe(asked: list[str]) -> rl.Recipe:
    """Return a recipe without mistakes."""

    def model(prompt: str) -> str:
        asked.append(prompt)
        return prompt

    text = rl.Text("text", model="m", prompt="{{ u }}")
    return rl.Recipe(models={"m": rl.Model(model)}, columns=[rl.Uniform("u"), text])


def refusal(make: Callable[[], object]) -> str:
    """Return the message of a refused call: one line that can be written anywhere."""
    with pytest.raises(rl.RecipeError) as caught:
        make()
    said = str(caught.value)
    assert "\n" not in said
    assert said.encode()
    return said


OPTIONS: list[tuple[str, list[Any]]] = [
    ("rows", [0, -1, 2.5, "5", True, NAN]),
    ("row_group_size", [0, -1, "a", None, NAN]),
    ("memory", [0, -1, 1.5, "1 GB", True, NAN]),
    ("min_completion", [0, -1, 1.5, "x", NAN]),
    ("retry", [5, "x"]),
    ("error_budget", [5]),
    ("progress", [5, "yes"]),
    ("overwrite", ["perhaps", 5]),
    ("trace", ["maybe", 5]),
    ("stall_after", [0, -1, "x", NAN, math.inf]),
    ("slow_request_after", [0, NAN]),
    ("on_part", [5]),
    ("engine", ["fast", 5]),
    ("runtime", [5]),
    ("cache", ["a\0b", HALF, Path("a\0b"), "x" * 5000]),
]


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in OPTIONS for value in values])
@pytest.mark.parametrize("way", ["preview", "build", "start"])
def test_an_option_of_a_wrong_type_or_size_is_refused_by_its_name(  # noqa: PLR0913, PLR0917 - one table
    recipe: rl.Recipe, asked: list[str], tmp_path: Path, way: str, option: str, value: Any
):
    """No request is made, and nothing is written."""
    options: dict[str, Any] = {"rows": 2, "progress": False, option: value}
    place = [] if way == "preview" else [tmp_path / "out"]
    assert refusal(lambda: getattr(recipe, way)(*place, **options)).startswith(f"{option}: ")
    assert (asked, list(tmp_path.iterdir())) == ([], [])


@pytest.mark.parametrize("option", RunOptions.__annotations__)
def test_every_option_refuses_values_that_neither_compare_nor_end(recipe: rl.Recipe, asked: list[str], option: str):
    """A DataFrame, a list that contains itself, and lists that stand for 9**40 values."""
    bomb: Any = "x"
    for _ in range(40):
        bomb = [bomb] * 9
    for value in (pd.DataFrame({"a": [1]}), CIRCLE, bomb):
        options: dict[str, Any] = {"progress": False, option: value}
        assert refusal(lambda given=options: recipe.preview(2, **given)).startswith(f"{option}")
    assert asked == []


def test_a_build_without_rows_is_refused_by_its_name(recipe: rl.Recipe, asked: list[str], tmp_path: Path):
    """None as well, where there is no seed table to count; nothing is written."""
    for way in (recipe.build, recipe.start):
        assert refusal(lambda way=way: way(tmp_path / "out", None, progress=False)).startswith("rows: ")
        assert refusal(lambda way=way: way(tmp_path / "out", progress=False)).startswith("rows: ")
    assert (asked, list(tmp_path.iterdir())) == ([], [])


def test_an_unknown_option_is_refused_with_the_nearest_right_name(recipe: rl.Recipe):
    """In every way to run a recipe."""
    options: Any = {"rowgroup_size": 5}
    assert (
        refusal(lambda: recipe.preview(2, **options)) == "rowgroup_size: unknown field; did you mean 'row_group_size'?"
    )


@pytest.mark.parametrize("path", [5, None, b"out", "a\0b", HALF, Path("a\0b"), "x" * 300])
def test_an_invalid_path_is_refused(recipe: rl.Recipe, asked: list[str], path: Any):
    """None too: a build into memory would be lost."""
    for way in (recipe.build, recipe.start):
        assert refusal(lambda way=way: way(path, 2, progress=False)).startswith("path: ")
    assert asked == []


def test_a_directory_that_cannot_be_written_to_is_refused(recipe: rl.Recipe, asked: list[str], tmp_path: Path):
    """A file in the way, other files inside, an existing dataset; none of them is touched."""
    file = tmp_path / "file"
    file.write_text("mine")
    assert "Not a directory" in refusal(lambda: recipe.build(file, 2, progress=False))
    assert "Not a directory" in refusal(lambda: recipe.build(file / "out", 2, progress=False))
    assert "has other files in it (file)" in refusal(lambda: recipe.build(tmp_path, 2, progress=False, overwrite=True))
    assert asked == []
    recipe.build(tmp_path / "out", 2, progress=False)
    before = contents(tmp_path)
    assert "has a dataset already" in refusal(lambda: recipe.build(tmp_path / "out", 2, progress=False))
    assert contents(tmp_path) == before
    assert len(asked) == 2


def test_a_result_whose_parts_are_gone_names_the_file(recipe: rl.Recipe, tmp_path: Path):
    """Reading it raises FileNotFoundError."""
    result = recipe.build(tmp_path, 2, progress=False)
    (tmp_path / "data" / "part-00000.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"part-00000\.parquet"):
        result.to_pandas()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"models": 5}, "models: takes a mapping"),
        ({"models": ["m"]}, "models: takes a mapping"),
        ({"models": {"m": 5}}, "models.m: takes a Model"),
        ({"models": {5: "openai:x"}}, "models: a model's name is text, not 5"),
        ({"columns": 5}, "columns: takes a list, not 5"),
        ({"columns": None}, "columns: takes a list, not None"),
        ({"columns": "u"}, "columns: takes a list, not 'u'"),
        ({"columns": [5]}, "columns: 5 is not a column"),
        ({"columns": [rl.Uniform("")]}, "columns: a column needs a name"),
        ({"columns": [rl.Uniform(HALF)]}, r"columns.\ud800.name: has '\ud800', half of a character"),
        ({"columns": [rl.Category("c", [HALF])]}, r"columns.c.values.0: has '\ud800'"),
        ({"columns": [rl.Expression("e", f"x{HALF}")]}, r"columns.e.template: has '\ud800'"),
        ({"processors": 5}, "processors: takes a list, not 5"),
        ({"processors": [5]}, "processors: 5 is not a processor"),
        ({"processors": [rl.DropColumns(["u"])]}, "processors.DropColumns: no column is left"),
        ({"processors": [rl.DropColumns(["w"])]}, "processors.DropColumns: unknown column 'w'"),
        ({"seed": "7"}, "seed: must be a whole number"),
        ({"seed": 1.5}, "seed: must be a whole number"),
        ({"seed": NAN}, "seed: must be a whole number"),
        ({"seed": True}, "seed: must be a whole number"),
        ({"seed": 2**63}, "seed: must be a whole number of at most 64 bits"),
        ({"seed": CIRCLE}, "seed: must be a whole number"),
        ({"columns": [rl.Category("c", [object(), "b"])]}, "Category('c').values: is not plain data: "),
    ],
    ids=lambda given: ascii(given)[:60],
)
def test_a_recipe_of_wrong_parts_is_refused_with_the_path(given: dict[str, Any], says: str):
    """When it is made."""
    assert refusal(lambda: rl.Recipe(**{"columns": [rl.Uniform("u")], **given})).startswith(says)


@pytest.mark.parametrize("part", ["models", "columns", "processors"])
@pytest.mark.parametrize("given", [pd.DataFrame({"a": [1]}), pd.DataFrame(), "x", 1, False], ids=shown)
def test_plain_data_of_wrong_parts_is_refused_with_the_path(part: str, given: Any):
    """A DataFrame is neither true nor false."""
    said = refusal(lambda: rl.Recipe.from_dict({"columns": [{"type": "uniform", "name": "u"}], part: given}))
    assert said.startswith(f"{part}: must be a ")


FIELDS: list[tuple[type, dict[str, Any], str, list[Any]]] = [
    (rl.Category, {"name": "c", "values": ["a"]}, "values", [5, [], "abc", None]),
    (rl.Category, {"name": "c", "values": ["a"]}, "weights", [5, [NAN], ["x"], [math.inf]]),
    (rl.Category, {"name": "c", "values": ["a"]}, "name", [5, None]),
    (rl.Uniform, {"name": "u"}, "low", ["low", NAN, -math.inf, None]),
    (rl.Uniform, {"name": "u"}, "decimals", [-1, 16, 1.5, "x"]),
    (rl.Text, {"name": "t", "model": "m", "prompt": "p"}, "prompt", [5, None]),
    (rl.Text, {"name": "t", "model": "m", "prompt": "p"}, "system", [5]),
    (rl.Text, {"name": "t", "model": "m", "prompt": "p"}, "stop", ["x", [5]]),
    (rl.Text, {"name": "t", "model": "m", "prompt": "p"}, "max_tokens", [0, -1, "x", 1.5]),
    (rl.Text, {"name": "t", "model": "m", "prompt": "p"}, "temperature", [-1, NAN, "x"]),
    (rl.Text, {"name": "t", "model": "m", "prompt": "p"}, "on_error", ["ignore", 5]),
    (rl.Structured, {"name": "s", "model": "m", "prompt": "p", "schema": {}}, "schema", [5, None, "x", [], int, True]),
    (rl.Expression, {"name": "e", "template": "x"}, "template", [5, None]),
    (rl.Expression, {"name": "e", "template": "x"}, "dtype", ["date", 5]),
    (rl.Model, {"spec": "openai:x"}, "spec", [5, None]),
    (rl.Model, {"spec": "openai:x"}, "base_url", [5]),
    (rl.Model, {"spec": "openai:x"}, "api_key", [5]),
    (rl.Model, {"spec": "openai:x"}, "max_parallel", [0, -1, "x", NAN]),
    (rl.Model, {"spec": "openai:x"}, "timeout", [0, -1, "x", NAN, math.inf, True]),
    (rl.Model, {"spec": "openai:x"}, "extra", [5, "x"]),
    (rl.Model, {"spec": "openai:x"}, "client", [5]),
    (rl.DropColumns, {"columns": ["a"]}, "columns", [5, [], [5]]),
    (rl.SchemaTransform, {"template": {"a": "b"}}, "template", [5, {}]),
]


@pytest.mark.parametrize(
    ("kind", "right", "field", "value"),
    [(kind, right, field, value) for kind, right, field, values in FIELDS for value in values],
)
def test_a_field_of_a_wrong_type_or_size_is_refused_by_its_name(
    kind: type, right: dict[str, Any], field: str, value: Any
):
    """By the class, the name if there is one, and the field."""
    label = right.get("name", right.get("spec")) if field not in {"name", "spec"} else None
    path = f"{kind.__name__}({label!r}).{field}" if label else f"{kind.__name__}.{field}"
    assert refusal(lambda: kind(**{**right, field: value})).startswith(path)


def test_an_unknown_field_is_refused_with_the_nearest_right_name():
    """In Python as in YAML."""
    text: Any = rl.Text
    unknown = "Text('t').promt: unknown field; did you mean 'prompt'?"
    assert refusal(lambda: text("t", model="m", promt="x")) == unknown
    assert refusal(lambda: text("t", model="m")) == "Text('t').prompt: this field is needed"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: rl.cell(5), "column: 5 is not a function"),  # type: ignore[call-overload]
        (lambda: rl.batch(needs=5)(len), "columns.len.needs: takes a list of column names, not 5"),  # type: ignore[arg-type]
        (lambda: rl.batch(needs="u")(len), "columns.len.needs: takes a list of column names, not 'u'"),  # type: ignore[arg-type]
        (lambda: rl.Recipe.from_yaml(5), "a recipe is read from a path or from YAML text, not from 5"),  # type: ignore[arg-type]
        (lambda: rl.Recipe.from_dict([]), "a recipe is a mapping with the keys models and columns, not []"),  # type: ignore[arg-type]
        (lambda: rl.Recipe().preview(1), "columns: a recipe needs at least one column"),
        (
            lambda: rl.Recipe(models={"m": rl.Model("openai:x", extra={"a": object()})}, columns=[rl.Uniform("u")]),
            "Model('x').extra: is not plain data",
        ),
    ],
)
def test_other_calls_refuse_unusable_arguments(make: Callable[[], object], says: str):
    """With a sentence."""
    assert refusal(make).startswith(says)


def test_an_unknown_model_is_refused_with_the_nearest_right_name(recipe: rl.Recipe):
    """For any alias."""
    assert refusal(lambda: recipe.replace_model("n")) == "models.n: unknown model; choose from: m"
    assert refusal(lambda: recipe.replace_model(5)).startswith("models.5: unknown model")  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", ["", "openai", "openai:", ":x", "opnai:x"])
def test_a_model_without_a_known_provider_is_refused_before_the_run(spec: str):
    """The error names the model's alias."""

    def run() -> object:
        recipe = rl.Recipe(models={"m": spec}, columns=[rl.Text("t", model="m", prompt="p")])
        return recipe.preview(1, progress=False)

    assert refusal(run).startswith(("models.m: ", "models.m.spec: "))


def test_strings_of_ten_megabytes_work(tmp_path: Path, asked: list[str]):
    """As values, as prompts and as answers; they are not shown in full anywhere."""
    long = "x" * 10_000_000

    def model(prompt: str) -> str:
        asked.append(prompt)
        if len(asked) == 1:
            raise ValueError(prompt)
        return prompt

    recipe = rl.Recipe(
        models={"m": rl.Model(model, max_parallel=1)},
        columns=[rl.Category("long", [long]), rl.Text("text", model="m", prompt="{{ long }}")],
    )
    result = recipe.build(tmp_path, 2, progress=False)
    assert (result.status, result.actual) == ("partial", 1)
    assert result.dataset["text"].tolist() == [long]
    assert len(repr(result)) < 2000


def test_a_lone_surrogate_in_a_value_drops_its_row_and_no_other(asked: list[str]):
    """It cannot be sent; the failure can be written all the same."""

    def model(prompt: str) -> str:
        asked.append(prompt)
        return prompt.encode().decode()

    @rl.cell
    def half(u: int) -> str:
        return f"{u}{HALF}" if u == 1 else str(u)

    recipe = rl.Recipe(
        models={"m": rl.Model(model)},
        columns=[
            rl.Seed(pd.DataFrame({"u": range(3)})),
            half,
            rl.Text("text", model="m", prompt="{{ half }}"),
        ],
    )
    result = recipe.preview(3, progress=False)
    assert result.dataset["text"].tolist() == ["0", "2"]
    assert result.failures["row"].tolist() == [1]
    assert all(str(value).encode() for value in result.failures.iloc[0])
