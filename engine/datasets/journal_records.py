"""Journal records: what a journal stores, and which values can be stored.

A value is stored only if it can be read back unchanged: text, numbers, booleans, None, and lists and dicts of those,
which a walk over their types finds out. Integers beyond 64 bits are stored as their bytes, vectors as theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isnan
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from ..columns.definitions import Definition  # noqa: TC001 - msgspec reads it when it decodes
from ..core.events import Tally  # noqa: TC001 - msgspec reads it when it decodes
from ..core.store import Vector
from ..telemetry.failures import FailedCell  # noqa: TC001 - the same
from ..telemetry.spending import Spending  # noqa: TC001 - the same

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

Entry: TypeAlias = tuple[int, int, int, Any]
"""Row group, column, row and value of a task that is done; the value of a whole column is [rows worked, all values]."""

Task: TypeAlias = tuple[int, int]
"""Column and row of a task, in a row group that the context names."""


class Facts(msgspec.Struct):
    """What all runs of a dataset have in common. `targets` are the numbers of rows of these runs.

    `dataset` is its name in the notes of its parts, drawn when it begins; parts of earlier versions have no notes.
    """

    identity: dict[str, Any]
    seed: int
    row_group_size: int
    engine: str
    targets: list[int]
    fingerprint: str = ""
    dataset: str = ""
    definitions: list[Definition] = []
    """Of its columns, in order; empty in a dataset of an earlier version."""


class KeptFailure(msgspec.Struct, frozen=True, array_like=True):
    """A task that failed for good.

    `rows` are those of a whole column. A later run does not retry a `final` failure unless it is asked to.
    """

    row_group: int
    column: int
    row: int
    rows: list[int] | None
    final: bool
    lines: list[FailedCell]

    @property
    def task(self) -> tuple[int, int, int]:
        """The row group, column and row of the task."""
        return self.row_group, self.column, self.row


class Over(msgspec.Struct, frozen=True, array_like=True):
    """The counts of a finished row group, and the rows of its part; None while the part is being written.

    `checksum` and `stamp` are those of the part's file (parts.py), None while they are not known.
    """

    tally: Tally
    written: int | None
    checksum: str | None = None
    stamp: tuple[int, int] | None = None


class Kept(msgspec.Struct, frozen=True):
    """What metadata.json keeps of a journal: the facts, what was spent, and the parts.

    A part has its row group, rows, checksum and stamp. `rewriting` are the rows of each part of after_generation, if
    there are any.
    """

    facts: Facts
    spending: Spending
    parts: list[tuple[int, int, str | None, tuple[int, int] | None]]
    rewriting: list[int] | None = None


@dataclass(slots=True)
class Known:
    """What the journal has of one unfinished row group: values by (column, row), and failures."""

    values: dict[Task, Any] = field(default_factory=dict)
    failures: list[KeptFailure] = field(default_factory=list)


_DIGITS: Final = 1
"""The type of an extension of msgpack that holds an integer beyond 64 bits."""
_VECTOR: Final = 2
"""The type of an extension that holds a vector: little-endian 32-bit floats."""
_DEEPEST: Final = 100
"""The deepest nesting that is stored: some calls of functions for each level, here and when it is read."""
_LEAST, _MOST = -(2**63), 2**64
_PLAIN: Final = frozenset({str, int, float, bool, type(None), Vector})
_NO_LOOK: Final = frozenset({bool, type(None), bytes, Vector})
"""Types whose every value is read back as it was."""
_NUMBERS: Final = {float}
_KEYS: Final = frozenset({str, int, float, bool, type(None), bytes})


def bodies_of(entries: Iterable[Entry]) -> Iterator[tuple[int, bytes]]:
    """Encode the entries of each row group as one body; values that cannot be read back unchanged are left out."""
    groups: dict[int, list[tuple[int, int, Any]]] = {}
    for group, column, row, value in entries:
        groups.setdefault(group, []).append((column, row, value))
    for group, values in groups.items():
        yield group, _body(values)


def _body(values: list[tuple[int, int, Any]]) -> bytes:
    if not all(type(value) in _PLAIN for _, _, value in values):
        values = list(_storable(values))
    try:
        return encode(values)
    except (OverflowError, UnicodeError):  # integers beyond 64 bits, halves of characters
        return encode(list(_storable(values)))


def _storable(values: Iterable[tuple[int, int, Any]]) -> Iterator[tuple[int, int, Any]]:
    """Yield the entries whose values can be read back unchanged, as they can be stored."""
    for column, row, value in values:
        if type(value) is float or reads_back((value,)):
            yield column, row, value
        elif reads_back((value,), digits=True):
            yield column, row, _with_digits(value)
        elif type(value).__module__ == "numpy" and type(value).__name__ in _NUMPY:
            yield column, row, value


def reads_back(values: Collection[Any], *, digits: bool = False, depth: int = _DEEPEST) -> bool:
    """Return whether all values are read back unchanged, and of the same types, by a walk over their types.

    `digits` lets integers be of any size, for `_with_digits`.
    """
    kinds = set(map(type, values))
    if kinds == _NUMBERS:
        return not any(map(isnan, values))
    return kinds <= _NO_LOOK or all(
        _reads_back(value, digits, depth) for value in values if type(value) not in _NO_LOOK
    )


def _reads_back(value: Any, digits: bool, depth: int) -> bool:  # noqa: FBT001 - passed on at every level
    kind = type(value)
    if kind is str:
        return value.isascii() or _has_utf8(value)
    if kind is float:
        return not isnan(value)  # it would equal nothing
    if kind is int:
        return digits or _LEAST <= value < _MOST
    if kind is list:
        return depth > 0 and reads_back(value, digits=digits, depth=depth - 1)
    if kind is dict:
        keys = depth > 0 and set(map(type, value)) <= _KEYS and reads_back(value.keys())
        return keys and reads_back(value.values(), digits=digits, depth=depth - 1)
    # Other zones are read back as this one.
    return kind is datetime and value.tzinfo is UTC and not value.fold


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeError:
        return False
    return True


def _with_digits(value: Any) -> Any:
    """Replace integers beyond 64 bits by their bytes."""
    if type(value) is int and not _LEAST <= value < _MOST:
        return msgspec.msgpack.Ext(_DIGITS, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    if type(value) is list:
        return [_with_digits(item) for item in value]
    return {key: _with_digits(item) for key, item in value.items()} if type(value) is dict else value


def _of_extension(code: int, data: memoryview) -> Any:
    if code == _VECTOR:
        return Vector.from_bytes(data)
    return int.from_bytes(data, "big", signed=True) if code == _DIGITS else msgspec.msgpack.Ext(code, bytes(data))


def decode(body: bytes, type_: Any) -> Any:
    """Decode a record; raises MsgspecError for one of another type."""
    return msgspec.msgpack.decode(body, type=type_, ext_hook=_of_extension)


_NUMPY: Final = frozenset({"float64", "int64", "bool"})
"""The numpy scalars that a table does not distinguish from Python's numbers."""


def _simple(value: Any) -> object:
    """Convert a vector or a scalar of numpy to what msgpack holds."""
    if type(value) is Vector:
        return msgspec.msgpack.Ext(_VECTOR, value.to_bytes())
    if type(value).__name__ in _NUMPY:
        return value.item()
    raise TypeError(f"a {type(value).__name__} is no plain value")


encode = msgspec.msgpack.Encoder(enc_hook=_simple).encode
