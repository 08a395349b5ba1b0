"""Templates: Jinja, sandboxed, compiled once per recipe.

Values reach a prompt as text and are never evaluated: a value that contains {{ }} stays as it is. A variable that no
column has is found before the run. A column whose name is no variable is `row["its name"]`.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jinja2
import jinja2.nodes

from ...core.errors import CellError
from .cheapness import is_costly
from .drawn import CELL, draws
from .names import names_of
from .sandbox import Sandbox, data
from .weighing import count_work
from .work_bounds import MOST_SOURCE, MOST_TAGS, TooCostlyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .drawn import Draw
    from .names import Names

_SANDBOX = Sandbox()
_KEPT = 512


class Template:
    """A compiled template. `needs` are the columns of its variables, in the order of their first use.

    `fields` are the paths into their values that must be there: the column, then keys, with "[]" for a list's items.
    `draws`: something in it is random. `costly`: its work is not linear in the values, so it is rendered in a thread.
    """

    def __init__(self, source: str, field: str) -> None:
        """Compile; raises ValueError naming the field if the source is not a template."""
        tags = source.count("{{") + source.count("{%")
        if len(source) > MOST_SOURCE or tags > MOST_TAGS:
            problem = f"at most {MOST_SOURCE:,} letters and {MOST_TAGS:,} tags"
            raise ValueError(f"{field} is too long for a template: {problem}, not {len(source):,} and {tags:,}")
        try:
            self._template, names, self._pieces, self.draws, self.costly = _compiled(source)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"{field} is not a template: {error.message} (line {error.lineno})") from None
        except (RecursionError, MemoryError, SyntaxError):
            raise ValueError(f"{field} is not a template: it is nested too deeply") from None
        self.source = source
        self._field = field
        self._variables = tuple(names.variables)
        columns = names.variables.values()
        self.needs = tuple(dict.fromkeys(columns))
        self.fields = tuple(names.fields)
        self._indices = [self.needs.index(column) for column in columns]

    @property
    def constant(self) -> str | None:
        """The text of a cheap template that no value and no draw changes; None for any other."""
        if self.needs or self.draws or self.costly:
            return None
        with contextlib.suppress(CellError):
            return self.renderer()()
        return None

    def renderer(self, draw: Draw | None = None, column: str = "") -> Callable[..., str]:
        """Return the function that renders: values in the order of `needs` -> text. Raises CellError.

        With `draw`, a template that `draws` takes the row's number after them. Without, it fails. `column` is named in
        the error of a template that does too much.
        """
        if self._pieces is not None:
            columns = dict(zip(self._variables, self._indices, strict=True))
            return _joiner(self._pieces, columns, len(self.needs))
        variables, indices, render = self._variables, self._indices, self._template.render
        draw = draw if self.draws else None
        too_costly = f"columns.{column}.{self._field}" if column else self._field

        def rendered(*values: Any) -> str:
            try:
                given = {name: values[i] for name, i in zip(variables, indices, strict=True)}
                if draw is not None:
                    given[CELL] = draw(values[-1])
                return render(given)
            except TooCostlyError as error:
                raise CellError(too_costly) from error
            except Exception as error:
                raise CellError("the template does not fit these values") from error

        return rendered


Pieces = list[jinja2.nodes.TemplateData | jinja2.nodes.Name]


@lru_cache(maxsize=_KEPT)
def _compiled(source: str) -> tuple[jinja2.Template, Names, Pieces | None, bool, bool]:
    """Compile a source once, though a recipe and each of its runs ask for it again."""
    tree = _SANDBOX.parse(source)
    names = names_of(tree)
    pieces, drawing, costly = _pieces(tree), draws(tree), is_costly(tree)
    if costly:
        pieces = None
        count_work(tree)
    return _SANDBOX.from_string(tree), names, pieces, drawing, costly


def _pieces(tree: jinja2.nodes.Template) -> Pieces | None:
    """Return the parts of a template of text and bare {{ names }}; None for any other."""
    pieces: Pieces = []
    for output in tree.body:
        if not isinstance(output, jinja2.nodes.Output):
            return None
        for node in output.nodes:
            if not isinstance(node, jinja2.nodes.TemplateData | jinja2.nodes.Name):
                return None
            pieces.append(node)
    return pieces


def _joiner(pieces: Pieces, columns: dict[str, int], width: int) -> Callable[..., str]:
    """Render the commonest kind of template without Jinja: the same text in a tenth of the time."""
    pattern = "".join("%s" if isinstance(p, jinja2.nodes.Name) else p.data.replace("%", "%%") for p in pieces)
    used: Sequence[int] = [columns[piece.name] for piece in pieces if isinstance(piece, jinja2.nodes.Name)]
    indices = None if used == list(range(width)) else used

    def rendered(*values: object) -> str:
        try:
            if indices is not None:
                values = tuple([values[i] for i in indices])
            for value in values:
                if type(value) is not str:
                    return pattern % tuple([data(value) for value in values])
            return pattern % values
        except Exception as error:
            raise CellError("the template does not fit these values") from error

    return rendered
