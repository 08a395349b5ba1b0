"""Parts: the files of a dataset, one for each committed row group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .metadata import PartMetadata


@dataclass(frozen=True, slots=True)
class Part:
    """One committed row group: its number, the run's row number of its first row, and its number of rows."""

    row_group: int
    start: int
    rows: int
    file: str | None = None
    """The path relative to the dataset's directory; None in a preview."""


OnPart: TypeAlias = Callable[[Part], object]


def read_parts(path: Path, parts: Iterable[Part | PartMetadata], schema: pa.Schema) -> pa.Table:
    """Read the parts of a dataset as one table, in this order; `schema` is for a dataset without parts."""
    tables = [pq.read_table(path / part.file, partitioning=None) for part in parts if part.file is not None]
    return pa.concat_tables(tables) if tables else schema.empty_table()
