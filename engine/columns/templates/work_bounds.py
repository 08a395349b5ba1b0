"""What a template may cost: its work is counted, and ends at a limit.

A step of a loop or a call costs STEP; a letter that is made or worked on costs 1, about 15 ns. The count needs no
clock: a template that is within the limit on one machine is so on all. A render in a thread also has a time limit: the
clock is looked at from time to time as the work is counted.

Python cannot stop a single operation once it has begun, nor let others run meanwhile. So what one would make or walk
through is counted before it begins: `"a" * 10**9`, a width in a format string, a list that contains itself many times.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

import jinja2
from jinja2.runtime import Context, Macro

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_SOURCE: Final = 1_000_000
"""The longest source of a template, in letters."""
MOST_TAGS: Final = 10_000
"""The most {{ }} and {% %} of a template."""
RENDER_SECONDS: Final = 2.0
"""The longest that one render may take, in seconds."""
STEP: Final = 400
ITEM: Final = 20
_WALKED = 40
_MOST_WORK = 16_000_000
_LOOK = 100_000
"""The work between two looks at the clock: a millisecond or two."""
_MOST_WIDTH = 100_000
"""The largest number given to a filter or method that pads, wraps or splits."""
_MOST_BITS = 20_000
_MACRO = 4000
_PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs", "to_bytes"}
_NUMBER = re.compile(r"\d+")
_NESTED = re.compile(r"\{[^{}]*\{")
"""A field within a field of `str.format`: a width that is a value."""
_CONTAINERS = (list, tuple, dict, set, frozenset)


class TooCostlyError(jinja2.TemplateRuntimeError):
    """The template does too much, or takes too long."""


class Counted(Context):
    """A template's context, with the work so far. What is derived from it shares the count."""

    def __init__(self, *given: Any, **options: Any) -> None:
        """Begin to count."""
        super().__init__(*given, **options)
        self.work: list[Any] = [0, _LOOK, None]  # the work, when to look at the clock, the time of the first look

    def derived(self, locals: dict[str, Any] | None = None) -> Context:  # noqa: A002 - Jinja's name
        """Share the count."""
        made = super().derived(locals)
        made.work = self.work  # type: ignore[attr-defined] # made by context_class
        return made


def charge(context: Any, cost: int) -> None:
    """Count work; raises TooCostlyError at the limit."""
    work = context.work
    work[0] += cost
    if work[0] > work[1]:
        _look(work)


def _look(work: list[Any]) -> None:
    if work[0] > _MOST_WORK:
        raise TooCostlyError("the template does too much work; shorten its loops and texts, or use a Python function")
    now = time.monotonic()
    if work[2] is None:
        work[2] = now
    elif now - work[2] > RENDER_SECONDS:
        problem = f"the template takes more than {RENDER_SECONDS:g} s; shorten its loops, or use a Python function"
        raise TooCostlyError(problem)
    work[1] = min(work[0] + _LOOK, _MOST_WORK)


