"""Totals: the counts of a run so far, starting from those of earlier runs of its dataset.

Plain data; only the tracker changes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .row_groups import DONE, SKIPPED

if TYPE_CHECKING:
    from .graph import Graph
    from .row_groups import Earlier


@dataclass(slots=True)
class CellCounts:
    """The cells of one column that have ended, by how they ended, and its tasks that are running."""

    completed: int = 0
    failed: int = 0
    skipped: int = 0
    running: int = 0

    def add_whole(self, state: int, worked: int, rows: int) -> None:
        """Add a whole column: the rows it was worked for ended as it did, the others were dropped before."""
        worked = 0 if state == SKIPPED else worked
        if state == DONE:
            self.completed += worked
        else:
            self.failed += worked
        self.skipped += rows - worked


@dataclass(slots=True)
class Totals:
    """The counts of a run so far."""

    columns: list[CellCounts]
    committed: int = 0
    dropped: int = 0
    """Rows taken out because one of their cells failed, without those that a halt cut off."""
    groups_over: int = 0
    retries: int = 0
    waiting_to_retry: int = 0
    cut_short: list[int] = field(default_factory=list)
    """Row groups that lost rows because the run was halted."""

    def add_group(self, group: int, *, cut: bool) -> None:
        """Add a row group that is over."""
        if cut:
            self.cut_short.append(group)
        self.groups_over += 1

    @property
    def running(self) -> int:
        """How many tasks are in flight."""
        return sum(column.running for column in self.columns)


def totals_of(graph: Graph, earlier: Earlier) -> Totals:
    """Start from the tallies of the row groups that earlier runs have finished."""
    totals = Totals([CellCounts() for _ in graph.columns])
    for tally in earlier.over.values():
        totals.committed += tally.live
        totals.dropped += tally.dropped
        totals.groups_over += 1
        for count, (completed, failed, skipped) in zip(totals.columns, tally.columns, strict=True):
            count.completed += completed
            count.failed += failed
            count.skipped += skipped
    return totals
