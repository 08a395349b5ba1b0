"""What is in a directory, but for the claims: every run leaves one, also a run that is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def contents(path: Path) -> dict[Path, bytes]:
    """Read all files below a directory."""
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.parent.name != "claims"}


def names(path: Path) -> set[str]:
    """Name all files below a directory, relative to it."""
    return {str(file.relative_to(path)) for file in contents(path)}
