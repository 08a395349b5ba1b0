"""Progress: the snapshot of a run at one moment, and the type of the displays that show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ..core.registry import Registry

State: TypeAlias = Literal["running", "paused", "ending"]
"""What a run does: it starts requests, it is paused, or it ends early and starts none."""


@dataclass(frozen=True, slots=True)
class ColumnProgress:
    """The cells of one column: their number, and how many have ended, by how they ended."""

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
    """None if the cost of a request is not known."""
    known_cost: float | None = None
    """The cost of those requests whose cost is known, None if there is none."""
    rate_limited: Mapping[str, float] = field(default_factory=dict)
    """For each lane whose requests are all refused by a rate limit: for how many seconds."""
    state: State = "running"

    @property
    def cells(self) -> int:
        """The number of all cells."""
        return sum(column.total for column in self.columns)

    @property
    def cells_over(self) -> int:
        """The number of cells that have ended: completed, failed or skipped."""
        return sum(column.completed + column.failed + column.skipped for column in self.columns)


Display: TypeAlias = Callable[[Callable[[], ProgressSnapshot]], AbstractContextManager[object]]
"""A function that gets a function which takes a snapshot (from any thread) and returns a context manager; the display
shows the run while the block is open."""

displays: Registry[Display] = Registry("progress display", entry_points="rowloop.displays")
