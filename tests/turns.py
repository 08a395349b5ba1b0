"""Turns: which processes may run a test now, where several share the tests; a test that measures time runs alone.

A test marked `serial` waits until no other process is inside a test, and the others wait for it. There are two locks,
as for readers and writers: each turn begins at the door, one process after the other, so that readers cannot starve a
writer.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_SH, LOCK_UN, lockf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Turns:
    """The turns of one process. All processes of a test run use the same folder."""

    def __init__(self, folder: Path) -> None:
        """Open the lock files, until the process ends. A forked child does not inherit their locks."""
        self._door, self._room = (os.open(folder / name, os.O_RDWR | os.O_CREAT) for name in ("door", "room"))

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Wait for a turn, beside other processes or alone, and keep it for the block."""
        lockf(self._door, LOCK_EX)
        try:
            lockf(self._room, LOCK_EX if alone else LOCK_SH)
        finally:
            lockf(self._door, LOCK_UN)
        try:
            yield
        finally:
            lockf(self._room, LOCK_UN)
