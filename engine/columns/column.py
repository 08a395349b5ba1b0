"""What a run gives its columns to work with, and what a column must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from ...runtime.threads import Threads
    from ..core.graph import Lane, Node
    from ..models.model import Model
    from ..models.provider import ChatModel
    from ..models.response_cache import ResponseCache
    from .work import Work

JsonSchema: TypeAlias = dict[str, Any]

ArrowType: TypeAlias = "str | pa.DataType | JsonSchema | None"
"""An Arrow type, its alias ("int64") or a JSON Schema; None where the first values decide."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One run's resources. `seed` is the run's own, also where the recipe has none."""

    seed: int
    threads: Threads
    models: Mapping[str, Model]
    connected: Mapping[str, ChatModel]
    cache: ResponseCache | None = None


class ColumnSpec(Protocol):
    """A column as the engine sees it."""

    @property
    def name(self) -> str:
        """The column's name in the table."""
        ...

    def node(self, lanes: Mapping[str, Lane], /) -> Node:
        """Say what the graph has to know; `lanes` are the models' by alias. Raises RecipeError for an unknown one."""
        ...

    def arrow_type(self) -> ArrowType:
        """Say the type of the values in the table, as far as it is known before there are any."""
        ...

    def bind(self, binding: Binding, /) -> Work:
        """Become work, on the run's loop."""
        ...
