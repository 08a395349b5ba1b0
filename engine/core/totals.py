"""Totals: what a run has come to so far, begun with what earlier runs of its dataset had.

Plain data; only the tracker changes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .graph import Graph
    from .row_groups import Earlier


@dataclass(slots=True)
class CellCounts:
    """The cells of one column that are over, by how they ended, and its tasks that are running."""

    completed: int = 0
    failed: int = 0
    skipped: int = 0
    running: int = 0


@dataclass(slots=True)
class Totals:
    """What a run has come to so far."""

    columns: list[CellCounts]
    committed: int = 0
    dropped: int = 0
    """Rows taken out because one of their cells failed; rows that a halt cut off are not among them."""
    groups_over: int = 0
    retries: int = 0
    waiting_to_retry: int = 0
    cut_short: list[int] = field(default_factory=list)
    """Row groups that lost rows because the run was halted."""

    @property
    def running(self) -> int:
        """How many tasks are in flight."""
        return sum(column.running for column in self.columns)


def totals_of(graph: Graph, earlier: Earlier) -> Totals:
    """Begin with what earlier runs have come to."""
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
