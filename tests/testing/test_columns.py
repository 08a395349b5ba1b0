"""check_column: our own kinds of columns pass it, and broken ones fail with the reason."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Literal

import pytest
from pydantic import Field

import rowloop as rl
from rowloop.engine.columns import CellError, Column, Fill, Node, Render, spec
from rowloop.testing import check_column

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rowloop.engine.columns import Binding, Lane

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
class Shout(Column):
    """The text of a column in capitals: a kind of column from outside."""

    of: str
    type: Literal["shout"] = Field(default="shout", kw_only=True)

    def node(self, _lanes: Mapping[str, Lane], /) -> Node:
        """Need the column."""
        return Node(self.name, (self.of,))

    def arrow_type(self) -> Any:
        """Text."""
        return "string"

    def bind(self, _binding: Binding, /) -> Any:
        """Work a cell on the spot."""
        return Render(str.upper)


def test_a_kind_from_outside_conforms():
    """It is a subclass of Column."""
    check_column(Shout("loud", of="text"), data=DATA)


def broken(**faults: Any) -> Shout:
    """Make a column that conforms but for some members."""
    kind: Any = type("Broken", (Shout,), {"__module__": __name__, **faults})
    column: Shout = spec(kind)("loud", of="text")
    return column


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


def adds_to_its_field(self: Shout) -> dict[str, Any]:
    """Describe another column than it is."""
    return {"name": self.name, "type": self.type, "of": f"{self.of}!"}


def leaves_a_field_out(self: Shout) -> dict[str, Any]:
    """Describe only half of it."""
    return {"name": self.name, "type": self.type}


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
            r"Broken\('loud'\)\.node\(\) returned .* and then .*; it has one place",
        ),
        (
            "arrow_type",
            lambda _self: "int64",
            r"a preview of 6 rows failed: column 'loud', row group 0: expect",
        ),
        ("bind", refuses_cells, r"a preview of 6 rows failed: .*not today"),
        ("bind", refuses_a_cell, r"has the status 'partial': \[\['loud', 'CellError', 'not this one'\]\]"),
        ("bind", counts, r"has other values in a second run with the same seed: row 0 of 'loud' is '\d+' and '\d+'"),
        ("identity", lambda _self: {"code": next(COUNTER)}, r"Broken\('loud'\)\.identity\(\) returned .* and then"),
        ("identity", lambda _self: {"a": {1, 2}}, r"Broken\('loud'\)\.identity\(\) must return plain data: .*set"),
        ("describe", lambda _self: {"name": "loud"}, r"Broken\('loud'\) is described as .*, without its type"),
        ("describe", adds_to_its_field, r"Broken\('loud'\) is read back as .*'text!!'.*, from .*'text!'"),
        (
            "describe",
            leaves_a_field_out,
            r"Broken\('loud'\) cannot be read back from \{.*\}: (?s:.)*of\n  Field req",
        ),
        ("model_alias", "writer", r"Broken\('loud'\)\.model_alias is 'writer', which is none of the models \[\]"),
        ("bind", numbers_groups, r"has other values in row groups of 2 rows: row 2 of 'loud' is '0' and '2'"),
    ],
)
def test_a_broken_kind_fails_with_the_reason(member: str, fault: Any, reason: str):
    """Each conforms but for one member."""
    column = broken(**{member: fault})
    with pytest.raises(AssertionError, match=reason):
        check_column(column, data=DATA)


def test_what_is_no_column_fails_with_the_reason():
    """A class with the right methods is not enough: recipe files and the JSON Schema need a spec."""

    class Duck:
        name, type = "x", "duck"

    with pytest.raises(AssertionError, match=r"a column is a rowloop\.engine\.columns\.ColumnSpec, not <tests"):
        check_column(Duck())


def test_a_kind_without_a_type_of_its_own_fails_with_the_reason():
    """It could not be named in a recipe file."""

    @spec
    class Nameless(Shout):
        """Has another type in each instance."""

        type: str = Field(default="any", kw_only=True)  # type: ignore[assignment] # pyright: ignore[reportIncompatibleVariableOverride] - the fault

    with pytest.raises(AssertionError, match=r"Nameless\('loud'\) cannot be named in a recipe file: the field `type`"):
        check_column(Nameless("loud", of="text"), data=DATA)


def test_a_column_of_chance_may_say_so():
    """Its values differ from run to run; rows that are there keep theirs when a build is resumed all the same."""
    check_column(broken(bind=counts), data=DATA, repeatable=False)
