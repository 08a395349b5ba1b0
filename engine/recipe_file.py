"""A recipe as plain data: what YAML holds, and the JSON Schema of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import pydantic
import yaml
from pydantic import Field

from .columns import Expression, Structured, Text
from .errors import RecipeError, nearest
from .functions import Function
from .models import Model
from .samplers import Category, Uniform
from .seeds import Seed
from .spec import recipe_error, spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .binding import ColumnSpec

T = TypeVar("T")
FileColumn: TypeAlias = Category | Uniform | Expression | Text | Structured | Seed

_TYPES: dict[str, type[FileColumn]] = {
    "category": Category,
    "uniform": Uniform,
    "expression": Expression,
    "text": Text,
    "structured": Structured,
    "seed": Seed,
}


@spec
class RecipeFile:
    """The form of a recipe file. A model is written as "provider:name", or with its settings."""

    columns: list[Annotated[FileColumn, Field(discriminator="type")]]
    models: dict[str, str | Model] = Field(default_factory=dict)
    seed: int | None = None


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema of a recipe file."""
    return pydantic.TypeAdapter(RecipeFile).json_schema()


def read(source: str | Path) -> dict[str, Any]:
    """Read YAML from a path, or from text that has more than one line; raises RecipeError naming the line."""
    text = source if isinstance(source, str) and "\n" in source else _text(Path(source))
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise RecipeError("", f"the recipe is not YAML: {getattr(error, 'problem', error)}{where}") from None
    if not isinstance(data, dict):
        raise RecipeError("", "the recipe is not a mapping with the keys models and columns")
    return data


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not text"
        raise RecipeError("", f"cannot read the recipe '{path}': {problem}") from None


def parse(data: Mapping[str, Any]) -> tuple[dict[str, Model], list[ColumnSpec | Seed], int | None]:
    """Turn plain data into models, columns and seed; raises RecipeError with the path of what is wrong."""
    known = tuple(RecipeFile.__dataclass_fields__)
    for key in data:
        if key not in known:
            raise RecipeError(str(key), f"unknown field; {nearest(str(key), known)}")
    models, columns, seed = data.get("models") or {}, data.get("columns") or [], data.get("seed")
    if not isinstance(models, dict):
        raise RecipeError("models", "must be a mapping from a name to a model")
    if not isinstance(columns, list):
        raise RecipeError("columns", "must be a list")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise RecipeError("seed", "must be a whole number")
    return (
        {str(alias): _model(str(alias), given) for alias, given in models.items()},
        [_column(i, given) for i, given in enumerate(columns)],
        seed,
    )


def dump(models: Mapping[str, Model], columns: Sequence[ColumnSpec | Seed], seed: int | None) -> dict[str, Any]:
    """Turn models, columns and seed into plain data, without what is left at its default and without keys."""
    data: dict[str, Any] = {} if seed is None else {"seed": seed}
    if models:
        data["models"] = {alias: _plain_model(model) for alias, model in models.items()}
    data["columns"] = [_plain_column(column) for column in columns]
    return data


def to_yaml(data: Mapping[str, Any]) -> str:
    """Write plain data as YAML."""
    return str(yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=100))


def _model(alias: str, given: object) -> Model:
    if isinstance(given, str):
        return Model(given)
    if not isinstance(given, dict):
        raise RecipeError(f"models.{alias}", 'must be "provider:name" or a mapping with the field spec')
    if "api_key" in given:
        problem = "a file must not hold a key; name the environment variable that does in api_key_env"
        raise RecipeError(f"models.{alias}.api_key", problem)
    return _validated(Model, given, f"models.{alias}")


def _column(i: int, given: object) -> ColumnSpec | Seed:
    if not isinstance(given, dict):
        raise RecipeError(f"columns.{i}", "must be a mapping with the fields name and type")
    path = f"columns.{given.get('name', i)}"
    kind = given.get("type")
    if kind not in _TYPES:
        problem = "this field is needed" if kind is None else f"unknown type '{kind}'"
        raise RecipeError(f"{path}.type", f"{problem}; {nearest(str(kind), _TYPES)}")
    return _validated(_TYPES[kind], given, path)


def _validated(cls: type[T], given: dict[Any, Any], path: str) -> T:
    fields: dict[str, Any] = vars(cls)["__dataclass_fields__"]
    try:
        return pydantic.TypeAdapter(cls).validate_python(given)
    except pydantic.ValidationError as error:
        raise recipe_error(error, path, tuple(fields)) from None


def _plain_model(model: Model) -> str | dict[str, Any]:
    plain = pydantic.TypeAdapter(Model).dump_python(model, mode="json", exclude_defaults=True, exclude={"spec"})
    spec_text = model.spec if isinstance(model.spec, str) else f"python:{model.name}"
    return {"spec": spec_text, **plain} if plain else spec_text


def _plain_column(column: ColumnSpec | Seed) -> dict[str, Any]:
    cls: Any = type(column)
    plain: dict[str, Any] = pydantic.TypeAdapter(cls).dump_python(column, mode="json", exclude_defaults=True)
    kind = column.type if isinstance(column, FileColumn | Function) else cls.__name__.lower()
    head = {"name": plain.pop("name")} if "name" in plain else {}
    return {**head, "type": kind, **{key: value for key, value in plain.items() if key != "type"}}
