"""DropColumns: a processor that leaves columns out of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from ..core.spec import spec
from .processor import Processor

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


@spec
class DropColumns(Processor):
    """Leave columns (one name, or several) out of the written table. Other columns can still need them."""

    columns: list[str] = Field(min_length=1)
    type: Literal["drop_columns"] = Field(default="drop_columns", kw_only=True)

    @field_validator("columns", mode="before")
    @classmethod
    def _listed(cls, columns: object) -> object:
        return [columns] if isinstance(columns, str) else columns

    def needs(self) -> Sequence[str]:
        """Return the columns to leave out."""
        return self.columns

    def writes(self, columns: Sequence[str]) -> Sequence[str]:
        """Return the other columns."""
        return [name for name in columns if name not in self.columns]

    def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:  # noqa: ARG002 - the same for all
        """Drop them."""
        return frame.drop(columns=self.columns)
