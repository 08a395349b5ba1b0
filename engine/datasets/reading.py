"""Reading: a dataset on the disk, read back as the result of its run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from ..core.errors import ResumeError
from ..telemetry.failures import FailedCell
from ..telemetry.report import Details, report_of
from .directory import FAILURES, METADATA, existing, part_files, shown
from .metadata import Metadata
from .result import Result

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa


def read_metadata(path: Path) -> Metadata | None:
    """Read a dataset's metadata.json; None if there is none. Raises ResumeError for a file in another format."""
    file = existing(path, METADATA)
    try:
        return msgspec.json.decode(file.read_bytes(), type=Metadata)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        raise ResumeError(f"cannot read '{file}' as the metadata of a dataset: {error}") from error


def readable_metadata(path: Path) -> Metadata | None:
    """Read metadata.json; None if it is broken and a part says that it is rowloop's, else raises ResumeError."""
    from .found_parts import read_note  # noqa: PLC0415 - it loads pyarrow

    try:
        return read_metadata(path)
    except ResumeError:
        if not any(map(read_note, part_files(path).values())):
            raise
        return None


def read_result(path: Path) -> Result:
    """Read a dataset as the result of its run, without traces; the report has only the numbers of metadata.json.

    Raises ResumeError for a directory without a dataset.
    """
    metadata = read_metadata(path)
    if metadata is None:
        raise ResumeError(f"'{shown(path)}' has no dataset: {METADATA} is missing")
    report = report_of(metadata, Details(metadata.elapsed, metadata.usage_by_column.values()))
    return Result(report, _failures(path), metadata, _StoredRows(path, metadata))


@dataclass(frozen=True, slots=True)
class _StoredRows:
    """The rows of a dataset on the disk."""

    path: Path
    metadata: Metadata

    def table(self) -> pa.Table:
        """Read all rows in order."""
        import pyarrow as pa  # noqa: PLC0415 - not at import time

        from .parts import read_parts  # noqa: PLC0415 - it loads pyarrow

        try:
            return read_parts(self.path, self.metadata.parts, pa.schema([]))
        except (OSError, pa.ArrowException) as error:
            raise ResumeError(f"cannot read a part of the dataset in '{self.path}': {error}") from error


def _failures(path: Path) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415 - not at import time

    file = existing(path, FAILURES)
    if not file.exists():
        return pd.DataFrame(columns=list(FailedCell.__dataclass_fields__))
    return pd.read_parquet(file)
