"""strict(): a JSON Schema in the form that strict structured output requires.

OpenAI's strict mode needs every object closed and every property required, down to the last definition. A value that
conforms to the closed schema conforms to the original as well. The rules are those of openai-python's own conversion
(`openai.lib._pydantic`), applied to plain schemas; the given one is not changed.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_MAPS = ("properties", "$defs", "definitions")
_BESIDE_REF = ("$ref", "$defs", "definitions")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")


def strict(schema: Schema) -> Schema | None:
    """Return a closed copy of `schema`, None if it describes objects with free keys and cannot be closed."""
    try:
        return _closed(schema)
    except _OpenObjectError:
        return None


class _OpenObjectError(Exception):
    pass


def _closed(schema: Schema) -> Schema:
    # No keyword may stand beside a reference, not even a description.
    closed = {key: schema[key] for key in _BESIDE_REF if key in schema} if "$ref" in schema else dict(schema)
    for key in _MAPS:
        if isinstance(closed.get(key), dict):
            closed[key] = {name: _value(inner) for name, inner in closed[key].items()}
    for key in _LISTS:
        if isinstance(closed.get(key), list):
            closed[key] = [_value(inner) for inner in closed[key]]
    if "items" in closed:
        closed["items"] = _value(closed["items"])
    if closed.get("type") == "object" or "properties" in closed:
        if closed.get("additionalProperties", False) is not False or "properties" not in closed:
            raise _OpenObjectError
        closed["additionalProperties"] = False
        closed["required"] = list(closed["properties"])
    if closed.get("default", ...) is None:
        del closed["default"]
    return closed


def _value(schema: Any) -> Any:
    return _closed(schema) if isinstance(schema, dict) else schema
