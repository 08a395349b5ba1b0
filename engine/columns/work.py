"""Work: what a column becomes when a run binds it to models, threads and seeds.

A shape says how much is worked at once (a cell, a whole row group) and where: on the spot in the loop's thread, awaited
on the loop, or in a thread. Each takes the values of the column's needs, in order, and returns values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..core.events import Usage

Value: TypeAlias = Any


class Answer(msgspec.Struct, frozen=True):
    """A value with its usage: what the call of a column returns instead of the bare value.

    `usage` is None where no model was asked. `beside` is the value of the column beside it, if there is one. As events
    are, it is a msgspec struct: there is one for every cell.
    """

    value: Value
    usage: Usage | None = None
    beside: Value = None


@dataclass(frozen=True, slots=True)
class Fill:
    """A whole column on the spot, from the position alone: (first row, number of rows) -> values."""

    fill: Callable[[int, int], Sequence[Value]]


@dataclass(frozen=True, slots=True)
class FillInThread:
    """A whole column in a thread, from the position alone: for values that have to be read first."""

    fill: Callable[[int, int], Sequence[Value]]


@dataclass(frozen=True, slots=True)
class Render:
    """A cell on the spot: values of the needs -> value. For work of microseconds.

    `numbered`: the row's number comes after the values.
    """

    render: Callable[..., Value]
    numbered: bool = False


@dataclass(frozen=True, slots=True)
class Await:
    """A cell that is awaited: values of the needs -> value, or Answer.

    `foreign`: the code is the user's own, and any exception of it fails the cell. `numbered`: the row's number comes
    after the values. `fits`: every value is known to be of the column's type, so none is checked. `hedged`: a cell that
    takes long may be asked for a second time. `vectors`: the values are vectors, which the columns that need them get
    as lists.
    """

    call: Callable[..., Awaitable[Value]]
    foreign: bool = False
    numbered: bool = False
    fits: bool = False
    hedged: bool = False
    vectors: bool = False


@dataclass(frozen=True, slots=True)
class InThread:
    """A cell worked by the user's own synchronous function, in a thread: values of the needs -> value."""

    function: Callable[..., Value]


@dataclass(frozen=True, slots=True)
class AwaitWhole:
    """A whole column that is awaited: (the needs as lists over the live rows, their number) -> one value per row."""

    call: Callable[[list[list[Value]], int], Awaitable[Sequence[Value]]]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Whole columns changed after they are filled: (row group, their live values as lists) -> as many lists.

    `columns` are their ids. A failure ends the run, as no single row is at fault. In the sequential engine the returned
    lists may be longer or shorter.
    """

    columns: tuple[int, ...]
    call: Callable[[int, list[list[Value]]], Awaitable[list[list[Value]]]]


@dataclass(frozen=True, slots=True)
class Resize:
    """A whole column that may change the number of rows of its row group (sequential engine).

    Takes the names and the live values of its needs, which are all columns before it, and returns as many lists and one
    more: its own values.
    """

    call: Callable[[list[str], list[list[Value]]], Awaitable[list[list[Value]]]]


@dataclass(frozen=True, slots=True)
class Beside:
    """A cell whose value arrived with the value of its only need. There is no work left."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """A node of the graph that does no work: a barrier for columns that wait for all rows of another."""


Work: TypeAlias = Fill | FillInThread | Render | Await | InThread | AwaitWhole | Rewrite | Resize | Beside | Nothing
