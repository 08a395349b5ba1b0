"""The recipe of a command: its file, and the options that replace parts of it (--model, --base-url, --seed)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ...engine.core.errors import RecipeError

if TYPE_CHECKING:
    from ... import Recipe

RecipeFile = Annotated[Path, Parameter(help="Recipe, a YAML file.")]
Models = Annotated[
    list[str] | None,
    Parameter(
        name="--model",
        help="Replace a model of the recipe: ALIAS=PROVIDER:NAME, such as writer=openai:gpt-5-mini. Repeatable.",
    ),
]
BaseUrl = Annotated[
    str | None,
    Parameter(
        help="Call an OpenAI-compatible endpoint: for the model given with --model, else for all openai: models."
        " The key is read from OPENAI_API_KEY."
    ),
]
Seed = Annotated[int | None, Parameter(help="Override the recipe's seed for the samplers.")]


def read_recipe(path: Path, models: list[str] | None, base_url: str | None, seed: int | None) -> Recipe:
    """Read a recipe and apply the options that change it."""
    from ... import Recipe  # noqa: PLC0415 - not for --help; the facade knows the adapters
    from ...engine.recipe_file import read  # noqa: PLC0415 - not for --help

    data = read(path)
    recipe = Recipe.from_dict(data if seed is None else {**data, "seed": seed})
    replaced = [_parse_model(text) for text in models or []]
    for alias, spec in replaced:
        recipe = recipe.replace_model(alias, spec=spec)
    if base_url is not None:
        for alias in _aliases_for_base_url(recipe, [alias for alias, _ in replaced]):
            recipe = recipe.replace_model(alias, base_url=base_url)
    return recipe


def _aliases_for_base_url(recipe: Recipe, replaced: list[str]) -> list[str]:
    """Choose the models that --base-url applies to: the one given with --model, else all openai: models."""
    if len(replaced) == 1:
        return replaced
    aliases = [alias for alias, model in recipe.models.items() if model.provider == "openai"]
    if not aliases:
        problem = "the recipe has no openai: model; name the endpoint's model with --model ALIAS=openai:NAME"
        raise RecipeError("--base-url", problem)
    return aliases


def _parse_model(text: str) -> tuple[str, str]:
    alias, equals, spec = text.partition("=")
    if not (alias and equals and spec):
        raise RecipeError("--model", f"write ALIAS=PROVIDER:NAME, such as writer=openai:gpt-5-mini, not '{text}'")
    return alias, spec
