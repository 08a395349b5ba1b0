"""Compiling: from a recipe to what a run needs: names resolved, lanes shared, mistakes refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..core.bounds import Pace
from ..core.errors import RecipeError
from ..core.graph import Lane, compile_graph
from ..core.sequential import in_sequence
from ..models.provider import limits_of
from ..processors.before_batch import with_before_batch
from ..processors.processor import written_columns
from .definitions import definitions_of
from .identity import fingerprint, identity_of
from .template_checks import check_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..columns.column import Column, ColumnSpec
    from ..columns.definitions import Definition
    from ..core.graph import Graph
    from ..models.model import Model
    from ..processors.before_batch import BeforeBatch
    from ..processors.processor import Processor


@dataclass(frozen=True, slots=True)
class Compiled:
    """A checked recipe, as far as a run needs it.

    `written` are the table's columns after all processors, None if only running them tells. `model_of` has the model's
    alias of each column that asks one.
    """

    engine: Literal["async", "sequential"]
    columns: Sequence[Column]
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
    definitions: Sequence[Definition]

    @property
    def restorable(self) -> bool:
        """Whether values can be restored into a row group: not if its number of rows may change while it is worked."""
        return not (self.resizing or (self.engine == "sequential" and self.before_batch is not None))

    @property
    def kept(self) -> frozenset[int]:
        """The columns whose values the journal keeps because they are expensive: those that queue in a lane.

        The columns beside them are kept too, because their values arrive with the answers and never again.
        """
        if not self.restorable:
            return frozenset()
        queued = (i for i in range(len(self.columns)) if self.graph.columns[i].lane is not None)
        beside = (i for i, column in enumerate(self.columns) if column.beside is not None)
        return frozenset((*queued, *beside))

    @property
    def rewriting(self) -> dict[int, tuple[int, ...]]:
        """The columns that before_batch processors change, by the node that does it. The journal keeps them too."""
        if self.before_batch is None or not self.restorable:
            return {}
        return {len(self.columns): self.before_batch.columns}


def compile_recipe(
    models: Mapping[str, Model],
    columns: Sequence[ColumnSpec],
    processors: Sequence[Processor],
    description: dict[str, Any],
    *,
    sequential: bool = False,
) -> Compiled:
    """Check a recipe as a whole; raises RecipeError with the path of what is wrong.

    It is compiled for the sequential engine with `sequential`, or if a column may change the number of rows.
    """
    expanded = [column for given in columns for column in given.expand()]
    if not expanded:
        raise RecipeError("columns", "a recipe needs at least one column")
    written = written_columns(processors, [column.name for column in expanded])
    lanes = _lanes(models)
    own = [column.node(lanes) for column in expanded]
    nodes, before = with_before_batch(own, processors)
    graph = compile_graph(nodes)
    check_fields(expanded)
    identity = identity_of(description, models, columns, processors)
    resizing = [column.name for column in expanded if column.resizes]
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
        model_of={i: alias for i, column in enumerate(expanded) if (alias := column.model_alias) is not None},
        description=description,
        identity=identity,
        fingerprint=fingerprint(identity),
        definitions=definitions_of(columns, own, identity["models"]),
    )


def _lanes(models: Mapping[str, Model]) -> dict[str, Lane]:
    """Return the lane of each alias: one lane per model of a provider, with the lowest limits of any of its aliases."""
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
    limits = limits_of(models[0])  # aliases that share a lane share a provider
    start = None if limits.in_process else asked or min(limits.first, limits.most)
    return Lane(name, asked or limits.most, start=start, pace=pace)
