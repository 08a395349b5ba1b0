"""Claim: a directory that one run has to itself, and what earlier runs have left in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.row_groups import Earlier
from ..telemetry.spending import Spending

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from .journal import Facts, Journal, KeptFailure, Over, Task
    from .parts import Part


@dataclass(slots=True)
class Claim:
    """A directory that one run has to itself, locked, and what earlier runs have left in it."""

    path: Path
    journal: Journal
    facts: Facts
    fresh: bool = True
    left: bool = True
    """Whether there is anything left to be done."""
    finished: bool = False
    """Whether an earlier run has made all there is to be made, and said so."""
    rewritten: bool = False
    """Whether the parts are what after_generation has made of the rows."""
    earlier: Earlier = field(default_factory=Earlier)
    parts: list[Part] = field(default_factory=list)
    schema: pa.Schema | None = None
    uneven: bool = False
    """Whether parts differ in the types of their columns."""
    spent: Spending = field(default_factory=Spending)
    failures: list[KeptFailure] = field(default_factory=list)
    retried: list[KeptFailure] = field(default_factory=list)
    void: dict[int, list[Task]] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)
    """Row groups whose parts are gone."""
    unmarked: dict[int, Over] = field(default_factory=dict)
    """Row groups of which the journal does not say yet that they are over."""

    def begin(self) -> None:
        """Have the journal say that a run begins: what it does not go on with is forgotten."""
        if self.fresh:
            self.journal.begin(self.facts)
            return
        self.journal.forget(self.lost)
        for group, over in self.unmarked.items():
            self.journal.mark_over(group, over)
        self.journal.go_on(self.facts, self.void, self.retried)
