"""Comparing: which cells of a table an earlier table has already, by their column's definition and their inputs.

Columns that follow from each other are kept from one earlier row together, so that an answer stays beside the question
that it was given to. Columns without anything in common may be kept from different rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ...columns.definitions import in_order, matched, paid_before, roots_of
from .matching import Assigned, Rows, assign, combined, digests_of, kept, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from ...columns.definitions import Definition
    from ...datasets.earlier import EarlierTable

_BLOCK: Final = 4096
_ALIKE: Final = 0.5
"""The share of equal values from which a root is taken for an earlier one of another name."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The table that a run makes: its columns, the values of its roots by (first row, number of rows), and its rows."""

    definitions: Sequence[Definition]
    roots: Mapping[str, Callable[[int, int], Sequence[Any]]]
    seed: int
    rows: int


class Comparison:
    """A table that a run makes, cell by cell beside earlier tables; the latest comes first."""

    def __init__(self, wish: Wish, tables: Sequence[EarlierTable]) -> None:
        """Compare; reads the roots of all tables once."""
        self.wish = wish
        self.columns = in_order(wish.definitions)
        self._behind, self._roots = paid_before(wish.definitions), roots_of(wish.definitions)
        self._tables = tables
        self._digests = {name: _digests(fill, wish.rows) for name, fill in wish.roots.items()}
        self.same: list[dict[str, str]] = []
        """For each table, the earlier column that each column is."""
        self._rows = [self._rows_of(table) for table in tables]
        self.kept: dict[str, NDArray[np.bool_]] = {}
        """For each paid column, in which rows its cell is kept."""
        self._assigned: dict[str, Assigned] = {}
        for family in self._families():
            self._keep(family)

    def value(self, column: str, row: int, *, of: str | None = None) -> Any:
        """Return the value of a column that is kept with the cell of `of`, by default its own cell."""
        found = self._assigned[of or column]
        table = int(found.table[row])
        return self._tables[table].value(self.same[table][column], int(found.row[row]))

    def _keep(self, family: Sequence[str]) -> None:
        keys = {name: self._key(name) for name in family}
        found = assign(family, keys, self._rows)
        for name in reversed(family):  # each after those that it follows from
            mask = kept(found, name, keys[name], self._rows)
            for behind in self._behind[name]:
                mask &= self.kept[behind]
            self.kept[name], self._assigned[name] = mask, found

    def _families(self) -> list[list[str]]:
        """Group the paid columns that follow from each other; the last made and most specific first."""
        families: list[set[str]] = []
        for column in self.columns:
            if column.kind == "paid":
                own = {column.name, *self._behind[column.name]}
                joined = [family for family in families if family & own]
                families = [family for family in families if not family & own] + [own.union(*joined)]
        place = {column.name: i for i, column in enumerate(self.columns)}
        return [sorted(family, key=place.__getitem__, reverse=True) for family in families]

    def _key(self, name: str) -> NDArray[np.uint64]:
        rows = self.wish.rows
        return combined([self._digests[root] if root else numbers(rows) for root in self._roots[name]], rows)

    # The earlier tables

    def _rows_of(self, table: EarlierTable) -> Rows:
        then = {one.name: one for one in table.facts.definitions}
        there = {name: _written(table, name) for name, one in then.items() if one.kind == "root"}
        roots = self._same_roots(there)
        same_seed = table.facts.seed == self.wish.seed
        same = matched(self.columns, list(then.values()), same_seed=same_seed, roots=roots)
        self.same.append(same)
        for column in self.columns:
            if column.kind == "root" and column.name in same and same_seed:
                self._add_steady(column, then[same[column.name]], there, table.rows)
        keys: dict[str, NDArray[np.uint64]] = {}
        known: dict[str, NDArray[np.bool_]] = {}
        for column in self.columns:
            if (
                column.kind == "paid"
                and column.name in same
                and all(map(same.get, filter(None, self._roots[column.name])))
            ):
                behind = [there[same[root]] for root in self._roots[column.name] if root]
                parts = [there[same[root]][0] if root else numbers(table.rows) for root in self._roots[column.name]]
                keys[column.name] = combined(parts, table.rows)
                known[column.name] = self._there(column, same, table)
                for _, mask in behind:
                    known[column.name] &= mask
        return Rows(table.rows, keys, known)

    def _there(self, column: Definition, same: Mapping[str, str], table: EarlierTable) -> NDArray[np.bool_]:
        """Return the rows with a value of a column, of those beside it, and of all that it follows from."""
        names = [column.name, *self._behind[column.name]]
        names += [one.name for one in self.columns if one.kind == "beside" and one.inputs[0] == column.name]
        found = np.ones(table.rows, dtype=np.bool_)
        for name in names:
            found &= table.there(same[name]) if name in same else False
        return found

    def _same_roots(self, there: Mapping[str, tuple[NDArray[np.uint64], NDArray[np.bool_]]]) -> dict[str, str]:
        """Find roots by name, and those that were renamed by their values."""
        found = {name: name for name in self._digests if name in there}
        left = [name for name in there if name not in found]
        for name in [name for name in self._digests if name not in found]:
            alike = {other: _alike(self._digests[name], *there[other]) for other in left}
            best = max(alike, key=alike.__getitem__, default=None)
            if best is not None and alike[best] > _ALIKE:
                found[name] = best
                left.remove(best)
        return found

    def _add_steady(
        self,
        now: Definition,
        then: Definition,
        there: Mapping[str, tuple[NDArray[np.uint64], NDArray[np.bool_]]],
        rows: int,
    ) -> None:
        """Know the values of rows that are in no part, where a root is as it was and follows the row's number."""
        if now.local != then.local or not (now.steady or rows == self.wish.rows):
            return
        digests, known = there[then.name]
        size = min(rows, self.wish.rows)
        missing = np.flatnonzero(~known[:size])
        digests[missing] = self._digests[now.name][missing]
        known[missing] = True


def _digests(fill: Callable[[int, int], Sequence[Any]], rows: int) -> NDArray[np.uint64]:
    starts = range(0, rows, _BLOCK)
    return np.concatenate([digests_of(fill(start, min(_BLOCK, rows - start))) for start in starts])


def _written(table: EarlierTable, column: str) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Return the digests of the values of a root, and where they are known."""
    digests, known = np.zeros(table.rows, dtype=np.uint64), np.zeros(table.rows, dtype=np.bool_)
    for rows, values in table.written(column):
        digests[rows], known[rows] = digests_of(values), True
    return digests, known


def _alike(now: NDArray[np.uint64], then: NDArray[np.uint64], known: NDArray[np.bool_]) -> float:
    """Return the share of the known earlier values that are among today's."""
    values = then[known]
    return float(np.isin(values, now).mean()) if len(values) else 0.0
