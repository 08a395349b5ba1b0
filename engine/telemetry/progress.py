"""Progress: the snapshot of a run at one moment, and the type of the displays that show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    counts: bool = True
    """Whether its cells count towards the progress of the run: those of a seed or a sampler take no time."""
    cost: float | None = None
    """What its requests have cost; None if the column makes none, or the price is not known."""

    @property
    def worked(self) -> int:
        """How many cells were worked to their end: completed or failed, but not skipped."""
        return self.completed + self.failed

    @property
    def left(self) -> int:
        """How many cells have not ended."""
        return self.total - self.worked - self.skipped


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
    name: str = "rowloop"
    """What displays call the run: its directory, or what it is a preview of."""
    ending: str | None = None
    """Why the run ends before every row is worked: "cancelled", "max_cost", "deadline" ...; None while it does not."""
    down: Mapping[str, float] = field(default_factory=dict)
    """For each lane whose endpoint is down, so that its rows wait: for how many seconds."""
    shared: Mapping[str, int] = field(default_factory=dict)
    """For each lane whose limit other runs of this process have shared: the most runs at a time, with this one."""

    @property
    def cells(self) -> int:
        """The number of all cells."""
        return sum(column.total for column in self.columns)

    @property
    def cells_over(self) -> int:
        """The number of cells that have ended: completed, failed or skipped."""
        return sum(column.worked + column.skipped for column in self.columns)

    @property
    def counted(self) -> Sequence[ColumnProgress]:
        """The columns whose cells count towards the progress; all columns if there are no such ones."""
        return [column for column in self.columns if column.counts] or self.columns

    @property
    def share(self) -> float:
        """The progress from 0 to 1: how much of the cells that count were worked. Skipped cells were not."""
        total = sum(column.total for column in self.counted)
        return min(1.0, sum(column.worked for column in self.counted) / total) if total > 0 else 0.0

    @property
    def left(self) -> int:
        """How many of the cells that count have not ended."""
        return sum(column.left for column in self.counted)


Display: TypeAlias = Callable[[Callable[[], ProgressSnapshot]], AbstractContextManager[object]]
"""A function that gets a function which takes a snapshot (from any thread) and returns a context manager; the display
shows the run while the block is open."""

displays: Registry[Display] = Registry("progress display", entry_points="rowloop.displays")
