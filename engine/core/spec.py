"""`@spec`: a frozen, validated value object that reports mistakes as RecipeError.

Specs are pydantic dataclasses: the same class serves Python callers (positional name first, types checked), YAML
(validated from plain data, unknown fields refused) and the JSON Schema.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, cast, dataclass_transform

import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic_core import PydanticSerializationError

from .errors import RecipeError, nearest
from .plain_data import check_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic_core import ErrorDetails

T = TypeVar("T")

_UNKNOWN = {"unexpected_keyword_argument", "extra_forbidden"}
_MISSING = {"missing", "missing_argument", "missing_keyword_only_argument"}
_PLAIN = (dict, list, tuple, int)
_CONFIG = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)


@dataclass_transform(frozen_default=True, field_specifiers=(pydantic.Field,))
def spec(cls: type[T]) -> type[T]:
    """Make `cls` a frozen pydantic dataclass that raises RecipeError, with a path that starts at its name.

    Lists, mappings and numbers are checked to be finite before anything walks them, but for fields that are named in a
    class variable `tables`: these hold rows, and are checked where they are read.
    """
    made: Any = pydantic_dataclass(frozen=True, config=_CONFIG)(cls)
    validating_init = made.__init__
    tables = getattr(cls, "tables", ())

    @functools.wraps(validating_init)
    def __init__(self: object, *args: object, **kwargs: object) -> None:  # noqa: N807 - it becomes the class's own
        fields = [field.name for field in sorted(dataclasses.fields(made), key=lambda field: field.kw_only is True)]
        named = [item for item in (*zip(fields, args, strict=False), *kwargs.items()) if item[0] not in tables]
        plain_data = [(name, value) for name, value in named if isinstance(value, _PLAIN)]
        for name, value in plain_data:  # before pydantic walks it
            check_plain(value, f"{_root(self, args, kwargs)}.{name}".strip("."), finite=False, text=False)
        try:
            validating_init(self, *args, **kwargs)
        except pydantic.ValidationError as error:
            raise recipe_error(error, _root(self, args, kwargs), fields) from None
        for name, value in plain_data:  # a recipe checks text, whose path is longer there
            check_plain(value, f"{_root(self, args, kwargs)}.{name}".strip("."), text=False)

    made.__init__ = __init__
    return cast("type[T]", made)


def plain(thing: object) -> dict[str, Any]:
    """Return a spec as plain data: its name and type first, then the fields that are not at their default.

    Raises RecipeError for a field whose value no file can hold.
    """
    cls: Any = type(thing)
    dump = functools.partial(pydantic.TypeAdapter(cls).dump_python, thing, mode="json", exclude_defaults=True)
    try:
        changed: dict[str, Any] = dump()
    except PydanticSerializationError as error:
        label = getattr(thing, "name", None)
        raise _not_plain(error, _root(thing, (label,), {}), dump, dataclasses.fields(cls)) from None
    fields = {field.name for field in dataclasses.fields(cls)}
    first = {name: getattr(thing, name) for name in ["name", "type"] if name in fields}
    return {**first, **{name: value for name, value in changed.items() if name not in first}}


def _not_plain(
    error: Exception, root: str, dump: Callable[..., object], fields: Sequence[dataclasses.Field[Any]]
) -> RecipeError:
    """Name the first field that cannot be dumped."""
    for field in fields:
        try:
            dump(include={field.name})
        except PydanticSerializationError:
            root = f"{root}.{field.name}"
            break
    return RecipeError(root, f"is not plain data: {error}")


def check_kind(kind: object, parent: type, name: str) -> None:
    """Check that a class can be used in recipe files as a kind called `name`; raises TypeError that says why not."""
    if not (inspect.isclass(kind) and issubclass(kind, parent) and is_pydantic_dataclass(kind)):
        raise TypeError(f"a kind is a subclass of {parent.__name__} with @spec above it, not {kind!r:.80}")
    if inspect.isabstract(kind):
        raise TypeError(f"{kind.__name__} does not implement {', '.join(sorted(kind.__abstractmethods__))}")
    found = pydantic.TypeAdapter(kind).json_schema()["properties"].get("type", {}).get("const")
    if found != name:
        raise TypeError(f'the field `type` of {kind.__name__} must be Literal["{name}"], and is {found!r}')


def _root(made: object, args: tuple[object, ...], kwargs: dict[str, object]) -> str:
    """Name what was being made: Text('answer'). A class that stands for a call's arguments has the root ""."""
    if hasattr(made, "root"):
        return str(made.root)
    label = args[0] if args else kwargs.get("name", kwargs.get("spec"))
    return f"{type(made).__name__}({label!r})" if isinstance(label, str) else type(made).__name__


def recipe_error(error: pydantic.ValidationError, root: str, fields: Sequence[str]) -> RecipeError:
    """Make one line of the most specific of pydantic's findings: a path from `root`, and the nearest known name."""
    found = error.errors(include_url=False)
    first = next((item for item in found if item["type"] in _UNKNOWN), found[0])
    location = [_field_name(part, fields) if depth == 0 else str(part) for depth, part in enumerate(first["loc"])]
    path = ".".join(filter(None, [root, *location]))
    if first["type"] in _UNKNOWN:
        known = fields if len(location) == 1 else _missing_beside(first["loc"], found)
        return RecipeError(path, f"unknown field; {nearest(location[-1], known)}" if known else "unknown field")
    if first["type"] in _MISSING:
        return RecipeError(path, "this field is needed")
    return RecipeError(path, first["msg"].removeprefix("Value error, "))


def _missing_beside(location: tuple[int | str, ...], found: Sequence[ErrorDetails]) -> list[str]:
    """Name the fields that are missing where one in a value within the value is not known."""
    return [str(item["loc"][-1]) for item in found if item["type"] in _MISSING and item["loc"][:-1] == location[:-1]]


def _field_name(part: int | str, fields: Sequence[str]) -> str:
    """Name the field that a positional argument stands for."""
    return fields[part] if isinstance(part, int) and part < len(fields) else str(part)
