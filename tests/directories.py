"""What is in a directory, but for what every run leaves: its claim, also where it is refused, and its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def contents(path: Path) -> dict[Path, bytes]:
    """Read all files below a directory."""
    files = [file for file in path.rglob("*") if file.is_file() and file.name != "progress.json"]
    return {file: file.read_bytes() for file in files if file.parent.name != "claims"}


def names(path: Path) -> set[str]:
    """Name all files below a directory, relative to it."""
    return {str(file.relative_to(path)) for file in contents(path)}
