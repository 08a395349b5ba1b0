"""The journal writer: sends what ends in a run to its journal. The loop only collects it; a thread writes."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ...runtime.one_thread import OneThread
from ..columns.sizes import size_of
from ..core.errors import ResumeError
from ..core.events import WHOLE, Done, Restored
from .journal_records import KeptFailure, Over
from .kept import kept_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from ..core.events import Event, Record, Tally
    from ..core.store import RowGroup, Store
    from ..telemetry.failures import FailedCell
    from ..telemetry.spending import Spending
    from .journal import Journal
    from .journal_records import Entry, Kept, Known
    from .parts import Stamp

T = TypeVar("T")

_DELAY: Final = 0.01
"""Seconds for which ended tasks are collected, so that one transaction writes all of them."""

_BETWEEN: Final = 0.1
"""Seconds between two notes of what the run has spent."""

_MOST_BYTES: Final = 1024**2
"""Bytes of values that are written without waiting any longer: they are encoded as one."""


class JournalWriter:
    """Writes what ends in a run to its journal, in a thread, within a few hundredths of a second; an observer."""

    check_seconds: Final = 0.5
    """How often `check` should be called."""

    def __init__(
        self, journal: Journal, kept: Collection[int] = (), rewriting: Mapping[int, Sequence[int]] | None = None
    ) -> None:
        """Take the columns whose values are kept, and the columns that each before_batch node changes.

        The values that before_batch makes are kept as well: run again, it may make others from the same input, and the
        kept answers would no longer belong to them.
        """
        self.journal = journal
        self._kept = kept
        self._spending: Callable[[], Spending] | None = None
        self._rewriting = rewriting or {}
        self._entries: list[Entry] = []
        self._bytes = 0
        self._due = self._spending_due = 0.0
        self._failures: list[KeptFailure] = []
        self._thread = OneThread("rowloop-journal")
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None

    def begin(self, store: Store, spending: Callable[[], Spending]) -> None:
        """Take the store with the values, and a function that returns what the runs have spent so far."""
        self._store = store
        self._spending = spending

    def on_event(self, event: Event) -> None:
        """Collect a value; raises the error of an earlier write."""
        if type(event) is not Done:
            return
        if event.column in self._kept:
            values = self._store.groups[event.group].values[event.column]
            value = [event.rows, values] if event.row == WHOLE else values[event.row]
        elif event.column in self._rewriting:
            values = self._store.groups[event.group].values
            value = {column: list(values[column]) for column in self._rewriting[event.column]}
        else:
            return
        self._entries.append((event.group, event.column, event.row, value))
        self._bytes += event.size
        if self._bytes > _MOST_BYTES or (self._timer is not None and time.monotonic() > self._due):
            self._write()  # a busy loop comes to its timers late
        else:
            self._schedule()

    def keep(self, record: Record, lines: list[FailedCell], final: bool) -> None:  # noqa: FBT001 - see FailureTable.keep
        """Collect a failure with its lines of the failures table."""
        rows = None if record.rows is None else list(record.rows)
        self._failures.append(KeptFailure(record.group, record.column, record.row, rows, final, lines))
        self._schedule()

    def fail(self, error: Exception) -> None:
        """Write nothing more, and raise this error on the next occasion; from any thread."""
        self._error = self._error or error

    def check(self) -> None:
        """Raise the error of an earlier write, also where no event comes for a long time."""
        self._raise()

    async def flush(self, *, shrinking: bool = False) -> None:
        """Write everything collected so far, and the spending; raises DatasetGenerationError if that fails.

        `shrinking`: give back the space of what was deleted.
        """
        self._write(always=True)
        await self._call(self.journal.shrink if shrinking else lambda: None)

    async def restore(self, group: RowGroup) -> Restored:
        """Put the journal's values of a row group into it."""
        known = await self._call(functools.partial(self.journal.recall, group.id))
        try:
            return _restored(group, known)
        except (LookupError, TypeError, ValueError) as error:
            problem = f"'{self.journal.file}' does not fit the recipe in row group {group.id}: {error!r}"
            raise ResumeError(problem) from error

    async def mark_writing(self, group: int, tally: Tally, *, again: bool) -> None:
        """Note whether the part about to be written will finish its row group, or a later run must replace it.

        `again`: the row group has a part already. After a crash at this moment, the old part looks like the new one, so
        the new one counts as cut until it is written.
        """
        if tally.cut or again:
            await self._call(functools.partial(self.journal.mark_cut, group))
        else:
            await self._call(functools.partial(self.journal.mark_writing, group, tally))

    async def settle(self) -> None:
        """Wait until everything that was posted is written; raises DatasetGenerationError if that fails."""
        await self._call(lambda: None)

    def forget_checksums(self, groups: Sequence[int]) -> None:
        """Note that the files of parts are about to change; waits, in another thread than the loop's."""
        work = functools.partial(self.journal.set_checksums, dict.fromkeys(groups), durable=True)
        self._thread.run(functools.partial(self._guarded, work))

    def post_checksums(self, known: Mapping[int, tuple[str, Stamp]]) -> None:
        """Note the checksums of parts that have changed; does not wait."""
        self._post(functools.partial(self.journal.set_checksums, known))

    def post_over(self, group: int, over: Over) -> None:
        """Note, from any thread, that nothing is left to do in a row group whose entries are written; does not wait."""
        self._post(functools.partial(self.journal.mark_over, group, over))

    def post_discarded(self, group: int, tally: Tally) -> None:
        """Note that nothing is left to do in a row group without a part; does not wait."""
        self._write()
        self.post_over(group, Over(tally, 0))

    async def retire(self) -> Kept | None:
        """Return what to keep of a journal that is not needed any more; None where it is."""
        await self.flush()
        return await self._call(lambda: kept_of(self.journal))

    async def mark_rewriting(self, parts: list[int]) -> None:
        """Note that other parts, with these numbers of rows, are about to replace the existing ones."""
        await self._call(functools.partial(self.journal.mark_rewriting, parts))

    def close(self) -> None:
        """Write the rest and end the thread."""
        self._write()
        self._thread.close()

    def _schedule(self) -> None:
        self._raise()
        if self._timer is None:
            self._due = time.monotonic() + _DELAY
            self._timer = asyncio.get_running_loop().call_later(_DELAY, self._write)

    def _write(self, *, always: bool = False) -> None:
        """Hand everything collected to the thread."""
        self._stop_timer()
        entries, failures = self._entries, self._failures
        if self._spending is not None and (entries or failures or always):
            self._entries, self._failures, self._bytes = [], [], 0
            now, spending = time.monotonic(), None
            if always or failures or now > self._spending_due:
                self._spending_due, spending = now + _BETWEEN, self._spending()
            self._post(functools.partial(self.journal.write, entries, failures, spending))

    def _post(self, work: Callable[[], None]) -> None:
        """Queue work for the thread; its error is raised on the next occasion."""
        self._thread.post(functools.partial(self._guarded, work))

    def _guarded(self, work: Callable[[], None]) -> None:
        if self._error is None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - `_raise` raises it
                self._error = error

    async def _call(self, work: Callable[[], T]) -> T:
        answer = await self._thread.call(work)
        self._raise()
        return answer

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _restored(group: RowGroup, known: Known) -> Restored:
    """Put values into a row group; raises LookupError, TypeError or ValueError for those that do not fit."""
    cells, wholes = [], {}
    for (column, row), value in known.values.items():
        if isinstance(value, dict) and row == WHOLE:
            wholes[column] = group.size
            for rewritten, values in value.items():
                wholes[rewritten], group.values[rewritten] = _whole(group, [group.size, values])
        elif row == WHOLE:
            wholes[column], group.values[column] = _whole(group, value)
        else:
            group.values[column][row] = value
            cells.append((column, row))
    failed = [(failure.column, failure.row, failure.rows) for failure in known.failures]
    sizes: Counter[int] = Counter()
    for (column, _), value in known.values.items():
        sizes[column] += size_of(value)
    return Restored(group.id, cells, wholes, failed, sizes)


def _whole(group: RowGroup, value: Any) -> tuple[int, list[Any]]:
    """Split the record of a whole column: the rows worked, and a value for each row."""
    worked, values = value
    if len(values) != group.size:
        raise ValueError(f"{len(values)} values for {group.size} rows")
    return worked, values
