"""Reasoning: the column beside a model's answers, for what the model thought before it answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..core.graph import Node
from ..core.spec import spec
from .column import Column
from .work import Beside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..core.graph import Lane
    from .column import Binding


@spec
class Reasoning(Column):
    """The reasoning behind the answers in the column `of`; None where the endpoint does not report it."""

    of: str
    type: Literal["reasoning"] = Field(default="reasoning", kw_only=True)

    @property
    def beside(self) -> str:
        """The column of answers, whose replies carry the reasoning."""
        return self.of

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Need the column of answers."""
        return Node(self.name, (self.of,))

    def arrow_type(self) -> str:
        """Return text."""
        return "string"

    def bind(self, _binding: Binding) -> Beside:
        """Do no work: the value comes with the answer."""
        return Beside()
