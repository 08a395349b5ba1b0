"""Journal records: what a journal stores, and which values can be stored.

A value is stored only if it can be read back unchanged: text, numbers, booleans, None, and lists and dicts of those.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from ..core.events import Tally  # noqa: TC001 - msgspec reads it when it decodes
from ..telemetry.failures import FailedCell  # noqa: TC001 - the same

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
        values = [entry for entry in values if type(entry[2]) in _PLAIN or _reads_back(entry[2])]
    try:
        return encode(values)
    except (OverflowError, UnicodeError):  # integers beyond 64 bits, halves of characters
        return encode([entry for entry in values if _reads_back(entry[2])])


def _reads_back(value: object) -> bool:
    """Return whether a value is the same, and of the same types, after encoding and decoding."""
    try:
        if type(value).__module__ == "numpy":
            return _simple(value) == value
        back = msgspec.msgpack.decode(encode(value))
        return back == value and repr(back) == repr(value)  # equal times may be of other zones
    except Exception:  # noqa: BLE001 - whatever a value's own methods raise; its cell is worked again
        return False


def _simple(value: Any) -> object:
    """Convert the numpy scalars that a table does not distinguish from Python's numbers."""
    if type(value).__name__ in {"float64", "int64", "bool"}:
        return value.item()
    raise TypeError(f"a {type(value).__name__} is no plain value")


encode = msgspec.msgpack.Encoder(enc_hook=_simple).encode
