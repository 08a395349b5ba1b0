"""The canonical form of a template: the same text whatever the columns are called that it reads."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import jinja2
from jinja2 import nodes

from .sandbox import FUNCTIONS, Sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence

_SANDBOX = Sandbox()
_SILENT = frozenset({"whitespace", "comment"})
_NO_VARIABLE_AFTER = frozenset({".", "|", "is", "not", "filter", "test"})


def canonical(source: str, needs: Sequence[str]) -> str:
    """Return a template with each column that it reads replaced by its place in `needs`.

    Two templates of the same canonical form do the same with the same values. Where a name is not certain to be a
    column everywhere, the template stays as it is, so that only an equal one equals it.
    """
    try:
        tokens = [(kind, value) for _, kind, value in _SANDBOX.lex(source)]
        assigned = _assigned(source)
    except jinja2.TemplateSyntaxError:
        return source
    if assigned & {*needs, "row"} or "row" in needs or FUNCTIONS.keys() & set(needs):
        return source
    places = {name: f"\0{place}\0" for place, name in enumerate(needs)}
    return "".join(_replaced(tokens, places))


def _assigned(source: str) -> set[str]:
    """Return the names that a template gives values to, and the names of parameters that it passes."""
    tree = _SANDBOX.parse(source)
    names = {node.name for node in tree.find_all(nodes.Name) if node.ctx != "load"}
    return names | {node.name for node in tree.find_all(nodes.Macro)} | {k.key for k in tree.find_all(nodes.Keyword)}


def _replaced(tokens: Sequence[tuple[str, str]], places: dict[str, str]) -> list[str]:
    said = [i for i, (kind, _) in enumerate(tokens) if kind not in _SILENT]
    before = {i: tokens[last][1] for last, i in itertools.pairwise(said)}
    found: list[str] = []
    for i, (kind, value) in enumerate(tokens):
        if kind == "name" and before.get(i) not in _NO_VARIABLE_AFTER:
            found.append(places.get(value, value))
        elif kind == "string" and before.get(i) == "[":
            found.append(places.get(value[1:-1], value))
        else:
            found.append(value)
    return found
