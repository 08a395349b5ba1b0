"""What happened in a run, and what is to be done about it.

Events go into the tracker, commands come out of it; both are plain values. A task is one cell, (row group, column,
row), or a whole column of a row group, with `row=WHOLE`. They are msgspec structs: the cheapest frozen objects to make.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

WHOLE: Final = -1
"""Stands in for the row where a column is worked whole."""


class IllegalEventError(Exception):
    """An event that does not fit the state of the run: a fault of the shell, not of a row. Nothing has changed."""


class Failure(msgspec.Struct, frozen=True):
    """Why an attempt failed, as far as deciding goes. Times are in seconds."""

    error: str
    message: str
    retryable: bool = False
    retry_after: float | None = None
    fatal: bool = False
    """Every other cell of this column would fail for the same reason, so the run ends."""
    rate_limited: bool = False
    verdict: bool = False
    """The work was done, and finds that the row is not to be kept: no sign that the column is broken."""
    cause: BaseException | None = None


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What an attempt cost, in tokens and in seconds that the model took."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


Reason: TypeAlias = Literal["cancelled", "early_shutdown", "budget", "failed"]
"""Why a run ended early; "budget": what it may cost was spent."""


class Tally(msgspec.Struct, frozen=True):
    """What came of a row group: rows that are whole, rows that failures took out, and each column's cells.

    `columns` are (completed, failed, skipped), in the order of the graph's. `cut`: it also lost rows because the run
    was halted, and these can still be worked.
    """

    live: int
    dropped: int
    columns: tuple[tuple[int, int, int], ...]
    cut: bool = False


NO_TALLY: Final = Tally(0, 0, ())


class Started(msgspec.Struct, frozen=True):
    """The run begins."""


class Restored(msgspec.Struct, frozen=True):
    """What an earlier run had of a row group is in the store again: its values, but for those that failed.

    `cells` are tasks that were done; `wholes` maps whole columns that were to the number of rows they were worked for;
    `failed` are tasks that failed for good, as (column, row, rows) in the way of Record.
    """

    group: int
    cells: list[tuple[int, int]]
    wholes: dict[int, int]
    failed: list[tuple[int, int, list[int] | None]]


class Done(msgspec.Struct, frozen=True, gc=False):
    """A task has its value, which the shell has stored; a whole column that of each of so many `rows`."""

    group: int
    column: int
    row: int
    usage: Usage | None = None
    rows: int | None = None


class Resized(msgspec.Struct, frozen=True, gc=False):
    """A whole column has its values, and its row group has another number of rows now (sequential engine)."""

    group: int
    column: int
    rows: int
    row: int = WHOLE


class Failed(msgspec.Struct, frozen=True):
    """An attempt at a task failed."""

    group: int
    column: int
    row: int
    failure: Failure
    usage: Usage | None = None


class Cancelled(msgspec.Struct, frozen=True, gc=False):
    """A task in flight was cancelled on our command."""

    group: int
    column: int
    row: int


class Due(msgspec.Struct, frozen=True, gc=False):
    """The wait before a task's next attempt is over."""

    group: int
    column: int
    row: int


class Committed(msgspec.Struct, frozen=True, gc=False):
    """A row group is safe in the sink."""

    group: int


class CommitFailed(msgspec.Struct, frozen=True, gc=False):
    """The sink could not take a row group; its rows are lost to this run."""

    group: int


class Halted(msgspec.Struct, frozen=True):
    """The run must end: someone cancelled it, or something other than a task broke (an observer, the engine itself)."""

    reason: Reason


class Woken(msgspec.Struct, frozen=True, gc=False):
    """The wait after which a lane may send again is over."""

    lane: int


Event: TypeAlias = (
    Started | Restored | Done | Resized | Failed | Cancelled | Due | Committed | CommitFailed | Woken | Halted
)


class Admit(msgspec.Struct, frozen=True, gc=False):
    """Make room for a row group: rows `start` to `start + rows` of the run.

    `known`: an earlier run has begun it; put what it had of it into the store, and answer with `Restored`.
    """

    group: int
    start: int
    rows: int
    known: bool = False


class Execute(msgspec.Struct, frozen=True, gc=False):
    """Work a task now. A whole column is worked for `rows`, the live ones."""

    group: int
    column: int
    row: int
    rows: range | list[int] | None = None


class RunAfter(msgspec.Struct, frozen=True, gc=False):
    """Send `Due` for this task in `delay` seconds."""

    delay: float
    group: int
    column: int
    row: int


class Wake(msgspec.Struct, frozen=True, gc=False):
    """Send `Woken` for this lane in `delay` seconds."""

    delay: float
    lane: int


class Null(msgspec.Struct, frozen=True, gc=False):
    """Store no value for this task: it failed, and its column says on_error="null"."""

    group: int
    column: int
    row: int


class Record(msgspec.Struct, frozen=True):
    """A task failed for good: one line of the failures table; for a whole column, one for each of `rows`."""

    group: int
    column: int
    row: int
    failure: Failure
    attempts: int
    rows: range | list[int] | None = None


class Commit(msgspec.Struct, frozen=True):
    """Hand the live rows of a finished row group to the sink. `rows` are offsets into the group, ascending."""

    group: int
    rows: range | list[int]
    tally: Tally = NO_TALLY


class Discard(msgspec.Struct, frozen=True):
    """Free a row group of which nothing is to be written: no row is left, or the run has failed.

    `tally` is None where there is still something to be worked in it.
    """

    group: int
    tally: Tally | None = None


class Cancel(msgspec.Struct, frozen=True):
    """Cancel every task in flight and every timer; answer with `Cancelled` for each task."""


class Stop(msgspec.Struct, frozen=True):
    """Nothing is in flight and nothing is left to do. `reason` is None when the run went to its end."""

    reason: Reason | None


Command: TypeAlias = Admit | Execute | RunAfter | Wake | Null | Record | Commit | Discard | Cancel | Stop
