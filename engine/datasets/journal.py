"""The journal: what a dataset's runs have done that is in no part yet, in one SQLite file.

Theory of operation
    A row group's entries are a log: values of tasks that ended, in the order in which they did, and marks that some of
    them are void, because a cell that they were made from is worked again. Failures are kept beside them for as long as
    the dataset lasts. A row group is over when its part is written and nothing of it is left to be done; then its
    entries go, unless some of its cells failed: if these are worked again, the others have to be there. One that lost
    rows because a run was halted is cut: it may have a part, but its entries count.

    Before a part is written, it is noted what will have become of its row group, and after, that it is there: so the
    part alone decides whether the group is over.

    The connection holds the file's lock from beginning to end, so no other process can work in the directory. It may be
    used from any thread, by one at a time. Everything survives the end of this process at any moment, and all but
    values also a power cut: what parts and journal say of each other must not fall apart.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from ..core.errors import DatasetGenerationError, ResumeError
from ..core.events import Tally  # noqa: TC001 - msgspec looks at it when it decodes
from ..telemetry.failures import FailedCell  # noqa: TC001 - and at this
from ..telemetry.spending import Spending
from .directory import JOURNAL

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

_OURS: Final = 0x726F776C  # "rowl"
_VERSION: Final = 1

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (id INTEGER PRIMARY KEY, row_group INTEGER NOT NULL, void INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX entries_of ON entries (row_group);
CREATE TABLE failures (id INTEGER PRIMARY KEY, row_group INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX failures_of ON failures (row_group);
CREATE TABLE groups (row_group INTEGER PRIMARY KEY, over BLOB);
"""

Entry: TypeAlias = tuple[int, int, int, Any]
"""Row group, column, row and value of a task that is done; a whole column's value is [rows worked, all values]."""

Task: TypeAlias = tuple[int, int]
"""Column and row, in a row group that the context names."""


class Facts(msgspec.Struct):
    """What the runs of a dataset have in common. `targets` are how many rows each of them was to make."""

    identity: dict[str, Any]
    seed: int
    row_group_size: int
    engine: str
    targets: list[int]


class KeptFailure(msgspec.Struct, frozen=True, array_like=True):
    """A task that failed for good. `rows` are those of a whole column; `final`: no later run tries it by itself."""

    row_group: int
    column: int
    row: int
    rows: list[int] | None
    final: bool
    lines: list[FailedCell]

    @property
    def task(self) -> tuple[int, int, int]:
        """Which task it is: row group, column, row."""
        return self.row_group, self.column, self.row


class Over(msgspec.Struct, frozen=True, array_like=True):
    """What became of a row group, and how many rows its part has; None while it is being written."""

    tally: Tally
    written: int | None


@dataclass(slots=True)
class Known:
    """What the journal has of one row group that is not over: values by (column, row), and failures."""

    values: dict[Task, Any] = field(default_factory=dict)
    failures: list[KeptFailure] = field(default_factory=list)


