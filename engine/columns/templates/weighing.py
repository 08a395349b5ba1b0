"""Weighing: a costly template counts what goes into its loops, filters and comparisons, before they begin.

The syntax tree of such a template gets a filter of ours before each of these; cheap templates have none.
"""

from __future__ import annotations

import re
from types import GeneratorType
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import nodes

from .work_bounds import ITEM, STEP, TooCostlyError, charge, charge_deep, charge_percent, check_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

INSTANT = frozenset(
    {"abs", "count", "d", "default", "filesizeformat", "first", "float", "int", "last", "length", "random", "round"}
)
"""Filters whose work does not depend on their input's length."""
_SLOW = {
    "title": 8,
    "wordwrap": 14,
    "urlize": 50,
    "striptags": 4,
    "wordcount": 4,
    "pprint": 5,
    "list": 5,
    "urlencode": 8,
    "sort": 100,
    "unique": 16,
    "groupby": 50,
    "map": 90,
}
"""How much more than others these filters cost for a letter."""
_SLOW_ITEMS = {"sort": 6, "dictsort": 6, "groupby": 16, "unique": 2, "map": 5, "pprint": 8, "tojson": 3}
"""The same for an item."""
_OF_LISTS = {
    *("batch", "dictsort", "groupby", "items", "list", "map", "max", "min", "reject", "rejectattr", "reverse"),
    *("select", "selectattr", "slice", "sum"),
}
"""Filters whose work follows the length of a list, whatever its items contain."""
_PADDING = ("batch", "center", "filesizeformat", "indent", "round", "slice", "tojson", "truncate", "wordwrap")
_RUN = re.compile(r"\s+|\S+")
_COPIED = 64
"""Letters that are copied in the time that one is worked on."""


def bound_filters(filters: dict[str, Callable[..., Any]]) -> None:
    """Have the filters that can make much of little check their sizes and count what they make."""
    filters["wordwrap"] = _wordwrap(filters["wordwrap"])
    for name in _PADDING:
        filters[name] = _sized(filters[name])
    filters["replace"] = _replace(filters["replace"])
    filters["format"] = _format(filters["format"])
    filters["sum"] = _sum(filters["sum"])
    for name in list(filters):
        filters[f"work_{name}"] = _weigher(_SLOW.get(name, 1), _SLOW_ITEMS.get(name, 1), deep=name not in _OF_LISTS)
    filters["work_items"] = _items
    filters["work_output"] = _output
    filters["work_compare"] = _compared


def count_work(tree: nodes.Template) -> None:
    """Have a costly template count its steps and the inputs of its filters, comparisons and slices."""
    for loop in list(tree.find_all(nodes.For)):
        loop.iter = _before(loop.iter, "items")
    for compared in list(tree.find_all(nodes.Compare)):
        compared.expr = _before(compared.expr, "compare")
        for operand in compared.ops:
            operand.expr = _before(operand.expr, "compare")
    for lookup in list(tree.find_all(nodes.Getitem)):
        if isinstance(lookup.arg, nodes.Slice):
            lookup.node = _before(lookup.node, "compare")
    for chosen in list(tree.find_all(nodes.Filter)):
        if chosen.node is not None and chosen.name not in INSTANT and not chosen.name.startswith("work_"):
            chosen.node = _before(chosen.node, chosen.name)
    for output in list(tree.find_all(nodes.Output)):
        output.nodes = [n if isinstance(n, nodes.TemplateData) else _before(n, "output") for n in output.nodes]


def _before(node: nodes.Node, name: str) -> nodes.Filter:
    made = nodes.Filter(node, f"work_{name}", [], [], None, None, lineno=node.lineno)
    return made.set_environment(node.environment)  # type: ignore[arg-type,return-value] # set by the parser


def _weigher(letter: int, item: int, *, deep: bool) -> Callable[..., Any]:
    """Return the filter that counts its value, as the input of another filter, and hands it on."""

    @jinja2.pass_context
    def weighed(context: Any, value: Any) -> Any:
        if isinstance(value, str):
            charge(context, len(value) * letter)
        elif isinstance(value, GeneratorType):
            return _counted(context, value, ITEM * item)
        elif deep:
            charge_deep(context, value, ITEM * item)
        elif hasattr(value, "__len__"):
            charge(context, len(value) * ITEM * item)
        return value

    return weighed


def _counted(context: Any, values: Iterable[Any], cost: int) -> Iterator[Any]:
    for value in values:
        charge(context, cost)
        yield value


@jinja2.pass_context
def _items(context: Any, values: Iterable[Any]) -> Iterator[Any]:
    return _counted(context, values, STEP)


@jinja2.pass_context
def _output(context: Any, value: Any) -> Any:
    """Count a list or mapping that is written; texts are counted as they are written."""
    if not isinstance(value, str):
        charge_deep(context, value)
    return value


@jinja2.pass_context
def _compared(context: Any, value: Any) -> Any:
    """Count what is compared, looked into or sliced, which is much faster than what is written."""
    charge(context, 1)
    charge_deep(context, value, letters=_COPIED)
    return value


def _sized(filtered: Callable[..., Any]) -> Callable[..., Any]:
    passed = getattr(filtered, "jinja_pass_arg", None)

    @jinja2.pass_context
    def sized(context: Any, value: Any, *args: Any, **options: Any) -> Any:
        sizes = (*args, *options.values())
        check_sizes(sizes)
        widest = max((size for size in sizes if isinstance(size, int)), default=0)
        lines = value.count("\n") + 1 if isinstance(value, str) else 1
        charge(context, widest * lines)
        first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        return filtered(*(() if passed is None else (first[passed.name],)), value, *args, **options)

    return sized


def _replace(filtered: Callable[..., Any]) -> Callable[..., Any]:
    @jinja2.pass_context
    def replace(context: Any, value: Any, old: str, new: str, count: int | None = None) -> Any:
        text = "" if value is None else str(value)
        charge(context, len(text) + (text.count(str(old)) + 1) * len(str(new)))
        return filtered(context.eval_ctx, text, old, new, count)

    return replace


def _format(filtered: Callable[..., Any]) -> Callable[..., Any]:
    @jinja2.pass_context
    def formatted(context: Any, value: Any, *args: Any, **options: Any) -> Any:
        charge_percent(context, str(value), options or args)
        return filtered(value, *args, **options)

    return formatted


def _sum(filtered: Callable[..., Any]) -> Callable[..., Any]:
    @jinja2.pass_context
    def summed(context: Any, values: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
        if isinstance(start, list | tuple):  # each list is copied once for every list after it
            values = list(values)
            longest = max((len(value) for value in values if hasattr(value, "__len__")), default=0)
            if attribute is not None:
                raise TooCostlyError("sum joins lists without an attribute; use map(attribute=...) before it")
            charge(context, (len(start) + longest) * len(values) ** 2 // 20)
        return filtered(context.environment, values, attribute, start)

    return summed


def _wordwrap(filtered: Callable[..., Any]) -> Callable[..., Any]:
    @jinja2.pass_context
    def wrapped(context: Any, value: Any, width: int = 79, *args: Any, **options: Any) -> Any:
        runs = (len(run[0]) for run in _RUN.finditer(str(value)))
        # A word longer than a line is cut off line by line, and the rest copied each time.
        charge(context, max(runs, default=0) ** 2 // (max(width, 1) * _COPIED))
        return filtered(context.environment, value, width, *args, **options)

    return wrapped
