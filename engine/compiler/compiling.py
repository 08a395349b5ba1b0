"""From what the user wrote to what a run needs: names resolved, lanes shared, everything refused that cannot work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..columns.embedding import Embedding
from ..columns.functions import Function
from ..columns.prompted import Prompted, Reasoning
from ..columns.seeds import Seed
from ..core.errors import RecipeError
from ..core.graph import Lane, compile_graph
from ..core.pace import Pace
from ..core.sequential import in_sequence
from ..models.model import MOST_IN_PROCESS
from ..processors.processor import with_before_batch, written_columns
from .identity import fingerprint, identity_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..columns.column import ColumnSpec
    from ..core.graph import Graph
    from ..models.model import Model
    from ..processors.processor import BeforeBatch, Processor


_MOST_REMOTE, _FIRST_REMOTE = 512, 16
"""Requests in flight at an endpoint, where nothing is said: at most, and at first."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A recipe that has been checked, as far as a run needs it.

    `written` are the table's columns after all processors, None where only running them tells. `model_of` names the
    model of a column that has one.
    """

    engine: Literal["async", "sequential"]
    columns: Sequence[ColumnSpec]
    written: list[str] | None
    resizing: Sequence[str]
    before_batch: BeforeBatch | None
    processors: Sequence[Processor]
    graph: Graph
    models: Mapping[str, Model]
    model_of: Mapping[int, str]
    description: dict[str, Any]
    identity: dict[str, Any]
    fingerprint: str

    @property
    def working(self) -> int:
        """How many of the graph's columns do any work: the table's and the processors', not the barriers."""
        return len(self.columns) + (self.before_batch is not None)

    @property
    def restorable(self) -> bool:
        """Whether values can be put back into a row group: not where its number of rows may change as it is worked."""
        return not (self.resizing or (self.engine == "sequential" and self.before_batch is not None))

    @property
    def kept(self) -> frozenset[int]:
        """The columns whose values cost something, so that a journal is to keep them: those that queue in a lane.

        What stands beside them comes with them, and could not be had again.
        """
        if not self.restorable:
            return frozenset()
        queued = (i for i in range(len(self.columns)) if self.graph.columns[i].lane is not None)
        beside = (i for i, column in enumerate(self.columns) if isinstance(column, Reasoning))
        return frozenset((*queued, *beside))

    @property
    def rewriting(self) -> dict[int, tuple[int, ...]]:
        """The columns that before_batch processors change, by the node that does it: a journal is to keep them too."""
        if self.before_batch is None or not self.restorable:
            return {}
        return {len(self.columns): self.before_batch.columns}


def compile_recipe(
    models: Mapping[str, Model],
    columns: Sequence[ColumnSpec | Seed],
    processors: Sequence[Processor],
    description: dict[str, Any],
    *,
    sequential: bool = False,
) -> Compiled:
    """Check a recipe as a whole; raises RecipeError with the path of what is wrong.

    It is compiled for the sequential engine when asked to, or when a column may change the number of rows.
    """
    expanded = [
        column for given in columns for column in (given.expand() if isinstance(given, Seed | Prompted) else [given])
    ]
    if not expanded:
        raise RecipeError("columns", "a recipe needs at least one column")
    written = written_columns(processors, [column.name for column in expanded])
    lanes = _lanes(models)
    nodes, before = with_before_batch([column.node(lanes) for column in expanded], processors)
    graph = compile_graph(nodes)
    identity = identity_of(description, models, columns, processors)
    resizing = [column.name for column in expanded if isinstance(column, Function) and column.allow_resize]
    if sequential or resizing:
        graph = compile_graph(in_sequence(nodes, len(expanded), resizing))
    return Compiled(
        engine="sequential" if sequential or resizing else "async",
        resizing=resizing,
        columns=expanded,
        written=written,
        before_batch=before,
        processors=processors,
        graph=graph,
        models=models,
        model_of={i: column.model for i, column in enumerate(expanded) if isinstance(column, Prompted | Embedding)},
        description=description,
        identity=identity,
        fingerprint=fingerprint(identity),
    )


def _lanes(models: Mapping[str, Model]) -> dict[str, Lane]:
    """Give each alias its lane: one for each model of a provider, with the least limits that any alias asks for."""
    shared: dict[str, list[Model]] = {}
    for model in models.values():
        shared.setdefault(model.lane, []).append(model)
    lanes = {name: _lane(name, aliases) for name, aliases in shared.items()}
    return {alias: lanes[model.lane] for alias, model in models.items()}


def _lane(name: str, models: Sequence[Model]) -> Lane:
    asked, requests, tokens = (
        min((value for model in models if (value := getattr(model, field)) is not None), default=None)
        for field in ("max_parallel", "requests_per_minute", "tokens_per_minute")
    )
    pace = None if requests is None and tokens is None else Pace(requests, tokens)
    if models[0].remote:
        return Lane(name, asked or _MOST_REMOTE, start=asked or _FIRST_REMOTE, pace=pace)
    return Lane(name, asked or MOST_IN_PROCESS, pace=pace)
