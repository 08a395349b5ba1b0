"""SQLite files: each kind of file has its own format, and all are opened in the same way."""

from __future__ import annotations

import functools
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from rowloop.engine.models.sqlite_file import FileFormat, open_file

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = FileFormat(0x726F7778, 3, "CREATE TABLE one (x); CREATE TABLE two (y);")


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_file_is_made_with_its_tables_and_opened_again(tmp_path: Path, *, exclusive: bool):
    """Its header names the format; write-ahead logging is on, and a commit does not wait for the disk."""
    for rows in (0, 1):
        db = open_file(tmp_path / "file", FORMAT, exclusive=exclusive)
        names = ("application_id", "user_version", "journal_mode", "synchronous")
        assert [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names] == [0x726F7778, 3, "wal", 1]
        assert db.execute("SELECT count(*) FROM one").fetchone() == (rows,)
        db.execute("INSERT INTO one VALUES (1)")
        db.close()


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize(
    "other", [FileFormat(0x726F7778, 4, "CREATE TABLE one (x)"), FileFormat(1, 3, "CREATE TABLE one (x)")]
)
def test_a_file_of_another_format_is_refused_and_left_alone(tmp_path: Path, other: FileFormat, *, exclusive: bool):
    """Another version or another program: not a byte changes."""
    file = tmp_path / "file"
    open_file(file, other, exclusive=True).close()
    before = file.read_bytes()
    with pytest.raises(sqlite3.DatabaseError, match="another program or another version of rowloop wrote it"):
        open_file(file, FORMAT, exclusive=exclusive)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_exclusive_file_is_refused_to_others_until_it_is_closed(tmp_path: Path):
    """At once, and also where nothing has been written yet."""
    first = open_file(tmp_path / "file", FORMAT, exclusive=True)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_file(tmp_path / "file", FORMAT, exclusive=True)
    first.close()
    open_file(tmp_path / "file", FORMAT, exclusive=True).close()


def test_a_new_file_that_another_connection_locks_is_opened_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The other one locks it between the making of the tables and the change to write-ahead logging."""
    file = tmp_path / "file"
    others: list[sqlite3.Connection] = []

    class Overtaken(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            cursor = super().execute(sql, *parameters)
            if sql == "COMMIT" and not others:
                others.append(connect(file, isolation_level=None))
                others[0].execute("BEGIN IMMEDIATE")
            return cursor

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", functools.partial(connect, factory=Overtaken))
    db = open_file(file, FORMAT, exclusive=False)
    (other,) = others
    other.execute("INSERT INTO one VALUES (1)")
    other.execute("COMMIT")
    assert db.execute("SELECT count(*) FROM one").fetchone() == (1,)
    other.close()
    db.close()
    again = open_file(file, FORMAT, exclusive=False)
    assert again.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    again.close()
