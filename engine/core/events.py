"""Events and commands: what happened in a run, and what the shell must do next.

Events go into the tracker, commands come out of it; both are plain values. A task is one cell (row group, column, row),
or a whole column of a row group, with `row=WHOLE`. All are msgspec structs: the cheapest frozen objects to make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WHOLE: Final = -1
"""The row of a task that is a whole column."""


class IllegalEventError(Exception):
    """An event that does not fit the state of the run: a fault of the shell, not of a row. Nothing has changed."""


class Failure(msgspec.Struct, frozen=True):
    """Why an attempt failed, as far as it matters for what to do next. `retry_after` is in seconds."""

    error: str
    message: str
    retryable: bool = False
    retry_after: float | None = None
    fatal: bool = False
    """Every other cell of this column would fail for the same reason, so the run ends."""
    rate_limited: bool = False
    verdict: bool = False
    """A rejected row: the column works as intended, so this does not count towards the error budget."""
    cause: BaseException | None = None
    kind: str | None = None
    """The FailureKind of a model's error; None for any other."""


class Billing(msgspec.Struct, frozen=True, gc=False):
    """What the price of a request depends on beside its numbers of tokens, as the endpoint reports it.

    `cached_tokens` were read from a cache and `cache_write_tokens` were written to one, for an hour in the case of
    `cache_write_1h_tokens`; all are among the prompt's tokens. `reasoning_tokens` are among the completion's.
    `searches` counts web searches. `terms` are the terms of service that the answer states, such as
    ("service_tier", "flex"). `billed` is the bill itself in US dollars, where the endpoint states it.
    """

    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    searches: int = 0
    terms: tuple[tuple[str, str], ...] = ()
    billed: float | None = None


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What an attempt used: tokens, and the seconds that the model took.

    Without tokens of a prompt, the number of tokens is unknown: the endpoint has not reported it. An attempt that was
    refused, or not sent at all, has no usage.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    billing: Billing | None = None


UNKNOWN_USAGE: Final = Usage()
"""The usage of a request that was sent and may have to be paid, but of which no answer with its tokens arrived."""


Reason: TypeAlias = Literal["cancelled", "early_shutdown", "budget", "deadline", "outage", "failed"]
"""Why a run ended early. "budget": its budget of dollars or tokens was spent; "deadline": its time is over; "outage":
an endpoint was down for too long."""


class Tally(msgspec.Struct, frozen=True):
    """How a row group ended: the number of whole rows, of rows dropped by failures, and each column's cells.

    `columns` are (completed, failed, skipped), in the order of the graph's. `cut`: rows were also lost because the run
    was halted; a later run can still work them.
    """

    live: int
    dropped: int
    columns: tuple[tuple[int, int, int], ...]
    cut: bool = False


NO_TALLY: Final = Tally(0, 0, ())


class Started(msgspec.Struct, frozen=True):
    """The run begins."""


class Restored(msgspec.Struct, frozen=True):
    """The values that an earlier run had of a row group are in the store again.

    `cells` are the cells that were done. `wholes` maps the whole columns that were done to the number of rows they were
    worked for. `failed` are the tasks that failed for good, as (column, row, rows), with the `rows` of Record. `sizes`
    are the bytes of the values, by column.
    """

    group: int
    cells: list[tuple[int, int]]
    wholes: dict[int, int]
    failed: list[tuple[int, int, list[int] | None]]
    sizes: dict[int, int] = {}


class Done(msgspec.Struct, frozen=True, gc=False):
    """A task is done, and its value is in the store; a whole column has values for `rows` rows.

    `size` is by how many bytes the values in the store have grown.
    """

    group: int
    column: int
    row: int
    usage: Usage | None = None
    size: int = 0
    rows: int | None = None


class Resized(msgspec.Struct, frozen=True, gc=False):
    """A whole column is done, and has changed the number of rows of its row group (sequential engine).

    `size` is by how many bytes the values in the store have grown.
    """

    group: int
    column: int
    rows: int
    row: int = WHOLE
    size: int = 0


class Failed(msgspec.Struct, frozen=True):
    """An attempt at a task failed."""

    group: int
    column: int
    row: int
    failure: Failure
    usage: Usage | None = None


class Cancelled(msgspec.Struct, frozen=True, gc=False):
    """A task in flight was cancelled, as Cancel asked."""

    group: int
    column: int
    row: int


class Due(msgspec.Struct, frozen=True, gc=False):
    """The wait before a task's next attempt is over."""

    group: int
    column: int
    row: int


