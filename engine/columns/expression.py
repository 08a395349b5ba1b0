"""Expression: a column rendered from a template over other columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..core.errors import CellError
from ..core.graph import Lane, Node, OnError
from ..core.spec import spec
from .column import Column
from .templates.drawn import draw_of
from .templates.template import Template
from .work import Await, Render

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .column import Binding

_MOST_QUEUED = 16
"""The most cells whose costly templates are rendered or queued for a thread."""
_CASTS: dict[str, Callable[[str], Any]] = {"int64": int, "float64": float}


@spec
class Expression(Column):
    """A Jinja template over other columns. The rendered text is read as `dtype`."""

    template: str
    dtype: Literal["string", "int64", "float64"] = Field(default="string", kw_only=True)
    on_error: OnError = Field(default="drop", kw_only=True)
    type: Literal["expression"] = Field(default="expression", kw_only=True)

    def __post_init__(self) -> None:
        """Compile the template, to refuse a wrong one at once."""
        self._compile()

    def _compile(self) -> Template:
        return Template(self.template, "template")

    def templates(self) -> dict[str, Template]:
        """Return the template."""
        return {"template": self._compile()}

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Need the template's variables; a lane only if the template is costly, as others take microseconds."""
        template = self._compile()
        lane = Lane(f"template {self.name}", _MOST_QUEUED) if template.costly else None
        return Node(self.name, template.needs, lane=lane, on_error=self.on_error)

    def arrow_type(self) -> str:
        """Return the type that `dtype` names."""
        return self.dtype

    def bind(self, binding: Binding) -> Render | Await:
        """Render, and read the text as `dtype`; a costly template in a thread."""
        template = self._compile()
        read = self._reader(template.renderer(draw_of(binding.seed, self.name), self.name))
        if template.costly:
            return Await(binding.off_loop(read), numbered=template.draws)
        return Render(read, numbered=template.draws)

    def _reader(self, render: Callable[..., str]) -> Callable[..., Any]:
        """Return the function from the values of the needs to the value."""
        cast = _CASTS.get(self.dtype)
        if cast is None:
            return render

        def read(*values: object) -> Any:
            text = render(*values)
            try:
                return cast(text)
            except ValueError as error:
                raise CellError(f"the expression renders to {text!r}, which is not {self.dtype}") from error

        return read
