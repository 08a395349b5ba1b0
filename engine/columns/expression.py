"""Columns that are written: expressions, and what models answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..core.graph import Node, OnError
from ..core.spec import spec
from .templates import Template
from .work import CellError, Render

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..core.graph import Lane
    from .column import Binding

_CASTS: dict[str, Callable[[str], Any]] = {"int64": int, "float64": float}


@spec
class Expression:
    """A Jinja template over other columns. `dtype` is what its text is read as."""

    name: str
    template: str
    dtype: Literal["string", "int64", "float64"] = Field(default="string", kw_only=True)
    on_error: OnError = Field(default="drop", kw_only=True)
    type: Literal["expression"] = Field(default="expression", kw_only=True)

    def __post_init__(self) -> None:
        """Compile the template."""
        self._compile()

    def _compile(self) -> Template:
        return Template(self.template, "template")

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Need the template's variables; no lane, as it takes microseconds."""
        return Node(self.name, self._compile().needs, on_error=self.on_error)

    def arrow_type(self) -> str:
        """Give the type that `dtype` names."""
        return self.dtype

    def bind(self, _binding: Binding) -> Render:
        """Render, and read as `dtype`."""
        render, cast = self._compile().renderer(), _CASTS.get(self.dtype)
        if cast is None:
            return Render(render)

        def read(*values: object) -> Any:
            text = render(*values)
            try:
                return cast(text)
            except ValueError as error:
                raise CellError(f"the expression gave {text!r}, which is no {self.dtype}") from error

        return Render(read)
