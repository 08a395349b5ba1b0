"""Earlier tables: what a dataset was before an update, set aside until the update has ended.

An update begins a new dataset in the directory of the old one. Before anything is changed, the old parts are linked
into `.rowloop/earlier/N/data`, beside a copy of the journal, and that folder gets its name when all of it is on the
disk. The new dataset then begins in the journal: until that moment, the folder is a copy of what is in force, and is
made again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..columns.sources.json_text import values_of
from ..core.errors import DatasetGenerationError, ResumeError
from ..core.row_groups import Earlier, Plan
from .directory import EARLIER, EARLIER_GONE, flush, part_files
from .journal import Journal
from .parts import note_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from .journal_records import Facts

_NEW: Final = ".new"
_OPEN_PARTS: Final = 4
"""The parts whose columns are kept in memory, as rows mostly stay where they are."""


def earlier_tables(path: Path, dataset: str | None) -> list[Path]:
    """Return the folders of earlier tables, the latest first; a copy of the dataset in force is none of them."""
    there = sorted((folder for folder in (path / EARLIER).glob("[0-9]*")), reverse=True)
    return [folder for folder in there if not folder.name.endswith(f"-{dataset}")]


def set_aside(path: Path, journal: Journal, dataset: str) -> None:
    """Keep the dataset in force, whole and on the disk, beside those of earlier updates that have not ended."""
    try:
        _set_aside(path, journal, dataset)
    except OSError as error:
        raise DatasetGenerationError(f"cannot keep the parts of '{path}': {error}", stage="write") from error


def forget_earlier(path: Path, dataset: str) -> None:
    """Remove the parts that the new dataset has not replaced, then the earlier tables."""
    for file in part_files(path).values():
        if _dataset_of(file) != dataset:
            file.unlink()
    flush(path / "data")
    gone = path / EARLIER_GONE
    shutil.rmtree(gone, ignore_errors=True)
    if (path / EARLIER).exists():
        (path / EARLIER).rename(gone)
        flush(gone.parent)
    shutil.rmtree(gone, ignore_errors=True)


def _set_aside(path: Path, journal: Journal, dataset: str) -> None:
    earlier = path / EARLIER
    new = earlier / _NEW
    shutil.rmtree(new, ignore_errors=True)
    for copy in earlier.glob(f"*-{dataset}"):
        shutil.rmtree(copy)
    (new / "data").mkdir(parents=True)
    for file in part_files(path).values():
        if _dataset_of(file) == dataset:
            _link(file, new / "data" / file.name)
    journal.copy(new / "journal.sqlite")
    for folder in (new / "data", new):
        flush(folder)
    number = 1 + max((int(folder.name.partition("-")[0]) for folder in earlier.glob("[0-9]*")), default=0)
    new.rename(earlier / f"{number:04d}-{dataset}")
    flush(earlier)
    flush(earlier.parent)


def _link(file: Path, to: Path) -> None:
    try:
        os.link(file, to)
    except OSError:  # a file system without links
        shutil.copyfile(file, to)
        with to.open("rb+") as copied:
            os.fsync(copied.fileno())


def _dataset_of(file: Path) -> str | None:
    try:
        note = note_of(pq.read_schema(file))
    except (OSError, pa.ArrowException):
        return None
    return None if note is None else note.dataset


class EarlierTable:
    """The cells of an earlier table, by its own column names and row numbers."""

    def __init__(self, folder: Path, journal: Journal, facts: Facts) -> None:
        """Find which rows are in which part; values are read when they are asked for."""
        self.facts = facts
        self.plan = Plan(max(facts.targets), facts.row_group_size, earlier=Earlier(tuple(facts.targets)))
        self._journal = journal
        self._ids = {one.name: i for i, one in enumerate(facts.definitions)}
        self._files = {n: f for n, f in part_files(folder).items() if _dataset_of(f) == facts.dataset}
        self._failed: dict[int, set[tuple[int, int]]] = {}
        for failure in journal.failures():
            rows = [failure.row] if failure.rows is None else failure.rows
            self._failed.setdefault(failure.row_group, set()).update((failure.column, row) for row in rows)
        cut = journal.cut()
        self._offsets = {
            group: self._offsets_of(group, file) for group, file in self._files.items() if group not in cut
        }
        self._open: OrderedDict[tuple[int, str], list[Any]] = OrderedDict()
        self._known: OrderedDict[int, dict[tuple[int, int], Any]] = OrderedDict()

    @property
    def rows(self) -> int:
        """How many rows the table was to have."""
        return self.plan.rows

    def written(self, column: str) -> Iterator[tuple[NDArray[np.int64], list[Any]]]:
        """Yield the values of a column that are in parts: row numbers, and a value for each."""
        for group, offsets in self._offsets.items():
            if offsets is not None and len(offsets):
                values = self._values(group, column)
                if values is not None:
                    yield offsets + self.plan.row(group, 0), values

    def there(self, column: str) -> NDArray[np.bool_]:
        """Return which rows have a value of a column, in a part or in the journal."""
        found, id_ = np.zeros(self.rows, dtype=np.bool_), self._ids[column]
        for group in range(self.plan.row_groups):
            first = self.plan.row(group, 0)
            offsets = self._offsets.get(group)
            if offsets is not None and column in self._names(group):
                found[first + offsets] = True
            found[[first + row for of, row in self._recalled(group) if of == id_ and row >= 0]] = True
            found[[first + row for of, row in self._failed.get(group, ()) if of == id_]] = False
        return found

    def value(self, column: str, row: int) -> Any:
        """Return a value that is there."""
        group = self._group(row)
        offset = row - self.plan.row(group, 0)
        known, id_ = self._recalled(group), self._ids[column]
        if (id_, offset) in known:
            return known[id_, offset]
        values, offsets = self._values(group, column), self._offsets.get(group)
        if values is None or offsets is None:
            raise LookupError(column)
        return values[int(np.searchsorted(offsets, offset))]

    def _group(self, row: int) -> int:
        low, high = 0, self.plan.row_groups - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.plan.row(middle, 0) <= row else (low, middle - 1)
        return low

    def _offsets_of(self, group: int, file: Path) -> NDArray[np.int64] | None:
        """Return the offsets of a part's rows in its row group; None where failures do not tell which are missing."""
        size, rows = self.plan.size(group), pq.read_metadata(file).num_rows
        if rows == size:
            return np.arange(size)
        gone = {row for _, row in self._failed.get(group, ())}
        left = np.array([row for row in range(size) if row not in gone], dtype=np.int64)
        return left if len(left) == rows else None

    def _names(self, group: int) -> list[str]:
        return list(pq.read_schema(self._files[group]).names)

    def _values(self, group: int, column: str) -> list[Any] | None:
        if (group, column) not in self._open:
            try:
                table = pq.read_table(self._files[group], columns=[column], partitioning=None)
            except (OSError, pa.ArrowException) as error:
                raise ResumeError(f"cannot read '{self._files[group]}': {error}") from error
            if not table.num_columns:
                return None
            self._open[group, column] = values_of(table.column(column), table.schema.field(column))
            while len(self._open) > _OPEN_PARTS * max(1, len(self._ids)):
                self._open.popitem(last=False)
        return self._open[group, column]

    def _recalled(self, group: int) -> dict[tuple[int, int], Any]:
        if group not in self._known:
            self._known[group] = self._journal.recall(group).values
            while len(self._known) > _OPEN_PARTS:
                self._known.popitem(last=False)
        return self._known[group]


@contextlib.contextmanager
def opened(path: Path, journal: Journal | None, dataset: str | None) -> Iterator[list[EarlierTable]]:
    """Open the earlier tables of a directory, the latest first; before them the one in force, given its journal."""
    with contextlib.ExitStack() as stack:
        found = []
        if journal is not None and journal.facts is not None:
            found.append(EarlierTable(path, journal, journal.facts))
        for folder in earlier_tables(path, dataset):
            copy = Journal(folder / "journal.sqlite")
            stack.callback(copy.close)
            if copy.facts is not None:
                found.append(EarlierTable(folder, copy, copy.facts))
        yield found
