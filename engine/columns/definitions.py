"""Definitions: what makes a column's values, apart from its name and its place, so that two recipes can be compared.

A definition holds a digest of what the column does with its inputs, and the names of the inputs. Two columns are the
same where the digests are equal and the inputs are the same columns, in turn. So a column can be renamed or moved
without becoming another one, and a changed one makes all columns behind it others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

Kind: TypeAlias = Literal["root", "free", "paid", "whole", "beside"]


class Definition(msgspec.Struct, frozen=True):
    """One column. `local` is the digest of what it does with its `inputs`, the columns whose values it takes.

    `kind`: a "root" has values without any input (samplers, seeds), which are compared themselves. "free" columns cost
    nothing (expressions). "paid" cells are worked by a model or a function, "whole" columns by row group. "beside":
    its values arrive with those of its only input. `numbered`: the row's number and the recipe's seed decide, too.
    `steady`: a root whose value in a row does not depend on the number of rows. `asks`: cells are requests to a model.
    """

    name: str
    kind: Kind
    local: str
    inputs: list[str]
    numbered: bool = False
    steady: bool = True
    asks: bool = False


def matched(
    now: Sequence[Definition], then: Sequence[Definition], *, same_seed: bool, roots: Mapping[str, str]
) -> dict[str, str]:
    """Return the earlier column that each column is; those that are new or have changed are left out.

    `roots` maps roots to earlier roots, which only their values tell apart. Needs the columns after their inputs.
    """
    found = dict(roots)
    taken: set[str] = set(roots.values())
    for column in now:
        if column.kind in {"root", "whole"} or (column.numbered and not same_seed):
            continue
        inputs = [found.get(name) for name in column.inputs]
        same = [
            one.name
            for one in then
            if (one.kind, one.local, one.inputs) == (column.kind, column.local, inputs) and one.name not in taken
        ]
        if same:
            found[column.name] = column.name if column.name in same else same[0]
            taken.add(found[column.name])
    return found


def in_order(columns: Sequence[Definition]) -> list[Definition]:
    """Sort definitions so that each comes after its inputs."""
    left, done, found = list(columns), set[str](), list[Definition]()
    while left:
        ready = [column for column in left if done.issuperset(column.inputs)]
        if not ready:
            return found
        found += ready
        done |= {column.name for column in ready}
        left = [column for column in left if column.name not in done]
    return found


def roots_of(columns: Sequence[Definition]) -> dict[str, tuple[str, ...]]:
    """Return the roots behind each column, sorted, and "" among them where the row's number decides a value."""
    found: dict[str, set[str]] = {}
    for column in in_order(columns):
        own = {column.name} if column.kind == "root" else set[str]()
        own |= {""} if column.numbered else set()
        found[column.name] = own.union(*(found[name] for name in column.inputs))
    return {name: tuple(sorted(roots)) for name, roots in found.items()}


def paid_before(columns: Sequence[Definition]) -> dict[str, tuple[str, ...]]:
    """Return the paid columns from which the values of each column are made, directly or not."""
    found: dict[str, dict[str, None]] = {}
    paid = {column.name for column in columns if column.kind == "paid"}
    for column in in_order(columns):
        behind = [*(name for need in column.inputs for name in found[need]), *(n for n in column.inputs if n in paid)]
        found[column.name] = dict.fromkeys(behind)
    return {name: tuple(behind) for name, behind in found.items()}


def why_changed(column: Definition, then: Sequence[Definition], same: Collection[str]) -> str:
    """Say why the cells of a column that matches no earlier one are made, in a few words."""
    if column.kind == "whole":
        return "it is worked in whole row groups"
    was = next((one for one in then if one.name == column.name), None)
    changed = [name for name in column.inputs if name not in same]
    if was is None:
        return "the column is new"
    if was.local != column.local:
        return "its definition has changed"
    return f"it follows from {', '.join(changed)}" if changed else "its inputs have changed"
