"""Datasets on disk: what an earlier run wrote, read back as its Result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..core.errors import ResumeError
from ..telemetry.failures import FailedCell
from ..telemetry.report import Report
from ..telemetry.spending import Spent, added_up, by_model, known_cost
from .directory import METADATA
from .metadata import Metadata
from .result import Result

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

    from .metadata import ColumnMetadata


def read_metadata(path: Path) -> Metadata | None:
    """Read a dataset's metadata.json, None where there is none; raises ResumeError for a file that is not one."""
    file = path / METADATA
    try:
        return msgspec.json.decode(file.read_bytes(), type=Metadata)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        raise ResumeError(f"'{file}' cannot be read as a dataset's metadata: {error}") from error


def read_result(path: Path) -> Result:
    """Read a dataset as its run gave it, without traces, and with only that in the report which metadata.json holds.

    Raises ResumeError for a directory that holds no dataset.
    """
    metadata = read_metadata(path)
    if metadata is None:
        raise ResumeError(f"'{path}' holds no dataset: there is no {METADATA}")
    asked = [(column.name, column.model, _spent(column)) for column in metadata.columns if column.model is not None]
    columns = {name: spent for name, _, spent in asked}
    return Result(
        status=metadata.status,
        target=metadata.target_num_records,
        actual=metadata.actual_num_records,
        dropped=metadata.dropped_num_records,
        usage=added_up(columns.values()),
        usage_by_column=columns,
        structured_by_column={c.name: c.structured for c in metadata.columns if c.structured is not None},
        usage_by_model=by_model((model, spent) for _, model, spent in asked),
        failures=_failures(path),
        elapsed=metadata.elapsed,
        path=path,
        limits={},
        report=_report(metadata, list(columns.values())),
        _metadata=metadata,
        _table=lambda: _table(path, metadata),
    )


def _spent(column: ColumnMetadata) -> Spent:
    return Spent(column.requests, column.prompt_tokens, column.completion_tokens, column.cost)


def _failures(path: Path) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415 - not at import time

    file = path / "failures.parquet"
    if not file.exists():
        return pd.DataFrame(columns=list(FailedCell.__dataclass_fields__))
    return pd.read_parquet(file)


def _table(path: Path, metadata: Metadata) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 - not at import time

    from .parts import read_parts  # noqa: PLC0415 - it loads pyarrow

    try:
        return read_parts(path, metadata.parts, pa.schema([]))
    except (OSError, pa.ArrowException) as error:
        raise ResumeError(f"a part of the dataset in '{path}' cannot be read: {error}") from error


def _report(metadata: Metadata, columns: Sequence[Spent]) -> Report:
    usage = added_up(columns)
    return Report(
        status=metadata.status,
        target=metadata.target_num_records,
        actual=metadata.actual_num_records,
        dropped=metadata.dropped_num_records,
        elapsed=metadata.elapsed,
        requests=usage.requests,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        retries={},
        failures=metadata.failures,
        models=[],
        slowest=[],
        load=None,
        error=metadata.error,
        budget_spent=metadata.budget_spent,
        cost=usage.cost,
        known_cost=known_cost(columns),
    )
