"""Recipe files: a recipe as plain data, read from YAML and written to it, and the JSON Schema of the file."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from pathlib import Path
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, TypeVar

import pydantic
import yaml
from pydantic import Field
from pydantic_core import PydanticSerializationError

from ..runtime.logs import safe_logger
from .columns import column_types
from .columns.sources.python_values import python_value
from .core.errors import RecipeError, nearest, shown, writable
from .core.plain_data import check_plain
from .core.spec import recipe_error
from .models.model import Model
from .models.secrets import secrets_in
from .processors import processor_types
from .yaml_text import read_yaml, write_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .columns.column import ColumnSpec
    from .core.registry import Registry
    from .processors.processor import Processor

T = TypeVar("T")
_SEEDS = 2**63

logger = safe_logger()


class Parsed(TypedDict):
    """The contents of a recipe file, as Recipe takes them."""

    models: dict[str, Model]
    columns: list[ColumnSpec]
    processors: list[Processor]
    seed: int | None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe file, with the kinds of columns and processors of installed packages."""
    fields: dict[str, Any] = {
        "columns": (_list_of(column_types), ...),
        "models": (dict[str, str | Model], Field(default_factory=dict)),
        "processors": (_list_of(processor_types), Field(default_factory=list)),
        "seed": (int | None, None),
    }
    form: type[pydantic.BaseModel] = pydantic.create_model(
        "RecipeFile",
        __config__=pydantic.ConfigDict(extra="forbid"),
        __doc__='The form of a recipe file. A model is written as "provider:name", or with its settings.',
        **fields,
    )
    return form.model_json_schema()


def _list_of(kinds: Registry[Any]) -> GenericAlias:
    """Return the type of a list of any of the kinds. A kind that cannot be loaded is left out, with a warning."""
    usable = []
    for name in kinds.names():
        try:
            usable.append(kinds.get(name))
        except RecipeError as error:
            logger.warning("%s; the JSON Schema is written without it", error)
    return GenericAlias(list, Annotated[functools.reduce(operator.or_, usable), Field(discriminator="type")])


def read(source: str | Path) -> dict[str, Any]:
    """Read YAML from a path, or from text of more than one line; raises RecipeError naming the line."""
    if not isinstance(source, str | Path):
        raise RecipeError("", f"a recipe is read from a path or from YAML text, not from {shown(source)}")
    text = source if isinstance(source, str) and "\n" in source else _text(Path(source))
    try:
        data = read_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise RecipeError("", f"the recipe is not YAML: {writable(problem)}{where}") from None
    if not isinstance(data, dict):
        raise RecipeError("", "the recipe is not a mapping with the keys models and columns")
    return data


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: bytes that are no text, or a path with a null character
        problem = error.strerror if isinstance(error, OSError) else "not text"
        if not isinstance(error, OSError | UnicodeDecodeError):
            problem = "this is not a path"
        raise RecipeError("", f"cannot read the recipe {str(path)!r:.200}: {problem}") from None


def parse(data: Mapping[str, Any]) -> Parsed:
    """Turn plain data into the parts of a recipe; raises RecipeError with the path of the first mistake."""
    if not isinstance(data, Mapping):
        raise RecipeError("", f"a recipe is a mapping with the keys models and columns, not {shown(data)}")
    check_plain(dict(data), "")
    for key in data:
        if key not in Parsed.__annotations__:
            raise RecipeError(str(key), f"unknown field; {nearest(str(key), Parsed.__annotations__)}")
    models = {} if data.get("models") is None else data["models"]
    if not isinstance(models, dict):
        raise RecipeError("models", "must be a mapping from a name to a model")
    return Parsed(
        models={str(alias): _model(str(alias), given) for alias, given in models.items()},
        columns=[_typed(column_types, given, f"columns.{i}") for i, given in enumerate(_list(data, "columns"))],
        processors=[
            _typed(processor_types, given, f"processors.{i}") for i, given in enumerate(_list(data, "processors"))
        ],
        seed=checked_seed(data.get("seed")),
    )


def checked_seed(seed: object) -> int | None:
    """Refuse anything but a seed that metadata.json can hold."""
    seed = python_value(seed)
    if seed is None:
        return None
    if not isinstance(seed, int) or isinstance(seed, bool) or not -_SEEDS <= seed < _SEEDS:
        raise RecipeError("seed", f"must be a whole number of at most 64 bits, not {shown(seed)}")
    return seed


def dump(
    models: Mapping[str, Model],
    columns: Sequence[ColumnSpec],
    processors: Sequence[Processor],
    seed: int | None,
) -> dict[str, Any]:
    """Turn a recipe into plain data, without defaults and without keys.

    Functions and processors of the user's own are named, and cannot be read back.
    """
    data: dict[str, Any] = {} if seed is None else {"seed": seed}
    if models:
        data["models"] = {alias: _plain_model(model) for alias, model in models.items()}
    data["columns"] = [column.describe() for column in columns]
    if processors:
        data["processors"] = [processor.describe() for processor in processors]
    check_plain(data, "")
    return data


def to_yaml(data: Mapping[str, Any]) -> str:
    """Write plain data as YAML."""
    return write_yaml(data)


def _model(alias: str, given: object) -> Model:
    if isinstance(given, str):
        return Model(given)
    if not isinstance(given, dict):
        raise RecipeError(f"models.{alias}", 'must be "provider:name" or a mapping with the field spec')
    if "api_key" in given:
        problem = "a file must not contain a key; name the environment variable that holds it in api_key_env"
        raise RecipeError(f"models.{alias}.api_key", problem)
    if "headers" in given:
        problem = 'a file must not contain a key; name the variable of each in headers_env: {"X-Api-Key": "MY_KEY"}'
        raise RecipeError(f"models.{alias}.headers", problem)
    model = _validated(Model, given, f"models.{alias}")
    if model.secrets:
        field = "extra" if any(secrets_in(model.extra)) else "base_url"
        problem = "a file must not contain a key; name the variable that holds it in api_key_env or headers_env"
        raise RecipeError(f"models.{alias}.{field}", problem)
    return model


def _list(data: Mapping[str, Any], key: str) -> list[Any]:
    given = [] if data.get(key) is None else data[key]
    if not isinstance(given, list):
        raise RecipeError(key, "must be a list")
    return given


def _typed(kinds: Registry[type[T]], given: object, place: str) -> T:
    """Read a mapping whose field `type` names its kind."""
    if not isinstance(given, dict):
        raise RecipeError(place, "must be a mapping with the field type")
    path = f"{place.partition('.')[0]}.{given['name']}" if "name" in given else place
    if "type" not in given:
        raise RecipeError(f"{path}.type", f"this field is needed; {nearest('', kinds.names())}")
    try:
        kind = kinds.get(str(given["type"]))
    except RecipeError as error:
        raise RecipeError(f"{path}.type", error.problem) from error.__cause__
    return _validated(kind, given, path)


def _validated(cls: type[T], given: dict[Any, Any], path: str) -> T:
    fields: dict[str, Any] = vars(cls)["__dataclass_fields__"]
    try:
        return pydantic.TypeAdapter(cls).validate_python(given)
    except pydantic.ValidationError as error:
        raise recipe_error(error, path, tuple(fields)) from None


def _plain_model(model: Model) -> str | dict[str, Any]:
    try:
        return model.describe()
    except PydanticSerializationError as error:
        raise RecipeError(f"Model({model.name!r}).extra", f"is not plain data: {error}") from None
