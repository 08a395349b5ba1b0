"""A dataset's directory: the files in it, how they are written whole, and what a crash may leave half done."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ..core.errors import Option, RecipeError, ResumeError
from ..core.errors import shown as quoted

if TYPE_CHECKING:
    from collections.abc import Callable

Resume: TypeAlias = Literal["never", "always", "if_possible", "update"]
"""Whether a run resumes the dataset in its directory."""

RESUME: Final = Option("resume", "always")
OVERWRITE: Final = Option("overwrite", value=True)

HIDDEN: Final = ".rowloop"
"""The folder for everything but the parts: readers of Parquet skip it, so that they read the dataset's directory."""
METADATA: Final = f"{HIDDEN}/metadata.json"
FAILURES: Final = f"{HIDDEN}/failures.parquet"
TRACES: Final = f"{HIDDEN}/traces.parquet"
JOURNAL: Final = f"{HIDDEN}/journal.sqlite"
CLAIMS: Final = f"{HIDDEN}/claims"
DATA_NEW: Final = f"{HIDDEN}/data.new"
DATA_OLD: Final = f"{HIDDEN}/data.old"
EARLIER: Final = f"{HIDDEN}/earlier"
EARLIER_GONE: Final = f"{HIDDEN}/earlier.old"
"""What an update began from: a folder for each of the tables, until the update has ended."""

OLD_JOURNAL: Final = "journal.sqlite"
_OLD: Final = (
    *("failures.parquet", "traces.parquet", "data.new", "data.old"),
    *("metadata.json", f"{OLD_JOURNAL}-wal", OLD_JOURNAL),
)
"""What earlier versions of rowloop kept beside data."""

_MODE: Final = 0o600
"""Prompts and answers are nobody else's business."""
_JOURNAL = re.compile(r"journal(?:-(\d{6,}))?\.sqlite").fullmatch
_LONGEST: Final = 4096
"""The longest path, in bytes: the most that systems take."""
_PART = re.compile(r"part-(\d{5,})\.parquet")
_LEFT_OVER = re.compile(r"\.part-\d{5,}\.parquet\.tmp")


def shown(path: Path) -> Path:
    """Return a path as a message shows it: relative to the working directory, if it is below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def path_of(path: object, what: str = "a directory") -> Path:
    """Return an absolute path, as the working directory may change; raises RecipeError for a value that is no path."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise RecipeError("path", f"takes the path of {what}, not {quoted(path)}")
    problem = path_problem(path)
    if problem is not None:
        raise RecipeError("path", problem)
    return Path(path).absolute()


def path_problem(path: str | os.PathLike[str]) -> str | None:
    """Return why no file can have this path; None where one can."""
    try:
        written = os.fsencode(path)
    except UnicodeEncodeError:
        return f"{quoted(path)} is not a path: it contains half of a character (a lone surrogate)"
    if b"\0" in written:
        return f"{quoted(path)} is not a path: it contains a null character"
    if len(written) > _LONGEST:
        return f"{quoted(path)} is not a path: it is {len(written):,} bytes long"
    return None


