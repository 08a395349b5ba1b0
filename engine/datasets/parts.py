"""Parts: the files of a dataset, one for each committed row group."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import pyarrow.parquet as pq

from ..core.events import Tally  # noqa: TC001 - msgspec reads it when it decodes
from .tables import concatenated

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pyarrow as pa

    from .metadata import PartMetadata


_NOTE: Final = b"rowloop"


@dataclass(frozen=True, slots=True)
class Part:
    """One committed row group: its number, the run's row number of its first row, and its number of rows."""

    row_group: int
    start: int
    rows: int
    file: str | None = None
    """The path relative to the dataset's directory; None in a preview."""
    checksum: str | None = None
    """The SHA-256 of the file, as "sha256:" and hexadecimal digits; None where it is not known."""


class Note(msgspec.Struct, frozen=True):
    """What a part says of itself, in the metadata of its schema: enough to resume a dataset whose journal is lost.

    `tally` is None in the parts of after_generation. The rest is as in the journal's Facts.
    """

    dataset: str
    row_group: int
    tally: Tally | None
    seed: int
    row_group_size: int
    engine: str
    targets: list[int]
    fingerprint: str


Stamp: TypeAlias = tuple[int, int]
"""The size of a file and the time of its last change, in nanoseconds."""

OnPart: TypeAlias = Callable[[Part], object]


def read_parts(path: Path, parts: Iterable[Part | PartMetadata], schema: pa.Schema) -> pa.Table:
    """Read the parts of a dataset as one table, in this order; `schema` is for a dataset without parts."""
    tables = [pq.read_table(path / part.file, partitioning=None) for part in parts if part.file is not None]
    tables = [table.replace_schema_metadata(without_note(table.schema).metadata) for table in tables]
    return concatenated(tables) if tables else schema.empty_table()


def checksum_of(file: Path) -> str:
    """Return the checksum of a file; raises OSError."""
    with file.open("rb") as opened:
        return f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"


def stamp_of(file: Path) -> Stamp:
    """Return the stamp of a file; raises OSError."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def with_note(table: pa.Table, note: Note | None) -> pa.Table:
    """Return a table whose schema has a note."""
    if note is None:
        return table
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _NOTE: msgspec.json.encode(note)})


def note_of(schema: pa.Schema) -> Note | None:
    """Return the note of a part; None for a part of an earlier version, or of another program."""
    body = (schema.metadata or {}).get(_NOTE)
    try:
        return None if body is None else msgspec.json.decode(body, type=Note)
    except msgspec.MsgspecError:
        return None


def without_note(schema: pa.Schema) -> pa.Schema:
    """Return a schema that all parts of a dataset have, without the note of one of them."""
    rest = {key: value for key, value in (schema.metadata or {}).items() if key != _NOTE}
    return schema.with_metadata(rest) if rest else schema.remove_metadata()
