"""What columns of a seed give to cells, without a run around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rowloop.engine.columns.column import Binding
from rowloop.runtime.threads import Threads

if TYPE_CHECKING:
    from rowloop import Seed


def cells(seed: Seed, rows: int | None = None, key: int = 1) -> dict[str, list[Any]]:
    """Return the values of the first rows by column, by default of as many as the table has."""
    count = (seed.length or 0) if rows is None else rows
    binding = Binding(key, Threads(1), {}, {}, rows=count)
    return {column.name: list(column.bind(binding).fill(0, count)) for column in seed.expand()}


def types(seed: Seed) -> dict[str, str]:
    """Return the types that the table has for the columns."""
    return {column.name: str(column.arrow_type()) for column in seed.expand()}
