"""Checks of a recipe's templates: fields that no answer has, and braces that are no Jinja."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..columns.templates.names import EACH
from ..core.errors import RecipeError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..columns.column import Column
    from ..columns.templates.template import Template

_BRACES = re.compile(r"(?<![{\\\w]){\s*(\w+)\s*}(?!})")
_OPENING = frozenset({"patternProperties", "allOf", "if", "not", "dependentSchemas", "$dynamicRef", "prefixItems"})
"""Words of a schema after which this check does not know what it allows."""
_DEEPEST = 32
"""The most references that are followed; a schema that needs more is open."""


def check_fields(columns: Sequence[Column]) -> None:
    """Refuse a field that the schema of its column lacks; raises RecipeError with the nearest one that it has."""
    schemas = {column.name: column.value_schemas() for column in columns}
    for column in columns:
        for field, template in column.templates().items():
            _check(f"columns.{column.name}.{field}", template, schemas)


def _check(where: str, template: Template, schemas: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    for name, *steps in template.fields:
        lacks = [_lacking(schema, steps, schema) for schema in schemas.get(name, ())]
        if lacks and all(lack is not None for lack in lacks):
            step, known = lacks[0] or ("", ())
            raise RecipeError(where, f"'{name}' has no field '{step}' in its schema; {nearest(step, known)}")


def bare_braces(columns: Sequence[Column]) -> Iterator[str]:
    """Yield a warning for each {name} of a column in a template that does not otherwise use that column."""
    names = {column.name for column in columns}
    for column in columns:
        for field, template in column.templates().items():
            for name in dict.fromkeys(_BRACES.findall(template.source)):
                if name in names and name not in template.needs:
                    yield (
                        f"columns.{column.name}.{field}: {{{name}}} is sent as it is; write {{{{ {name} }}}} for the"
                        f" value of the column '{name}'"
                    )


Lack = tuple[str, tuple[str, ...]]
"""A field that a schema lacks, and those that it has in its place."""


def _lacking(schema: object, steps: Sequence[str], root: dict[str, Any], depth: int = 0) -> Lack | None:
    """Return the first step that no value of the schema has; None if there may be one. Whatever is unclear is open."""
    if not steps or not isinstance(schema, dict) or depth > _DEEPEST or not _OPENING.isdisjoint(schema):
        return None
    if "$ref" in schema:
        return _lacking(_resolved(schema["$ref"], root), steps, root, depth + 1)
    for kind in ("anyOf", "oneOf"):
        if kind in schema:
            return _of_all([_lacking(part, steps, root, depth + 1) for part in schema[kind] if not _is_null(part)])
    fields = _fields(schema)
    if steps[0] == EACH:
        return _lacking(schema.get("items"), steps[1:], root, depth + 1)
    if fields and steps[0] not in fields:
        return steps[0], tuple(map(str, fields))
    return _lacking(fields.get(steps[0]), steps[1:], root, depth + 1)


def _fields(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a schema that allows no others; none for one that is open."""
    fields = schema.get("properties")
    closed = isinstance(fields, dict) and schema.get("additionalProperties", False) is False
    return fields if closed and fields else {}


def _of_all(lacks: Sequence[Lack | None]) -> Lack | None:
    """Return a lack only if every alternative has it."""
    found = [lack for lack in lacks if lack is not None]
    if not found or len(found) < len(lacks):
        return None
    return found[0][0], tuple(dict.fromkeys(name for _, names in found for name in names))


def _is_null(schema: object) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "null"


def _resolved(reference: object, root: dict[str, Any]) -> object:
    """Follow a reference within the schema; None, which is open, for any other."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found: object = root
    for part in reference[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or key not in found:
            return None
        found = found[key]
    return found
