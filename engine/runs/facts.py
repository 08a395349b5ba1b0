"""Recipe facts: what the metadata, the report and the budget of a run need of its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..models.provider import Pricing


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """One column of the table. `model` is the alias of the model that it calls, None if it calls none."""

    name: str
    type: str
    model: str | None
    price: Pricing | None
    structured: bool
    """Whether answers must obey a JSON Schema, so that metadata.json counts how they came to."""


@dataclass(frozen=True)
class RecipeFacts:
    """A recipe as its run describes it. `seed` is the run's own, also where the recipe has none."""

    engine: Literal["async", "sequential"]
    seed: int
    fingerprint: str
    description: dict[str, Any]
    columns: Sequence[ColumnFacts]

    @cached_property
    def model_of(self) -> dict[int, str]:
        """The model of each column that calls one."""
        return {i: column.model for i, column in enumerate(self.columns) if column.model is not None}

    @cached_property
    def prices(self) -> dict[int, Pricing | None]:
        """The price of each column that calls a model, None if it is not known."""
        return {i: self.columns[i].price for i in self.model_of}
