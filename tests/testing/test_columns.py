"""check_column: our own kinds of columns pass it, and broken ones fail with the reason."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Literal

import pytest
from pydantic import Field

import rowloop as rl
from rowloop.engine.columns.work import CellError, Fill, Render
from rowloop.engine.core.graph import Node
from rowloop.engine.core.spec import spec
from rowloop.testing import check_column

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rowloop.engine.columns.column import Binding
    from rowloop.engine.core.graph import Lane

DATA = [{"n": n, "text": f"text {n}"} for n in range(6)]
GRADE = {"type": "object", "properties": {"stars": {"type": "integer"}}, "required": ["stars"]}
MODELS: dict[str, Any] = {
    "echo": lambda prompt: prompt.upper(),
    "grader": lambda prompt: {"stars": len(prompt)},
    "numbers": lambda text: [float(len(text)), 1.0],
}


@rl.cell
def doubled(n: int) -> int:
    """Work one cell."""
    return 2 * n


@rl.cell
async def tripled(n: int) -> int:
    """Work one cell on the loop."""
    return 3 * n


@rl.batch
def shifted(n: list[int]) -> list[int]:
    """Work a row group."""
    return [value + 1 for value in n]


@pytest.mark.parametrize(
    "column",
    [
        rl.Category("kind", values=["a", "b"], weights=[1, 3]),
        rl.Uniform("share", 0, 1),
        rl.Expression("line", "{{ n }}: {{ text }}"),
        rl.Text("said", model="echo", prompt="Say {{ text }}."),
        rl.Structured("grade", model="grader", prompt="Grade {{ text }}.", schema=GRADE),
        rl.Embedding("vector", model="numbers", text="{{ text }}"),
        rl.Validate("even", check=lambda n: n % 2 == 0),
        rl.Validate("long", sql="length(text) > 3"),
        doubled,
        tripled,
        shifted,
    ],
    ids=lambda column: f"{column.type} {column.name}",
)
def test_our_own_kinds_conform(column: Any):
    """Samplers, expressions, what models answer, verdicts and functions."""
    check_column(column, data=DATA, models=MODELS)


def test_a_column_without_needs_takes_no_data():
    """Nor models."""
    check_column(rl.Category("kind", values=["a", "b"]))


@spec
class Shout:
    """The text of a column in capitals: a kind of column from outside."""

    name: str
    of: str
    type: Literal["shout"] = Field(default="shout", kw_only=True)

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Need the column."""
        return Node(self.name, (self.of,))

    def arrow_type(self) -> Any:
        """Text."""
        return "string"

    def bind(self, _binding: Binding) -> Any:
        """Work a cell on the spot."""
        return Render(str.upper)


def test_a_kind_from_outside_conforms():
    """It is a spec with the members of ColumnSpec."""
    check_column(Shout("loud", of="text"), data=DATA)


COUNTER = itertools.count()


def counts(_self: Shout, _binding: Binding) -> Any:
    """Give other values each time."""
    return Render(lambda _text: str(next(COUNTER)))


def numbers_groups(_self: Shout, _binding: Binding) -> Any:
    """Depend on where a row group begins."""
    return Fill(lambda start, rows: [str(start)] * rows)


def needs_nothing_known(self: Shout, _lanes: Mapping[str, Lane]) -> Node:
    """Need a column that is not there."""
    return Node(self.name, ("txt",))


def is_called_otherwise(_self: Shout, _lanes: Mapping[str, Lane]) -> Node:
    """Have another name in the graph."""
    return Node("other", ("text",))


def forgets_its_name(_self: Shout, _lanes: Mapping[str, Lane]) -> Node:
    """Depend on how often it was asked."""
    return Node("loud", ("text",), after=("n",) * next(COUNTER))


def refuses_cells(_self: Shout, _binding: Binding) -> Any:
    """Work no cell."""

    def render(_text: str) -> str:
        raise CellError("not today")

    return Render(render)


def refuses_a_cell(_self: Shout, _binding: Binding) -> Any:
    """Work all cells but one."""

    def render(text: str) -> str:
        if text.endswith("3"):
            raise CellError("not this one")
        return text

    return Render(render)


@pytest.mark.parametrize(
    ("member", "fault", "reason"),
    [
        ("node", needs_nothing_known, r"Broken\('loud'\) makes no recipe with the data and models given: .*'txt'"),
        ("node", is_called_otherwise, r"Broken\('loud'\)\.node\(\) has the name 'other', not 'loud'"),
        (
            "node",
            forgets_its_name,
            r"Broken\('loud'\)\.node\(\) returned .* and then .*; it must depend on the",
        ),
        (
            "arrow_type",
            lambda _self: "int64",
            r"a preview of 6 rows failed: column 'loud', row group 0: expect",
        ),
        ("bind", refuses_cells, r"a preview of 6 rows failed: .*not today"),
        ("bind", refuses_a_cell, r"has the status 'partial': \[\['loud', 'CellError', 'not this one'\]\]"),
        ("bind", counts, r"has other values in a second run with the same seed: row 0 of 'loud' is '\d+' and '\d+'"),
        ("bind", numbers_groups, r"has other values in row groups of 2 rows: row 2 of 'loud' is '0' and '2'"),
    ],
)
def test_a_broken_kind_fails_with_the_reason(member: str, fault: Any, reason: str):
    """Each conforms but for one member."""
    broken = type("Broken", (Shout,), {member: fault})("loud", of="text")
    with pytest.raises(AssertionError, match=reason):
        check_column(broken, data=DATA)


def test_a_column_without_a_type_fails_with_the_reason():
    """Every column says by a name what kind it is."""

    class Nameless:
        name = "x"

    with pytest.raises(AssertionError, match=r"a column has an attribute type, a str; that of .* is None"):
        check_column(Nameless())


def test_a_column_of_chance_may_say_so():
    """Its values differ from run to run; rows that are there keep theirs when a build is resumed all the same."""
    chance = type("Chance", (Shout,), {"bind": counts})("loud", of="text")
    check_column(chance, data=DATA, repeatable=False)
