"""SQLite files: the one way to open them, shared by the response cache and the journal of a dataset.

This module is in models/, the lowest room of the engine that may use files: the cache is next to it, and datasets/,
which has the journal, may import it.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_WAIT_SECONDS: Final = 30
_MODE: Final = 0o600
"""Answers are nobody else's business; the write-ahead log has the same mode."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """The contents of a kind of file: the ids in its header, and the statements that make its tables."""

    application_id: int
    version: int
    tables: str


def open_file(file: Path, contents: FileFormat, *, exclusive: bool) -> sqlite3.Connection:
    """Open a file of this format, or make it.

    Transactions begin with an explicit BEGIN; any thread may use the connection, one at a time. With write-ahead
    logging and synchronous=NORMAL, a commit survives the end of the process, but a power cut may lose the last ones.
    An `exclusive` connection holds the file's lock until it is closed: a second one is refused at once. Otherwise
    connections wait for each other.

    Raises sqlite3.DatabaseError for a file in another format, which is left unchanged.
    """
    wait = 0 if exclusive else _WAIT_SECONDS
    with suppress(OSError):  # SQLite names what is wrong
        file.touch(_MODE)
    db = sqlite3.connect(file, timeout=wait, isolation_level=None, check_same_thread=False)
    try:
        if exclusive:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")  # from here on, locks are kept
        db.execute("BEGIN EXCLUSIVE" if exclusive else "BEGIN IMMEDIATE")
        _check_or_make(db, contents)
        db.execute("COMMIT")
        # Another connection may be making the same new file: it then has a lock, and sets the mode of the file itself.
        with suppress(*() if exclusive else (sqlite3.OperationalError,)):
            db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        db.close()
        raise
    return db


def _check_or_make(db: sqlite3.Connection, contents: FileFormat) -> None:
    (owner,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables and owner in {0, contents.application_id}:
        for statement in filter(str.strip, contents.tables.split(";")):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {contents.application_id}")
        db.execute(f"PRAGMA user_version = {contents.version}")
    elif (owner, version) != (contents.application_id, contents.version):
        raise sqlite3.DatabaseError("another program or another version of rowloop wrote it")
