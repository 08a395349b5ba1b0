"""The sequential engine: the same tracker, on a graph in which each column waits for all rows of the one before.

A column with allow_resize may change how many rows there are, so nothing else of its row group may be in flight then.
That is a matter of order alone: between columns come nodes that do no work and wait for every row. Generators, retries,
processors, failures, counts and metadata are the asynchronous engine's own, by construction.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .graph import Node

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


def in_sequence(nodes: Sequence[Node], columns: int, resizing: Collection[str]) -> list[Node]:
    """Give the nodes so that each waits for all of the one before, and after them the barriers that see to it.

    The first `columns` nodes are columns of the table. Those in `resizing` need the values of all the columns that
    come before them, as they give them back.
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
    """Order the nodes: seeds and samplers, then as the recipe has them, each after its needs.

    Raises nothing for a circle, as compile_graph has looked for those.
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
