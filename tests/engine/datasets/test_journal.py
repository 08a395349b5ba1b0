"""The journal alone: values are read back unchanged, and no file of another program or run is touched."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

import rowloop as rl
from identifiers import by_repr
from rowloop.engine.core.events import WHOLE, Tally
from rowloop.engine.datasets.journal import Journal
from rowloop.engine.datasets.journal_records import Facts, KeptFailure, Known, Over
from rowloop.engine.telemetry.failures import FailedCell
from rowloop.engine.telemetry.spending import Spending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FACTS = Facts({"columns": {"x": {"type": "text"}}}, 7, 10, "async", [20])
TALLY = Tally(9, 1, ((9, 1, 0),))
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(PLAIN, lambda of: st.lists(of, max_size=3) | st.dictionaries(st.text(), of, max_size=3))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Return the journal of a dataset that has begun."""
    opened = Journal(tmp_path / "journal.sqlite")
    opened.begin(FACTS)
    yield opened
    opened.close()


def reopened(journal: Journal) -> Journal:
    """Close the file and open it again."""
    journal.close()
    return Journal(journal.file)


def failure(row_group: int, row: int, *, column: int = 0, final: bool = True) -> KeptFailure:
    """Make a failure of one cell."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    line = FailedCell(row, "x", "ValueError", "no", 3, now, now, "{}", row_group)
    return KeptFailure(row_group, column, row, [row] if row == WHOLE else None, final, [line])


def written(journal: Journal, value: object) -> Any:
    """Write a value of a cell, between two others, and return the recalled values without the others."""
    journal.write([(0, 0, 0, "before"), (0, 0, 1, value), (0, 0, 2, "after")], [], Spending())
    known = journal.recall(0).values
    assert known.pop((0, 0)) == "before"
    assert known.pop((0, 2)) == "after"
    return known


@given(value=VALUES)
@settings(max_examples=40)
def test_a_value_is_read_back_unchanged(tmp_path_factory: pytest.TempPathFactory, value: object):
    """Text, numbers, None, and lists and dicts of those, to the sign of a zero and the order of keys."""
    journal = Journal(tmp_path_factory.mktemp("journal") / "journal.sqlite")
    try:
        known = written(journal, value)
    finally:
        journal.close()
    if list(known) == [(0, 1)]:
        assert repr(known[0, 1]) == repr(value)
    else:  # half a character
        assert "\\ud" in ascii(value)


@pytest.mark.parametrize("value", [2**70, -(2**64), [2**70], {"a": [1, {"b": -(2**80)}], "c": None}], ids=by_repr)
def test_an_integer_of_any_size_is_read_back(journal: Journal, value: object):
    """Beside other values, too; msgpack itself has 64 bits."""
    assert list(written(journal, value).values()) == [value]


@dataclass
class Thing:
    """A value of the user's own."""

    x: int = 1


NAIVE = datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
BERLIN = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    "value",
    [
        (1, 2), {1, 2}, Thing(), [Thing()], {"a": (1,)}, "\ud800", ["\ud800"], {"\ud800": 1},
        [math.nan], {"a": math.nan}, NAIVE, datetime(2026, 1, 1, tzinfo=BERLIN), 1j, object(),
        np.float32(0.1), np.int8(1), np.arange(2), [np.float64(0.5)], np.datetime64("2026-01-01"),
    ],
    ids=by_repr,
)  # fmt: skip
def test_a_value_that_cannot_be_read_back_unchanged_is_left_out_and_costs_no_other(journal: Journal, value: object):
    """It is worked again then."""
    assert written(journal, value) == {}


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, b"bytes", np.float64(0.5), np.int64(3), np.bool_(1), datetime(2026, 1, 1, tzinfo=UTC)]
)  # fmt: skip
def test_numbers_that_a_table_does_not_distinguish_are_read_back(journal: Journal, value: object):
    """As Python's own."""
    (back,) = written(journal, value).values()
    assert back == value or math.isnan(back)


