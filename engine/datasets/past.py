"""Past: what earlier runs of a dataset have left, and what a run that resumes it changes first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.row_groups import Earlier
from ..telemetry.spending import Spending

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from .journal_records import KeptFailure, Over, Task
    from .parts import Note, Part


@dataclass(frozen=True, slots=True)
class FoundParts:
    """The parts on the disk, and the schema that has room for the values of all of them.

    `uneven`: the parts differ in the types of their columns. A crash may leave them so while they are being widened.
    """

    parts: Sequence[Part] = ()
    schema: pa.Schema | None = None
    uneven: bool = False
    notes: Mapping[int, Note] = field(default_factory=dict)
    """What the parts say of themselves, by row group; parts of earlier versions say nothing."""


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier runs have left. A new dataset and a preview have an empty past."""

    earlier: Earlier = field(default_factory=Earlier)
    """The finished and begun row groups, for the tracker."""
    spent: Spending = field(default_factory=Spending)
    failures: Sequence[KeptFailure] = ()
    """The failures that this run does not retry."""
    found: FoundParts = field(default_factory=FoundParts)
    finished: bool = False
    """Whether every row group is over and metadata.json describes the end."""
    rewritten: bool = False
    """Whether after_generation has replaced the parts."""


@dataclass(frozen=True, slots=True)
class Reopening:
    """The changes to the journal with which a run resumes a dataset."""

    lost: Sequence[int] = ()
    """Row groups whose parts are gone."""
    unmarked: Mapping[int, Over] = field(default_factory=dict)
    """Row groups whose parts were written just before a crash, so the journal does not have them as over yet."""
    void: Mapping[int, Sequence[Task]] = field(default_factory=dict)
    """The tasks whose values no longer count, for each row group that is opened again."""
    retried: Sequence[KeptFailure] = ()
    """The failures that this run retries."""
    listed: Sequence[KeptFailure] = ()
    """The failures that only failures.parquet has, as the journal was lost."""
    rewriting: Sequence[int] | None = None
    """The rows of each part of after_generation, where it has replaced the others."""