def make_directory(path: Path) -> None:
    """Make the directory, before anything is paid for; raises RecipeError where that is not possible."""
    try:
        (path / CLAIMS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(path, error) from error


def not_writable(path: Path, error: OSError) -> RecipeError:
    """Make the error for a directory that nothing can be written to."""
    return RecipeError("path", f"cannot write to '{shown(path)}' ({error.strerror}); choose another directory")


def has_dataset(path: Path) -> bool:
    """Return whether a run has written here; raises RecipeError for a directory with other files."""
    try:
        there = {entry.name for entry in path.iterdir()}
    except FileNotFoundError:
        return False
    except OSError as error:
        raise not_writable(path, error) from error
    if there and not there & {HIDDEN, *_OLD}:
        raise RecipeError(
            "path", f"'{shown(path)}' has other files in it ({min(there)}); choose an empty or new directory"
        )
    return bool(there & {"data", *_OLD}) or (path / METADATA).exists() or bool(journal_files(path))


def existing(path: Path, name: str) -> Path:
    """Return where a file is: in the hidden folder, or beside data, where earlier versions of rowloop kept it."""
    file = path / name
    old = path / file.name
    return old if old.exists() and not file.exists() else file


def remove_dataset(path: Path) -> None:
    """Remove what a run writes and nothing else; metadata.json last, since it describes the dataset."""
    for name in (EARLIER, EARLIER_GONE, DATA_NEW, DATA_OLD):
        shutil.rmtree(path / name, ignore_errors=True)
    for file in [*(path / "data").glob("part-*.parquet"), *(path / "data").glob(".part-*.parquet.tmp")]:
        file.unlink()
    for name in (FAILURES, TRACES, METADATA):
        (path / name).unlink(missing_ok=True)


def journal_files(path: Path) -> list[Path]:
    """Find the journals, the one in force last; a run that takes over from one that may still live copies its own."""
    found = [(_JOURNAL(file.name), file) for file in (path / HIDDEN).glob("journal*.sqlite")]
    return [file for _, file in sorted((int(match[1] or 0), file) for match, file in found if match is not None)]


def journal_copy(path: Path, number: int) -> Path:
    """Return the file for a copy of the journal, made by the claim of this number."""
    return path / HIDDEN / f"journal-{number:06d}.sqlite"


def move_old_layout(path: Path) -> None:
    """Move what earlier versions of rowloop kept beside data into the hidden folder, the journal last.

    A crash leaves the rest to the next run. Nobody else may work in the directory meanwhile.
    """
    for name in _OLD:
        old = path / name
        if old.exists():
            old.replace(path / HIDDEN / name)
    flush(path)


def part_name(number: int) -> str:
    """Return the file name of a part."""
    return f"part-{number:05d}.parquet"


def part_files(path: Path) -> dict[int, Path]:
    """Find the parts by number and remove half-written ones; raises ResumeError for a file of another program."""
    found: dict[int, Path] = {}
    data = path / "data"
    for file in sorted(data.iterdir()) if data.is_dir() else []:
        match = _PART.fullmatch(file.name)
        if match is not None:
            found[int(match[1])] = file
        elif _LEFT_OVER.fullmatch(file.name):
            file.unlink()
        elif file.suffix == ".parquet":  # a reader of data/*.parquet would take it for a part
            raise ResumeError(f"'{file}' is not a part of the dataset; move it elsewhere to resume")
    return found


def remove_half_written(path: Path) -> None:
    """Remove the claims and the progress that killed processes were about to put in place; what stays does no harm.

    To be called by the process that has just claimed the directory, before it writes its progress.
    """
    for file in [*(path / CLAIMS).glob(".*.tmp"), *(path / HIDDEN).glob(".progress.json*.tmp")]:
        with contextlib.suppress(OSError):
            file.unlink()


def swap_data(path: Path) -> None:
    """Replace data by data.new, or finish that where a crash interrupted it.

    At every moment one of the directories has all rows.
    """
    data, new, old = (path / name for name in ("data", DATA_NEW, DATA_OLD))
    if new.exists():
        if data.exists():
            data.rename(old)
        new.rename(data)
        flush(path)
        flush(path / HIDDEN)
    shutil.rmtree(old, ignore_errors=True)


def remove_new_data(path: Path) -> None:
    """Remove a data.new that was not complete."""
    shutil.rmtree(path / DATA_NEW, ignore_errors=True)


def write_atomically(path: Path, write: Callable[[Path], object], check: Callable[[], object] | None = None) -> None:
    """Write a file so that it appears whole or not at all, and survives a power cut; only its owner may read it.

    `check` is called before the file gets its name, and may raise.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if not temporary.exists():
            temporary.touch(_MODE)
        write(temporary)
        if check is not None:
            check()
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def replace_whole(path: Path, body: bytes) -> None:
    """Write a small file so that readers see it whole, the old one or the new one; a power cut may lose it.

    Each such file has one writer. What a killed one has left is written over by the next.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(body)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def flush(directory: Path) -> None:
    """Write the names in a directory to the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