def test_a_deep_value_is_left_out(journal: Journal):
    """No recursion ends the run."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert written(journal, deep) == {}


def test_facts_and_spending_are_read_back(journal: Journal):
    """Identity, seed, size of row groups, engine, targets, and what was spent."""
    spending = Spending({3: (1, 2, 3)}, [3], 4, 1.5)
    journal.write([], [], spending)
    again = reopened(journal)
    assert again.facts == FACTS
    assert again.spending == spending
    again.close()


def test_spending_has_the_field_names_of_earlier_versions(journal: Journal):
    """A journal of an earlier version is read, and an earlier version could read this one."""
    stored = msgspec.msgpack.encode({"columns": {3: (1, 2, 3)}, "untold": [3], "retries": 4, "seconds": 1.5})
    journal._db.execute("INSERT INTO facts VALUES ('spending', ?)", (stored,))
    assert journal.spending == Spending({3: (1, 2, 3)}, uncounted=[3], retries=4, seconds=1.5)
    journal.write([], [], journal.spending)
    (written,) = journal._db.execute("SELECT value FROM facts WHERE name = 'spending'").fetchone()
    assert msgspec.msgpack.decode(written, strict=False)["untold"] == [3]


def test_the_last_of_several_values_counts_and_a_void_deletes_those_before_it(journal: Journal):
    """The entries are a log."""
    journal.write([(0, 0, 0, 1), (0, 0, 1, 1), (0, 1, WHOLE, [2, [5, 6]])], [], Spending())
    journal.write([(0, 0, 0, 2), (1, 0, 0, 9)], [], Spending())
    assert journal.recall(0).values == {(0, 0): 2, (0, 1): 1, (1, WHOLE): [2, [5, 6]]}
    journal.resume(FACTS, {0: [(0, 0), (1, WHOLE)]}, [])
    assert journal.recall(0).values == {(0, 1): 1}
    journal.write([(0, 0, 0, 3)], [], Spending())
    assert journal.recall(0).values == {(0, 0): 3, (0, 1): 1}
    assert journal.recall(1).values == {(0, 0): 9}
    assert journal.recall(2) == Known()


def test_a_finished_row_group_keeps_its_entries_only_if_a_cell_failed(journal: Journal):
    """Retried cells need the others of their row group."""
    journal.write([(0, 0, 0, 1), (1, 0, 0, 1)], [failure(1, 3)], Spending())
    for group in (0, 1):
        journal.mark_over(group, Over(TALLY, 9))
    assert journal.over() == {0: Over(TALLY, 9), 1: Over(TALLY, 9)}
    assert (journal.recall(0).values, journal.recall(1).values) == ({}, {(0, 0): 1})
    assert journal.failures() == [failure(1, 3)]
    assert journal.begun() == {0, 1}


def test_marks_of_parts_are_read_back(journal: Journal):
    """About to be written, about to be replaced, over, forgotten, rewritten."""
    journal.mark_writing(0, TALLY)
    journal.mark_cut(1)
    journal.mark_over(2, Over(TALLY, 9))
    journal.mark_over(3, Over(TALLY, 9))
    journal.write([(3, 0, 0, 1)], [failure(3, 1)], Spending())
    journal.forget([3])
    assert journal.rewriting is None
    journal.mark_rewriting([5, 4])
    again = reopened(journal)
    assert again.over() == {0: Over(TALLY, None), 2: Over(TALLY, 9)}
    assert again.cut() == {1}
    assert again.recall(3) == Known()
    assert again.rewriting == [5, 4]
    again.begin(FACTS)
    assert (again.over(), again.cut(), again.rewriting, again.begun()) == ({}, set(), None, set())
    again.close()


def test_retried_failures_are_deleted_and_others_keep_their_order(journal: Journal):
    """Also in the same row group, which is open again."""
    journal.write([], [failure(0, 2), failure(0, 1), failure(1, 5), failure(0, 1, column=1)], Spending())
    journal.mark_over(0, Over(TALLY, 9))
    journal.resume(FACTS, {0: []}, [failure(0, 1)])
    assert journal.failures() == [failure(1, 5), failure(0, 2), failure(0, 1, column=1)]
    assert (journal.over(), journal.cut()) == ({}, {0})


def test_an_interrupted_transaction_leaves_nothing(journal: Journal):
    """All of it or none."""

    class UnwritableError(Exception):
        """Raised by a failure that cannot be encoded."""

    def breaking() -> Iterator[KeptFailure]:
        yield failure(0, 1)
        raise UnwritableError

    with pytest.raises(UnwritableError):
        journal.write([(0, 0, 0, 1)], breaking(), Spending())  # type: ignore[arg-type] # it is iterated over
    assert (journal.recall(0), journal.failures()) == (Known(), [])
    journal.write([(0, 0, 0, 1)], [], Spending())
    assert journal.recall(0).values == {(0, 0): 1}


@pytest.mark.outside
def test_a_journal_in_use_is_refused_to_everyone_else_at_once(journal: Journal):
    """To this process and to another; once it is closed, it can be opened."""
    with pytest.raises(rl.ResumeError, match="is in use by another program") as caught:
        Journal(journal.file)
    assert not caught.value.other
    path = str(journal.file)
    code = f"import pathlib; from rowloop.engine.datasets.journal import Journal; Journal(pathlib.Path({path!r}))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "is in use by another program" in child.stderr
    journal.write([(0, 0, 0, 1)], [], Spending())  # undisturbed
    reopened(journal).close()


def test_a_journal_shrinks_when_most_of_it_was_deleted(journal: Journal):
    """What is left can be read."""
    journal.begin(FACTS)
    for group in range(50):
        journal.write([(group, 0, row, "x" * 5_000) for row in range(40)], [], Spending())
    for group in range(49):
        journal.mark_over(group, Over(TALLY, 40))
    journal.shrink()
    assert journal.recall(49).values == {(0, row): "x" * 5_000 for row in range(40)}
    journal.close()
    assert journal.file.stat().st_size < 500_000


def test_a_journal_in_which_no_run_has_begun_leaves_no_file(tmp_path: Path):
    """A refused run leaves nothing behind."""
    Journal(tmp_path / "journal.sqlite").close()
    assert list(tmp_path.iterdir()) == []


def test_the_header_of_the_file_names_its_format(journal: Journal):
    """By its application id, as `file` and others read it."""
    journal.close()
    assert journal.file.read_bytes()[68:72] == b"rowl"


def foreign(file: Path) -> None:
    """Make a database of another program."""
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE mine (x)")
    database.close()


def later(file: Path) -> None:
    """Make a journal of a later version."""
    journal = Journal(file)
    journal.begin(FACTS)
    journal._db.execute("PRAGMA user_version = 99")
    journal.close()


@pytest.mark.parametrize(
    "make", [foreign, later, lambda file: file.write_bytes(b"no database at all, but long enough to be read" * 50)]
)
def test_a_file_of_another_format_is_named_and_left_alone(tmp_path: Path, make: Callable[[Path], object]):
    """Not a byte of it is changed."""
    file = tmp_path / "journal.sqlite"
    make(file)
    before = file.read_bytes()
    with pytest.raises(rl.ResumeError, match=r"journal\.sqlite' is broken or not a journal: "):
        Journal(tmp_path / "journal.sqlite")
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["journal.sqlite"]


def test_a_journal_that_cannot_be_opened_is_named(tmp_path: Path):
    """A directory has its name, for example."""
    (tmp_path / "journal.sqlite").mkdir()
    with pytest.raises(rl.ResumeError, match=r"cannot open '.*journal\.sqlite': unable to open database file"):
        Journal(tmp_path / "journal.sqlite")


def test_a_journal_whose_pages_or_entries_are_broken_is_named(journal: Journal):
    """Whichever broken part is read first."""
    journal.write([(0, 0, 0, "x" * 100_000)], [], Spending())
    journal._db.execute("INSERT INTO entries VALUES (NULL, 1, 0, ?)", (b"\xc1 nothing of ours",))
    with pytest.raises(rl.ResumeError, match="has a record that rowloop did not write"):
        journal.recall(1)
    journal.close()
    data = bytearray(journal.file.read_bytes())
    data[4096:] = b"\xff" * len(data[4096:])
    journal.file.write_bytes(data)
    again = Journal(journal.file)
    with pytest.raises(rl.ResumeError, match=r"cannot read '.*journal\.sqlite': .*malformed"):
        _ = again.facts
    again.close()
    assert journal.file.exists()


def test_a_journal_that_cannot_be_written_raises_with_the_cause(journal: Journal):
    """With the stage and the cause."""
    journal._db.execute("PRAGMA query_only = ON")
    with pytest.raises(rl.DatasetGenerationError, match=r"cannot write journal\.sqlite: attempt to write") as caught:
        journal.write([(0, 0, 0, 1)], [], Spending())
    assert caught.value.stage == "journal"
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
