"""The sequential engine: the same tracker, on a graph in which each column waits for all rows of the one before.

A column with allow_resize may change the number of rows, so nothing else of its row group may be in flight meanwhile.
Only the order of work has to differ for that: nodes that do no work stand between columns and wait for every row.
Generators, retries, processors, failures, counts and metadata are the same objects as in the asynchronous engine.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .graph import Node

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


def in_sequence(nodes: Sequence[Node], columns: int, resizing: Collection[str]) -> list[Node]:
    """Return the nodes so that each waits for all rows of the one before, followed by the barriers that enforce this.

    The first `columns` nodes are columns of the table. Those in `resizing` need the values of all columns before them,
    because they return new values for all of them.
    """
    ordered = list(nodes)
    barriers: list[Node] = []
    before: tuple[str, ...] = ()
    awaited: tuple[str, ...] = ()
    for i in _sequence(nodes, resizing):
        node = nodes[i]
        needs = before if node.name in resizing else node.needs
        ordered[i] = replace(node, needs=needs, after=(*node.after, *awaited))
        awaited = (node.name,)
        if node.strategy == "cell":
            barriers.append(Node(f"all rows of {node.name}", strategy="whole", after=awaited))
            awaited = (barriers[-1].name,)
        if i < columns:
            before = (*before, node.name)
    return [*ordered, *barriers]


def _sequence(nodes: Sequence[Node], resizing: Collection[str]) -> list[int]:
    """Order the nodes: first seeds and samplers, then as in the recipe, each after its needs.

    The nodes contain no circle, which compile_graph has checked.
    """
    filled = (node.strategy == "whole" and not (node.needs or node.after or node.name in resizing) for node in nodes)
    roots = [i for i, is_filled in enumerate(filled) if is_filled]
    order = list(roots)
    placed = {nodes[i].name for i in roots}
    while len(order) < len(nodes):
        free = (n.name not in placed and placed.issuperset(n.needs + n.after) for n in nodes)
        i = next(i for i, is_free in enumerate(free) if is_free)
        order.append(i)
        placed.add(nodes[i].name)
    return order
