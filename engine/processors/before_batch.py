"""BeforeBatch: the place of the before_batch processors in the graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..core.graph import Lane, Node
from .processor import overriding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .processor import Processor

_NODE = "before_batch processors"


@dataclass(frozen=True, slots=True)
class BeforeBatch:
    """The before_batch processors, and the columns they get: by id and by name."""

    processors: tuple[Processor, ...]
    columns: tuple[int, ...]
    names: tuple[str, ...]


def with_before_batch(nodes: Sequence[Node], processors: Sequence[Processor]) -> tuple[list[Node], BeforeBatch | None]:
    """Add a node for the before_batch processors: after the columns that need nothing, before all others."""
    acting = overriding(processors, "before_batch")
    seen = [i for i, node in enumerate(nodes) if node.strategy == "whole" and node.lane is None and not node.needs]
    if not acting or not seen:
        return list(nodes), None
    names = tuple(nodes[i].name for i in seen)
    waiting = [node if i in seen else replace(node, after=(_NODE,)) for i, node in enumerate(nodes)]
    own = Node(_NODE, strategy="whole", lane=Lane("processors", 1), on_error="raise", after=names)
    return [*waiting, own], BeforeBatch(tuple(acting), tuple(seen), names)
