"""Errors: their tree, the kinds of failure, and texts whose options can be written for others than users of Python."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, get_args

import pytest

import rowloop as rl
from rowloop.engine.core import errors
from rowloop.engine.core.errors import FailureKind, Option, ResumeError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("option", "written"),
    [
        (Option("rows"), "rows"),
        (Option("resume", "always"), 'resume="always"'),
        (Option("overwrite", value=True), "overwrite=True"),
        (Option("min_completion", 1.0), "min_completion=1"),
        (Option("min_completion", 0.95), "min_completion=0.95"),
    ],
    ids=str,
)
def test_an_option_is_written_as_a_python_argument(option: Option, written: str):
    """Its name alone, or with a value."""
    assert str(option) == written


def test_options_of_an_error_are_written_for_its_audience_and_the_rest_stays_as_it_is():
    """Also a directory whose name looks like an option."""
    error = ResumeError("'overwrite=True' is there; use ", Option("overwrite", value=True), " to replace it")
    assert str(error) == "'overwrite=True' is there; use overwrite=True to replace it"
    assert error.text(lambda option: f"--{option.name}") == "'overwrite=True' is there; use --overwrite to replace it"


def test_the_path_of_a_recipe_error_is_an_option_too():
    """It leads into the call or into the recipe; without one there is only the problem."""
    error = rl.RecipeError("rows", "must be at least 1, see ", Option("row_group_size"))
    assert (error.path, error.problem) == ("rows", "must be at least 1, see row_group_size")
    assert str(error) == "rows: must be at least 1, see row_group_size"
    assert error.text(lambda option: option.name.upper()) == "ROWS: must be at least 1, see ROW_GROUP_SIZE"
    assert str(rl.RecipeError("", "not YAML")) == "not YAML"


@pytest.mark.parametrize("kind", ["list", "tuple", "mapping"])
def test_a_value_that_stands_for_billions_is_refused_at_once(kind: str):
    """40 containers in each other, each of 9 times the next one, wherever a message shows what was given."""
    value: object = "x"
    for _ in range(40):
        value = {"list": [value] * 9, "tuple": (value,) * 9, "mapping": dict.fromkeys(range(9), value)}[kind]
    assert len(errors.shown(value)) <= 80
    recipe = rl.Recipe(columns=[rl.Uniform("u")])
    refused: list[Callable[[], object]] = [
        lambda: rl.Recipe(columns=[value]),  # type: ignore[list-item]
        lambda: rl.Recipe(columns=[rl.Uniform("u")], seed=value),  # type: ignore[arg-type]
        lambda: rl.Recipe.from_dict(value),  # type: ignore[arg-type]
        lambda: rl.Category("c", value),  # type: ignore[arg-type]
        lambda: recipe.preview(value),  # type: ignore[arg-type]
        lambda: recipe.preview(2, progress=value),  # type: ignore[arg-type]
    ]
    for call in refused:
        with pytest.raises(rl.RecipeError):
            call()
    with pytest.raises(TypeError, match="expected a coroutine"):
        rl.run_sync(value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a function or a class"):
        rl.client(value)  # type: ignore[arg-type]


def test_a_value_without_a_repr_is_named_by_its_type():
    """Python writes no integer of 5,000 digits."""
    assert errors.shown(10**5000) == "int that cannot be shown"
    assert errors.shown([10**5000]) == "list that cannot be shown"
    assert errors.shown("x" * 200, 10) == "'xxxxxxxxx"
    with pytest.raises(TypeError, match="not int that cannot be shown"):
        rl.run_sync(10**5000)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({}, "no row was completed"),
        ({"stage": "write"}, "write: no row was completed"),
        ({"stage": "column", "column": "text", "row_group": 7}, "column 'text', row group 7: no row was completed"),
        ({"row_group": 7}, "row group 7: no row was completed"),
    ],
    ids=str,
)
def test_a_failed_run_says_what_failed_and_where(facts: dict[str, object], says: str):
    """Nothing where it is the run as a whole."""
    assert str(rl.DatasetGenerationError("no row was completed", **facts)) == says  # type: ignore[arg-type]


def test_the_docstring_draws_the_tree_of_all_errors() -> None:
    """Every class is on a line of its own, two spaces further in than its parent."""
    drawn: dict[str, str | None] = {}
    parents: list[str] = []
    for spaces, name in re.findall(r"^( +)(\w+Error)\b", str(errors.__doc__), re.MULTILINE):
        depth = len(spaces) // 2 - 2
        parents[depth:] = [name]
        drawn[name] = parents[depth - 1] if depth else None
    public = [getattr(rl, name) for name in vars(rl)["__all__"]]  # the stub has no __all__
    classes = [each for each in public if isinstance(each, type) and issubclass(each, rl.RowloopError)]
    root = rl.RowloopError
    assert drawn == {each.__name__: None if each is root else each.__bases__[0].__name__ for each in classes}


def test_a_kind_that_another_package_makes_up_is_reported_as_any_other() -> None:
    """It is none of ours: the run records it, counts it and continues."""

    def overheated(prompt: str) -> str:
        if prompt == "1":
            kind: Any = "overheated"
            raise rl.ModelError("too hot", kind=kind, retryable=False)
        return "fine"

    recipe = rl.Recipe(
        models={"m": rl.Model(overheated)},
        columns=[rl.Category("n", values=["1", "2"]), rl.Text("t", model="m", prompt="{{ n }}")],
        seed=1,
    )
    result = recipe.preview(20, progress=False, error_budget=rl.ErrorBudget(rate=None))
    assert "overheated" not in get_args(FailureKind)
    assert set(result.failures["error"]) == {"ModelError(overheated)"}
    assert 0 < result.dropped == len(result.failures) < 20
    assert "ModelError(overheated)" in str(result.report)


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("promt", ["name", "prompt"], "did you mean 'prompt'?"),
        ("x", ["prompt", "name"], "choose from: name, prompt"),
        ("x", [], "none is defined"),
    ],
)
def test_an_unknown_name_gets_a_hint(name: str, known: list[str], hint: str) -> None:
    """The nearest name, all names where none is near, or that there is none."""
    assert nearest(name, known) == hint


def test_a_message_quotes_the_beginning_and_the_end_of_what_is_too_long():
    """A name of a million letters is no message, and a value whose repr fails has one."""
    error = rl.RecipeError("columns." + "x" * 10**6, f"unknown column '{'y' * 10**6}z'")
    assert len(str(error)) < 5000
    assert str(error).startswith("columns.xxx")
    assert str(error).endswith("yyyz'")
    with pytest.raises(rl.RecipeError, match=r"^stages: takes a list of stages, not int that cannot be shown$"):
        rl.Workflow(10**5000)  # type: ignore[arg-type] # what is tested


def test_an_error_of_a_model_has_the_facts_of_the_answer_and_no_others() -> None:
    """They are optional; a wrong name is refused with the nearest right one."""
    bare = rl.ModelError("busy", kind="server", retryable=True)
    assert (bare.status, bare.retry_after, bare.request_id, bare.fatal) == (None, None, None, False)
    full = rl.ModelError("busy", kind="server", retryable=True, status=503, retry_after=2.5, request_id="r1")
    assert (full.status, full.retry_after, full.request_id, str(full)) == (503, 2.5, "r1", "busy (request r1)")
    with pytest.raises(TypeError, match="no argument 'retry_afer'; did you mean 'retry_after'"):
        rl.ModelError("busy", kind="server", retryable=True, retry_afer=2.5)  # type: ignore[call-arg] # wrong on purpose
