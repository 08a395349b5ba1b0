"""What is random in templates: drawn anew for every cell, and the same for the same seed, row and column.

So a value that is made again, in another row group or when a run resumes, is the one that its prompt had.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

import jinja2
from jinja2 import nodes
from jinja2.constants import LOREM_IPSUM_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Draw: TypeAlias = "Callable[[int], Random]"
"""From a row's number to the generator of its cell."""

CELL = "rowloop cell"
"""The variable of a template's context that has the generator. It is no name, so no template can read it."""

_WORDS = LOREM_IPSUM_WORDS.split()
_MOST_PARAGRAPHS, _MOST_WORDS = 100, 1000


def draw_of(seed: int, column: str) -> Draw:
    """Return the generators of a column's cells."""
    return lambda row: Random(f"{seed}/{column}/{row}")  # noqa: S311 - no secrets


def draws(tree: nodes.Template) -> bool:
    """Return whether a template may draw: by `random` or `lipsum`, or by a filter that is not known before it runs."""
    if any(_is_random(chosen) for chosen in tree.find_all(nodes.Filter)):
        return True
    calls = (call.node for call in tree.find_all(nodes.Call))
    return any(
        isinstance(n, nodes.Getitem) and isinstance(n.arg, nodes.Const) and n.arg.value == "lipsum" for n in calls
    )


def _is_random(chosen: nodes.Filter) -> bool:
    first = chosen.args[0] if chosen.args else None
    mapped = first.value if isinstance(first, nodes.Const) else "random"
    return chosen.name == "random" or (chosen.name == "map" and first is not None and mapped == "random")


@jinja2.pass_context
def random(context: jinja2.runtime.Context, values: Sequence[Any]) -> Any:
    """Return one of the values: Jinja's filter, with the cell's own generator."""
    try:
        return _generator(context).choice(values)
    except IndexError:
        return context.environment.undefined("there is no random item of nothing")


@jinja2.pass_context
def lipsum(context: jinja2.runtime.Context, n: int = 5, html: bool = True, min: int = 20, max: int = 100) -> str:  # noqa: A002, FBT001, FBT002 - Jinja's names
    """Return paragraphs of filler text: Jinja's function, with the cell's own generator."""
    generator = _generator(context)
    if n > _MOST_PARAGRAPHS or max > _MOST_WORDS:
        raise ValueError(f"lipsum gives at most {_MOST_PARAGRAPHS} paragraphs of {_MOST_WORDS} words")
    paragraphs = [" ".join(generator.choices(_WORDS, k=generator.randrange(min, max))) for _ in range(n)]
    paragraphs = [f"{paragraph.capitalize()}." for paragraph in paragraphs]
    return "\n".join(f"<p>{paragraph}</p>" for paragraph in paragraphs) if html else "\n\n".join(paragraphs)


def _generator(context: jinja2.runtime.Context) -> Random:
    generator = context.get(CELL)
    if not isinstance(generator, Random):
        raise jinja2.TemplateRuntimeError("nothing random can be drawn here; draw it in an Expression column")
    return generator
