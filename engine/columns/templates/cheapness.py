"""Whether a template is cheap enough for the loop that all cells share. Decided once, when it is compiled.

Cheap is what is linear in the row's values: outputs of names, fields and slices, conditions, arithmetic, and filters
whose work is linear in their input. All else (loops, macros, calls, lists that the template makes, filters that sort,
group or parse) is costly, and is rendered in a thread.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from jinja2 import nodes

from .sandbox import written
from .weighing import INSTANT

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_USES = 16
"""How often a cheap template may use a value: more would make much of little."""
_MOST_STEPS = 32
"""The most filters of a cheap template that work on whole texts."""
_LONGEST = 200
"""The longest constant text given to a filter, in letters."""

_LINEAR = {
    *("capitalize", "center", "e", "escape", "format", "indent", "join", "lower", "replace", "reverse", "safe"),
    *("string", "trim", "truncate", "upper"),
}
_TAKES_VALUES = {"d", "default"}
"""Filters that may be given values, as they only hand one on."""

_LOOKUPS = (nodes.Name, nodes.Getattr, nodes.Getitem)
_PARTS = (
    *(nodes.Output, nodes.TemplateData, nodes.Const, nodes.If, nodes.CondExpr, nodes.Compare, nodes.Operand),
    *(nodes.Keyword, nodes.Not, nodes.Neg, nodes.Pos, nodes.Slice, nodes.Concat, nodes.BinExpr),
)


def is_costly(tree: nodes.Template) -> bool:
    """Return whether a template must not be rendered on the loop."""
    if not all(_is_cheap(node) for node in _inside(tree)):
        return True
    steps = sum(isinstance(node, nodes.Filter) and node.name in _LINEAR for node in _inside(tree))
    uses = Counter(written(lookup) for lookup in _lookups(tree))
    return steps > _MOST_STEPS or max(uses.values(), default=0) > _MOST_USES


def _is_cheap(node: nodes.Node) -> bool:
    """Return whether a node is cheap, its parts aside."""
    if isinstance(node, nodes.Filter):
        return _is_cheap_filter(node)
    if isinstance(node, nodes.Test):
        return not node.dyn_args and not node.dyn_kwargs
    if isinstance(node, nodes.List | nodes.Tuple):
        return all(isinstance(item, nodes.Const) for item in node.items)
    return isinstance(node, (*_LOOKUPS, *_PARTS))


def _is_cheap_filter(node: nodes.Filter) -> bool:
    if node.dyn_args or node.dyn_kwargs or node.name not in INSTANT | _LINEAR:
        return False
    given = [*node.args, *(option.value for option in node.kwargs)]
    if node.name == "format":
        return node.node is not None and _is_short(node.node)
    return node.name in _TAKES_VALUES or all(_is_short(value) for value in given)


def _is_short(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and not (isinstance(node.value, str) and len(node.value) > _LONGEST)


def _inside(node: nodes.Node) -> Iterator[nodes.Node]:
    """Yield the nodes below a node, without recursion: a source may nest deeply."""
    pending = list(node.iter_child_nodes())
    while pending:
        found = pending.pop()
        yield found
        pending.extend(found.iter_child_nodes())


def _lookups(node: nodes.Node) -> Iterator[nodes.Node]:
    """Yield each whole lookup: order.lines, not the order in it."""
    pending = [node]
    while pending:
        found = pending.pop()
        if isinstance(found, _LOOKUPS):
            yield found
            pending.extend(part for part in found.iter_child_nodes() if not isinstance(part, _LOOKUPS))
        else:
            pending.extend(found.iter_child_nodes())
