"""JSON files as one table: parsed once into a spool; the types are known when all was seen.

A column of one shape is spooled as Arrow values. If a later shape is another one, the values are spooled and read as
JSON text from then on, and what came before becomes JSON text as it is read: the same values again.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pyarrow as pa

from .blocks import MOST_ROWS, Blocks, starts_of
from .json_records import records
from .json_shapes import NOTHING, Shape, shape_of, together
from .json_text import as_texts, encoded, json_field
from .locations import refuse
from .schemas import chosen_names, conformed
from .spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .json_records import Record
    from .locations import File
    from .reading import Reading

_PIECE: Final = 1 << 20
_RECORD = msgspec.json.Decoder(dict[str, Any])
_RECORDS = msgspec.json.Decoder(list[dict[str, Any]])
_TEXTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_ERRORS = (OSError, ValueError, msgspec.MsgspecError, RecursionError, LookupError, pa.ArrowException)


def json_blocks(files: Sequence[File], reading: Reading) -> Blocks:
    """Parse all files; a record that lacks a key has null there."""
    table = _Parsed(reading)
    for file in files:
        noun = "record" if file.suffix == ".json" else "line"
        try:
            for batch in _batches(records(file, reading.encoding)):
                table.add(batch, noun)
        except _ERRORS as error:
            refuse(file.shown, error)
    return table.blocks()


class _Parsed:
    """Records as they are parsed: their values in a spool, and the shape of each column."""

    def __init__(self, reading: Reading) -> None:
        """Begin with no column."""
        self._reading = reading
        self._spool = Spool()
        self._shapes: dict[str, Shape] = {}

    def add(self, batch: list[Record], noun: str) -> None:
        """Take records; raises ValueError naming the column, or the record by its noun and number."""
        text = b"[" + b",".join([record for _, record in batch]) + b"]"
        parsed = _parsed(text, batch, noun)
        names = list(dict.fromkeys(itertools.chain.from_iterable(parsed)))
        taken = names if self._reading.columns is None else [name for name in names if name in self._reading.columns]
        for name in names:
            self._shapes.setdefault(name, NOTHING)
        columns = {name: self._column(name, [record.get(name) for record in parsed]) for name in taken}
        retyped = [name for name in taken if name in self._reading.types]
        if retyped:
            raw = _TEXTS.decode(text)
            columns |= {name: _texts([record.get(name) for record in raw]) for name in retyped}
        self._spool.append(_table(columns), len(batch))

    def blocks(self) -> Blocks:
        """Return the table: all values are of the types that hold them all."""
        names, types = chosen_names(list(self._shapes), self._reading.columns), self._reading.types
        schema = pa.schema(
            [pa.field(name, types[name]) if name in types else json_field(name, self._shapes[name]) for name in names]
        )
        return Blocks(schema, starts_of(self._spool.sizes), lambda block: self._read(block, schema), parsed=True)

    def _column(self, name: str, values: list[Any]) -> tuple[pa.Field[Any], pa.Array[Any]]:
        shape = shape_of(values)
        self._shapes[name] = together(self._shapes[name], shape)
        field = json_field(name, shape)
        try:
            return field, pa.array(values, field.type) if shape.exact else encoded(values)
        except (UnicodeError, pa.ArrowException) as error:
            raise ValueError(f"column '{name}': {error}") from error

    def _read(self, block: int, schema: pa.Schema) -> pa.Table:
        table = self._spool.read(block)
        if not table.num_columns:  # nothing says how many rows there are
            table = pa.table({"": pa.nulls(self._spool.sizes[block])})
        return conformed(table, schema)


def _batches(found: Iterator[Record]) -> Iterator[list[Record]]:
    """Gather records, a bounded number of bytes at a time."""
    for first in found:
        batch, size = [first], len(first[1])
        if size < _PIECE:
            for record in found:
                batch.append(record)
                size += len(record[1])
                if size >= _PIECE or len(batch) == MOST_ROWS:
                    break
        yield batch


def _parsed(text: bytes, batch: Sequence[Record], noun: str) -> list[dict[str, Any]]:
    """Decode all records in one call; one after the other only to find the one that is wrong."""
    try:
        found = _RECORDS.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        found = []
    return found if len(found) == len(batch) else [_decoded(record, f"{noun} {number}") for number, record in batch]


def _decoded(record: bytes, name: str) -> dict[str, Any]:
    try:
        return _RECORD.decode(record)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(f"{name}: {error}") from error


def _texts(raw: list[msgspec.Raw | None]) -> tuple[pa.Field[Any], pa.Array[Any]]:
    """Return the text of each value, as the file has it."""
    texts = as_texts([None if value is None else bytes(value) for value in raw])
    return pa.field("", pa.string()), pa.array(texts, pa.string())


def _table(columns: dict[str, tuple[pa.Field[Any], pa.Array[Any]]]) -> pa.Table:
    fields = [field.with_name(name) for name, (field, _) in columns.items()]
    return pa.table([values for _, values in columns.values()], schema=pa.schema(fields))
