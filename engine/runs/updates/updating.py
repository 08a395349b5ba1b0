"""Updating: the earlier values that an update puts into its row groups, and the datasets that cannot be updated."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from ....runtime.threads import Threads
from ...columns.column import Binding
from ...columns.work import Fill, FillInThread
from ...core.errors import ResumeError
from ...core.events import Restored
from ...datasets.directory import OVERWRITE
from ...datasets.earlier import forget_earlier, opened, set_aside
from .comparing import Comparison, Wish

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...columns.column import Column
    from ...columns.definitions import Definition
    from ...core.graph import Graph
    from ...core.store import RowGroup
    from ...datasets.claim import Place
    from ...datasets.journal_records import Facts
    from ...telemetry.spending import Spending

_SAFE_PROCESSORS = frozenset({"drop_columns"})


def check_updatable(there: Facts, wanted: Facts, *, rewritten: bool) -> None:
    """Raise ResumeError, with the reason, for a dataset or a recipe that cannot be updated."""
    problem = None
    processors = [*there.identity["processors"], *wanted.identity["processors"]]
    other = [one.get("name", one.get("type")) for one in processors if one.get("type") not in _SAFE_PROCESSORS]
    if other:
        problem = f"the processor {other[0]} changes values, so the table does not show what cells were made from"
    elif rewritten:
        problem = "after_generation has replaced its rows"
    elif "sequential" in {there.engine, wanted.engine}:
        problem = "the sequential engine and allow_resize have no fixed rows"
    elif not there.definitions:
        problem = "an earlier version made it, and did not note how its columns are defined"
    if problem is not None:
        raise ResumeError(f"the dataset cannot be updated: {problem}; choose another directory, or use ", OVERWRITE)


def updated_facts(there: Facts, wanted: Facts, row_group_size: int | None) -> Facts:
    """Return the facts of the dataset that replaces another one; its random seed stays if the recipe has none."""
    seed = there.seed if wanted.identity["seed"] is None else wanted.seed
    return msgspec.structs.replace(wanted, seed=seed, row_group_size=row_group_size or there.row_group_size)


class Update:
    """An update of the dataset in a claimed directory; it lasts until a run has worked every row group."""

    def __init__(self, place: Place, facts: Facts, columns: Sequence[Column], graph: Graph) -> None:
        """Take the new dataset; `columns` are those of its table."""
        self._place = place
        self._facts = facts
        self._columns = columns
        self._graph = graph
        self._stack = contextlib.ExitStack()
        self._comparison: Comparison | None = None

    def begin(self) -> None:
        """Set the dataset in force aside, and begin the new one in its journal; a crash in between repeats this."""
        journal, there = self._place.journal, self._place.journal.facts
        assert there is not None  # noqa: S101 - else there is nothing to update
        spending = spending_of(journal.spending, there.definitions, self._facts.definitions)
        set_aside(self._place.path, journal, there.dataset)
        journal.begin(self._facts)
        journal.write([], [], spending)

    def prepare(self) -> None:
        """Compare the new dataset with all that was set aside. Takes time: not on the loop."""
        tables = self._stack.enter_context(opened(self._place.path, None, self._facts.dataset))
        wish = wish_of(self._facts, self._columns, max(self._facts.targets))
        self._comparison = Comparison(wish, tables)

    def restore(self, group: RowGroup, known: Restored) -> Restored:
        """Put kept values into a row group beside what the journal has; called in the writer's thread."""
        comparison = self._comparison
        if comparison is None:
            return known
        ids = {column.name: column.id for column in self._graph.columns}
        there = {*known.cells, *(task[:2] for task in known.failed)}
        cells = list(known.cells)
        for column in comparison.columns:
            if column.kind not in {"paid", "beside"}:
                continue
            of, id_ = column.name if column.kind == "paid" else column.inputs[0], ids[column.name]
            if of not in comparison.kept:
                continue
            mask = comparison.kept[of][group.start : group.start + group.size]
            for row in mask.nonzero()[0].tolist():
                if (id_, row) not in there:
                    group.values[id_][row] = comparison.value(column.name, group.start + row, of=of)
                    cells.append((id_, row))
        return Restored(group.id, cells, known.wholes, known.failed)

    def finish(self) -> None:
        """Remove what was set aside, as every row group has been worked."""
        self.close()
        forget_earlier(self._place.path, self._facts.dataset)

    def close(self) -> None:
        """Close what was set aside."""
        self._comparison = None
        self._stack.close()


def wish_of(facts: Facts, columns: Sequence[Column], rows: int) -> Wish:
    """Return the table that a dataset is to be, with the values of its roots."""
    binding = Binding(facts.seed, Threads(1), {}, {}, None, rows)
    kinds = {one.name: one.kind for one in facts.definitions}
    roots = {}
    for column in columns:
        if kinds[column.name] == "root":
            work = column.bind(binding)
            assert isinstance(work, Fill | FillInThread)  # noqa: S101 - a root is filled from the position alone
            roots[column.name] = work.fill
    return Wish(facts.definitions, roots, facts.seed, rows)


def spending_of(spent: Spending, then: Sequence[Definition], now: Sequence[Definition]) -> Spending:
    """Return what a dataset has spent, by the columns that it has now; those that are gone are counted no more."""
    ids = {one.name: i for i, one in enumerate(now)}
    place = {i: ids[one.name] for i, one in enumerate(then) if one.name in ids}

    def moved(given: Mapping[int, object]) -> dict[int, object]:
        return {place[i]: value for i, value in given.items() if i in place}

    maps = {name: moved(getattr(spent, name)) for name in ("columns", "structured", "costs", "caches")}
    return msgspec.structs.replace(spent, **maps, uncounted=[place[i] for i in spent.uncounted if i in place])
