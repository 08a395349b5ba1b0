"""Where a seed's files are: a path, a glob or an address, as files that can be opened.

Addresses are read through pyarrow's file systems (s3, gs, abfs, hdfs, file) or through fsspec's (hf, http, https and
those of other packages).
"""

from __future__ import annotations

import fnmatch
import glob
import importlib
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from ...core.errors import DatasetGenerationError, RecipeError
from .addresses import is_address, without_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

Compression: TypeAlias = Literal["gzip", "zstd", "bz2"]
COMPRESSIONS: Final[dict[str, Compression]] = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}

_ADDRESSES = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s'\"]+")
_GLOB = re.compile(r"[*?\[]")
_GLOB_OF_ADDRESS = re.compile(r"[*\[]")  # a question mark begins the options of an address
_WITHOUT_GLOBS = frozenset({"http", "https"})
_GOOGLE = frozenset({"gs", "gcs"})
_RETRY_SECONDS: Final = 20
_BUFFER: Final = 64 * 1024
_REMOTE_BUFFER: Final = 4 * 1024 * 1024
_TICK: Final = 100_000_000
_COARSE_TICK: Final = 2_000_000_000
"""Nanoseconds in which a file can change twice without another time of its change."""


@dataclass(frozen=True, slots=True)
class File:
    """One file, as it was when it was found. `shown` names it in messages."""

    shown: str
    path: str
    filesystem: fs.FileSystem = field(compare=False)
    size: int | None = None
    modified: int | None = None
    inode: tuple[int, int] | None = None
    """On this machine: the file's own number, and when it or what is known of it last changed."""

    @property
    def identity(self) -> tuple[object, ...] | None:
        """What identifies the file as it is; None if a change of it could go unnoticed."""
        if self.size is None or not self.modified:
            return None
        tick = _TICK if self.modified % 1_000_000_000 else _COARSE_TICK
        if time.time_ns() - self.modified < tick:
            return None
        return (self.filesystem.type_name, self.path, self.size, self.modified, self.inode)

    @property
    def unchanged(self) -> bool:
        """Whether a local file is still the one that was found, as far as its identity shows."""
        try:
            return not self.local or _local(self.path, self.shown) == self
        except RecipeError:
            return False

    @property
    def suffix(self) -> str:
        """The end of the name that says the format, without that of a compression."""
        name = PurePosixPath(self._name)
        return (name.with_suffix("") if self.compression else name).suffix.lower()

    @property
    def compression(self) -> Compression | None:
        """How the whole file is compressed."""
        return COMPRESSIONS.get(PurePosixPath(self._name).suffix.lower())

    @property
    def _name(self) -> str:
        return urlsplit(self.path).path if is_address(self.path) else self.path

    @property
    def local(self) -> bool:
        """Whether it is a file of this machine."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @property
    def buffer(self) -> int:
        """How many bytes are best read at once: every reading of a file elsewhere is a request."""
        return _BUFFER if self.local else _REMOTE_BUFFER

    def open(self) -> pa.NativeFile:
        """Open the file for reading anywhere in it."""
        return self.filesystem.open_input_file(self.path)

    def stream(self) -> pa.NativeFile:
        """Open the file for reading it once, and decompress it."""
        raw = self.filesystem.open_input_stream(self.path, compression=None, buffer_size=self.buffer)
        return raw if self.compression is None else pa.CompressedInputStream(raw, self.compression)

    def check(self) -> None:
        """Raise DatasetGenerationError if a local file is no longer the one that was found."""
        if not self.local:
            return
        try:
            now = os.stat(self.path)  # noqa: PTH116 - it is a name, not a Path
            same = (now.st_size, now.st_mtime_ns) == (self.size, self.modified)
        except OSError as error:
            problem = f"'{self.shown}' cannot be read any more: {error.strerror}"
            raise DatasetGenerationError(problem, stage="seed") from error
        if not same:
            problem = f"'{self.shown}' has changed since the recipe read it; make the recipe again"
            raise DatasetGenerationError(problem, stage="seed")


def find(location: str, shown: str) -> list[File]:
    """Find the files of an absolute path, a glob or an address, sorted by name; raises RecipeError if there is none."""
    if is_address(location):
        return _remote(location, without_secrets(shown))
    if os.path.lexists(location) or not _GLOB.search(location):
        return [_local(location, shown)]
    found = sorted(path for path in glob.glob(location, recursive=True) if os.path.isfile(path))  # noqa: PTH113, PTH207 - as text
    if not found:
        raise RecipeError("columns.seed.data", f"no file matches '{shown}'")
    return [_local(path, path) for path in found]


def refuse(shown: str, error: BaseException | str) -> NoReturn:
    """Raise RecipeError for a file that cannot be read."""
    reason = error if isinstance(error, str) else getattr(error, "strerror", None) or str(error) or type(error).__name__
    reason = " ".join(_ADDRESSES.sub(lambda found: without_secrets(found[0]), reason).split())
    cause = error if isinstance(error, BaseException) else None
    raise RecipeError("columns.seed.data", f"cannot read '{shown}': {reason}") from cause


def lost(shown: str, error: BaseException) -> NoReturn:
    """Raise DatasetGenerationError for a file that could be read before."""
    raise DatasetGenerationError(f"'{shown}' cannot be read any more: {error}", stage="seed") from error


def _local(path: str, shown: str) -> File:
    if os.path.isdir(path):  # noqa: PTH112 - as text
        refuse(shown, f"it is a directory; name its files, as in '{shown}/*.parquet'")
    try:
        found = os.stat(path)  # noqa: PTH116 - as text
    except (OSError, ValueError):  # opening it says why
        return File(shown, path, fs.LocalFileSystem())
    inode = (found.st_ino, found.st_ctime_ns)
    return File(shown, path, fs.LocalFileSystem(), found.st_size, found.st_mtime_ns, inode)


def _remote(address: str, shown: str) -> list[File]:
    scheme = address.partition(":")[0].lower()
    magic = None if scheme in _WITHOUT_GLOBS else _GLOB_OF_ADDRESS.search(address)
    try:
        if magic is None:
            filesystem, path = _filesystem(scheme, address)
            return [_described(filesystem.get_file_info(path), shown, filesystem)]
        base, pattern, options = _split(address)
        filesystem, path = _filesystem(scheme, base + options)
        selector = fs.FileSelector(path, recursive="/" in pattern or "**" in pattern)
        parts = pattern.split("/")
        listed = filesystem.get_file_info(selector)
        infos = [info for info in listed if _matches(info.path[len(path) :].strip("/").split("/"), parts)]
    except RecipeError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the file system of another package raises
        refuse(shown, error)
    files = [_described(info, info.path, filesystem) for info in infos if info.type == fs.FileType.File]
    if not files:
        raise RecipeError("columns.seed.data", f"no file matches '{shown}'")
    return sorted(files, key=lambda file: file.path)


def _described(info: fs.FileInfo, shown: str, filesystem: fs.FileSystem) -> File:
    if info.type == fs.FileType.NotFound:
        refuse(shown, "it does not exist, or cannot be reached")
    if info.type == fs.FileType.Directory:
        refuse(shown, f"it is a directory; name its files, as in '{shown}/*.parquet'")
    return File(shown, info.path, filesystem, info.size, info.mtime_ns)


def _split(address: str) -> tuple[str, str, str]:
    """Split a glob before its first part that has a pattern in it, and before its options."""
    location, mark, options = address.partition("?")
    parts = location.split("/")
    first = next(i for i, part in enumerate(parts) if _GLOB_OF_ADDRESS.search(part))
    return "/".join(parts[:first]), "/".join(parts[first:]), mark + options


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Compare folder by folder: `*` is within one of them, `**` is any number of them."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_matches(path[skipped:], pattern[1:]) for skipped in range(len(path) + 1))
    return bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])


def _with_a_limit(address: str) -> str:
    """Add how long requests are retried: pyarrow's own limit is a quarter of an hour."""
    if "retry_limit_seconds=" in address:
        return address
    return f"{address}{'&' if '?' in address else '?'}retry_limit_seconds={_RETRY_SECONDS}"


def _filesystem(scheme: str, address: str) -> tuple[fs.FileSystem, str]:
    """Find what reads an address, and the path in it."""
    if scheme not in _WITHOUT_GLOBS:
        try:
            return fs.FileSystem.from_uri(_with_a_limit(address) if scheme in _GOOGLE else address)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            if "nrecognized filesystem" not in str(error) and not isinstance(error, pa.ArrowNotImplementedError):
                raise
    try:
        core: Any = importlib.import_module("fsspec.core")  # another package, which need not be there
    except ImportError as error:
        problem = f"{scheme}:// is read through the package fsspec, which is not installed: pip install fsspec"
        raise RecipeError("columns.seed.data", problem) from error
    try:
        found, path = core.url_to_fs(address)
    except ValueError as error:
        raise RecipeError("columns.seed.data", f"{scheme}:// is unknown to pyarrow and to fsspec: {error}") from error
    except ImportError as error:
        raise RecipeError("columns.seed.data", f"reading {scheme}:// needs another package: {error}") from error
    handler: Any = fs.FSSpecHandler
    return fs.PyFileSystem(handler(found)), path
