"""A dataset's directory: the files in it, how they are written whole, and what a crash may leave half done."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ..core.errors import Option, RecipeError, ResumeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Resume: TypeAlias = Literal["never", "always", "if_possible"]
"""Whether a run resumes the dataset in its directory."""

RESUME: Final = Option("resume", "always")
OVERWRITE: Final = Option("overwrite", value=True)

METADATA: Final = "metadata.json"
JOURNAL: Final = "journal.sqlite"

_PART = re.compile(r"part-(\d{5,})\.parquet")
_LEFT_OVER = re.compile(r"\.part-\d{5,}\.parquet\.tmp")


def make_directory(path: Path) -> None:
    """Make the directory and check, before anything is paid for, that it is writable; raises RecipeError if not."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".rowloop-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        problem = f"cannot write to '{path}' ({error.strerror}); choose another directory"
        raise RecipeError("path", problem) from error


def has_dataset(path: Path) -> bool:
    """Return whether a run has written here; raises RecipeError for a directory with other files."""
    there = {entry.name for entry in path.iterdir()}
    if there and not there & {METADATA, JOURNAL}:
        raise RecipeError("path", f"'{path}' has other files in it ({min(there)}); choose an empty or new directory")
    return bool(there)


def remove_dataset(path: Path) -> None:
    """Remove what a run writes and nothing else; metadata.json last, since it marks the directory as a dataset."""
    for name in ("data.new", "data.old"):
        shutil.rmtree(path / name, ignore_errors=True)
    for file in [*(path / "data").glob("part-*.parquet"), *(path / "data").glob(".part-*.parquet.tmp")]:
        file.unlink()
    for name in ("failures.parquet", "traces.parquet", METADATA):
        (path / name).unlink(missing_ok=True)


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


def swap_data(path: Path) -> None:
    """Replace data by data.new, or finish that where a crash interrupted it.

    At every moment one of the directories has all rows.
    """
    data, new, old = (path / name for name in ("data", "data.new", "data.old"))
    if new.exists():
        if data.exists():
            data.rename(old)
        new.rename(data)
        flush(path)
    shutil.rmtree(old, ignore_errors=True)


def remove_new_data(path: Path) -> None:
    """Remove a data.new that was not complete."""
    shutil.rmtree(path / "data.new", ignore_errors=True)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it appears whole or not at all, and survives a power cut."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def flush(directory: Path) -> None:
    """Write the names in a directory to the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
