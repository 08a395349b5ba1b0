"""Applying: processors at work, and the check of what they may change."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa

from ...runtime.errors import CALLBACK_ERRORS
from ..columns.sources.json_text import UNWRITABLE, any_encoded, frame_of, is_json, marked
from ..columns.work import Rewrite
from ..core.errors import DatasetProcessingError
from ..datasets.tables import joined, recast_table, same
from .processor import Phase, overriding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...runtime.threads import Threads
    from ..columns.work import Value
    from ..core.store import RowGroup
    from ..datasets.tables import Tables
    from .before_batch import BeforeBatch
    from .processor import Processor


class ProcessedTables:
    """Tables after the after_batch processors. Their schema is that of the output, widened where row groups differ."""

    def __init__(self, before: Tables, processors: Sequence[Processor]) -> None:
        """Take the tables before the processors."""
        self._before = before
        self._processors = processors
        self._schema: pa.Schema | None = None
        self.version = 0

    @property
    def schema(self) -> pa.Schema:
        """The schema so far; before the first row group, that of the input."""
        return self._before.schema if self._schema is None else self._schema

    def resume(self, schema: pa.Schema) -> None:
        """Start from the schema of an earlier run."""
        self._schema = schema

    def table(self, group: RowGroup, rows: Sequence[int]) -> pa.Table:
        """Process the rows at these offsets."""
        before = self._before.table(group, rows)
        frame = apply(self._processors, "after_batch", frame_of(before), group.id)
        table = table_of(frame, before.schema, group.id)
        schema = table.schema if self._schema is None else self._unified(table.schema, group.id)
        if self._schema is None or not same(schema, self._schema):
            self._schema = schema
            self.version += 1
        return recast_table(table, schema)

    def conform(self, table: pa.Table) -> pa.Table:
        """Convert a table of an earlier version to the schema."""
        return recast_table(table, self.schema)

    def _unified(self, schema: pa.Schema, row_group: int) -> pa.Schema:
        known = self.schema
        if schema.names != known.names:
            problem = (
                f"returned the columns {', '.join(schema.names)}, and for other row groups {', '.join(known.names)}"
            )
            raise DatasetProcessingError(problem, stage="processor after_batch", row_group=row_group)
        try:
            return joined(known, schema)
        except pa.ArrowException as error:
            problem = f"returned values whose types do not fit those of other row groups: {error}"
            raise DatasetProcessingError(problem, stage="processor after_batch", row_group=row_group) from error


def changing(processors: Sequence[Processor]) -> Callable[[pa.Table], pa.Table]:
    """Return the after_generation processors as one function, from the whole table to the changed one."""
    return lambda table: table_of(apply(processors, "after_generation", frame_of(table), None), table.schema)


def table_of(frame: pd.DataFrame, before: pa.Schema, row_group: int | None = None) -> pa.Table:
    """Make a table of a processed frame; raises DatasetProcessingError for values that no table can hold.

    Objects in a column that was JSON text `before` the processors are JSON text again.
    """
    json = {field.name for field in before if is_json(field)}
    texts = [name for name in frame.columns if name in json and frame[name].dtype == object]
    try:
        encoded = {name: any_encoded(frame[name].where(frame[name].notna(), None).tolist()) for name in texts}
        plain = frame.assign(**dict.fromkeys(texts)) if texts else frame
        table = pa.Table.from_pandas(plain, preserve_index=False).replace_schema_metadata(None)
        for name, array in encoded.items():
            table = table.set_column(table.column_names.index(name), marked(name), array)
    except UNWRITABLE as error:
        problem = f"returned values that do not fit into a table: {error}"
        raise DatasetProcessingError(problem, stage="processor", row_group=row_group) from error
    return table


def rewriting(before: BeforeBatch, threads: Threads, *, resize: bool) -> Rewrite:
    """Return the work of the before_batch processors: the samplers' and seeds' values as a frame, in a thread.

    With `resize` (the sequential engine) they may change the number of rows.
    """
    guarded = functools.partial(apply, keep_rows=not resize)

    async def call(row_group: int, inputs: list[list[Value]]) -> list[list[Value]]:
        frame = pd.DataFrame(dict(zip(before.names, inputs, strict=True)))
        changed = await threads.call(guarded, before.processors, "before_batch", frame, row_group)
        return [changed[name].tolist() for name in before.names]

    return Rewrite(before.columns, call)


def apply(
    processors: Sequence[Processor],
    phase: Phase,
    frame: pd.DataFrame,
    row_group: int | None,
    *,
    keep_rows: bool = False,
) -> pd.DataFrame:
    """Pass a frame from one processor to the next; raises DatasetProcessingError naming the one that failed."""
    for processor in overriding(processors, phase):
        arguments = (frame, row_group) if phase == "after_batch" else (frame,)
        before = frame.columns.tolist(), len(frame)
        try:
            frame = getattr(processor, phase)(*arguments)
        except CALLBACK_ERRORS as error:
            raise _failed(processor, phase, row_group, f"{type(error).__name__}: {error}") from error
        if not isinstance(frame, pd.DataFrame):
            raise _failed(processor, phase, row_group, f"returned a {type(frame).__name__}; expected a DataFrame")
        if phase == "before_batch":
            _check_shape(processor, frame, before, row_group, keep_rows=keep_rows)
    return frame


def _check_shape(
    processor: Processor, frame: pd.DataFrame, before: tuple[list[str], int], row_group: int | None, *, keep_rows: bool
) -> None:
    columns, rows = before
    if keep_rows and len(frame) != rows:
        problem = (
            f"changed the row count from {rows} to {len(frame)}, which before_batch must not; change rows in"
            " after_batch or after_generation"
        )
        raise _failed(processor, "before_batch", row_group, problem)
    if set(frame.columns) != set(columns):
        changed = sorted(set(frame.columns) ^ set(columns), key=str)
        problem = f"added or removed columns ({', '.join(map(str, changed))}); it may only change values"
        raise _failed(processor, "before_batch", row_group, problem)


def _failed(processor: Processor, phase: Phase, row_group: int | None, problem: str) -> DatasetProcessingError:
    return DatasetProcessingError(problem, stage=f"processor {processor.known_as}.{phase}", row_group=row_group)
