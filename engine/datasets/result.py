"""Result: what a run gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import DatasetGenerationError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    import pyarrow as pa

    from ..core.adaptive_limit import Change
    from ..telemetry.report import Report
    from ..telemetry.spending import Spent, StructuredCounts
    from ..telemetry.traces import TaskTrace, Traces
    from .metadata import Metadata, Status


@dataclass(frozen=True)
class Result:
    """What came of a run.

    `status` is "complete", "partial" (fewer rows than asked for) or "cancelled". `target`, `actual` and `dropped` count
    rows: dropped ones had a cell that failed, and `failures` (a DataFrame) says for each cell which, why, after how
    many attempts and on what inputs. `usage` adds up requests, tokens and their cost, also `usage_by_column` and
    `usage_by_model`, for columns that ask a model; a cost that is not known is None. Where the run went on with a
    dataset, all of that is of all its runs. `report` is of this run alone, as is `elapsed`, and tells more: latencies,
    retries, the slowest requests and where the time went; `print(result.report)`. `limits` tells for each model how
    the number of requests in flight has followed what its endpoint takes: when, in seconds, how many, and why.
    `structured_by_column` counts how the answers of each structured column came to obey its schema.
    """

    status: Status
    target: int
    actual: int
    dropped: int
    usage: Spent
    elapsed: float
    path: Path | None
    report: Report = field(repr=False)
    usage_by_column: dict[str, Spent] = field(repr=False)
    usage_by_model: dict[str, Spent] = field(repr=False)
    structured_by_column: dict[str, StructuredCounts] = field(repr=False)
    failures: pd.DataFrame = field(repr=False)
    limits: dict[str, list[Change]] = field(repr=False)
    _metadata: Metadata = field(repr=False)
    _table: Callable[[], pa.Table] = field(repr=False)
    _traces: Traces | None = field(repr=False, default=None)

    @property
    def metadata(self) -> dict[str, Any]:
        """What metadata.json says, as plain data."""
        return self._metadata.to_dict()

    @cached_property
    def dataset(self) -> pd.DataFrame:
        """The rows, in order, as a DataFrame; read from the disk once."""
        return self.to_pandas()

    def to_arrow(self) -> pa.Table:
        """Give the rows, in order, as an Arrow table."""
        return self._table()

    def to_pandas(self) -> pd.DataFrame:
        """Give the rows, in order, as a DataFrame."""
        frame: pd.DataFrame = self._table().to_pandas()
        return frame

    @cached_property
    def task_traces(self) -> list[TaskTrace]:
        """One TaskTrace per attempt, in the order in which they ended; empty unless the run had trace=True."""
        return [] if self._traces is None else self._traces.tasks()

    def export_trace(self, path: str | Path) -> None:
        """Write the traces as trace event JSON, to be opened at ui.perfetto.dev: a track for each slot of a lane."""
        from ..telemetry.chrome_trace import export  # noqa: PLC0415 - not at import time

        if self._traces is None:
            raise RecipeError("trace", "there are no traces; run it with trace=True, or with ROWLOOP_TRACE=1")
        export(Path(path), self._traces.tasks(), self._traces.lanes())

    def summary(self) -> str:
        """Tell it in one line."""
        return self.report.headline + (f" -> {self.path}" if self.path else "")


class PartialDatasetError(DatasetGenerationError):
    """Fewer rows than `min_completion` asked for; `result` holds what there is."""

    def __init__(self, result: Result, wanted: float) -> None:
        """Take the result and the share of rows that was asked for."""
        self.result = result
        super().__init__(
            f"{result.actual} of {result.target} rows were completed, fewer than min_completion={wanted:g} asks for;"
            " the error's .result has the rows and .result.failures says why"
        )