class Journal:
    """The journal of one dataset. Raises DatasetGenerationError for what cannot be written."""

    def __init__(self, directory: Path) -> None:
        """Open or make it, and lock it; raises ResumeError where it is in use, broken or not ours."""
        self.file = directory / JOURNAL
        try:
            self._db = _opened(self.file)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ResumeError(f"'{directory}' is in use: another run is at work in it") from error
            raise ResumeError(f"'{self.file}' cannot be opened: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ResumeError(f"'{self.file}' is broken, or no journal: {error}") from error

    # What is there

    @property
    def facts(self) -> Facts | None:
        """What the runs so far have in common; None in a journal that no run has begun."""
        facts: Facts | None = self._fact("run", Facts)
        return facts

    @property
    def spending(self) -> Spending:
        """What the runs so far have spent, as it was last told."""
        return self._fact("spending", Spending) or Spending()

    @property
    def rewriting(self) -> list[int] | None:
        """The rows of each part that after_generation has begun to put in the place of the others; None if it has not.

        The new parts were whole then.
        """
        parts: list[int] | None = self._fact("rewriting", list[int])
        return parts

    def over(self) -> dict[int, Over]:
        """Give the row groups that are over, if the parts are there that were being written."""
        rows = self._read("SELECT row_group, over FROM groups WHERE over IS NOT NULL")
        return {group: self._decoded(body, Over) for group, body in rows}

    def begun(self) -> set[int]:
        """Give the row groups of which something is known, over or not."""
        query = "SELECT row_group FROM entries UNION SELECT row_group FROM failures UNION SELECT row_group FROM groups"
        return {group for (group,) in self._read(query)}

    def cut(self) -> set[int]:
        """Give the row groups that lost rows because a run was halted, and had a part written all the same."""
        return {group for (group,) in self._read("SELECT row_group FROM groups WHERE over IS NULL")}

    def failures(self) -> list[KeptFailure]:
        """Give what failed for good, in the order in which it did."""
        return [self._decoded(body, KeptFailure) for (body,) in self._read("SELECT body FROM failures ORDER BY id")]

    def recall(self, row_group: int) -> Known:
        """Give what there is of a row group."""
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

    # What is written

    def begin(self, facts: Facts) -> None:
        """Forget everything: a new dataset begins."""
        with self._writing(durable=True):
            for table in ("facts", "entries", "failures", "groups"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
            self._set("run", facts)

    def go_on(self, facts: Facts, void: dict[int, list[Task]], retried: Collection[KeptFailure]) -> None:
        """Begin another run of the dataset: failures that it tries again are no failures any more.

        `void` are the tasks whose values no longer count, for each row group that is opened again.
        """
        again = {failure.task for failure in retried}
        groups = {failure.row_group for failure in retried}
        there = [failure for failure in self.failures() if failure.row_group in groups]
        with self._writing(durable=True):
            self._set("run", facts)
            for group, tasks in void.items():
                self._db.execute("UPDATE groups SET over = NULL WHERE row_group = ?", (group,))
                self._db.execute("INSERT INTO entries VALUES (NULL, ?, 1, ?)", (group, _encode(tasks)))
            self._db.executemany("DELETE FROM failures WHERE row_group = ?", ((group,) for group in groups))
            self._put_failures(failure for failure in there if failure.task not in again)

    def write(self, entries: Sequence[Entry], failures: Sequence[KeptFailure], spending: Spending) -> None:
        """Add what has ended since the last time. Values that would not come back as they are are left out."""
        with self._writing(durable=bool(failures)):
            self._db.executemany("INSERT INTO entries VALUES (NULL, ?, 0, ?)", _packed(entries))
            self._put_failures(failures)
            self._set("spending", spending)

    def mark_cut(self, row_group: int) -> None:
        """Note that whatever part a row group has, or is about to have, is to be replaced by a later one."""
        with self._writing(durable=True):
            self._db.execute("INSERT OR REPLACE INTO groups VALUES (?, NULL)", (row_group,))

    def mark_writing(self, row_group: int, tally: Tally) -> None:
        """Note that a row group which has no part yet will be over once it has."""
        with self._writing(durable=True):
            self._set_over(row_group, Over(tally, None))

    def mark_over(self, row_group: int, over: Over) -> None:
        """Note that nothing of a row group is left to be done; its entries go unless it has failures."""
        with self._writing():
            self._set_over(row_group, over)
            self._db.execute(
                "DELETE FROM entries WHERE row_group = ?1 AND NOT EXISTS (SELECT 1 FROM failures WHERE row_group = ?1)",
                (row_group,),
            )

    def forget(self, row_groups: Iterable[int]) -> None:
        """Forget that row groups were over, and what failed in them: their parts are gone."""
        with self._writing(durable=True):
            for group in row_groups:
                for table in ("groups", "entries", "failures"):
                    self._db.execute(f"DELETE FROM {table} WHERE row_group = ?", (group,))  # noqa: S608 - our own names

    def mark_rewriting(self, parts: list[int]) -> None:
        """Note that other parts, of so many rows each, are about to be put in the place of those there are."""
        with self._writing(durable=True):
            self._set("rewriting", parts)

    def close(self) -> None:
        """Let go of the lock, and of the file where no run has begun."""
        empty = False
        with contextlib.suppress(sqlite3.Error, ResumeError):
            empty = self.facts is None
        with contextlib.suppress(sqlite3.Error):  # what had to be written has been
            self._db.close()
        if empty:
            self.file.unlink(missing_ok=True)

    # How

    def _fact(self, name: str, type_: type[Any]) -> Any:
        for (value,) in self._read("SELECT value FROM facts WHERE name = ?", name):
            return self._decoded(value, type_)
        return None

    def _set(self, name: str, value: object) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, _encode(value)))

    def _set_over(self, row_group: int, over: Over) -> None:
        self._db.execute("INSERT OR REPLACE INTO groups VALUES (?, ?)", (row_group, _encode(over)))

    def _put_failures(self, failures: Iterable[KeptFailure]) -> None:
        rows = ((failure.row_group, _encode(failure)) for failure in failures)
        self._db.executemany("INSERT INTO failures VALUES (NULL, ?, ?)", rows)

    def _read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise ResumeError(f"'{self.file}' cannot be read: {error}") from error

    def _decoded(self, body: bytes, type_: type[Any]) -> Any:
        try:
            return msgspec.msgpack.decode(body, type=type_)
        except (msgspec.MsgspecError, TypeError) as error:
            raise ResumeError(f"'{self.file}' holds something that rowloop did not write: {error}") from error

    @contextlib.contextmanager
    def _writing(self, *, durable: bool = False) -> Iterator[None]:
        """Make one transaction of what is written; a durable one, and those before it, survive a power cut."""
        try:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            with self._db:
                self._db.execute("BEGIN")
                yield
        except sqlite3.DatabaseError as error:
            raise DatasetGenerationError(f"{JOURNAL} cannot be written: {error}", stage="journal") from error


