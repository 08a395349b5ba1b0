"""How a seed's data is to be read: which columns, of which types, and how text is cut and encoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Reading:
    """`columns` are those that are taken, None for all. `types` override what the data says."""

    columns: tuple[str, ...] | None = None
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    separator: str | None = None
    encoding: str | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What is equal for two ways of reading that give the same table."""
        types = tuple(sorted((name, str(type_)) for name, type_ in self.types.items()))
        return (self.columns, types, self.separator, self.encoding)
