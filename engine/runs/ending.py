"""Ending: how a run ended, as its status, its error and the last record in its log."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..core.errors import DatasetGenerationError, EarlyShutdownError, Option
from ..datasets.directory import shown
from ..datasets.result import PartialDatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.events import Reason, Record
    from ..core.tracker import Tracker
    from ..datasets.metadata import Status
    from ..datasets.result import Result
    from ..telemetry.report import Report

logger = logging.getLogger("rowloop")


def status_of(tracker: Tracker, reason: Reason | None) -> Status:
    """Return the status of a run that did not fail.

    It is complete if every row was worked to its end, also where processors removed rows then.
    """
    if reason == "cancelled":
        return "cancelled"
    totals = tracker.totals
    all_over = reason is None or (reason == "budget" and totals.groups_over == tracker.plan.row_groups)
    return "complete" if all_over and not (totals.dropped or totals.cut_short) else "partial"


def error_of(
    tracker: Tracker, reason: Reason | None, first: Record | None, *, rows: int
) -> DatasetGenerationError | None:
    """Return the error of a run whose scheduler has finished; None if the run did not fail.

    `first` is the first failure of a cell, `rows` the number of rows in the dataset.
    """
    column = None if first is None else tracker.graph.columns[first.column].name
    error: DatasetGenerationError
    if reason == "failed" and first is not None:
        found = first.failure.cause
        if isinstance(found, DatasetGenerationError) and (found.column, found.row_group) == (column, first.group):
            return found  # it has the place already
        error = DatasetGenerationError(first.failure.message, stage="column", column=column, row_group=first.group)
    elif not (tracker.totals.committed or rows) and reason != "cancelled":
        budget = ("; ", Option("max_cost"), " or ", Option("max_tokens_total"), " is spent")
        cause = () if first is None else (f"; the first failure was in column '{column}': ", _described(first))
        error = EarlyShutdownError("no row was completed", *(budget if reason == "budget" else ()), *cause)
    else:
        return None
    error.__cause__ = None if first is None else first.failure.cause
    return error


def _described(record: Record) -> str:
    return f"{record.failure.error}: {record.failure.message}"


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
    """Return the call that makes the missing rows, as a line of the log; nothing if no row is missing."""
    totals, plan = tracker.totals, tracker.plan
    place = None if path is None else shown(path)
    call = f'build("{place}", {plan.rows}, resume="always"'
    if totals.cut_short or totals.groups_over < plan.row_groups:
        return f"\n  to resume: {call})"
    return f"\n  to retry what failed: {call}, retry_failed=True)" if totals.dropped else ""
