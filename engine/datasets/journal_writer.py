"""Journaling: the run's side of the journal. Nothing of it is done on the loop but noting what has ended."""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.errors import ResumeError
from ..core.events import WHOLE, Done, Restored
from .journal import KeptFailure, Over

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from ..core.events import Event, Record, Tally
    from ..core.store import RowGroup, Store
    from ..telemetry.failures import FailedCell
    from ..telemetry.spending import Spending
    from .claim import Claim
    from .journal import Entry, Known

T = TypeVar("T")

_DELAY = 0.03
"""Seconds for which what has ended is gathered, so that one transaction serves all of it."""


class Journaling:
    """Writes what ends in a run to its journal, in a thread, within a few hundredths of a second."""

    def __init__(
        self, place: Claim, kept: Collection[int] = (), rewriting: Mapping[int, Sequence[int]] | None = None
    ) -> None:
        """Take the columns whose values are kept, and those that change values of others (the before_batch processors).

        What comes of the latter is kept as well: another time they may make something else of the same values, and
        answers would stand beside what they are no answers to.
        """
        self._journal = place.journal
        self._kept = kept
        self._spending: Callable[[], Spending] | None = None
        self._rewriting = rewriting or {}
        self._entries: list[Entry] = []
        self._failures: list[KeptFailure] = []
        self._thread = ThreadPoolExecutor(1, "rowloop-journal")
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None

    def begin(self, store: Store, spending: Callable[[], Spending]) -> None:
        """Take where the values are, and who knows what the runs have spent so far."""
        self._store = store
        self._spending = spending

    def saw(self, event: Event) -> None:
        """Note a value; raises what went wrong with those before it."""
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
        self._schedule()

    def look(self) -> None:
        """Raise what went wrong with the journal, even if nothing more is to be noted for long."""
        self._raise()

    def recorded(self, record: Record, group: RowGroup) -> None:
        """Learn nothing: `keep` is told of failures with what the table says of them."""

    def keep(self, record: Record, lines: list[FailedCell], final: bool) -> None:  # noqa: FBT001 - nothing else is told
        """Note a failure; no later run tries it again by itself if it is `final`."""
        rows = None if record.rows is None else list(record.rows)
        self._failures.append(KeptFailure(record.group, record.column, record.row, rows, final, lines))
        self._schedule()

    async def flush(self) -> None:
        """Have everything noted so far written, and what was spent; raises DatasetGenerationError if that fails."""
        self._write(always=True)
        await self._call(lambda: None)

    async def restore(self, group: RowGroup) -> Restored:
        """Put what the journal has of a row group into it."""
        known = await self._call(functools.partial(self._journal.recall, group.id))
        try:
            return _restored(group, known)
        except (LookupError, TypeError, ValueError) as error:
            problem = f"'{self._journal.file}' does not fit the recipe in row group {group.id}: {error!r}"
            raise ResumeError(problem) from error

    async def mark_writing(self, group: int, tally: Tally, *, again: bool) -> None:
        """Note what the part to be written will be: the row group's last, or one to be replaced by a later run.

        `again`: there is one already, from which the new one could not be told if this process came to its end now.
        """
        if tally.cut or again:
            await self._call(functools.partial(self._journal.mark_cut, group))
        else:
            await self._call(functools.partial(self._journal.mark_writing, group, tally))

    async def mark_over(self, group: int, tally: Tally, written: int) -> None:
        """Note that nothing of a row group is left to be done."""
        await self._call(functools.partial(self._journal.mark_over, group, Over(tally, written)))

    def over(self, group: int, tally: Tally) -> None:
        """Note the same of one without a part, without waiting for it."""
        self._write()
        self._post(functools.partial(self._journal.mark_over, group, Over(tally, 0)))

    async def mark_rewriting(self, parts: list[int]) -> None:
        """Note that the parts are about to be replaced by others, of so many rows."""
        await self._call(functools.partial(self._journal.mark_rewriting, parts))

    def close(self) -> None:
        """Write what there is, and let go of the thread and the journal."""
        self._write()
        self._thread.shutdown()
        self._journal.close()

    # How

    def _schedule(self) -> None:
        self._raise()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_DELAY, self._write)

    def _write(self, *, always: bool = False) -> None:
        """Hand what was noted to the thread."""
        self._stop_timer()
        entries, failures = self._entries, self._failures
        if self._spending is not None and (entries or failures or always):
            self._entries, self._failures = [], []
            self._post(functools.partial(self._journal.write, entries, failures, self._spending()))

    def _post(self, work: Callable[[], None]) -> None:
        """Have the thread do something after all else; what goes wrong is raised at the next occasion."""
        self._thread.submit(self._guarded, work)

    def _guarded(self, work: Callable[[], None]) -> None:
        if self._error is None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - `_raise` does
                self._error = error

    async def _call(self, work: Callable[[], T]) -> T:
        answer = await asyncio.get_running_loop().run_in_executor(self._thread, work)
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
    """Put values into a row group; raises LookupError, TypeError or ValueError for what does not fit it."""
    cells, wholes = [], {}
    for (column, row), value in known.values.items():
        if isinstance(value, dict) and row == WHOLE:
            wholes[column] = group.size
            for rewritten, values in value.items():
                wholes[rewritten], group.values[rewritten] = _of_all(group, [group.size, values])
        elif row == WHOLE:
            wholes[column], group.values[column] = _of_all(group, value)
        else:
            group.values[column][row] = value
            cells.append((column, row))
    return Restored(group.id, cells, wholes, [(failed.column, failed.row, failed.rows) for failed in known.failures])


def _of_all(group: RowGroup, value: Any) -> tuple[int, list[Any]]:
    """Take a whole column's value apart: rows worked, and a value for each row."""
    worked, values = value
    if len(values) != group.size:
        raise ValueError(f"{len(values)} values for {group.size} rows")
    return worked, values
