"""Opening a seed's data: files are read once in a process, as long as they do not change and some seed holds them."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeVar

from ...core.errors import DatasetGenerationError, RecipeError, nearest
from .arrow_files import arrow_blocks
from .blocks import settled
from .delimited import delimited_blocks
from .digest import digest_of
from .json_files import json_blocks
from .locations import COMPRESSIONS, find, refuse
from .objects import object_blocks
from .parquet import parquet_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .blocks import Blocks
    from .locations import File
    from .reading import Reading

T = TypeVar("T")

_FORMATS: Final[dict[str, Callable[[Sequence[File], Reading], Blocks]]] = {
    ".csv": lambda files, reading: delimited_blocks(files, reading, ","),
    ".tsv": lambda files, reading: delimited_blocks(files, reading, "\t"),
    ".jsonl": json_blocks,
    ".ndjson": json_blocks,
    ".json": json_blocks,
    ".parquet": parquet_blocks,
    ".arrow": arrow_blocks,
    ".ipc": arrow_blocks,
    ".feather": arrow_blocks,
}
_REMEMBERED: Final = 1024
_HELD: Final = 2
"""Large text files whose parsed table stays although no seed holds it: a recipe that is made again need not parse."""


class Source:
    """A seed's table, and the hash of its values."""

    def __init__(self, blocks: Blocks, key: object = None) -> None:
        """Take the table; `key` is equal for files that have not changed since."""
        self.blocks = blocks
        self._key = key
        self._lock = threading.Lock()
        self._digest: str | None = None

    @property
    def digest(self) -> str:
        """Hash the values: once for this table, and once in the process for files that stay as they are."""
        with self._lock:
            if self._digest is None:
                self._digest = _known.digest(self._key) or _read_by(lambda: digest_of(self.blocks))
                _known.remember(self._key, self._digest)
            return self._digest


class _Known:
    """Open tables and digests of this process, by the identities of their files.

    The tables of the last large text files stay open, each in a temporary file. One whose files have changed makes room
    for the new one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakValueDictionary[object, Source] = weakref.WeakValueDictionary()
        self._digests: OrderedDict[object, str] = OrderedDict()
        self._latest: OrderedDict[object, Source] = OrderedDict()

    def source(self, files: Sequence[File], reading: object, make: Callable[[object], Source]) -> Source:
        """Return the table if it is open; else make it. `make` takes the key of its digest."""
        identities = tuple(file.identity for file in files)
        key = None if None in identities else (identities, reading)
        with self._lock:
            found = None if key is None else self._open.get(key)
        if found is None:
            found = make(key)
            if key is None or not all(file.unchanged for file in files):
                return found
        with self._lock:
            found = self._open.setdefault(key, found)
            if found.blocks.parsed:
                self._hold((tuple(file.path for file in files), reading), found)
        return found

    def _hold(self, name: object, source: Source) -> None:
        self._latest[name] = source
        self._latest.move_to_end(name)
        if len(self._latest) > _HELD:
            self._latest.popitem(last=False)

    def digest(self, key: object) -> str | None:
        with self._lock:
            return self._digests.get(key)

    def remember(self, key: object, digest: str) -> None:
        if key is not None:
            with self._lock:
                self._digests[key] = digest
                while len(self._digests) > _REMEMBERED:
                    self._digests.popitem(last=False)


_known = _Known()


def open_files(location: str, shown: str, reading: Reading) -> Source:
    """Open a path, a glob or an address; raises RecipeError if it cannot be read as a table."""
    files = find(location, shown)
    suffix = _one_format(files, shown)

    def opened(key: object) -> Source:
        return Source(_checked(lambda: _FORMATS[suffix](files, reading), reading), key)

    return _known.source(files, (suffix, reading.key), opened)


def open_object(data: object, reading: Reading) -> Source:
    """Open a table that is a Python object; raises RecipeError for any other object."""
    return Source(_checked(lambda: object_blocks(data, reading), reading))


def _one_format(files: Sequence[File], shown: str) -> str:
    suffix = files[0].suffix
    for file in files:
        if file.suffix not in _FORMATS:
            among = "" if file.shown == shown else f", which '{shown}' matches,"
            known = f"{', '.join(_FORMATS)}, with or without {', '.join(COMPRESSIONS)}"
            problem = f"'{file.shown}'{among} is none of {known}"
            raise RecipeError("columns.seed.data", problem)
        if file.suffix != suffix:
            problem = f"'{shown}' matches files of two formats: '{files[0].shown}' and '{file.shown}'"
            raise RecipeError("columns.seed.data", problem)
        if file.suffix == ".parquet" and file.compression:
            refuse(file.shown, "a parquet file is compressed within; decompress it")
    return suffix


def _checked(make: Callable[[], Blocks], reading: Reading) -> Blocks:
    blocks = _read_by(lambda: settled(make()))
    for name in reading.types:
        if name not in blocks.schema.names:
            problem = f"names '{name}', which is not one of the columns taken; {nearest(name, blocks.schema.names)}"
            raise RecipeError("columns.seed.types", problem)
    return blocks


def _read_by(read: Callable[[], T]) -> T:
    """Read before a run begins: a file that cannot be read is then an error of the recipe."""
    try:
        return read()
    except DatasetGenerationError as error:
        raise RecipeError("columns.seed.data", error.problem) from error
