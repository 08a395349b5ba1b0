"""Drawn schemas: shapes of values as plain data, as JSON Schemas and as pydantic models; without hypothesis.

A shape is a list that begins with its kind: ["int"], ["list", shape], ["union", shapes] and so on. In
["object", {name: shape}, required, further], `further` keys are "closed" (refused), "silent" (not mentioned) or "open".
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal, Union

import pydantic

import rowloop as rl

Shape = list[Any]

KINDS = {"null": "null", "bool": "boolean", "int": "integer", "small": "integer", "float": "number", "str": "string"}
TYPES = {"null": None, "bool": bool, "int": int, "small": int, "float": float, "str": str, "any": Any}


def schema_of(shape: Shape) -> dict[str, Any]:
    """Return the JSON Schema of a shape."""
    tree = {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/maybe"}}}
    maybe = {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}
    return {**_schema(shape), "$defs": {"tree": tree, "maybe": maybe}}


def _schema(shape: Shape) -> dict[str, Any]:  # noqa: PLR0911 - one for each kind
    kind, *rest = shape
    if kind in KINDS:
        return {"type": KINDS[kind]}
    if kind == "optional":
        return {"anyOf": [_schema(rest[0]), {"type": "null"}]}
    if kind == "list":
        return {"type": "array", "items": _schema(rest[0])}
    if kind == "tuple":
        inner = [_schema(part) for part in rest[0]]
        return {"type": "array", "prefixItems": inner, "minItems": len(inner), "maxItems": len(inner)}
    if kind in {"union", "tagged"}:
        return {"anyOf": [_schema(part) for part in rest[0]]}
    if kind == "object":
        further = {"closed": {"additionalProperties": False}, "open": {"additionalProperties": {}}, "silent": {}}[
            rest[2]
        ]
        properties = {name: _schema(part) for name, part in rest[0].items()}
        return {"type": "object", "properties": properties, "required": rest[1], **further}
    plain = {
        "any": {},
        "map": {"type": "object", "additionalProperties": _schema(rest[0]) if kind == "map" else {}},
        "enum": {"enum": rest[0] if rest else []},
        "tree": {"$ref": "#/$defs/tree"},
    }
    return plain[kind]


class Tree(pydantic.BaseModel):
    """Refers to itself."""

    value: int = pydantic.Field(alias="the_value")
    next: Tree | None = pydantic.Field(alias="the_next", default=None)


class Counted(pydantic.BaseModel):
    """Has a computed field, beside those of a shape."""

    @pydantic.computed_field
    @property
    def fields(self) -> int:
        """Count the fields that were given."""
        return len(self.model_fields_set)


def type_of(shape: Shape) -> Any:  # noqa: PLR0911 - one for each kind
    """Return the Python type of a shape."""
    kind, *rest = shape
    if kind in TYPES:
        return TYPES[kind]
    if kind == "optional":
        return _either(type_of(rest[0]), None)
    if kind == "list":
        return list[type_of(rest[0])]  # type: ignore[misc] # a type of its own in each call
    if kind == "tuple":
        return tuple[tuple(type_of(part) for part in rest[0])]  # type: ignore[misc] # the same
    if kind == "map":
        return dict[str, type_of(rest[0])]  # type: ignore[misc] # the same
    if kind == "union":
        return _either(*map(type_of, rest[0]))
    if kind == "tagged":
        return Annotated[_either(*map(type_of, rest[0])), pydantic.Field(discriminator="kind")]
    return Tree if kind == "tree" else Literal[tuple(rest[0])] if kind == "enum" else model_of(shape)


def _either(*types: Any) -> Any:
    """Return a union; `None | None` is none."""
    return Union[types]  # noqa: UP007 - the same


def model_of(shape: Shape) -> type[pydantic.BaseModel]:
    """Return the pydantic model of an object, or of any other shape as its root.

    Fields have aliases, and an object with an odd number of fields has a computed one.
    """
    if shape[0] != "object":
        return pydantic.create_model("Root", __base__=pydantic.RootModel[type_of(shape)])  # type: ignore[misc] # the same
    fields: dict[str, Any] = {}
    for name, part in shape[1].items():
        default = ... if name in shape[2] else None
        type_ = type_of(part) if name in shape[2] else _either(type_of(part), None)
        fields[name] = (type_, default if name == "kind" else pydantic.Field(default=default, alias=f"the_{name}"))
    extra: dict[str, Any] = {"closed": "forbid", "silent": "ignore", "open": "allow"}
    config = pydantic.ConfigDict(extra=extra[shape[3]])
    base = pydantic.create_model("Base", __config__=config, **fields)
    return pydantic.create_model("Counting", __base__=(base, Counted)) if len(fields) % 2 else base


def with_aliases(shape: Shape, value: Any) -> Any:  # noqa: PLR0911 - one for each kind
    """Return a value with the aliases of its fields in the place of their names, where its shape is plain."""
    kind, *rest = shape
    if kind == "tree" and value is not None:
        return {"the_value": value["value"], "the_next": value["next"] and with_aliases(shape, value["next"])}
    if value is None:
        return None
    if kind == "optional":
        return with_aliases(rest[0], value)
    if kind == "list":
        return [with_aliases(rest[0], item) for item in value]
    if kind == "map":
        return {key: with_aliases(rest[0], item) for key, item in value.items()}
    if kind == "object":
        named = {name for name in rest[0] if name != "kind"}
        return {
            f"the_{name}" if name in named else name: with_aliases(rest[0][name], item) if name in named else item
            for name, item in value.items()
        }
    return value


def recipe_of(shape: Shape, answers: list[str], *, as_model: bool) -> rl.Recipe:
    """Make a recipe with an answer per row in the column `x`, and one that waits for it."""
    model = rl.Model(functools.partial(_answer, answers))
    schema = model_of(shape) if as_model else schema_of(shape)
    columns = [
        rl.Seed({"n": list(range(len(answers)))}),
        rl.Structured("x", model="m", prompt="{{ n }}", schema=schema, reasks=0),
        rl.Expression("line", "{{ n }}{% if x %} {{ x }}{% endif %}"),
    ]
    return rl.Recipe(models={"m": model}, columns=columns, seed=1)


def _answer(answers: list[str], prompt: str) -> str:
    return answers[int(prompt)]
