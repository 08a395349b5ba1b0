"""Columns beside another: text that arrives with the values of that column, such as a model's reasoning."""

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
class TextBeside(Column):
    """Text that arrives with the values of the column `of`; None where none does."""

    of: str

    @property
    def beside(self) -> str:
        """The column whose values carry the text."""
        return self.of

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Need that column."""
        return Node(self.name, (self.of,))

    def arrow_type(self) -> str:
        """Return text."""
        return "string"

    def bind(self, _binding: Binding) -> Beside:
        """Do no work: the text comes with the value."""
        return Beside()


@spec
class Reasoning(TextBeside):
    """The reasoning behind a model's answers; None where the endpoint does not report it."""

    type: Literal["reasoning"] = Field(default="reasoning", kw_only=True)


@spec
class Reason(TextBeside):
    """Why a row is invalid; None for a valid one."""

    type: Literal["reason"] = Field(default="reason", kw_only=True)
