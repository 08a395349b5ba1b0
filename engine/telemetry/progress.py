"""ProgressSnapshot: what a run looks like at one moment, and what a display of it must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeAlias

from ..core.registry import Registry


@dataclass(frozen=True, slots=True)
class ColumnProgress:
    """The cells of one column: how many there are to be, and how many are over, by how they ended."""

    name: str
    total: int
    completed: int
    failed: int
    skipped: int
    running: int


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """A run at one moment. Counts are rows, cells and tokens so far; times are in seconds, costs in US dollars."""

    target: int
    committed: int
    dropped: int
    row_groups: int
    row_groups_committed: int
    columns: tuple[ColumnProgress, ...]
    running: int
    waiting_to_retry: int
    retries: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    elapsed: float
    cost: float | None = None
    """None if the price of some model that was asked is not known."""
    rate_limited: Mapping[str, float] = field(default_factory=dict)
    """The lanes of which every request is refused for a rate limit, and for how many seconds."""

    @property
    def cells(self) -> int:
        """How many cells there are to be."""
        return sum(column.total for column in self.columns)

    @property
    def cells_over(self) -> int:
        """How many cells are over, however they ended."""
        return sum(column.completed + column.failed + column.skipped for column in self.columns)


Display: TypeAlias = Callable[[Callable[[], ProgressSnapshot]], AbstractContextManager[object]]
"""A display is made with a function that takes a snapshot (from any thread) and shows until its block is left."""

displays: Registry[Display] = Registry("progress display", entry_points="rowloop.displays")
