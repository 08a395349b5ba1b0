"""Plain data: what cannot be walked, sent or written is refused with its path, and a bomb costs nothing to refuse."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

import rowloop as rl
from rowloop.engine.core.plain_data import check_plain


def bomb() -> list[Any]:
    """Return a list of 60 distinct lists that stands for 9 ** 60 values."""
    value: list[Any] = ["x"] * 9
    for _ in range(60):
        value = [value] * 9
    return value


def deep(levels: int) -> list[Any]:
    """Return lists in each other."""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def circle() -> dict[str, Any]:
    """Return a mapping that contains itself."""
    value: dict[str, Any] = {}
    value["again"] = [value]
    return value


REFUSED: dict[str, tuple[Any, str]] = {
    "a bomb": (bomb(), "repeats more than 100,000 values"),
    "a circle": (circle(), "top.again.0: contains itself"),
    "depth": (deep(101), "is nested deeper than 100 levels"),
    "depth by repetition": ([deep(60), [deep(60)] * 2, [[[deep(99)]]]], "is nested deeper than 100 levels"),
    "a large number": ({"a": [2**64]}, "top.a.0: is a whole number of more than 64 bits"),
    "a key": ({10**5000: 1}, "is a whole number of more than 64 bits"),
    "not a number": ({"a": {"name": "b", "c": math.nan}}, "top.a.c: is nan, which JSON cannot hold"),
    "infinity": ([{"name": "b", "c": -math.inf}], "top.b.c: is -inf, which JSON cannot hold"),
    "bytes": ({"a": [b"x"]}, "top.a.0: is bytes, which JSON cannot hold"),
    "half a character": ({"a": ["x\ud800"]}, r"top.a.0: has '\ud800', half of a character"),
    "half a character in a key": ({"x\ud800": 1}, r"top.x\ud800: has '\ud800', half of a character"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_with_its_path(kind: str):
    """In one line that can be written anywhere."""
    value, problem = REFUSED[kind]
    with pytest.raises(rl.RecipeError, match=re.escape(problem)) as caught:
        check_plain(value, "top")
    assert str(caught.value).encode()
    assert len(str(caught.value)) < 400


def test_ordinary_data_is_accepted():
    """At the limits too."""
    shared = list(range(1000))
    for value in (
        deep(100),
        [2**64 - 1, -(2**63)],
        [shared] * 90,
        list(range(300_000)),
        {"a": {2: None, True: "ü"}},
        1e308,
    ):
        check_plain(value, "top")


MAKE: dict[str, Any] = {
    "Structured.schema": lambda value: rl.Structured("s", model="m", prompt="p", schema=value),
    "Model.extra": lambda value: rl.Model("openai:m", extra={"a": value}),
    "Category.values": lambda value: rl.Category("c", values=value),
    "from_dict": lambda value: rl.Recipe.from_dict({"columns": [{"name": "c", "type": "category", "values": value}]}),
    "from_dict.name": lambda value: rl.Recipe.from_dict({"columns": [{"name": value, "type": "uniform"}]}),
}


@pytest.mark.parametrize("place", MAKE)
@pytest.mark.parametrize(
    "value", [bomb(), circle(), deep(5000), [10**30], 10**5000], ids=["bomb", "circle", "deep", "large", "larger"]
)
def test_every_place_of_a_recipe_refuses_it_when_it_is_made(place: str, value: Any):
    """With a path that begins at the thing that was made."""
    with pytest.raises(rl.RecipeError, match=rf"^{place.partition('.')[0].replace('from_dict', 'columns')}"):
        MAKE[place](value)


@pytest.mark.parametrize("field", ["rows", "row_group_size", "max_tokens_total"])
@pytest.mark.parametrize("number", [10**30, 10**5000], ids=["large", "larger"])
def test_a_number_that_no_run_can_reach_is_refused(field: str, number: int):
    """By its option."""
    options: dict[str, Any] = {"rows": 2, "progress": False, field: number}
    with pytest.raises(rl.RecipeError, match=f"^{field}: "):
        rl.Recipe(columns=[rl.Uniform("u")]).preview(**options)


def test_more_reasks_than_make_sense_are_refused():
    """And so are more rows."""
    with pytest.raises(rl.RecipeError, match=r"^Structured\('s'\)\.reasks: "):
        rl.Structured("s", model="m", prompt="p", schema={}, reasks=101)
    with pytest.raises(rl.RecipeError, match=r"^rows: Input should be less than or equal to 1000000000000"):
        rl.Recipe(columns=[rl.Uniform("u")]).preview(10**15, progress=False)


@pytest.mark.parametrize("value", [math.nan, "x\ud800"])
def test_a_recipe_refuses_values_that_json_cannot_hold(value: Any):
    """Wherever they are, with their path."""
    with pytest.raises(rl.RecipeError, match=r"^(models\.m|Model\('openai:m'\))\.extra\.a\.0: "):
        rl.Recipe(
            models={"m": rl.Model("openai:m", extra={"a": [value]})}, columns=[rl.Text("t", model="m", prompt="p")]
        )
    with pytest.raises(rl.RecipeError, match=r"^columns\.s\.schema\.enum\.0|^Structured\('s'\)"):
        rl.Recipe(
            models={"m": "openai:m"}, columns=[rl.Structured("s", model="m", prompt="p", schema={"enum": [value]})]
        )


@pytest.mark.parametrize("stages", [[None], ["a"], "ab", 5, None, {"a": 1}, [[]]])
def test_a_workflow_of_anything_but_stages_is_refused(stages: Any):
    """With the place."""
    with pytest.raises(rl.RecipeError, match=r"^stages(\.0)?: "):
        rl.Workflow(stages)
