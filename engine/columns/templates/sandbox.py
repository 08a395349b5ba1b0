"""The environment that templates run in: Jinja's sandbox, in which a column's value is data.

A key of a value takes precedence over its attributes, null is empty text, and nothing but data is written: a method,
a function or a generator in the text is an error.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.filters import make_attrgetter
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import missing

from ...core.errors import nearest
from . import drawn
from .weighing import bound_filters
from .work_bounds import ITEM, Counted, charge, charge_call, charge_deep, charge_operator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jinja2.compiler import Frame

FUNCTIONS = {**DEFAULT_NAMESPACE, "range": safe_range, "lipsum": drawn.lipsum}
"""The functions that a template may call by name."""

_CONTAINERS = (dict, list, tuple, str, type(None))
_TEXT_FILTERS = (
    *("capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower", "replace", "string"),
    *("striptags", "title", "trim", "truncate", "upper", "urlencode", "urlize", "wordcount", "wordwrap"),
)
_HINTED = 200
"""The most keys among which the nearest one is looked for."""


class Missing(jinja2.StrictUndefined):
    """A key or an attribute that a value does not have. Its error names the path and the nearest key."""

    __slots__ = ("_path",)

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = missing,
        name: str | None = None,
        exc: type[jinja2.TemplateRuntimeError] = jinja2.UndefinedError,
        path: str = "",
    ) -> None:
        """Take where it is in the template; the sentence is made only if it is needed."""
        super().__init__(hint, obj, name, exc)
        self._path = path

    @property
    def _undefined_message(self) -> str:
        obj, name = self._undefined_obj, self._undefined_name
        if self._undefined_hint or obj is missing or not self._path:
            return str(super()._undefined_message)
        if obj is None:
            return f"{self._path} is missing, because the value before it is null"
        if isinstance(obj, dict):
            known = [str(key)[:_HINTED] for key, _ in zip(obj, range(_HINTED), strict=False)]
            return f"{self._path} is missing; {nearest(str(name), known)}"
        return f"{self._path} is missing in this {type(obj).__name__}"


class _Code(CodeGenerator):
    """Jinja's compiler. A lookup gets its path as written, for errors; one that is called may find a method."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._called: set[int] = set()

    def visit_Call(self, node: nodes.Call, frame: Frame, **options: Any) -> None:  # type: ignore[override] # noqa: N802 - Jinja's wrapper passes options by name
        self._called.add(id(node.node))
        super().visit_Call(node, frame, **options)

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:  # noqa: N802 - Jinja's
        self.write(f"environment.{'method' if id(node) in self._called else 'getattr'}(")
        self.visit(node.node, frame)
        self.write(f", {node.attr!r}, {written(node)!r})")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802 - Jinja's
        if isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self.write("environment.getitem(")
        self.visit(node.node, frame)
        self.write(", ")
        self.visit(node.arg, frame)
        self.write(f", {written(node)!r})")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - Jinja's
        self.write("environment.concatenated(context, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment. It has no global names, so that a column may have any name; `FUNCTIONS` are called by theirs."""

    code_generator_class = _Code
    context_class = Counted
    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self) -> None:
        """Constants are not folded, so that compiling a template runs nothing of it."""
        super().__init__(undefined=Missing, finalize=_finalized, optimized=False)
        self.globals.clear()
        self.functions = dict(FUNCTIONS)
        for name in _TEXT_FILTERS:
            self.filters[name] = _of_text(self.filters[name])
        self.filters["join"] = _join
        bound_filters(self.filters)
        self.filters["random"] = drawn.random

    def getattr(self, obj: Any, attribute: str, path: str = "") -> Any:
        """Return a key of a mapping, else an attribute that is data; raises for a method."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        found = super().getattr(obj, attribute)
        if isinstance(found, jinja2.Undefined):
            return _at(found, path)
        if callable(found):
            problem = f"{path or attribute} is a method of a {type(obj).__name__}, not data; there is no such key"
            raise jinja2.TemplateRuntimeError(problem)
        return found

    def getitem(self, obj: Any, argument: Any, path: str = "") -> Any:
        """Return an item; of objects that are no containers also an attribute."""
        try:
            return obj[argument]
        except (TypeError, LookupError):
            if isinstance(argument, str) and not isinstance(obj, _CONTAINERS):
                return self.getattr(obj, argument, path)
        return _at(self.undefined(obj=obj, name=argument), path)

    def method(self, obj: Any, attribute: str, path: str = "") -> Any:
        """Return what `value.attribute(...)` calls: the method, also where a key has its name."""
        return _at(super().getattr(obj, attribute), path)

    def concatenated(self, context: Any, parts: tuple[Any, ...]) -> str:
        """Return the text of `a ~ b`."""
        for part in parts:
            if type(part) is not str:
                charge_deep(context, part)
        text = "".join(["" if part is None else str(part) for part in parts])
        charge(context, len(text))
        return text

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Work an operator, unless what it makes is too large."""
        charge_operator(context, operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, called: Any, /, *args: Any, **options: Any) -> Any:
        """Call a function or a method, unless it makes too much."""
        charge_call(context, called, (*args, *options.values()))
        return super().call(context, called, *args, **options)


