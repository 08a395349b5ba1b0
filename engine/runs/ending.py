"""Ending: how a run ended, as its status, its reason, its error and the last record in its log."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ...runtime.logs import safe_logger
from ..core.errors import DatasetGenerationError, EarlyShutdownError, Option, RowloopError, one_line
from ..datasets.directory import shown
from ..datasets.result import PartialDatasetError
from ..models.prices import dollars

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.events import Reason, Record
    from ..core.tracker import Tracker
    from ..datasets.metadata import Status
    from ..datasets.result import Result
    from ..telemetry.report import Report

logger = safe_logger()


def status_of(tracker: Tracker, reason: Reason | None) -> Status:
    """Return the status of a run that did not fail.

    It is complete if every row was worked to its end, also where processors removed rows then.
    """
    if reason == "cancelled":
        return "cancelled"
    totals = tracker.totals
    all_over = reason is None or (reason in {"budget", "deadline"} and every_row_is_over(tracker))
    return "complete" if all_over and not (totals.dropped or totals.cut_short) else "partial"


def every_row_is_over(tracker: Tracker) -> bool:
    """Return whether nothing is left that a later run could work, except failures that it retries."""
    return not tracker.totals.cut_short and tracker.totals.groups_over == tracker.plan.row_groups


def error_of(
    tracker: Tracker, reason: Reason | None, first: Record | None, *, rows: int, deadline: float | None = None
) -> DatasetGenerationError | None:
    """Return the error of a run whose scheduler has finished; None if the run did not fail.

    `first` is the first failure of a cell, `rows` the number of rows in the dataset.
    """
    error: DatasetGenerationError
    if reason == "failed" and first is not None:
        column = tracker.graph.columns[first.column].name
        found = first.failure.cause
        if isinstance(found, DatasetGenerationError) and (found.column, found.row_group) == (column, first.group):
            return found  # it has the place already
        error = DatasetGenerationError(first.failure.message, stage="column", column=column, row_group=first.group)
    elif not (tracker.totals.committed or rows) and reason != "cancelled":
        parts = _early(tracker, deadline)
        why = ("; ", *parts) if parts else ()
        cause = () if first is None else (f"; {_described(tracker, first)}",)
        error = EarlyShutdownError("no row was completed", *why, *cause)
    else:
        return None
    error.__cause__ = None if first is None else first.failure.cause
    return error


def _described(tracker: Tracker, record: Record) -> str:
    column, failure = tracker.graph.columns[record.column].name, record.failure
    return f"the first failure was in column '{column}': {failure.error}: {failure.message}"


def _early(tracker: Tracker, deadline: float | None = None) -> tuple[str | Option, ...]:
    """Return which limit ended a run early, as parts of a message that begin with its name; nothing if none did."""
    exhausted, cost = tracker.exhausted, tracker.cost
    if tracker.halted == "early_shutdown" and exhausted is not None:
        failed, of = exhausted.failures, exhausted.outcomes
        cells = f"all {of}" if failed == of else f"{failed} of the last {of}"
        return (f"error budget: {cells} cells of column '{tracker.graph.columns[exhausted.column].name}' failed",)
    if tracker.halted == "budget" and cost is not None and cost.max_cost is not None and cost.dollars >= cost.max_cost:
        return Option("max_cost"), f": {dollars(cost.dollars)} of {dollars(cost.max_cost)} is spent"
    if tracker.halted == "budget" and cost is not None and cost.max_tokens is not None:
        return Option("max_tokens_total"), f": {cost.tokens:,} of {cost.max_tokens:,} tokens are spent"
    if tracker.halted == "deadline":
        return Option("deadline"), f": {deadline or 0:g} s are over"
    if tracker.halted == "outage" and tracker.outage is not None:
        lane, seconds = tracker.outage
        return Option("outage_after"), f": {lane} has been down for {seconds:.0f} s"
    return ()


def reason_text(
    tracker: Tracker, status: Status, error: BaseException | None, first: Record | None, deadline: float | None
) -> str | None:
    """Return why a run ended before every row was worked; None for one that is running or has worked every row.

    The word before the first colon is "error budget", "max_cost", "max_tokens_total", "deadline", "outage_after",
    "cancelled" or "failed".
    """
    if status == "running":
        return None
    if status == "cancelled":
        by = "" if error is None else next((f": {arg}" for arg in error.args if isinstance(arg, str)), "")
        return f"cancelled{by}"
    if early := "".join(map(str, _early(tracker, deadline))):
        cause = f"; {_described(tracker, first)}" if first is not None and tracker.halted == "early_shutdown" else ""
        return None if status != "failed" and every_row_is_over(tracker) else one_line(early + cause)
    if status != "failed" or (isinstance(error, EarlyShutdownError) and every_row_is_over(tracker)):
        return None
    return one_line(
        f"failed: {error}" if isinstance(error, RowloopError) else f"failed: {type(error).__name__}: {error}"
    )


def ending_word(tracker: Tracker) -> str | None:
    """Return the first word of the reason of a run that is ending before every row is worked; None for any other."""
    if tracker.halted is None or every_row_is_over(tracker):
        return None
    return "".join(map(str, _early(tracker))).partition(":")[0] or tracker.halted


def error_text(error: BaseException | None) -> str | None:
    """Return an error as metadata.json and the report have it; a cancellation is not an error."""
    if error is None or isinstance(error, asyncio.CancelledError):
        return None
    return f"{type(error).__name__}: {error}"


def check_completion(result: Result, tracker: Tracker, min_completion: float | None) -> Result:
    """Return the result; raises PartialDatasetError if too few rows were completed."""
    if min_completion is not None and tracker.totals.committed < min_completion * tracker.plan.rows:
        raise PartialDatasetError(result, min_completion)
    return result


def log_end(report: Report, path: Path | None, advice: str) -> None:
    """Log the report, the directory and how to resume: the last record of a run, however it ends."""
    level = logging.INFO if report.status == "complete" else logging.WARNING
    logger.log(level, "%s%s", report, "" if path is None else f"\n  written to {shown(path)}{advice}")


def advice_of(tracker: Tracker, path: Path | None) -> str:
    """Return the call that makes the missing rows, as a line of the log; nothing if no row is missing.

    After an early end, the line begins with what ended the run.
    """
    place = None if path is None else shown(path)
    call = f'build("{place}", {tracker.plan.rows}, resume="always"'
    if every_row_is_over(tracker):
        return f"\n  to retry what failed: {call}, retry_failed=True)" if tracker.totals.dropped else ""
    early = "".join(map(str, _early(tracker))).partition(":")[0]
    hints = {
        "budget": f" with a larger {early}",
        "early_shutdown": ", or with retry_failed=True to retry the failed cells as well",
    }
    hint = hints.get(tracker.halted or "", "")
    return f"\n  {f'ended early by {early}; ' if early else ''}to resume: {call}){hint}"
