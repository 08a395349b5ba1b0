"""Plan: what an update of a dataset would keep and make, before anything is paid for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...columns.definitions import why_changed
from ...datasets.claim import Claim, claim
from ...datasets.directory import has_dataset
from ...datasets.earlier import opened
from ...datasets.reading import read_metadata
from .comparing import Comparison
from .updating import check_updatable, updated_facts, wish_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ...columns.column import Column
    from ...datasets.claim import Place
    from ...datasets.earlier import EarlierTable
    from ...datasets.journal_records import Facts
    from ...datasets.metadata import Metadata


@dataclass(frozen=True, slots=True)
class PlannedColumn:
    """One column of a plan: how many cells are kept and how many are made, and why.

    `requests` is the number of cells that ask a model. `dollars` follows from what the column's requests have cost in
    this dataset so far; None where that is not known.
    """

    name: str
    kept: int
    made: int
    requests: int
    dollars: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run with resume="update" would do: cells kept, requests, about how many dollars, and why, by column.

    Columns that cost nothing (samplers, seeds, expressions) are computed anew and not listed. Requests are one for each
    cell that asks a model: an answer that has to be asked for again adds one, and a row that is dropped saves some.
    """

    rows: int
    columns: tuple[PlannedColumn, ...]

    @property
    def requests(self) -> int:
        """How many requests to models are needed."""
        return sum(column.requests for column in self.columns)

    @property
    def kept(self) -> int:
        """How many cells are kept."""
        return sum(column.kept for column in self.columns)

    @property
    def dollars(self) -> float | None:
        """About what the requests cost, in US dollars; None where that is not known for all of them."""
        costs = [column.dollars for column in self.columns]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        columns = [{name: getattr(one, name) for name in PlannedColumn.__slots__} for one in self.columns]
        totals = {"rows": self.rows, "requests": self.requests, "dollars": self.dollars, "kept": self.kept}
        return {**totals, "columns": columns}

    def __str__(self) -> str:
        """Return the plan as text: a line for the whole, and one for each column."""
        cost = "at an unknown cost" if self.dollars is None else f"for about ${self.dollars:.2f}"
        lines = [f"{self.rows:,} rows: {self.kept:,} cells kept, {self.requests:,} requests {cost}"]
        width = max((len(column.name) for column in self.columns), default=0)
        lines += [
            f"  {one.name:{width}}  {one.kept:>9,} kept  {one.made:>9,} made  {one.why}".rstrip()
            for one in self.columns
        ]
        return "\n".join(lines)


def planned(path: Path, facts: Facts, columns: Sequence[Column], row_group_size: int | None = None) -> Plan:
    """Plan an update of the dataset in a directory; `facts` describe the table wanted. Nothing is changed.

    Raises ResumeError for a dataset that cannot be updated, and while a run works in the directory.
    """
    if not has_dataset(path):
        return plan_of(Comparison(wish_of(facts, columns, facts.targets[-1]), []), [], None)
    found: list[Plan] = []

    def examine(place: Place) -> Claim:
        there, wish = place.journal.facts, facts
        if there is not None:
            check_updatable(there, facts, rewritten=place.journal.rewriting is not None)
            wish = updated_facts(there, facts, row_group_size)
        with opened(path, place.journal, None if there is None else there.dataset) as tables:
            comparison = Comparison(wish_of(wish, columns, wish.targets[-1]), tables)
            found.append(plan_of(comparison, tables, read_metadata(path)))
        return Claim(place, facts)

    claim(path, "update", examine, overwrite=False).place.close()
    return found[0]


def plan_of(comparison: Comparison, tables: Sequence[EarlierTable], metadata: Metadata | None) -> Plan:
    """Count what a comparison keeps; `metadata` has what requests have cost."""
    costs = {} if metadata is None else _costs(metadata)
    columns = []
    for column in comparison.wish.definitions:
        if column.kind not in {"paid", "whole"}:
            continue
        mask = comparison.kept.get(column.name)
        kept = 0 if mask is None else int(mask.sum())
        made = comparison.wish.rows - kept
        then = next((same[column.name] for same in comparison.same if column.name in same), None)
        each = 0.0 if not (made and column.asks) else costs.get(then or column.name)
        why = _why(comparison, tables, column.name, made)
        requests = made if column.asks else 0
        columns.append(PlannedColumn(column.name, kept, made, requests, None if each is None else each * made, why))
    return Plan(comparison.wish.rows, tuple(columns))


def _costs(metadata: Metadata) -> Mapping[str, float]:
    """Return the mean cost of a request by column, where the costs of all its requests are known."""
    return {one.name: one.cost / one.requests for one in metadata.columns if one.requests and one.cost is not None}


def _why(comparison: Comparison, tables: Sequence[EarlierTable], name: str, made: int) -> str:
    if not made or not tables:
        return "" if not made else "the dataset is new"
    column = next(one for one in comparison.columns if one.name == name)
    latest = comparison.same[0]
    if any(name in same for same in comparison.same):
        added = comparison.wish.rows - tables[0].rows
        return f"new rows: {added:,}" if made == added else "rows are new, changed, or failed before"
    return why_changed(column, tables[0].facts.definitions, latest)