def charge_deep(context: Any, value: Any, item: int = _WALKED, letters: int = 1) -> None:
    """Count a text, or all that a list or mapping contains, before it is walked through. `letters` cost 1 together."""
    if isinstance(value, str):
        charge(context, len(value) // letters)
    if not isinstance(value, _CONTAINERS):
        return
    pending, cost = [value], 0
    while pending:
        part: Any = pending.pop()
        cost += item
        if isinstance(part, str):
            cost += len(part) // letters
        elif isinstance(part, dict):
            pending.extend(part.keys())
            pending.extend(part.values())
        elif isinstance(part, _CONTAINERS):
            pending.extend(part)
        if cost > _LOOK:
            charge(context, cost)
            cost = 0
    charge(context, cost)


def charge_repeated(context: Any, value: Any, times: int) -> None:
    """Count a value that is written several times."""
    before = context.work[0]
    charge_deep(context, value)
    charge(context, (context.work[0] - before) * max(times - 1, 0))


def charge_operator(context: Any, operator: str, left: Any, right: Any) -> None:
    """Count what an operator makes, before it does."""
    if operator == "%" and isinstance(left, str):
        charge_percent(context, left, right)
    elif operator == "*":
        for text, times in ((left, right), (right, left)):
            if isinstance(times, int) and isinstance(text, str | bytes):
                charge(context, len(text) * max(times, 0))
            elif isinstance(times, int) and isinstance(text, list | tuple):
                charge_repeated(context, text, times)
    elif operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        charge(context, (len(left) + len(right)) * (1 if isinstance(left, str) else ITEM))
    if isinstance(left, int) and isinstance(right, int) and operator in {"*", "**"}:
        bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
        if bits > _MOST_BITS:
            raise TooCostlyError("the template makes a number that is too large")


def charge_percent(context: Any, template: str, given: Any) -> None:
    """Count what `"%s" % given` makes: each value once, but those of a mapping as often as they are named."""
    _charge_widths(context, template)
    if "*" in template and isinstance(given, int | tuple):
        check_sizes(given if isinstance(given, tuple) else (given,))
    charge(context, len(template))
    charge_repeated(context, given, template.count("%(") if isinstance(given, dict) else 1)


def _charge_widths(context: Any, template: str) -> None:
    """Refuse a format string with a width that fills the memory, and count the others."""
    widths = _NUMBER.findall(template)
    if any(len(n) > len(str(_MOST_WIDTH)) or int(n) > _MOST_WIDTH for n in widths):
        raise TooCostlyError(f"a width in a format string is at most {_MOST_WIDTH}")
    charge(context, sum(map(int, widths)))


def charge_call(context: Any, method: Any, given: Iterable[Any]) -> None:
    """Count a call, and what a method of a text makes."""
    charge(context, _MACRO if isinstance(method, Macro) else STEP)
    method = getattr(method, "__wrapped__", method)
    text, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    if isinstance(text, str | bytes | int):
        given = tuple(given)
        if name in _PADDING:
            check_sizes(given)
        if isinstance(text, str):
            _charge_method(context, text, name, given)
        charge(context, len(text) if isinstance(text, str | bytes) else 0)


def _charge_method(context: Any, text: str, name: str, given: tuple[Any, ...]) -> None:
    """Count what a method makes of a text, beyond its length."""
    if name in {"format", "format_map"}:
        _charge_format(context, text, given)
    elif name == "replace" and len(given) > 1:
        charge(context, (text.count(str(given[0])) + 1) * len(str(given[1])))
    elif name == "join" and given:
        parts = given[0] if hasattr(given[0], "__len__") else ()
        charge(context, len(text) * len(parts))
        charge_deep(context, parts)
    elif name == "expandtabs":
        widest = max((n for n in given if isinstance(n, int)), default=8)
        charge(context, text.count("\t") * max(widest, 0))
    elif name == "translate" and given and isinstance(given[0], dict):
        longest = max((len(value) for value in given[0].values() if isinstance(value, str)), default=1)
        charge(context, len(text) * (longest + ITEM))


def _charge_format(context: Any, text: str, given: tuple[Any, ...]) -> None:
    """Count what `str.format` makes, if each of its fields is the largest value."""
    _charge_widths(context, text)
    if _NESTED.search(text):
        check_sizes(part for value in given for part in (value.values() if isinstance(value, dict) else (value,)))
        if any(isinstance(value, list | tuple) for value in given):
            raise TooCostlyError("a width in a format string must be a number")
    fields = text.count("{")
    for value in given:
        charge_repeated(context, value, fields)


def check_sizes(given: Iterable[Any]) -> None:
    """Refuse a number that pads or splits beyond reason."""
    if any(isinstance(value, int) and abs(value) > _MOST_WIDTH for value in given):
        raise TooCostlyError(f"a width or a number of parts is at most {_MOST_WIDTH}")
