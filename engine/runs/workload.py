"""The workload of a run: columns on a graph, the models they call, the processors around them, and their work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..columns.storable import check_of, needs_check
from ..columns.work import Nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow as pa

    from ...runtime.threads import Threads
    from ..columns.column import Binding, Column
    from ..columns.storable import Check
    from ..columns.work import Rewrite, Work
    from ..core.graph import Graph
    from ..models.model import Model


@dataclass(frozen=True, slots=True)
class Workload:
    """The work of a run: the table's columns on a graph, the models they call, and the processors around them.

    The graph may have more columns: one for `before_batch`, and the barriers of the sequential engine.
    """

    graph: Graph
    columns: Sequence[Column]
    models: Mapping[str, Model]
    before_batch: Callable[[Threads], Rewrite] | None = None
    after_generation: Callable[[pa.Table], pa.Table] | None = None

    @property
    def working(self) -> int:
        """The number of the graph's columns that do any work; they are the first ones."""
        return len(self.columns) + (self.before_batch is not None)

    def bind(self, binding: Binding | None, threads: Threads) -> list[Work]:
        """Make the work of every column of the graph; None: the columns have nothing left to do."""
        works: list[Work] = [] if binding is None else [column.bind(binding) for column in self.columns]
        if self.before_batch is not None:
            works.append(self.before_batch(threads))
        return works + [Nothing()] * (len(self.graph.columns) - len(works))

    def checks(self, works: Sequence[Work]) -> list[Check | None]:
        """Compile the checks of the columns' values; None where they are known to fit."""
        columns = [*self.columns, *[None] * (len(works) - len(self.columns))]
        return [
            None if column is None or not needs_check(work) else check_of(column.arrow_type())
            for column, work in zip(columns, works, strict=True)
        ]
