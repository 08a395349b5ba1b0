"""The shape of JSON values: whether an Arrow type holds them exactly as they are, and which type a table writes.

Arrow would turn the 1 beside a 2.5 into 1.0, and give every object the keys of all. Values of such shapes are kept as
their JSON text, and decoded when a row needs them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind: TypeAlias = Literal["null", "bool", "int", "float", "number", "string", "list", "struct", "open", "other"]

_KINDS: Final[dict[type, Kind]] = {bool: "bool", str: "string"}
_SCALARS: Final = frozenset({bool, str, int, float})
_SIMPLE: Final[dict[Kind, pa.DataType]] = {
    "null": pa.null(),
    "bool": pa.bool_(),
    "float": pa.float64(),
    "string": pa.string(),
}
_EXACT_IN_FLOAT: Final = 2**53


@dataclass(frozen=True, slots=True)
class Shape:
    """The type that values have in common. `low` and `high` bound integers; `parts` are of a list (one) or an object.

    "number" is integers beside floats, "open" is any other mix of types, "other" is a type that JSON does not have.
    """

    kind: Kind
    low: int = 0
    high: int = 0
    parts: tuple[tuple[str, Shape], ...] = ()

    @property
    def exact(self) -> bool:
        """Whether `type` gives the values back as they are."""
        if self.parts:
            return all(part.exact for _, part in self.parts)
        return self.kind != "number" and self.type is not None

    @property
    def foreign(self) -> bool:
        """Whether the values have a type that JSON does not have."""
        return self.kind == "other" or any(part.foreign for _, part in self.parts)

    @property
    def type(self) -> pa.DataType | None:
        """The Arrow type that a table of the values has; None where there is none."""
        if self.kind in _SIMPLE:
            return _SIMPLE[self.kind]
        if self.kind == "int":
            return _integer(self.low, self.high)
        if self.kind == "number":
            return pa.float64() if self.low >= -_EXACT_IN_FLOAT and self.high <= _EXACT_IN_FLOAT else None
        if self.kind in {"open", "other"}:
            return None
        inner = [(name, part.type) for name, part in self.parts]
        known = [(name, type_) for name, type_ in inner if type_ is not None]
        if len(known) < len(inner):
            return None
        return pa.list_(known[0][1]) if self.kind == "list" else pa.struct(known)


NOTHING: Final = Shape("null")
OPEN: Final = Shape("open")


def shape_of(values: Sequence[Any]) -> Shape:
    """Return the shape of values of the types that JSON has; None counts for nothing."""
    found = {type(value) for value in values} - {type(None)}
    if not found:
        return NOTHING
    if found <= {int, float}:
        whole = [value for value in values if type(value) is int]
        kind: Kind = "number" if len(found) > 1 else "int" if whole else "float"
        return Shape(kind, min(whole, default=0), max(whole, default=0))
    if found == {list}:
        items = list(itertools.chain.from_iterable(value for value in values if value is not None))
        return Shape("list", parts=(("", shape_of(items)),))
    if found == {dict}:
        return _shape_of_objects([value for value in values if value is not None])
    return Shape(_KINDS[found.pop()]) if len(found) == 1 and found <= _KINDS.keys() else _mixed(values)


def together(one: Shape, other: Shape) -> Shape:
    """Return the shape of the values of both."""
    if "other" in {one.kind, other.kind}:
        return Shape("other")
    if "null" in {one.kind, other.kind}:
        return other if one.kind == "null" else one
    if {one.kind, other.kind} <= {"int", "float", "number"}:
        return _numbers(one, other)
    if one.kind != other.kind or [name for name, _ in one.parts] != [name for name, _ in other.parts]:
        return OPEN
    pairs = zip(one.parts, other.parts, strict=True)
    return Shape(one.kind, parts=tuple((name, together(part, beside)) for (name, part), (_, beside) in pairs))


def _numbers(one: Shape, other: Shape) -> Shape:
    kind = one.kind if one.kind == other.kind else "number"
    bounded = [shape for shape in (one, other) if shape.kind != "float"]
    if not bounded:
        return one
    return Shape(kind, min(shape.low for shape in bounded), max(shape.high for shape in bounded))


def _shape_of_objects(values: list[dict[Any, Any]]) -> Shape:
    keys = set(map(tuple, values))
    if len(keys) > 1 or not values[0] or not all(type(key) is str for key in values[0]):
        return _mixed(values)
    return Shape("struct", parts=tuple((key, shape_of([value[key] for value in values])) for key in values[0]))


def _mixed(values: Sequence[Any]) -> Shape:
    """Return the shape of values that differ: open, or "other" if JSON does not have one of them."""
    inner: list[Any] = []
    for value in values:
        if isinstance(value, dict):
            if not all(type(key) is str for key in value):
                return Shape("other")
            inner += value.values()
        elif isinstance(value, list):
            inner += value
        elif value is not None and type(value) not in _SCALARS:
            return Shape("other")
    return _mixed(inner) if inner else OPEN


def _integer(low: int, high: int) -> pa.DataType | None:
    if low >= -(2**63) and high < 2**63:
        return pa.int64()
    return pa.uint64() if low >= 0 and high < 2**64 else None
