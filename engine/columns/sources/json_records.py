"""The records of a JSON file: the text of each object, one after the other.

A `.jsonl` or `.ndjson` file has an object on each line. A `.json` file has a list of objects, an object of lists or of
objects (as DataFrame.to_json writes it), one object, or, against its name, lines. Only the second and third are read
whole.
"""

from __future__ import annotations

import codecs
import itertools
import json
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import msgspec
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .locations import File

Record: TypeAlias = tuple[int, bytes]
"""The number of a record's line, or of the record itself where lines mean nothing, and its text."""

T = TypeVar("T")

_PIECE: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LISTS = msgspec.json.Decoder(dict[str, list[msgspec.Raw]])
_INDEXED = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]])
_SPACE: Final = " \t\r\n"


def records(file: File, encoding: str | None) -> Iterator[Record]:
    """Yield the records; raises ValueError or a MsgspecError for text that is no JSON."""
    stream = file.stream()
    if encoding is not None:
        stream = pa.transcoding_input_stream(stream, encoding, "utf8")
    pieces = _pieces(stream)
    if file.suffix != ".json":
        return _lines(pieces)
    head = next(pieces, b"")
    rest = itertools.chain([head], pieces)
    if head.lstrip().startswith(b"["):
        return _items(rest)
    first, _, more = head.partition(b"\n")
    if more.strip() and _decoded(_OBJECT, first) is not None:
        return _lines(rest)
    return _of_one_object(b"".join(rest))


def _pieces(stream: pa.NativeFile) -> Iterator[bytes]:
    first = True
    while piece := stream.read(_PIECE):
        yield piece.removeprefix(_BOM) if first else piece
        first = False


def _lines(pieces: Iterable[bytes]) -> Iterator[Record]:
    return ((number, line) for number, line in enumerate(_split(pieces), 1) if line and not line.isspace())


def _split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Split at line ends, whatever the pieces; a line may be longer than many of them."""
    begun: list[bytes] = []
    for piece in pieces:
        first, *more = piece.split(b"\n")
        begun.append(first)
        if more:
            yield b"".join(begun)
            yield from more[:-1]
            begun = [more[-1]]
    yield b"".join(begun)


def _items(pieces: Iterable[bytes]) -> Iterator[Record]:
    """Yield the values of a list; no more of the text is in memory than one of them needs."""
    text, number = _Text(pieces), 0
    text.skip("[")
    while text.peek() != "]":
        if number:
            text.skip(",")
        number += 1
        yield number, text.value().encode()
    text.skip("]")
    if text.peek():
        raise ValueError(f"something follows the list: {text.peek()!r}")


class _Text:
    """JSON text that is read piece by piece, as far as it is needed."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        """Read nothing yet."""
        self._pieces = iter(pieces)
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._at = "", 0

    def peek(self) -> str:
        """Return the next character that is not white space, "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or not self._read(1):
                return self._text[self._at : self._at + 1]

    def skip(self, character: str) -> None:
        """Pass over a character."""
        found = self.peek()
        if found != character:
            raise ValueError(f"expected {character!r}, not {found!r}")
        self._at += 1

    def value(self) -> str:
        """Return the text of a value. Where more is needed, ever more is read: a large one is not scanned too often."""
        self.peek()
        pieces = 1
        while True:
            try:
                _, end = self._scan(self._text, self._at)
            except json.JSONDecodeError:
                if not self._read(pieces):
                    raise
                pieces *= 2
            else:
                begin, self._at = self._at, end
                return self._text[begin:end]

    def _read(self, pieces: int) -> bool:
        more = b"".join(itertools.islice(self._pieces, pieces))
        self._text, self._at = self._text[self._at :] + self._decode(more), 0
        return bool(more)


def _of_one_object(text: bytes) -> Iterator[Record]:
    """Take an object of lists or of objects by columns; any other object is a record."""
    for columns in (_decoded(_LISTS, text), _decoded(_INDEXED, text)):
        if columns:
            return _of_columns(columns)
    return iter([(1, text)])


def _decoded(decoder: msgspec.json.Decoder[T], text: bytes) -> T | None:
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError):
        return None


def _of_columns(columns: Mapping[str, list[msgspec.Raw] | dict[str, msgspec.Raw]]) -> Iterator[Record]:
    lists = {name: list(values.values()) if isinstance(values, dict) else values for name, values in columns.items()}
    rows = {name: list(values) if isinstance(values, dict) else range(len(values)) for name, values in columns.items()}
    first, index = next(iter(rows.items()))
    for name, other in rows.items():
        if other != index:
            problem = f"column '{name}' has {len(other)} rows and '{first}' has {len(index)}, or they are other rows"
            raise ValueError(problem)
    rows_of_values = zip(*lists.values(), strict=True)
    return (
        (number, msgspec.json.encode(dict(zip(lists, values, strict=True))))
        for number, values in enumerate(rows_of_values, 1)
    )
