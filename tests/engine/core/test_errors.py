"""Errors: the text is written for users of Python, and options in it can be written for others."""

from __future__ import annotations

import pytest

import rowloop as rl
from rowloop.engine.core.errors import Option, ResumeError


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
