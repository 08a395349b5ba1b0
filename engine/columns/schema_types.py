"""Schema types: the Arrow type of values that obey a JSON Schema, decided once per column.

A schema has an Arrow type if every value that obeys it comes back from that type as it was. One that leaves something
open has none: a union, free keys, items of any type, an empty object, a tuple, a reference to itself. Its column is
JSON text as a whole, because readers then meet one form of value, whatever is inside.

A schema that does not mention further keys has a type all the same, as few answers have such keys. `SchemaType.strays`
finds those that do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Strays: TypeAlias = Callable[[Any], bool]
"""Whether a value has keys that its type would leave out."""

_SIMPLE: Final[dict[str, pa.DataType]] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}
_NUMBERS: Final = {pa.int64(), pa.uint64(), pa.float64()}
_OF_CONSTANTS: Final[dict[type, pa.DataType]] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
}
_BESIDE_A_REFERENCE: Final = frozenset(
    {"type", "properties", "additionalProperties", "patternProperties", "items", "prefixItems", "anyOf", "oneOf"}
)
"""Words that add to what a `$ref` allows; a schema with both is open."""
_OPENING: Final = ("additionalProperties", "unevaluatedProperties", "patternProperties")
_INT64, _UINT64 = 2**63, 2**64
_DEEPEST = 32
_MOST_FIELDS = 2000
"""A schema with more fields than that, its references followed, has no type: a few lines can stand for billions."""


@dataclass(frozen=True, slots=True)
class SchemaType:
    """An Arrow type, and the function that finds values with keys that it lacks; None where none can have any."""

    type: pa.DataType
    strays: Strays | None = None


def arrow_type_of_schema(schema: Mapping[str, Any], root: Mapping[str, Any]) -> pa.DataType | None:
    """Return the Arrow type of values that obey a JSON Schema; None if the schema leaves it open."""
    found = _Reading(root).read(schema)
    return None if found is None else found.type


def type_of_schema(schema: Mapping[str, Any]) -> SchemaType | None:
    """Return the type of values that obey a JSON Schema; None if the schema leaves it open."""
    return _Reading(schema).read(schema)


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a pydantic model's schema with it stated that objects have no further keys, unless it states otherwise.

    pydantic drops further keys and does not mention that in the schema.
    """
    made = {key: closed(value) if isinstance(value, dict) else value for key, value in schema.items()}
    made |= {
        key: [closed(item) if isinstance(item, dict) else item for item in made[key]]
        for key in ("anyOf", "oneOf", "allOf", "prefixItems")
        if isinstance(made.get(key), list)
    }
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


