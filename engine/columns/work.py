"""How a column is worked: what a column spec becomes when a run binds it to models, threads and seeds.

A shape says what is worked at once (a cell, a whole row group) and where: on the spot in the loop's thread, awaited on
the loop, or in a thread. Each takes the values of the column's needs, in their order, and gives values back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..core.events import Usage

Value: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Answer:
    """A value that cost something: what a model column gives back instead of the bare value.

    `beside` is for the column that stands beside it, where there is one.
    """

    value: Value
    usage: Usage
    beside: Value = None


@dataclass(frozen=True, slots=True)
class Fill:
    """A whole column on the spot, from nothing but the position: (first row, number of rows) -> values."""

    fill: Callable[[int, int], Sequence[Value]]


@dataclass(frozen=True, slots=True)
class Render:
    """A cell on the spot: values of the needs -> value. For what takes microseconds."""

    render: Callable[..., Value]


@dataclass(frozen=True, slots=True)
class Await:
    """A cell that is awaited: values of the needs -> value, or Answer.

    `foreign`: the code is the user's own, and whatever it raises is a fault of the cell.
    """

    call: Callable[..., Awaitable[Value]]
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class InThread:
    """A cell that the user's own synchronous function works: values of the needs -> value."""

    function: Callable[..., Value]


@dataclass(frozen=True, slots=True)
class AwaitWhole:
    """A whole column that is awaited: the needs as lists over the live rows, and their number -> as many values."""

    call: Callable[[list[list[Value]], int], Awaitable[Sequence[Value]]]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Whole columns that are there already, changed: (row group, their live values as lists) -> as many lists.

    `columns` are their ids. A failure is no fault of a row and ends the run. In the sequential engine the lists may be
    of another length than they were.
    """

    columns: tuple[int, ...]
    call: Callable[[int, list[list[Value]]], Awaitable[list[list[Value]]]]


@dataclass(frozen=True, slots=True)
class Resize:
    """A whole column that may change how many rows its row group has (sequential engine).

    Gets the names and the live values of its needs, which are all columns that come before it, and gives as many lists
    and one more: its own values.
    """

    call: Callable[[list[str], list[list[Value]]], Awaitable[list[list[Value]]]]


@dataclass(frozen=True, slots=True)
class Beside:
    """A cell whose value came with that of the one cell it needs, and is in its place: nothing is left to be done."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """A node of the graph that does no work: columns wait for it that wait for all rows of another."""


Work: TypeAlias = Fill | Render | Await | InThread | AwaitWhole | Rewrite | Resize | Beside | Nothing


class Invalid(Exception):  # noqa: N818 - the word that the failures table has for it
    """A row is not valid, and is to be dropped; the message is the reason."""


class CellError(Exception):
    """A fault of this cell alone: what the user's function or template raised, or a value that will not do.

    The cause is in `__cause__`. Anything else that work raises, but for ModelError, is a fault of the engine and ends
    the run.
    """
