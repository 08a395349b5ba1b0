"""Transfers: row groups on their way between the store and the sink. Each ends with the event that reports it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..core.errors import RowloopError
from ..core.events import CommitFailed, Committed, Halted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.events import Commit, Discard, Event
    from ..core.store import RowGroup, Store
    from ..datasets.sinks import RowGroupSink


class Transfers:
    """Moves the row groups of one run."""

    def __init__(self, store: Store, sink: RowGroupSink, fail: Callable[[BaseException], None]) -> None:
        """Take both ends; `fail` is called with an error that the run raises when everything in flight has ended."""
        self._store = store
        self._sink = sink
        self._fail = fail

    async def restore(self, group: RowGroup) -> Event:
        """Put the values of an earlier run into a row group."""
        try:
            return await self._sink.restore(group)
        except RowloopError as error:
            self._fail(error)
            return Halted("failed")

    async def commit(self, command: Commit) -> Event:
        """Write a row group and free its values."""
        event: Event = Committed(command.group)
        try:
            await self._sink.commit(self._store.groups[command.group], command.rows, command.tally)
        except BaseException as error:  # the run raises it, also what a callback raises to end the process
            if cancelled(error):
                raise
            self._fail(error)
            event = CommitFailed(command.group)
        self._store.free(command.group)
        return event

    def discard(self, command: Discard) -> None:
        """Free the values of a row group without rows to write."""
        self._store.free(command.group)
        self._sink.discard(command.group, command.tally)


def cancelled(error: BaseException) -> bool:
    """Return whether an error means that the current task is cancelled, and not that something it awaits was."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
