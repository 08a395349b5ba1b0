"""enforceable(): a JSON Schema in the part of the language that Anthropic's structured outputs can enforce.

A grammar constrains the decoding. It supports types, enumerations, alternatives, references, closed objects and a few
formats. Other keywords are refused with status 400, so they go into descriptions instead, where the model reads them;
the engine checks each answer against the whole schema anyway. The rules are those of
https://platform.claude.com/docs/en/build-with-claude/structured-outputs and of anthropic-sdk-python's own conversion.
"""

from __future__ import annotations

from typing import Any

import msgspec

Schema = dict[str, Any]

_MAPS = ("$defs", "definitions")
_AS_IT_IS = ("const", "description", "title")
_UNSAID = ("default", "$schema", "$id", "$comment")
_READ = (*_MAPS, *_AS_IT_IS, *_UNSAID, "$ref", "type", "enum", "anyOf", "oneOf", "allOf")
_OF_KIND = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items",),
}
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
_KINDS = {"object", "array", "string", "integer", "number", "boolean", "null"}


def enforceable(schema: Schema) -> Schema | None:
    """Return a copy of `schema` that can be enforced, None for one with free keys or types, or that contains itself."""
    try:
        _follow(schema, schema, (), set())
        return _enforced(schema)
    except _FreeError:
        return None


class _FreeError(Exception):
    pass


def _follow(part: Any, root: Schema, on_the_way: tuple[str, ...], done: set[str]) -> None:
    """Refuse references without a target, and those that lead back to themselves."""
    if isinstance(part, list):
        for item in part:
            _follow(item, root, on_the_way, done)
    if not isinstance(part, dict):
        return
    reference = part.get("$ref")
    if isinstance(reference, str) and reference not in done:
        if reference in on_the_way:
            raise _FreeError
        _follow(_target(reference, root), root, (*on_the_way, reference), done)
        done.add(reference)
    for key, value in part.items():
        if key not in _MAPS:  # a definition without references to it does no harm
            _follow(value, root, on_the_way, done)


def _target(reference: str, root: Schema) -> Schema:
    target: Any = root
    for name in reference.removeprefix("#/").split("/"):
        target = target.get(name) if isinstance(target, dict) else None
    if not isinstance(target, dict):
        raise _FreeError
    return target


def _enforced(schema: Any) -> Schema:
    if not isinstance(schema, dict):
        raise _FreeError
    made: Schema = {key: {name: _enforced(of) for name, of in schema[key].items()} for key in _MAPS if key in schema}
    if "$ref" in schema:
        return {**made, "$ref": schema["$ref"]}
    kind = schema.get("type")
    if isinstance(kind, list):
        shared = {key: value for key, value in schema.items() if key not in {"type", *_MAPS}}
        return {**made, "anyOf": [_enforced({**_meant_for(one, shared), "type": one}) for one in kind]}
    made |= {key: schema[key] for key in _AS_IT_IS if key in schema}
    for key, name in (("anyOf", "anyOf"), ("oneOf", "anyOf"), ("allOf", "allOf")):
        if key in schema:
            made[name] = [_enforced(option) for option in schema[key]]
    if "enum" in schema:
        made["enum"] = _plain(schema["enum"])
    if kind is not None:
        if kind not in _KINDS:
            raise _FreeError
        made["type"] = kind
    elif not made.keys() & {"anyOf", "allOf", "enum", "const"}:
        raise _FreeError
    return _with_notes(made | _OF_TYPE.get(kind, _nothing)(schema), schema, kind)


def _meant_for(kind: str, shared: Schema) -> Schema:
    """Leave out keywords that concern other types only."""
    if "enum" in shared:
        shared = {**shared, "enum": [value for value in shared["enum"] if (value is None) == (kind == "null")]}
    others = {key for other, keys in _OF_KIND.items() if other != kind for key in keys}
    return {key: value for key, value in shared.items() if key not in others}


def _plain(values: list[Any]) -> list[Any]:
    if any(isinstance(value, dict | list) for value in values):
        raise _FreeError
    return values


def _object(schema: Schema) -> Schema:
    if schema.get("additionalProperties", False) is not False or not schema.get("properties"):
        raise _FreeError
    made: Schema = {"properties": {name: _enforced(of) for name, of in schema["properties"].items()}}
    return {**made, **_chosen(schema, "required"), "additionalProperties": False}


def _array(schema: Schema) -> Schema:
    return {"items": _enforced(schema.get("items")), **_chosen(schema, "minItems", {0, 1})}


def _string(schema: Schema) -> Schema:
    return _chosen(schema, "format", _FORMATS)


def _nothing(_schema: Schema) -> Schema:
    return {}


_OF_TYPE: dict[Any, Any] = {"object": _object, "array": _array, "string": _string}


def _chosen(schema: Schema, key: str, among: set[Any] | None = None) -> Schema:
    return {key: schema[key]} if key in schema and (among is None or schema[key] in among) else {}


def _with_notes(made: Schema, schema: Schema, kind: str | None) -> Schema:
    """Add the keywords that cannot be enforced to the description."""
    handled = {*made, *_READ, *_OF_KIND.get(kind or "", ())}
    notes = [f"{key}: {msgspec.json.encode(value).decode()}" for key, value in schema.items() if key not in handled]
    if not notes:
        return made
    return made | {"description": " ".join(filter(None, [made.get("description"), f"({', '.join(notes)})"]))}