@jinja2.pass_context
def _finalized(context: Any, value: Any) -> Any:
    """Call `data`, and count the text. It takes the context so that Jinja does not call it when it compiles."""
    if type(value) is str:
        charge(context, len(value))
        return value
    return data(value)


def data(value: Any) -> Any:
    """Return a value that may be written, null as empty text; raises TemplateRuntimeError for what is not data."""
    if value is None:
        return ""
    if isinstance(value, str | int | float | list | dict | jinja2.Undefined):
        return value
    if callable(value):
        raise jinja2.TemplateRuntimeError(f"{_named(value)} is a function, not data; call it or leave it out")
    if inspect.isgenerator(value):
        raise jinja2.TemplateRuntimeError("a filter that gives a sequence is written as it is; add | list or | join")
    if type(value).__module__.startswith("jinja2."):
        raise jinja2.TemplateRuntimeError(f"{_named(value)} is a tool of templates, not data")
    return value


def _named(value: Any) -> str:
    return str(getattr(value, "name", None) or getattr(value, "__name__", None) or type(value).__name__)


def _at(found: Any, path: str) -> Any:
    if isinstance(found, Missing):
        object.__setattr__(found, "_path", path)
    return found


def _of_text(filtered: Callable[..., Any]) -> Callable[..., Any]:
    """Let a filter of text take null as empty text."""
    if hasattr(filtered, "jinja_pass_arg"):

        def with_context(given: object, value: Any, *args: Any, **options: Any) -> Any:
            return filtered(given, "" if value is None else value, *args, **options)

        with_context.jinja_pass_arg = filtered.jinja_pass_arg  # type: ignore[attr-defined] # Jinja's own mark
        return with_context
    return lambda value, *args, **options: filtered("" if value is None else value, *args, **options)


@jinja2.pass_context
def _join(context: Any, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    """Join as Jinja does, with null as empty text, and count the text."""
    if attribute is not None:
        value = map(make_attrgetter(context.environment, attribute), value)
    parts = []
    for item in value:
        if not isinstance(item, str):
            charge_deep(context, item)
        text = "" if item is None else str(item)
        charge(context, len(text) + len(str(d)) + ITEM)
        parts.append(text)
    return str(d).join(parts)


def written(node: nodes.Node) -> str:
    """Return a lookup as it is written: order.lines[0]."""
    if isinstance(node, nodes.Name):
        return str(getattr(node, "shown", node.name))
    if isinstance(node, nodes.Getattr):
        return f"{written(node.node)}.{node.attr}"
    if isinstance(node, nodes.Getitem):
        argument = repr(node.arg.value) if isinstance(node.arg, nodes.Const) else "..."
        return f"{written(node.node)}[{argument}]"
    return "(...)"