class _Reading:
    """One schema as it is read: the references that are being followed, and the number of fields so far."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._following: list[str] = []
        self._fields = 0

    def read(self, schema: object, depth: int = 0) -> SchemaType | None:
        """Return the type of a part of the schema."""
        if not isinstance(schema, dict) or depth > _DEEPEST:
            return None
        if "$ref" in schema:
            return None if _BESIDE_A_REFERENCE & schema.keys() else self._referenced(schema["$ref"], depth)
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            return self._of_options(options, depth)
        whole = schema.get("allOf")
        if isinstance(whole, list) and len(whole) == 1 and "type" not in schema:
            return self.read(whole[0], depth + 1)
        return self._of_kind(schema, depth)

    def _of_kind(self, schema: dict[str, Any], depth: int) -> SchemaType | None:
        kind = _kind(schema)
        if kind == "array":
            return self._list(schema, depth)
        if kind == "object":
            return self._struct(schema, depth)
        type_ = _integer(schema) if kind == "integer" else _SIMPLE.get(kind or "") or _of_constants(schema)
        return None if type_ is None else SchemaType(type_)

    def _referenced(self, reference: object, depth: int) -> SchemaType | None:
        """Follow `#/$defs/Name`; a schema that contains itself has no type."""
        if not isinstance(reference, str) or reference in self._following:
            return None
        self._following.append(reference)
        try:
            return self.read(_target(reference, self._root), depth + 1)
        finally:
            self._following.pop()

    def _of_options(self, options: object, depth: int) -> SchemaType | None:
        """Return the one type of all options but null; integers and other numbers are numbers."""
        if not isinstance(options, list):
            return None
        found = [self.read(option, depth + 1) for option in options if not _is_null(option)]
        parts = [part for part in found if part is not None]
        if not parts or len(parts) < len(found):
            return None
        if all(part.type.equals(parts[0].type) for part in parts):
            return next((part for part in parts if part.strays is not None), parts[0])
        return SchemaType(pa.float64()) if {part.type for part in parts} <= _NUMBERS else None

    def _list(self, schema: dict[str, Any], depth: int) -> SchemaType | None:
        items = None if "prefixItems" in schema else self.read(schema.get("items"), depth + 1)
        if items is None:
            return None
        return SchemaType(pa.list_(items.type), None if items.strays is None else _strays_in_list(items.strays))

    def _struct(self, schema: dict[str, Any], depth: int) -> SchemaType | None:
        properties = schema.get("properties")
        free = any(schema.get(word, False) is not False for word in _OPENING)
        if free or not properties or not isinstance(properties, dict):
            return None
        self._fields += len(properties)
        if self._fields > _MOST_FIELDS:
            return None
        fields: dict[str, SchemaType] = {}
        for name, of in properties.items():
            part = self.read(of, depth + 1)
            if part is None:
                return None
            fields[name] = part
        type_ = pa.struct([(name, part.type) for name, part in fields.items()])
        states_all = schema.get("additionalProperties") is False or schema.get("unevaluatedProperties") is False
        has_more = None if states_all else _more_than(fields, schema.get("required"))
        return SchemaType(type_, _strays_in_object(fields, has_more))


def _strays_in_list(strays: Strays) -> Strays:
    return lambda value: value is not None and any(strays(item) for item in value)


def _more_than(fields: Mapping[str, SchemaType], required: object) -> Strays:
    """Compile the check for further keys: where all fields are required, the number of keys is enough."""
    count, names = len(fields), frozenset(fields)
    if isinstance(required, list) and names.issubset(required):
        return lambda value: value is not None and len(value) > count
    return lambda value: value is not None and not names.issuperset(value)


def _strays_in_object(fields: Mapping[str, SchemaType], has_more: Strays | None) -> Strays | None:
    """Compile the check of an object, with those of the objects inside."""
    inner = [(name, part.strays) for name, part in fields.items() if part.strays is not None]
    if not inner:
        return has_more

    def strays(value: Any) -> bool:
        if value is None:
            return False
        return (has_more is not None and has_more(value)) or any(of(value.get(name)) for name, of in inner)

    return strays


def _kind(schema: dict[str, Any]) -> str | None:
    """Return the one type that is named beside null; None for several, or none."""
    named = schema.get("type")
    kinds = [kind for kind in named if kind != "null"] if isinstance(named, list) else [named]
    if set(kinds) == {"integer", "number"}:
        return "number"
    return kinds[0] if len(kinds) == 1 and isinstance(kinds[0], str) else None


def _integer(schema: dict[str, Any]) -> pa.DataType | None:
    """Return int64, unless the schema's own bounds ask for another type."""
    least, most = (schema.get(bound) for bound in ("minimum", "maximum"))
    if isinstance(least, int | float) and least < -_INT64:
        return None
    if not isinstance(most, int | float) or most < _INT64:
        return pa.int64()
    return pa.uint64() if isinstance(least, int | float) and least >= 0 and most < _UINT64 else None


def _of_constants(schema: dict[str, Any]) -> pa.DataType | None:
    """Return the type of `enum` or `const`, where a schema names no other."""
    if "type" in schema:
        return None
    values: Sequence[Any] = [schema["const"]] if "const" in schema else schema.get("enum") or ()
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {int} and not all(-_INT64 <= value < _INT64 for value in values if value is not None):
        return None
    return _OF_CONSTANTS.get(kinds.pop()) if len(kinds) == 1 else None


def _is_null(schema: object) -> bool:
    return isinstance(schema, dict) and (schema.get("type") == "null" or schema.get("const", ...) is None)


def _target(reference: str, root: Mapping[str, Any]) -> object:
    """Return what a reference within the schema points at; None for any other."""
    if not reference.startswith("#"):
        return None
    target: object = root
    for part in reference[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        target = target.get(key) if isinstance(target, dict) else None
    return target if reference == "#" or reference.startswith("#/") else None
