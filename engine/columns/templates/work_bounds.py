"""What a template may cost. It runs on the loop that all cells share, so its work is counted and ends at a limit.

A step of a loop or a call costs STEP, a letter that is made or worked on costs 1. The count needs no clock: a template
that is within the limit on one machine is so on all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context, Macro

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MOST_SOURCE = 1_000_000
"""The longest source of a template, in letters."""
MOST_TAGS = 10_000
"""The most {{ }} and {% %} of a template."""
_MOST_WORK = 16_000_000
_MOST_WIDTH = 100_000
"""The largest number given to a filter or method that pads, wraps or splits."""
_MOST_BITS = 20_000
_STEP = 400
_MACRO = 4000
_ITEM = 20
_SLOW = {"title": 20, "wordwrap": 20, "urlize": 50, "striptags": 20, "wordcount": 20, "pprint": 50, "tojson": 5}
"""How much more than others these filters cost for a letter."""
_PADDING_FILTERS = ("batch", "center", "filesizeformat", "indent", "round", "slice", "tojson", "truncate", "wordwrap")
_PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs", "to_bytes"}
_NUMBER = re.compile(r"\d+")


class Counted(Context):
    """A template's context, with the work so far. What is derived from it shares the count."""

    def __init__(self, *given: Any, **options: Any) -> None:
        """Begin to count."""
        super().__init__(*given, **options)
        self.work = [0]

    def derived(self, locals: dict[str, Any] | None = None) -> Context:  # noqa: A002 - Jinja's name
        """Share the count."""
        made = super().derived(locals)
        made.work = self.work  # type: ignore[attr-defined] # made by context_class
        return made


def charge(context: Any, cost: int) -> None:
    """Count work; raises TemplateRuntimeError at the limit."""
    work = context.work
    work[0] += cost
    if work[0] > _MOST_WORK:
        problem = "the template does too much work; shorten its loops and texts, or use a Python function"
        raise jinja2.TemplateRuntimeError(problem)


def charge_operator(context: Any, operator: str, left: Any, right: Any) -> None:
    """Count what an operator makes, before it does."""
    if operator == "%" and isinstance(left, str):
        check_widths(left)
        charge(context, len(left))
    elif operator == "*":
        for text, times in ((left, right), (right, left)):
            if isinstance(times, int) and isinstance(text, str | bytes | list | tuple):
                charge(context, len(text) * max(times, 0))
    elif operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        charge(context, (len(left) + len(right)) * (1 if isinstance(left, str) else _ITEM))
    if isinstance(left, int) and isinstance(right, int) and operator in {"*", "**"}:
        bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
        if bits > _MOST_BITS:
            raise jinja2.TemplateRuntimeError("the template makes a number that is too large")


def check_widths(template: str) -> None:
    """Refuse a format string with a width that fills the memory."""
    if any(len(n) > len(str(_MOST_WIDTH)) or int(n) > _MOST_WIDTH for n in _NUMBER.findall(template)):
        raise jinja2.TemplateRuntimeError(f"a width in a format string is at most {_MOST_WIDTH}")


def charge_call(context: Any, method: Any, given: Iterable[Any]) -> None:
    """Count a call, and what a method of a text makes."""
    charge(context, _MACRO if isinstance(method, Macro) else _STEP)
    method = getattr(method, "__wrapped__", method)
    text, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    if isinstance(text, str | bytes | int):
        given = tuple(given)
        if name in _PADDING:
            check_sizes(given)
        charge(context, _made(text, name, given))


def _made(text: str | bytes | int, name: str, given: tuple[Any, ...]) -> int:
    """Return about how long what a method makes is."""
    length = len(text) if isinstance(text, str | bytes) else 0
    if not isinstance(text, str):
        return length
    if name in {"format", "format_map"}:
        check_widths(text)
    if name == "replace" and len(given) > 1:
        return length + (text.count(str(given[0])) + 1) * len(str(given[1]))
    if name == "join" and given and hasattr(given[0], "__len__"):
        return length * len(given[0])
    return length


def check_sizes(given: Iterable[Any]) -> None:
    """Refuse a number that pads or splits beyond reason."""
    if any(isinstance(value, int) and abs(value) > _MOST_WIDTH for value in given):
        raise jinja2.TemplateRuntimeError(f"a width or a number of parts is at most {_MOST_WIDTH}")


def bound_filters(filters: dict[str, Callable[..., Any]]) -> None:
    """Have the filters that can make much of little check their sizes and count what they make."""
    for name in _PADDING_FILTERS:
        filters[name] = _sized(filters[name])
    filters["replace"] = _replace(filters["replace"])
    filters["format"] = _format(filters["format"])
    filters["work_items"] = _items
    for name in list(filters):
        filters[f"work_{name}"] = _weigher(_SLOW.get(name, 1))


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
    def formatted(value: Any, *args: Any, **options: Any) -> Any:
        check_widths(str(value))
        if "*" in str(value):
            check_sizes(args)
        return filtered(value, *args, **options)

    return formatted


@jinja2.pass_context
def _items(context: Any, values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        charge(context, _STEP)
        yield value


def _weigher(factor: int) -> Callable[..., Any]:
    """Return the filter that counts its value, as the input of another filter, and hands it on."""

    @jinja2.pass_context
    def weighed(context: Any, value: Any) -> Any:
        if isinstance(value, str):
            charge(context, len(value) * factor)
        elif isinstance(value, list | tuple | dict | range):
            charge(context, len(value) * _ITEM * factor)
        return value

    return weighed


def count_work(tree: nodes.Template) -> None:
    """Have a template that loops or calls count its steps and the inputs of its filters. Others have no more work."""
    if all(tree.find(kind) is None for kind in (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Call)):
        return
    for loop in list(tree.find_all(nodes.For)):
        loop.iter = _before(loop.iter, "work_items")
    for chosen in list(tree.find_all(nodes.Filter)):
        if chosen.node is not None and not chosen.name.startswith("work_"):
            chosen.node = _before(chosen.node, f"work_{chosen.name}")


def _before(node: nodes.Node, name: str) -> nodes.Filter:
    made = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
    return made.set_environment(node.environment)  # type: ignore[arg-type,return-value] # set by the parser
