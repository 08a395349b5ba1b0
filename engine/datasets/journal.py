"""The journal: what a dataset's runs have done that is in no part yet, in one SQLite file.

Theory of operation
    A row group's entries are a log: values of tasks that are done, in the order in which they ended, and marks that
    void some of them, because a cell that they were made from is worked again. Failures are kept beside them for as
    long as the dataset exists. A row group is over when its part is written and nothing is left to do in it. Its
    entries are then deleted, unless some of its cells failed: retrying these needs the others. A row group that lost
    rows because a run was halted is cut: it may have a part, but its entries still count.

    Before a part is written, the journal notes the counts its row group will have, and after that, that the part
    exists. So the part alone decides whether the row group is over.

    Only the process that has claimed the directory opens the journal (claim_files.py). The connection holds the file's
    lock as well, where there are locks, until it is closed. Where a claim is taken over from a process that may still
    live, its journal is copied, so that it writes to a file that nobody reads. Any thread may use the connection, one
    at a time. Everything survives a kill of the process at any moment. Everything but values also survives a power cut,
    because the parts and the journal must agree.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..core.errors import DatasetGenerationError, ResumeError
from ..models.sqlite_file import FileFormat, open_file
from ..telemetry.spending import Spending
from .directory import JOURNAL, journal_copy, journal_files, write_atomically
from .journal_records import Facts, KeptFailure, Known, Over, Task, bodies_of, decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ..core.events import Tally
    from .claim_files import Held
    from .journal_records import Entry
    from .parts import Stamp

_FORMAT: Final = FileFormat(
    application_id=0x726F776C,  # "rowl"
    version=1,
    tables="""
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (id INTEGER PRIMARY KEY, row_group INTEGER NOT NULL, void INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX entries_of ON entries (row_group);
CREATE TABLE failures (id INTEGER PRIMARY KEY, row_group INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX failures_of ON failures (row_group);
CREATE TABLE groups (row_group INTEGER PRIMARY KEY, over BLOB);
""",
)

_FEW_PAGES: Final = 256


class Journal:
    """The journal of one dataset. Raises DatasetGenerationError where it cannot be written."""

    def __init__(self, file: Path) -> None:
        """Open or make the file, and lock it; raises ResumeError where it is in use, broken or not a journal."""
        self.file = file
        self._durable = False
        self._removed = False  # when it is closed
        try:
            self._db = open_file(self.file, _FORMAT, exclusive=True)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ResumeError(f"'{file}' is in use by another program") from error
            raise ResumeError(f"cannot open '{self.file}': {error}") from error
        except sqlite3.DatabaseError as error:
            raise ResumeError(f"'{self.file}' is broken or not a journal: {error}") from error

    # Reading

    @property
    def facts(self) -> Facts | None:
        """What the runs so far have in common; None in a journal without a run."""
        facts: Facts | None = self._fact("run", Facts)
        return facts

    @property
    def spending(self) -> Spending:
        """What the runs so far have spent, as far as it was written."""
        return self._fact("spending", Spending) or Spending()

    @property
    def rewriting(self) -> list[int] | None:
        """The rows of each part of after_generation, once it has begun to replace the other parts; else None.

        The new parts were complete by then.
        """
        parts: list[int] | None = self._fact("rewriting", list[int])
        return parts

    def over(self) -> dict[int, Over]:
        """Return the row groups that are over, provided that the parts which were being written exist."""
        rows = self._read("SELECT row_group, over FROM groups WHERE over IS NOT NULL")
        return {group: self._decoded(body, Over) for group, body in rows}

    def begun(self) -> set[int]:
        """Return the row groups with any record, over or not."""
        query = "SELECT row_group FROM entries UNION SELECT row_group FROM failures UNION SELECT row_group FROM groups"
        return {group for (group,) in self._read(query)}

    def cut(self) -> set[int]:
        """Return the row groups that lost rows because a run was halted, but have a part all the same."""
        return {group for (group,) in self._read("SELECT row_group FROM groups WHERE over IS NULL")}

    def failures(self) -> list[KeptFailure]:
        """Return what failed for good, in the order of the failures."""
        return [self._decoded(body, KeptFailure) for (body,) in self._read("SELECT body FROM failures ORDER BY id")]

    @property
    def has_failures(self) -> bool:
        """Whether any cell has failed for good."""
        return bool(self._read("SELECT 1 FROM failures LIMIT 1"))

    def recall(self, row_group: int) -> Known:
        """Return the values and failures of a row group."""
        known = Known()
        query = "SELECT void, body FROM entries WHERE row_group = ? ORDER BY id"
        for void, body in self._read(query, row_group):
            if void:
                for task in self._decoded(body, list[Task]):
                    known.values.pop(task, None)
            else:
                for column, row, value in self._decoded(body, list[tuple[int, int, Any]]):
                    known.values[column, row] = value
        query = "SELECT body FROM failures WHERE row_group = ? ORDER BY id"
        known.failures = [self._decoded(body, KeptFailure) for (body,) in self._read(query, row_group)]
        return known

    # Writing

    def begin(self, facts: Facts) -> None:
        """Delete everything: a new dataset begins."""
        self._removed = False
        with self._writing(durable=True):
            for table in ("facts", "entries", "failures", "groups"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
            self._set("run", facts)

    def resume(self, facts: Facts, void: Mapping[int, Sequence[Task]], retried: Sequence[KeptFailure]) -> None:
        """Begin another run of the dataset, and delete the failures that it retries.

        `void` has the tasks whose values no longer count, for each row group that is opened again.
        """
        self._removed = False
        again = {failure.task for failure in retried}
        groups = {failure.row_group for failure in retried}
        there = [failure for failure in self.failures() if failure.row_group in groups]
        with self._writing(durable=True):
            self._set("run", facts)
            for group, tasks in void.items():
                self._db.execute("UPDATE groups SET over = NULL WHERE row_group = ?", (group,))
                self._db.execute("INSERT INTO entries VALUES (NULL, ?, 1, ?)", (group, encode(tasks)))
            self._db.executemany("DELETE FROM failures WHERE row_group = ?", ((group,) for group in groups))
            self._put_failures(failure for failure in there if failure.task not in again)

    def make_again(
        self, facts: Facts, spending: Spending, over: Mapping[int, Over], rewriting: list[int] | None
    ) -> None:
        """Take what metadata.json has kept of a journal; until a run begins, the file is removed when it is closed."""
        self._removed = True
        with self._writing():
            self._set("run", facts)
            self._set("spending", spending)
            if rewriting is not None:
                self._set("rewriting", rewriting)
            for group, one in over.items():
                self._set_over(group, one)

    def shrink(self) -> None:
        """Give the space of deleted entries back to the system, where it is most of the file."""
        try:
            (free,), (pages,) = (self._db.execute(f"PRAGMA {of}").fetchone() for of in ("freelist_count", "page_count"))
            if free > max(_FEW_PAGES, pages // 2):
                self._db.execute("VACUUM")
        except sqlite3.DatabaseError as error:
            raise DatasetGenerationError(f"cannot write {self.file.name}: {error}", stage="journal") from error

    def remove_when_closed(self, *, removed: bool) -> None:
        """Decide whether the file goes: metadata.json has what a later run needs."""
        self._removed = removed

    def write(self, entries: Sequence[Entry], failures: Sequence[KeptFailure], spending: Spending | None) -> None:
        """Add what has ended since the last call. Values that cannot be read back unchanged are left out.

        The values of one row group alone are one statement. Each statement lets go of the interpreter, and may wait for
        it for some milliseconds.
        """
        bodies = list(bodies_of(entries))
        alone = len(bodies) == 1 and not failures and spending is None
        with self._writing(durable=bool(failures), alone=alone):
            for body in bodies:
                self._db.execute("INSERT INTO entries VALUES (NULL, ?, 0, ?)", body)
            self._put_failures(failures)
            if spending is not None:
                self._set("spending", spending)

    def mark_cut(self, row_group: int) -> None:
        """Note that a later part will replace whatever part a row group has, or is about to get."""
        with self._writing(durable=True):
            self._db.execute("INSERT OR REPLACE INTO groups VALUES (?, NULL)", (row_group,))

    def mark_writing(self, row_group: int, tally: Tally) -> None:
        """Note that a row group without a part will be over once it has one."""
        with self._writing(durable=True):
            self._set_over(row_group, Over(tally, None))

    def mark_over(self, row_group: int, over: Over) -> None:
        """Note that nothing is left to do in a row group. Its entries are deleted unless it has failures."""
        with self._writing():
            self._set_over(row_group, over)
            self._db.execute(
                "DELETE FROM entries WHERE row_group = ?1 AND NOT EXISTS (SELECT 1 FROM failures WHERE row_group = ?1)",
                (row_group,),
            )

    def set_checksums(self, known: Mapping[int, tuple[str, Stamp] | None], *, durable: bool = False) -> None:
        """Replace the checksums and stamps of parts, by row group; None: they are not known for a while."""
        over = self.over()
        with self._writing(durable=durable):
            for group, found in known.items():
                if group in over:
                    checksum, stamp = found or (None, None)
                    self._set_over(group, msgspec.structs.replace(over[group], checksum=checksum, stamp=stamp))

    def forget(self, row_groups: Iterable[int]) -> None:
        """Delete everything about row groups whose parts are gone."""
        with self._writing(durable=True):
            for group in row_groups:
                for table in ("groups", "entries", "failures"):
                    self._db.execute(f"DELETE FROM {table} WHERE row_group = ?", (group,))  # noqa: S608 - our own names

    def mark_rewriting(self, parts: list[int]) -> None:
        """Note that other parts, with these numbers of rows, are about to replace the existing ones."""
        with self._writing(durable=True):
            self._set("rewriting", parts)

    def copy(self, file: Path) -> None:
        """Write everything into another file, which is on the disk when this returns."""
        try:
            self._db.execute("VACUUM INTO ?", (str(file),))
            with file.open("rb+") as copied:
                os.fsync(copied.fileno())
        except (sqlite3.DatabaseError, OSError) as error:
            raise DatasetGenerationError(f"cannot copy {self.file.name}: {error}", stage="journal") from error

    def close(self) -> None:
        """Release the lock, and remove the file if no run has begun, or nothing in it is needed any more."""
        empty = self._removed
        with contextlib.suppress(sqlite3.Error, ResumeError):
            empty = empty or self.facts is None
        with contextlib.suppress(sqlite3.Error):  # everything that had to be written has been
            self._db.close()
        if empty:
            remove_journal(self.file)

    # Statements

    def _fact(self, name: str, type_: type[Any]) -> Any:
        for (value,) in self._read("SELECT value FROM facts WHERE name = ?", name):
            return self._decoded(value, type_)
        return None

    def _set(self, name: str, value: object) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, encode(value)))

    def _set_over(self, row_group: int, over: Over) -> None:
        self._db.execute("INSERT OR REPLACE INTO groups VALUES (?, ?)", (row_group, encode(over)))

    def _put_failures(self, failures: Iterable[KeptFailure]) -> None:
        rows = ((failure.row_group, encode(failure)) for failure in failures)
        self._db.executemany("INSERT INTO failures VALUES (NULL, ?, ?)", rows)

    def _read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise ResumeError(f"cannot read '{self.file}': {error}") from error

    def _decoded(self, body: bytes, type_: type[Any]) -> Any:
        try:
            return decode(body, type_)
        except (msgspec.MsgspecError, TypeError) as error:
            raise ResumeError(f"'{self.file}' has a record that rowloop did not write: {error}") from error

    @contextlib.contextmanager
    def _writing(self, *, durable: bool = False, alone: bool = False) -> Iterator[None]:
        """Put what is written into one transaction; a durable one, and all before it, survive a power cut.

        A statement that is `alone` is a transaction by itself.
        """
        try:
            if durable != self._durable:
                self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            with self._db:
                if not alone:
                    self._db.execute("BEGIN")
                yield
        except sqlite3.DatabaseError as error:
            raise DatasetGenerationError(f"cannot write {self.file.name}: {error}", stage="journal") from error


def open_journal(directory: Path, held: Held) -> Journal:
    """Open the journal of a claimed directory, or a copy where its last owner may still write; raises ResumeError."""
    there = journal_files(directory)
    file = there[-1] if there else directory / JOURNAL
    if there and not held.sure:
        file = _copied(file, journal_copy(directory, held.number))
    journal = Journal(file)
    for old in there:
        if old != file:
            remove_journal(old)
    return journal


def remove_journal(file: Path) -> None:
    """Remove a journal with its write-ahead log, which goes last: without its journal it means nothing."""
    for name in ("", "-wal", "-shm"):
        file.with_name(file.name + name).unlink(missing_ok=True)


def _copied(file: Path, copy: Path) -> Path:
    """Copy a journal and its write-ahead log; the copy of the journal itself appears last, and whole."""
    try:
        log = file.with_name(f"{file.name}-wal")
        if log.exists():
            shutil.copyfile(log, copy.with_name(f"{copy.name}-wal"))
        write_atomically(copy, lambda temporary: shutil.copyfile(file, temporary))
    except OSError as error:
        raise ResumeError(f"cannot copy '{file}': {error}") from error
    return copy
