"""Delimited text (csv, tsv): parsed once, piece by piece, into a spool of text; types are known when all was seen."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

import pyarrow as pa
from pyarrow import csv as arrow_csv

from ...core.errors import RecipeError
from .blocks import Blocks, starts_of
from .locations import refuse
from .schemas import chosen_names, conformed
from .spool import Spool
from .text_types import TextColumn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import NoReturn

    from .locations import File
    from .reading import Reading

_PIECES = (1 << 20, 1 << 24, 1 << 28, 1 << 30)
"""Bytes that are parsed at once; a row must fit in them, and a larger size is tried where one does not."""
_ERRORS = (OSError, ValueError, csv.Error, pa.ArrowException)


def delimited_blocks(files: Sequence[File], reading: Reading, separator: str) -> Blocks:
    """Parse all files; those that lack a column have null there."""
    parser = _Parser(reading.separator or separator, reading.encoding)
    headers = [parser.header(file) for file in files]
    names = chosen_names(list(dict.fromkeys(name for header in headers for name in header.names)), reading.columns)
    spool, columns = Spool(), {name: TextColumn() for name in names if name not in reading.types}
    for file, header in zip(files, headers, strict=True):
        for batch in parser.batches(file, header, names):
            taken = batch.select([name for name in names if name in header.names])
            for name in columns.keys() & set(taken.schema.names):
                columns[name].see(taken.column(name))
            spool.append(pa.Table.from_batches([taken]), batch.num_rows)
    schema = pa.schema([(name, columns[name].type if name in columns else reading.types[name]) for name in names])
    return Blocks(schema, starts_of(spool.sizes), lambda block: conformed(spool.read(block), schema), parsed=True)


@dataclass(frozen=True, slots=True)
class _Header:
    """The names of a file's columns, and how many lines of the file come before its rows."""

    names: list[str]
    lines: int


class _Parser:
    """Parses files of one dialect; every value is text, and an empty one is null."""

    def __init__(self, separator: str, encoding: str | None) -> None:
        """Refuse an encoding that does not exist."""
        self._separator = separator
        self._encoding = encoding or "utf8"
        try:
            "".encode(self._encoding)
        except LookupError as error:
            raise RecipeError("columns.seed.encoding", str(error)) from None

    def header(self, file: File) -> _Header:
        """Read the names of the columns: one that is empty gets a name, and the second of two a number."""
        encoding = "utf-8-sig" if self._encoding == "utf8" else self._encoding
        try:
            with file.stream() as stream, io.TextIOWrapper(cast("IO[bytes]", stream), encoding, newline="") as text:
                for line, given in enumerate(csv.reader(text, delimiter=self._separator)):
                    if given:
                        return _Header(_named(given), line + 1)
        except _ERRORS as error:
            self._refuse(file, error)
        return refuse(file.shown, "it is empty; the first line has the names of the columns")

    def batches(self, file: File, header: _Header, wanted: list[str]) -> Iterator[pa.RecordBatch]:
        """Parse a file; again from its beginning where a row does not fit into a piece."""
        parse = arrow_csv.ParseOptions(delimiter=self._separator, newlines_in_values=True)
        convert = arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(header.names, pa.string()),
            include_columns=[name for name in header.names if name in wanted] or header.names[:1],
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        )
        read = arrow_csv.ReadOptions(
            column_names=header.names, skip_rows_after_names=header.lines, encoding=self._encoding
        )
        done = 0
        for size in _PIECES:
            read.block_size = size
            try:
                for batch in _after(done, arrow_csv.open_csv(cast("IO[bytes]", file.stream()), read, parse, convert)):
                    yield batch
                    done += batch.num_rows
            except _ERRORS as error:
                if "block size" not in str(error) or size == _PIECES[-1]:
                    self._refuse(file, error)
            else:
                return

    def _refuse(self, file: File, error: Exception) -> NoReturn:
        if "UTF8" in str(error) or isinstance(error, UnicodeError):
            refuse(file.shown, f'{error}; choose another encoding, such as encoding="cp1252"')
        if "CSV" in str(error):
            refuse(file.shown, f"{error} (columns are separated by {self._separator!r})")
        refuse(file.shown, error)


def _named(given: Sequence[str]) -> list[str]:
    names: list[str] = []
    for i, name in enumerate(given):
        first = candidate = name or f"Unnamed: {i}"
        number = 0
        while candidate in names:
            number += 1
            candidate = f"{first}.{number}"
        names.append(candidate)
    return names


def _after(rows: int, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Leave out the first rows."""
    for batch in batches:
        left = batch.slice(min(rows, batch.num_rows))
        rows -= batch.num_rows - left.num_rows
        if left.num_rows:
            yield left
