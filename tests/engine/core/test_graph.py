"""The compiled recipe: names become indices, and what cannot be compiled is refused with its path."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rowloop.engine.core.errors import RecipeError
from rowloop.engine.core.graph import Lane, Node, compile_graph


def refusal(*nodes: Node) -> str:
    """Give the words in which a recipe is refused."""
    with pytest.raises(RecipeError) as caught:
        compile_graph(nodes)
    return str(caught.value)


def test_no_columns() -> None:
    """A recipe without columns is refused."""
    assert refusal() == "columns: a table needs at least one column"


def test_two_columns_of_one_name() -> None:
    """A name that is there twice is refused."""
    assert refusal(Node("a"), Node("b"), Node("a")) == ("columns.a: there are two columns of this name; rename one")


def test_an_unknown_need_and_a_name_like_it() -> None:
    """A need that is no column is refused with the nearest name that is one."""
    assert refusal(Node("topic"), Node("answer", ("topci",))) == (
        "columns.answer: needs the unknown column 'topci'; did you mean 'topic'?"
    )


def test_an_unknown_need_and_no_name_like_it() -> None:
    """Where no name is near, those there are are listed, but for the column itself."""
    assert refusal(Node("topic"), Node("words"), Node("answer", ("xyz",))) == (
        "columns.answer: needs the unknown column 'xyz'; choose from: topic, words"
    )


def test_a_column_that_needs_itself() -> None:
    """The shortest circle is one."""
    assert refusal(Node("a", ("a",))) == "columns.a: columns need each other in a circle: a -> a"


def test_a_circle() -> None:
    """A circle is refused with the way around it, from need to need, without what only leads into it."""
    nodes = [Node("start"), Node("a", ("start", "c")), Node("b", ("a",)), Node("c", ("b",))]
    assert refusal(*nodes) == "columns.a: columns need each other in a circle: a -> c -> b -> a"
    assert refusal(Node("end", ("c",)), *nodes) == "columns.c: columns need each other in a circle: c -> b -> a -> c"


def test_what_a_column_waits_for() -> None:
    """A cell waits for the cells of its row and for whole columns; a whole column waits for whole ones."""
    graph = compile_graph(
        [
            Node("seed", strategy="whole"),
            Node("a", ("seed",)),
            Node("b", ("seed", "a")),
            Node("all", ("a", "b", "seed"), strategy="whole"),
        ]
    )
    seed, a, b, everything = graph.columns
    assert [(column.whole_needs, column.cell_needs) for column in graph.columns] == [(0, 0), (1, 0), (1, 1), (3, 0)]
    assert (seed.cell_children, seed.whole_children) == ((a.id, b.id), (everything.id,))
    assert (a.cell_children, a.whole_children) == ((b.id,), (everything.id,))
    assert everything.needs == (a.id, b.id, seed.id)


def test_a_need_that_is_named_twice_counts_once() -> None:
    """A template may use a column as often as it likes."""
    column = compile_graph([Node("a"), Node("b", ("a", "a"))]).columns[1]
    assert (column.needs, column.cell_needs) == ((0,), 1)


def test_what_is_waited_for_without_being_taken() -> None:
    """`after` makes a column wait, and gives it no value."""
    column = compile_graph([Node("a"), Node("b", after=("a",))]).columns[1]
    assert (column.needs, column.cell_needs) == ((), 1)


def test_lanes_are_shared() -> None:
    """Columns of one lane get the same one; a column without has none."""
    lane, other = Lane("writer", 4), Lane("judge", 2)
    graph = compile_graph([Node("a", lane=lane), Node("b", lane=other), Node("c", lane=lane), Node("d")])
    assert graph.lanes == (lane, other)
    assert [column.lane for column in graph.columns] == [0, 1, 0, None]


@given(st.data())
def test_needs_come_first(data: st.DataObject) -> None:
    """In whatever order columns are written, the compiled order has every column after its needs."""
    names = [f"c{i}" for i in range(data.draw(st.integers(1, 8)))]
    needs = {
        name: data.draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else [] for i, name in enumerate(names)
    }
    graph = compile_graph([Node(name, tuple(needs[name])) for name in data.draw(st.permutations(names))])
    assert sorted(graph.order) == list(range(len(names)))
    for at, column in enumerate(graph.order):
        assert set(graph.columns[column].needs) <= set(graph.order[:at])
