"""The names in a template: the columns that it needs, and the fields of their values that it reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import jinja2.meta
from jinja2 import nodes

from .sandbox import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

Path: TypeAlias = tuple[str, ...]
"""A column, and the way into its value. `EACH` stands for any item of a list."""

EACH = "[]"
_ROW = "row"


@dataclass(slots=True)
class Names:
    """`variables` maps the variables of the template to columns, in the order of their first use.

    `fields` are the paths that must be there; not those whose absence the template handles.
    """

    variables: dict[str, str] = field(default_factory=dict)
    fields: list[Path] = field(default_factory=list)


def names_of(tree: nodes.Template) -> Names:
    """Return the names of a template. Calls of `FUNCTIONS` and `row["a column"]` are replaced in the tree."""
    assigned = _assigned(tree)
    columns = _replaced(tree, assigned)
    free = jinja2.meta.find_undeclared_variables(tree)
    names = [node.name for node in tree.find_all(nodes.Name) if node.name in free]
    variables = {name: columns.get(name, name) for name in dict.fromkeys(names)}
    return Names(variables, _fields(tree, variables, assigned))


def _assigned(tree: nodes.Template) -> Counter[str]:
    """Return how often the template assigns each name."""
    assigned = Counter(node.name for node in tree.find_all(nodes.Name) if node.ctx != "load")
    assigned.update(macro.name for macro in tree.find_all(nodes.Macro))
    return assigned


def _replaced(tree: nodes.Template, assigned: Counter[str]) -> dict[str, str]:
    """Replace what Jinja would look up by other rules than ours; return the column of each new variable."""
    columns: dict[str, str] = {}
    blocks = tree.find(nodes.Block) is not None

    def column(name: str, shown: str) -> nodes.Name:
        variable = next((v for v, known in columns.items() if known == name), f"rowloop_column_{len(columns)}")
        columns[variable] = name
        replacement = nodes.Name(variable, "load")
        replacement.shown = shown  # type: ignore[attr-defined] # our own mark on Jinja's node
        return replacement

    def other(node: nodes.Node, parent: nodes.Node) -> nodes.Node:
        if isinstance(node, nodes.Name) and node.ctx == "load" and not assigned[node.name]:
            if isinstance(parent, nodes.Call) and parent.node is node and node.name in FUNCTIONS:
                return nodes.Getitem(nodes.EnvironmentAttribute("functions"), nodes.Const(node.name), "load")
            if node.name == "self" and not blocks:
                return column("self", "self")
        elif isinstance(node, nodes.Getitem) and _is_cell(node) and not assigned[_ROW]:
            name = node.arg.value  # type: ignore[attr-defined] # a constant, by _is_cell
            return column(name, f"row[{name!r}]")
        return node

    _replace(tree, other)
    for node in tree.find_all(nodes.Node):
        node.set_environment(tree.environment)  # type: ignore[arg-type] # set by the parser
    return columns


def _is_cell(node: nodes.Getitem) -> bool:
    """Return whether this is row["name"]."""
    named = isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str)
    return named and isinstance(node.node, nodes.Name) and node.node.name == _ROW


def _replace(parent: nodes.Node, other: object) -> None:
    assert callable(other)  # noqa: S101 - for the type checker
    for name, value in list(parent.iter_fields()):
        if isinstance(value, nodes.Node):
            new = other(value, parent)
            setattr(parent, name, new)
            _replace(new, other)
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, nodes.Node):
                    value[i] = other(item, parent)
                    _replace(value[i], other)


def _fields(tree: nodes.Template, variables: dict[str, str], assigned: Counter[str]) -> list[Path]:
    roots: dict[str, Path] = {name: (column,) for name, column in variables.items() if not assigned[name]}
    for loop in tree.find_all(nodes.For):
        target = loop.target
        if isinstance(target, nodes.Name) and assigned[target.name] == 1 and target.name not in variables:
            path = _path(loop.iter, roots)
            if path is not None:
                roots[target.name] = (*path, EACH)
    optional = set(_optional(tree, roots))
    paths = dict.fromkeys(_read(tree, roots))
    return [path for path in paths if len(path) > 1 and not any(path[: n + 1] in optional for n in range(len(path)))]


def _path(node: nodes.Node, roots: dict[str, Path]) -> Path | None:
    """Return the path that a lookup reads; None if it does not begin at a column or if it is not constant."""
    if isinstance(node, nodes.Name):
        return roots.get(node.name)
    if isinstance(node, nodes.Getattr):
        step = node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        step = node.arg.value if isinstance(node.arg.value, str) else EACH
    else:
        return None
    path = _path(node.node, roots)
    return None if path is None else (*path, step)


def _read(node: nodes.Node, roots: dict[str, Path]) -> Iterator[Path]:
    """Yield the paths that are read; of one whose end is called, the value before it."""
    for child in node.iter_child_nodes():
        path = _path(child, roots)
        if path is None:
            yield from _read(child, roots)
        elif isinstance(node, nodes.Call) and node.node is child:
            yield path[:-1]
        else:
            yield path


def _optional(tree: nodes.Template, roots: dict[str, Path]) -> Iterator[Path]:
    """Yield the paths whose absence the template handles: `is defined`, `default`, `"key" in value`."""
    for test in tree.find_all(nodes.Test):
        if test.name in {"defined", "undefined"}:
            yield from filter(None, [_path(test.node, roots)])
    for chosen in tree.find_all(nodes.Filter):
        if chosen.name in {"default", "d"} and chosen.node is not None:
            yield from filter(None, [_path(chosen.node, roots)])
    for compared in tree.find_all(nodes.Compare):
        first = compared.ops[0]
        path = _path(first.expr, roots) if first.op in {"in", "notin"} else None
        if path is not None and isinstance(compared.expr, nodes.Const) and isinstance(compared.expr.value, str):
            yield (*path, compared.expr.value)
