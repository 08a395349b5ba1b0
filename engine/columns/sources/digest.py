"""A hash of a table's values: streamed block by block, and the same however they are cut into blocks and stored."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
from pyarrow import types as kinds

if TYPE_CHECKING:
    from .blocks import Blocks

Values: TypeAlias = Any
"""An Arrow array: the stubs have no type for arrays that have parts, or buffers, of whatever type."""

_DIGITS = 32


def digest_of(blocks: Blocks) -> str:
    """Hash the names, types and values of all columns."""
    hashes = [_Hash(field.type) for field in blocks.schema]
    for block in blocks:
        for column, values in zip(hashes, block.columns, strict=True):
            for chunk in values.chunks:
                column.add(chunk)
    total = hashlib.sha256()
    for field, column in zip(blocks.schema, hashes, strict=True):
        total.update(f"{field.name}\0{_type(field.type)}\0".encode())
        total.update(column.digest())
    return total.hexdigest()[:_DIGITS]


def _type(type_: Any) -> str:
    """Name a type; how wide offsets are, and whether values are in a dictionary, makes no other table."""
    if kinds.is_dictionary(type_):
        return _type(type_.value_type)
    return str(type_).replace("large_", "").replace("_view", "")


def _inner(type_: Any) -> list[pa.DataType]:
    if kinds.is_struct(type_):
        return [field.type for field in type_]
    if kinds.is_map(type_):
        return [pa.struct([("key", type_.key_type), ("value", type_.item_type)])]
    if kinds.is_dictionary(type_):
        return _inner(type_.value_type)
    has_values: bool = kinds.is_nested(type_)
    return [type_.value_type] if has_values else []


class _Hash:
    """A hash of the values of one type: where nulls are, how long values are, their bytes; and one for each part."""

    def __init__(self, type_: pa.DataType) -> None:
        """Begin."""
        self._nulls, self._lengths, self._bytes = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._rows = 0
        self._parts = [_Hash(inner) for inner in _inner(type_)]

    def add(self, values: Values) -> None:
        """Add values that follow those before."""
        if kinds.is_dictionary(values.type):
            values = values.dictionary_decode()
        there = values
        if values.null_count:
            nulls = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))
            self._nulls.update((nulls + self._rows).astype("<u8").tobytes())
            there = values.drop_null()  # what lies under a null is anything
        self._rows += len(values)
        if len(there):
            self._add(there, there.type)

    def digest(self) -> bytes:
        """Return the hash of all that was added."""
        parts = [part.digest() for part in self._parts]
        own = [one.digest() for one in (self._nulls, self._lengths, self._bytes)]
        return hashlib.sha256(b"".join([self._rows.to_bytes(8, "little"), *own, *parts])).digest()

    def _add(self, values: Values, type_: pa.DataType) -> None:
        """Add values of which none is null."""
        if kinds.is_struct(type_):
            for part, inner in zip(self._parts, values.flatten(), strict=True):
                part.add(inner)
        elif kinds.is_nested(type_):
            self._add_lists(values, type_)
        elif kinds.is_boolean(type_):
            self._add(values.cast(pa.uint8()), pa.uint8())
        elif kinds.is_primitive(type_) or kinds.is_decimal(type_) or kinds.is_fixed_size_binary(type_):
            width, begin = type_.bit_width // 8, values.offset
            self._bytes.update(memoryview(values.buffers()[1])[begin * width : (begin + len(values)) * width])
        else:
            self._add_binary(values, type_)

    def _add_lists(self, values: Values, type_: pa.DataType) -> None:
        if kinds.is_fixed_size_list(type_):
            self._parts[0].add(values.flatten())
            return
        ends = values.offsets.to_numpy()
        self._lengths.update(np.diff(ends).astype("<u4").tobytes())
        inner = values.values
        if kinds.is_map(type_):
            inner = pa.StructArray.from_arrays([values.keys, values.items], ["key", "value"])
        self._parts[0].add(inner.slice(ends[0], ends[-1] - ends[0]))

    def _add_binary(self, values: Values, type_: pa.DataType) -> None:
        wide = kinds.is_large_string(type_) or kinds.is_large_binary(type_)
        _, offsets, data = values.buffers()
        ends = np.frombuffer(offsets, "<i8" if wide else "<i4", len(values) + values.offset + 1)[values.offset :]
        self._lengths.update(np.diff(ends).astype("<u4").tobytes())
        if data is not None:
            self._bytes.update(memoryview(data)[ends[0] : ends[-1]])