class Slow(msgspec.Struct, frozen=True, gc=False):
    """A cell in flight takes much longer than others of its column: a second request may be faster."""

    group: int
    column: int
    row: int


class HedgeEnded(msgspec.Struct, frozen=True):
    """One of the two requests of a hedged cell has ended, or was cancelled because the other has an answer.

    It comes before the outcome of the cell, which is that of the other request. `failure` is None for one that was
    cancelled; its `usage` is then an estimate, as the endpoint reports none. `won`: the other one, whose outcome the
    cell has, is the second request.
    """

    group: int
    column: int
    row: int
    failure: Failure | None = None
    usage: Usage | None = None
    won: bool = False


class Committed(msgspec.Struct, frozen=True, gc=False):
    """A row group is safe in the sink."""

    group: int


class CommitFailed(msgspec.Struct, frozen=True, gc=False):
    """The sink could not write a row group; its rows are lost to this run."""

    group: int


class Halted(msgspec.Struct, frozen=True):
    """The run must end: it was cancelled, or something other than a task failed (an observer, the engine itself)."""

    reason: Reason


class Woken(msgspec.Struct, frozen=True, gc=False):
    """A lane may be able to send again: its timer went off, or another run has freed permits that they share."""

    lane: int


class Paused(msgspec.Struct, frozen=True, gc=False):
    """Nothing new may start: tasks in flight end, and no lane starts another until the run is resumed."""


class Resumed(msgspec.Struct, frozen=True, gc=False):
    """The run is no longer paused."""


class Limited(msgspec.Struct, frozen=True, gc=False):
    """The most tasks of a lane that may be in flight are changed; a limit that adapts stays below."""

    lane: int
    limit: int


class Budgeted(msgspec.Struct, frozen=True):
    """The budget is another one: as CostBudget, with what has been spent so far."""

    max_cost: float | None
    max_tokens: int | None
    prices: Mapping[int, Callable[[Usage], float | None]]
    dollars: float
    tokens: int


Steering: TypeAlias = Halted | Paused | Resumed | Limited | Budgeted
"""What comes from outside, at any time."""

Event: TypeAlias = (
    Started
    | Restored
    | Done
    | Resized
    | Failed
    | Cancelled
    | Due
    | Slow
    | HedgeEnded
    | Committed
    | CommitFailed
    | Woken
    | Steering
)


class Admit(msgspec.Struct, frozen=True, gc=False):
    """Make room for a row group: rows `start` to `start + rows` of the run.

    `known`: an earlier run has begun it. Put the values it had into the store, and answer with `Restored`.
    """

    group: int
    start: int
    rows: int
    known: bool = False


class Execute(msgspec.Struct, frozen=True, gc=False):
    """Work a task now; a whole column for `rows`, the live ones."""

    group: int
    column: int
    row: int
    rows: range | list[int] | None = None


class Hedge(msgspec.Struct, frozen=True, gc=False):
    """Send a second request for a cell in flight; answer with HedgeEnded as soon as one of the two has ended."""

    group: int
    column: int
    row: int


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
    """Store None for this task: it failed, and its column has on_error="null"."""

    group: int
    column: int
    row: int


class Record(msgspec.Struct, frozen=True):
    """Record a task that failed for good: a line of the failures table, or one for each of a whole column's `rows`."""

    group: int
    column: int
    row: int
    failure: Failure
    attempts: int
    rows: range | list[int] | None = None


class Commit(msgspec.Struct, frozen=True):
    """Hand the live rows of a finished row group to the sink. `rows` are ascending offsets into the group."""

    group: int
    rows: range | list[int]
    tally: Tally = NO_TALLY


class Discard(msgspec.Struct, frozen=True):
    """Free a row group of which nothing is written: no row is left, or the run has failed.

    `tally` is None if a later run can still work some of it.
    """

    group: int
    tally: Tally | None = None


class BudgetLow(msgspec.Struct, frozen=True):
    """Warn that much of a budget is spent: US dollars of `max_cost`, or tokens of `max_tokens_total`."""

    option: Literal["max_cost", "max_tokens_total"]
    spent: float
    limit: float


class Cancel(msgspec.Struct, frozen=True):
    """Cancel every task in flight and every timer; answer with `Cancelled` for each task."""


class Stop(msgspec.Struct, frozen=True):
    """Nothing is in flight and nothing is left to do. `reason` is None unless the run was ended early."""

    reason: Reason | None


Command: TypeAlias = (
    Admit | Execute | Hedge | RunAfter | Wake | Null | Record | Commit | Discard | BudgetLow | Cancel | Stop
)