def _opened(file: Path) -> sqlite3.Connection:
    """Open the file as its only user. A database that is not ours is left as it is."""
    db = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # from here on, no lock is let go of
        db.execute("BEGIN EXCLUSIVE")
        _set_up(db)
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL")
    except BaseException:
        db.close()
        raise
    return db


def _set_up(db: sqlite3.Connection) -> None:
    """Make the tables in a new file; raises DatabaseError for one that has others."""
    (ours,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not (ours or tables):
        for statement in filter(str.strip, _TABLES.split(";")):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {_OURS}")
        db.execute(f"PRAGMA user_version = {_VERSION}")
    elif (ours, version) != (_OURS, _VERSION):
        raise sqlite3.DatabaseError("something else wrote it, or another version of rowloop")


# Values

_PLAIN = frozenset({str, int, float, bool, type(None)})


def _packed(entries: Iterable[Entry]) -> Iterator[tuple[int, bytes]]:
    """Put the entries of each row group into one body."""
    groups: dict[int, list[tuple[int, int, Any]]] = {}
    for group, column, row, value in entries:
        groups.setdefault(group, []).append((column, row, value))
    for group, values in groups.items():
        yield group, _body(values)


def _body(values: list[tuple[int, int, Any]]) -> bytes:
    """Encode what comes back as it is: text, numbers, None, and lists and dicts of those."""
    if not all(type(value) in _PLAIN for _, _, value in values):
        values = [entry for entry in values if type(entry[2]) in _PLAIN or _comes_back(entry[2])]
    try:
        return _encode(values)
    except (OverflowError, UnicodeError):  # whole numbers beyond 64 bits, halves of characters
        return _encode([entry for entry in values if _comes_back(entry[2])])


def _comes_back(value: object) -> bool:
    """Tell whether a value is the same, and of the same types, once it has been there and back."""
    try:
        if type(value).__module__ == "numpy":
            return _simple(value) == value
        back = msgspec.msgpack.decode(_encode(value))
        return back == value and repr(back) == repr(value)  # equal times may be of other zones
    except Exception:  # noqa: BLE001 - whatever a user's value raises; it is worked again then
        return False


def _simple(value: Any) -> object:
    """Take those of numpy's numbers for Python's that a table does not tell from them."""
    if type(value).__name__ in {"float64", "int64", "bool"}:
        return value.item()
    raise TypeError(f"a {type(value).__name__} is no plain value")


_encode = msgspec.msgpack.Encoder(enc_hook=_simple).encode
