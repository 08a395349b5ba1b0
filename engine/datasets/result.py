"""Result: the return value of a run. What metadata.json has as well is read from the metadata, here and only here."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from ..core.errors import DatasetGenerationError, Option, RecipeError
from .directory import FAILURES, path_of, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

    from ..core.limits.adaptive_limit import Change
    from ..telemetry.report import Report
    from ..telemetry.spending import Spent, StructuredCounts
    from ..telemetry.traces import TaskTrace, Traces
    from .metadata import Metadata, Status


class Rows(Protocol):
    """Where the rows of a result are: a sink, or the parts on the disk."""

    @property
    def path(self) -> Path | None:
        """The directory; None for rows in memory."""
        ...

    def table(self) -> pa.Table:
        """Return all rows in order."""
        ...


@dataclass(frozen=True, slots=True)
class History:
    """What a run recorded over time: changes of the limits, by lane, and the traces of its attempts."""

    limits: Mapping[str, Sequence[Change]] = field(default_factory=dict)
    traces: Traces | None = None


@dataclass(frozen=True, repr=False, eq=False)
class Result:
    """The result of a run: its rows, what failed, and what it cost.

    `failures` is a DataFrame with a row for each cell that failed: which, why, after how many attempts, and on what
    inputs. Counts, usage and failures are of all runs of the dataset. `report` and `elapsed` are of this run alone;
    the report has more numbers: latencies, retries, the slowest requests and where the time went. Print it with
    `print(result.report)`.
    """

    report: Report
    failures: pd.DataFrame
    _metadata: Metadata
    _rows: Rows
    _history: History = field(default_factory=History)

    @property
    def status(self) -> Status:
        """How the run ended: "complete", "partial" (fewer rows than requested) or "cancelled"."""
        return self._metadata.status

    @property
    def reason(self) -> str | None:
        """Why the run ended before every row was worked; None if it worked them all.

        The word before the colon stays the same: "error budget", "max_cost", "max_tokens_total", "deadline",
        "outage_after" or "cancelled". What follows it has the numbers and, for the error budget, the first failure.
        """
        return self._metadata.reason

    @property
    def target(self) -> int:
        """The number of rows requested."""
        return self._metadata.target_num_records

    @property
    def actual(self) -> int:
        """The number of rows in the dataset."""
        return self._metadata.actual_num_records

    @property
    def dropped(self) -> int:
        """The number of rows dropped because one of their cells failed."""
        return self._metadata.dropped_num_records

    @property
    def usage(self) -> Spent:
        """Requests, tokens and cost of all models. A cost that is not known is None."""
        return self._metadata.usage

    @property
    def usage_by_column(self) -> dict[str, Spent]:
        """Requests, tokens and cost of each column that calls a model."""
        return self._metadata.usage_by_column

    @property
    def usage_by_model(self) -> dict[str, Spent]:
        """Requests, tokens and cost of each model."""
        return self._metadata.usage_by_model

    @property
    def structured_by_column(self) -> dict[str, StructuredCounts]:
        """How the answers of each structured column came to obey its schema."""
        return self._metadata.structured_by_column

    @property
    def elapsed(self) -> float:
        """The seconds that this run took."""
        return self.report.elapsed

    @property
    def path(self) -> Path | None:
        """The dataset's directory; None for a preview."""
        return self._rows.path

    @property
    def limits(self) -> dict[str, list[Change]]:
        """How the limit of requests in flight changed, for each lane that followed its endpoint: when and why."""
        return {lane: list(changes) for lane, changes in self._history.limits.items()}

    @property
    def metadata(self) -> dict[str, Any]:
        """The contents of metadata.json, as plain data."""
        return self._metadata.to_dict()

    @cached_property
    def dataset(self) -> pd.DataFrame:
        """The rows, in order, as a DataFrame; read from the disk once. JSON text is decoded."""
        return self.to_pandas()

    def to_arrow(self) -> pa.Table:
        """Return the rows, in order, as an Arrow table, as they are stored: columns of JSON text are text."""
        return self._rows.table()

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows, in order, as a DataFrame. JSON text is decoded."""
        from ..columns.sources.json_text import frame_of  # noqa: PLC0415 - it loads pyarrow

        return frame_of(self._rows.table())

    @cached_property
    def task_traces(self) -> list[TaskTrace]:
        """One TaskTrace per attempt, in the order in which they ended; empty unless the run had trace=True."""
        return [] if self._history.traces is None else self._history.traces.tasks()

    def export_trace(self, path: str | Path) -> None:
        """Write the traces in Chrome's format, for ui.perfetto.dev: a track for each slot of a lane."""
        from ..telemetry.chrome_trace import export  # noqa: PLC0415 - not at import time

        traces = self._history.traces
        if traces is None:
            raise RecipeError("trace", "the run has no traces; run it with trace=True or with ROWLOOP_TRACE=1")
        target = path_of(path, "a file")
        try:
            export(target, traces.tasks(), traces.lanes())
        except OSError as error:
            raise RecipeError(
                "path", f"cannot write to '{shown(target)}' ({error.strerror}); choose another file"
            ) from error

    def summary(self) -> str:
        """Return the most important numbers in one line."""
        return self.report.headline + (f" -> {shown(self.path)}" if self.path else "")

    def __repr__(self) -> str:
        """Show the counts, the usage and the directory."""
        names = ("status", "target", "actual", "dropped", "usage", "elapsed", "path")
        return f"Result({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


class PartialDatasetError(DatasetGenerationError):
    """Fewer rows than `min_completion` requires; `result` has the rows that were completed."""

    def __init__(self, result: Result, wanted: float) -> None:
        """Take the result and the required share of rows."""
        self.result = result
        rows = f"{result.actual:,} of {result.target:,} rows were completed, fewer than "
        where = "the error's .result has the rows, and .result.failures the reasons"
        if result.path is not None:
            where = f"the rows are in {shown(result.path)}, the reasons in its {FAILURES}"
        early = "" if result.reason is None else f"; the run ended early: {result.reason}"
        super().__init__(rows, Option("min_completion", wanted), f" requires; {where}{early}")
