"""Journal records: what a journal stores, and which values can be stored.

A value is stored only if it can be read back unchanged: text, numbers, booleans, None, and lists and dicts of those.
Integers beyond 64 bits are stored as their bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from ..core.definitions import Definition  # noqa: TC001 - msgspec reads it when it decodes
from ..core.events import Tally  # noqa: TC001 - msgspec reads it when it decodes
from ..telemetry.failures import FailedCell  # noqa: TC001 - the same

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


@dataclass(slots=True)
class Known:
    """What the journal has of one unfinished row group: values by (column, row), and failures."""

    values: dict[Task, Any] = field(default_factory=dict)
    failures: list[KeptFailure] = field(default_factory=list)


_DIGITS = 1
"""The type of an extension of msgpack that holds an integer beyond 64 bits."""
_DEEPEST = 100
_PLAIN = frozenset({str, int, float, bool, type(None)})


def bodies_of(entries: Iterable[Entry]) -> Iterator[tuple[int, bytes]]:
    """Encode the entries of each row group as one body; values that cannot be read back unchanged are left out."""
    groups: dict[int, list[tuple[int, int, Any]]] = {}
    for group, column, row, value in entries:
        groups.setdefault(group, []).append((column, row, value))
    for group, values in groups.items():
        yield group, _body(values)


def _body(values: list[tuple[int, int, Any]]) -> bytes:
    if not all(type(value) in _PLAIN for _, _, value in values):
        values = list(_storable(values, _PLAIN))
    try:
        return encode(values)
    except (OverflowError, UnicodeError):  # integers beyond 64 bits, halves of characters
        return encode(list(_storable(values)))


def _storable(values: Iterable[tuple[int, int, Any]], plain: Collection[object] = ()) -> Iterator[tuple[int, int, Any]]:
    """Yield the entries whose values can be read back unchanged, as they can be stored; `plain` types need no look."""
    for column, row, value in values:
        if type(value) in plain or _reads_back(value, value):
            yield column, row, value
        elif _reads_back(digits := _with_digits(value), value):
            yield column, row, digits


def _reads_back(stored: object, value: object) -> bool:
    """Return whether a value is the same, and of the same types, after it was stored in this form."""
    try:
        if type(value).__module__ == "numpy":
            return _simple(value) == value
        back = decode(encode(stored), Any)
        return bool(back == value) and repr(back) == repr(value)  # equal times may be of other zones
    except Exception:  # noqa: BLE001 - whatever a value's own methods raise; its cell is worked again
        return False


def _with_digits(value: Any, depth: int = 0) -> Any:
    """Replace integers beyond 64 bits by their bytes; a value nested too deeply stays."""
    if type(value) is int and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(_DIGITS, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    if type(value) is list and depth < _DEEPEST:
        return [_with_digits(item, depth + 1) for item in value]
    if type(value) is dict and depth < _DEEPEST:
        return {key: _with_digits(item, depth + 1) for key, item in value.items()}
    return value


def _of_extension(code: int, data: memoryview) -> Any:
    return int.from_bytes(data, "big", signed=True) if code == _DIGITS else msgspec.msgpack.Ext(code, bytes(data))


def decode(body: bytes, type_: Any) -> Any:
    """Decode a record; raises MsgspecError for one of another type."""
    return msgspec.msgpack.decode(body, type=type_, ext_hook=_of_extension)


def _simple(value: Any) -> object:
    """Convert the numpy scalars that a table does not distinguish from Python's numbers."""
    if type(value).__name__ in {"float64", "int64", "bool"}:
        return value.item()
    raise TypeError(f"a {type(value).__name__} is no plain value")


encode = msgspec.msgpack.Encoder(enc_hook=_simple).encode
