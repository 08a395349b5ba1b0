"""The graph: the compiled recipe, with columns as integers, what each one needs, and where it is worked.

A column is worked whole (one task per row group: samplers, seeds, batch functions) or by cell (one task per row). A
column with a lane waits for a permit of the lane; a column without one is worked at once, on the spot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from .errors import RecipeError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .bounds import Pace

Strategy: TypeAlias = Literal["cell", "whole"]
OnError: TypeAlias = Literal["drop", "null", "raise"]


@dataclass(frozen=True, slots=True)
class Lane:
    """Where the tasks of one model or function queue: at most `limit` are in flight at once.

    With a `start`, the number follows what the endpoint takes, beginning there. `pace`: how many may start per minute.
    """

    name: str
    limit: int
    start: int | None = None
    pace: Pace | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """What the graph needs to know about one column.

    `lane=None`: worked on the spot, never queued. `after`: columns to wait for without taking their values.
    `stateful`: this whole column is worked in one row group at a time, in their order.
    """

    name: str
    needs: tuple[str, ...] = ()
    strategy: Strategy = "cell"
    lane: Lane | None = None
    on_error: OnError = "drop"
    after: tuple[str, ...] = ()
    stateful: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A compiled node: all references are indices of columns and lanes. `needs`: the columns whose values it takes."""

    id: int
    name: str
    whole: bool
    lane: int | None
    on_error: OnError
    needs: tuple[int, ...]
    whole_needs: int
    cell_needs: int
    whole_children: tuple[int, ...]
    cell_children: tuple[int, ...]
    stateful: bool


@dataclass(frozen=True, slots=True)
class Graph:
    """Columns in the order of the recipe, and the lanes they share."""

    columns: tuple[Column, ...]
    lanes: tuple[Lane, ...]
    order: tuple[int, ...]
    """Column ids, each after its needs."""


def compile_graph(nodes: Sequence[Node]) -> Graph:
    """Resolve names to indices; raises RecipeError for a duplicate, an unknown need or a cycle, with its path."""
    if not nodes:
        raise RecipeError("columns", "a table needs at least one column")
    ids = _ids(nodes)
    needs = [_resolved(node, node.needs, ids) for node in nodes]
    awaited = [_resolved(node, node.needs + node.after, ids) for node in nodes]
    order = _order(nodes, awaited)
    lanes = list(dict.fromkeys(node.lane for node in nodes if node.lane is not None))
    columns = tuple(
        Column(
            id=i,
            name=node.name,
            whole=node.strategy == "whole",
            lane=None if node.lane is None else lanes.index(node.lane),
            on_error=node.on_error,
            needs=needs[i],
            whole_needs=sum(_counts_whole(node, nodes[need]) for need in awaited[i]),
            cell_needs=sum(not _counts_whole(node, nodes[need]) for need in awaited[i]),
            whole_children=_children(i, nodes, awaited, "whole"),
            cell_children=_children(i, nodes, awaited, "cell"),
            stateful=node.stateful,
        )
        for i, node in enumerate(nodes)
    )
    return Graph(columns, tuple(lanes), order)


def _counts_whole(node: Node, need: Node) -> bool:
    """Return whether `node` waits for all rows of `need`: whole columns do, and so do the children of whole columns."""
    return node.strategy == "whole" or need.strategy == "whole"


def _children(i: int, nodes: Sequence[Node], awaited: Sequence[tuple[int, ...]], strategy: Strategy) -> tuple[int, ...]:
    return tuple(child for child, node in enumerate(nodes) if node.strategy == strategy and i in awaited[child])


def _ids(nodes: Iterable[Node]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for i, node in enumerate(nodes):
        if not node.name:
            raise RecipeError("columns", "a column needs a name")
        if node.name in ids:
            raise RecipeError(f"columns.{node.name}", "there are two columns of this name; rename one")
        ids[node.name] = i
    return ids


def _resolved(node: Node, needs: tuple[str, ...], ids: dict[str, int]) -> tuple[int, ...]:
    for need in needs:
        if need not in ids:
            others = [name for name in ids if name != node.name]
            raise RecipeError(f"columns.{node.name}", f"needs the unknown column '{need}'; {nearest(need, others)}")
    return tuple(dict.fromkeys(ids[need] for need in needs))


def _order(nodes: Sequence[Node], needs: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Sort by needs (Kahn's algorithm); the nodes that are left over contain a cycle."""
    open_needs = [len(of) for of in needs]
    children: list[list[int]] = [[] for _ in nodes]
    for child, of in enumerate(needs):
        for need in of:
            children[need].append(child)
    order = [i for i, count in enumerate(open_needs) if count == 0]
    for i in order:
        for child in children[i]:
            open_needs[child] -= 1
            if open_needs[child] == 0:
                order.append(child)
    if len(order) < len(nodes):
        cycle = _cycle(next(i for i, count in enumerate(open_needs) if count), needs, open_needs)
        path = " -> ".join(nodes[i].name for i in cycle)
        raise RecipeError(f"columns.{nodes[cycle[0]].name}", f"columns need each other in a circle: {path}")
    return tuple(order)


def _cycle(start: int, needs: Sequence[tuple[int, ...]], open_needs: Sequence[int]) -> list[int]:
    """Follow the needs until a node appears a second time."""
    path = [start]
    while True:
        need = next(i for i in needs[path[-1]] if open_needs[i])
        if need in path:
            return [*path[path.index(need) :], need]
        path.append(need)
