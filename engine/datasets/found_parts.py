"""Found parts: the parts in a dataset's directory, checked to belong to the dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import ResumeError
from .directory import OVERWRITE, part_files, part_name
from .parts import Note, Part, checksum_of, note_of, stamp_of, without_note
from .past import FoundParts
from .tables import joined, same

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..core.row_groups import Plan
    from .parts import Stamp


def find_parts(
    path: Path, plan: Plan, columns: list[str] | None, *, rewritten: bool, dataset: str | None = None
) -> FoundParts:
    """Read the schemas and numbers of rows of all parts; raises ResumeError naming a file that does not belong.

    `columns` are the table's; None if only running the processors shows them. Parts that after_generation has
    `rewritten` follow each other without gaps, whatever the plan. With a `dataset`, parts of others are
    passed over: an update has not replaced them yet.
    """
    parts: list[Part] = []
    notes: dict[int, Note] = {}
    schema: pa.Schema | None = None
    uneven, start = False, 0
    for number, file in part_files(path).items():
        own, rows, note = _read_footer(file)
        if dataset is not None and (note is None or note.dataset != dataset):
            continue
        if note is not None:
            notes[number] = note
        if (columns is not None and own.names != columns) or (schema is not None and own.names != schema.names):
            raise ResumeError(f"'{file}' belongs to another dataset: its columns are {', '.join(own.names)}")
        if number >= plan.row_groups and not rewritten:
            raise ResumeError(f"'{file}' belongs to another dataset: this one has {plan.row_groups} row groups")
        unified = _unified(schema, own, file)
        uneven |= not same(unified, own) or (schema is not None and not same(unified, schema))
        schema = unified
        parts.append(Part(number, start if rewritten else plan.row(number, 0), rows, f"data/{file.name}"))
        start += rows
    return FoundParts(parts, schema, uneven, notes)


def check_rewritten(path: Path, parts: Sequence[Part], rows: Sequence[int]) -> None:
    """Check that all parts of after_generation exist, with these numbers of rows: no run could make them again."""
    there = {part.row_group: part for part in parts}
    for number, expected in enumerate(rows):
        part = there.pop(number, None)
        if part is None:
            file = path / "data" / part_name(number)
            raise ResumeError(f"'{file}' is missing and cannot be made again; to start over, use ", OVERWRITE)
        if part.rows != expected:
            raise foreign(path, part, f"it has {part.rows} rows, but {expected} were written")
    for part in there.values():
        raise foreign(path, part, "no run has written it")


def check_part(path: Path, part: Part, checksum: str, stamp: Stamp | None) -> None:
    """Check that a part is what was written; raises ResumeError if not.

    A file that has the size and the time of its last change still is not read.
    """
    file = path / str(part.file)
    try:
        if stamp_of(file) == stamp or checksum_of(file) == checksum:
            return
    except OSError as error:
        raise ResumeError(f"cannot read '{file}': {error}") from error
    problem = f"'{file}' is damaged or was changed: it is not what was written; put the right file there"
    raise ResumeError(f"{problem}, or remove it to have its rows made again")


def foreign(path: Path, part: Part, why: str) -> ResumeError:
    """Make the error for a part of another dataset."""
    return ResumeError(f"'{path}/{part.file}' belongs to another dataset: {why}; move it elsewhere to resume")


def read_note(file: Path) -> Note | None:
    """Return what a part says of itself; None where it says nothing, or is broken."""
    try:
        return note_of(pq.read_schema(file))
    except (OSError, pa.ArrowException):
        return None  # it is named when all parts are looked at


def _read_footer(file: Path) -> tuple[pa.Schema, int, Note | None]:
    try:
        with pq.ParquetFile(file) as part:
            schema = part.schema_arrow
            return without_note(schema), part.metadata.num_rows, note_of(schema)
    except (OSError, pa.ArrowException) as error:
        raise ResumeError(f"cannot read '{file}': {error}; remove it to have its rows made again") from error


def _unified(known: pa.Schema | None, schema: pa.Schema, file: Path) -> pa.Schema:
    """Widen types: a crash may leave some parts rewritten with wider types, and others not."""
    try:
        return joined(known, schema)
    except pa.ArrowException as error:
        raise ResumeError(f"'{file}' belongs to another dataset: {error}") from error
