"""A value that conforms to a JSON Schema, the same for the same random.Random."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

# Deeper than this, optional members are left out and lists are kept short, so that recursive schemas come to an end.
_DEEP = 4
_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "juniper", "knoll", "lark")
_FORMATS = {
    "date": "2024-05-{:02d}",
    "date-time": "2024-05-{:02d}T12:00:00Z",
    "time": "12:00:{:02d}Z",
    "email": "user{}@example.com",
    "uri": "https://example.com/{}",
    "uuid": "00000000-0000-4000-8000-0000000000{:02d}",
    "ipv4": "192.0.2.{}",
}


def conforming(schema: Mapping[str, Any], random: Random) -> Any:
    """Write a value that `schema` accepts.

    Knows what pydantic and hand-written schemas use: object, array, string, integer, number, boolean, null, enum,
    const, anyOf, oneOf, allOf, $ref, bounds, lengths and common formats. It does not know `pattern`, `not` and `if`.
    """
    return _Writer(schema, random).value(schema, 0)


class _Writer:
    def __init__(self, root: Mapping[str, Any], random: Random) -> None:
        self._root = root
        self._random = random

    def value(self, schema: Mapping[str, Any] | bool, depth: int) -> Any:  # noqa: FBT001 - true is a schema
        schema = self._resolved({} if isinstance(schema, bool) else schema, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._random.choice(schema["enum"])
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = self._random.choice([name for name in kind if name != "null"] or ["null"])
        writers: dict[str, Callable[[], Any]] = {
            "object": lambda: self._object(schema, depth),
            "array": lambda: self._array(schema, depth),
            "integer": lambda: self._integer(schema),
            "number": lambda: self._number(schema),
            "boolean": lambda: self._random.random() < 0.5,
            "null": lambda: None,
            "string": lambda: self._string(schema),
        }
        return writers[kind]()

    def _resolved(self, schema: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
        """Follow $ref, merge allOf and choose among anyOf and oneOf until none of them is left."""
        while True:
            rest = {key: value for key, value in schema.items() if key not in {"$ref", "allOf", "anyOf", "oneOf"}}
            if "$ref" in schema:
                schema = rest | dict(self._target(schema["$ref"]))
            elif "allOf" in schema:
                for part in schema["allOf"]:
                    rest |= self._resolved(part, depth)
                schema = rest
            elif options := schema.get("anyOf", schema.get("oneOf")):
                flat = [option for option in options if option.get("type") not in {None, "object", "array"}]
                schema = rest | dict(self._random.choice(flat if flat and depth >= _DEEP else options))
            else:
                return schema

    def _target(self, reference: str) -> Mapping[str, Any]:
        found: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            found = found[step.replace("~1", "/").replace("~0", "~")]
        return found

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        required = set(schema.get("required", ()))
        wanted = {
            name: part for name, part in schema.get("properties", {}).items() if depth < _DEEP or name in required
        }
        return {name: self.value(part, depth + 1) for name, part in wanted.items()}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        least = schema.get("minItems", 0)
        most = max(least, schema.get("maxItems", least + 3))
        length = least if depth >= _DEEP else self._random.randint(min(max(least, 1), most), most)
        first = [self.value(part, depth + 1) for part in schema.get("prefixItems", ())]
        if "items" not in schema:
            return first
        rest: list[Any] = []
        for _ in range(20 * length):
            if len(first) + len(rest) >= length:
                break
            item = self.value(schema["items"], depth + 1)
            if not (schema.get("uniqueItems") and item in rest):
                rest.append(item)
        return first + rest

    def _integer(self, schema: Mapping[str, Any]) -> int:
        step = int(schema.get("multipleOf", 1))
        low, high = _bounds(schema, margin=1)
        return step * self._random.randint(-int(-low // step), int(high // step))

    def _number(self, schema: Mapping[str, Any]) -> float:
        low, high = _bounds(schema, margin=0)
        value = round(self._random.uniform(low, high), 2)
        inside = low < value < high
        return value if inside else (low + high) / 2

    def _string(self, schema: Mapping[str, Any]) -> str:
        if shape := _FORMATS.get(schema.get("format", "")):
            return shape.format(self._random.randint(1, 28))
        least = schema.get("minLength", 0)
        most = schema.get("maxLength", max(least, 60))
        text = " ".join(self._random.choices(_WORDS, k=3))
        while len(text) < least:
            text += " " + self._random.choice(_WORDS)
        return text[:most]


def _bounds(schema: Mapping[str, Any], margin: int) -> tuple[float, float]:
    """Lowest and highest value; exclusive bounds are moved inwards by `margin`."""
    low = schema.get("minimum", schema["exclusiveMinimum"] + margin if "exclusiveMinimum" in schema else None)
    high = schema.get("maximum", schema["exclusiveMaximum"] - margin if "exclusiveMaximum" in schema else None)
    if low is None:
        low = 0 if high is None else min(0, high - 100)
    if high is None:
        high = low + 100
    return low, high
