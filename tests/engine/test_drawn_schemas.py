"""Every schema can be a column: whatever its values are, they survive a kill and are read back by every reader."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import duckdb
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings

from drawn_schemas import Shape, model_of, recipe_of, with_aliases
from rowloop.engine.columns.sources.json_text import is_json
from rowloop.engine.datasets.reading import read_result
from victims import CRASHED, Victims

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = ["a", "b", "c", "name", "items"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "bool": st.booleans(),
    "int": st.one_of(st.integers(-9, 9), st.integers(), st.integers(2**53, 2**53 + 9), st.integers(2**63 - 1, 2**70)),
    "small": st.integers(-(2**53), 2**53),
    "float": st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.just(2.0)),
    "str": TEXTS,
}
ANYTHING = st.recursive(
    st.one_of(*SCALARS.values()),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXTS, inner, max_size=2)),
    max_leaves=4,
)
SIMPLE = st.sampled_from(
    [["null"], ["bool"], ["int"], ["small"], ["float"], ["str"], ["any"], ["tree"], ["map", ["any"]]]
)
ENUMS = st.lists(st.one_of(st.booleans(), st.integers(0, 2), st.sampled_from(["x", "y"])), min_size=1, max_size=3)
TREES = st.recursive(
    st.builds(lambda value: {"value": value, "next": None}, st.integers(0, 9)),
    lambda inner: st.builds(lambda value, after: {"value": value, "next": after}, st.integers(0, 9), inner),
    max_leaves=3,
)


@st.composite
def objects(draw: st.DrawFn, parts: st.SearchStrategy[Shape]) -> Shape:
    """Draw an object of a few fields, some of which a value may lack."""
    fields = draw(st.dictionaries(st.sampled_from(NAMES), parts, max_size=3))
    required = [name for name in fields if draw(st.booleans())]
    return ["object", fields, required, draw(st.sampled_from(["closed", "silent", "open"]))]


def compound(parts: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    """Draw shapes that are made of others."""
    several = st.lists(parts, min_size=1, max_size=3)
    tagged = [["object", {"kind": ["enum", [kind]], "a": ["small"]}, ["kind"], "closed"] for kind in ("p", "q")]
    return st.one_of(
        objects(parts),
        st.builds(
            lambda part: ["optional", part], st.sampled_from([["small"], ["float"], ["str"], ["bool"], ["tree"]])
        ),
        st.builds(lambda part: ["list", part], parts),
        st.builds(lambda part: ["map", part], parts),
        st.builds(lambda inner: ["tuple", inner], several),
        st.builds(lambda inner: ["union", inner], several),
        st.builds(lambda values: ["enum", values], ENUMS),
        st.just(["tagged", tagged]),
    )


SHAPES = st.recursive(SIMPLE, compound, max_leaves=5)


def values_of(shape: Shape) -> st.SearchStrategy[Any]:
    """Draw values of a shape."""
    kind, *rest = shape
    if kind in SCALARS:
        return SCALARS[kind]
    if kind == "object":
        return objects_of(shape)
    if kind == "tuple":
        return st.tuples(*map(values_of, rest[0])).map(list)
    if kind in {"union", "tagged"}:
        return st.one_of(*map(values_of, rest[0]))
    return {
        "any": lambda: ANYTHING,
        "tree": lambda: TREES,
        "enum": lambda: st.sampled_from(rest[0]),
        "optional": lambda: st.one_of(st.none(), values_of(rest[0])),
        "list": lambda: st.lists(values_of(rest[0]), max_size=3),
        "map": lambda: st.dictionaries(TEXTS, values_of(rest[0]), max_size=3),
    }[kind]()


def objects_of(shape: Shape) -> st.SearchStrategy[Any]:
    """Draw objects, some without what is not required, and some with keys that the shape does not name."""
    _, fields, required, further = shape
    needed = {name: values_of(fields[name]) for name in required}
    others = {name: values_of(part) for name, part in fields.items() if name not in required}
    made = st.fixed_dictionaries(needed, optional=others)
    more = st.dictionaries(st.sampled_from(["more", "x"]), ANYTHING, max_size=1)
    return made if further == "closed" else st.builds(lambda value, also: {**also, **value}, made, more)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Shape, list[str], bool]:
    """Draw a shape, an answer for each row, and whether the schema is a pydantic model."""
    shape, as_model = draw(SHAPES), draw(st.booleans())
    values = draw(st.lists(values_of(shape), min_size=5, max_size=7))
    if as_model:
        values = [with_aliases(shape, value) if draw(st.booleans()) else value for value in values]
    return shape, [json.dumps(value) for value in values], as_model


def expected_of(shape: Shape, answers: list[str], *, as_model: bool) -> list[Any]:
    """Return the values that the answers stand for."""
    if not as_model:
        return [json.loads(answer) for answer in answers]
    model = model_of(shape)
    read = [model.model_validate_json(answer, by_name=True, by_alias=True) for answer in answers]
    return [value.model_dump(mode="json", by_alias=False) for value in read]


def without_nan(value: Any) -> Any:
    """Return None for what pandas makes of null."""
    return None if value is pd.NA or (isinstance(value, float) and math.isnan(value)) else value


def check(expected: Any, found: Any) -> None:
    """Compare a value with what a reader made of it: a key that a struct adds is null, and nothing else differs."""
    if isinstance(found, np.ndarray | np.generic):
        found = found.tolist()
    found = without_nan(found)
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        assert all(without_nan(found[key]) is None for key in found.keys() - expected.keys())
        for key, value in expected.items():
            check(value, found[key])
    elif isinstance(expected, list):
        assert len(expected) == len(found)
        for one, other in zip(expected, found, strict=True):
            check(one, other)
    else:
        assert found == expected
        assert isinstance(found, bool) == isinstance(expected, bool)


def read_by_all(path: Path) -> Iterator[list[Any]]:
    """Read `x` as rowloop, pandas, polars and DuckDB do."""
    yield read_result(path).dataset["x"].tolist()
    files = sorted((path / "data").iterdir())
    (json_text,) = {is_json(pq.read_schema(file).field("x")) for file in files}
    with duckdb.connect() as connection:
        connection.read_parquet([str(file) for file in files]).create_view("files")
        rows = connection.execute("SELECT x FROM files ORDER BY n").fetchall()
    for values in (
        pd.read_parquet(path / "data", dtype_backend="pyarrow")["x"].tolist(),
        pl.read_parquet(files)["x"].to_list(),
        [value for (value,) in rows],
    ):
        yield [json.loads(without_nan(text) or "null") for text in values] if json_text else values


@pytest.fixture(scope="module")
def victim() -> Iterator[Victims]:
    """Share the process that victims are forked from."""
    with Victims() as process:
        yield process


def check_case(victim: Victims, path: Path, case: tuple[Shape, list[str], bool], crash: int) -> None:
    """Build, crash, resume, and read back."""
    shape, answers, as_model = case
    options: dict[str, Any] = {"row_group_size": 2, "resume": "always"}
    victim.start(path, len(answers), crash_at=crash, shape=shape, answers=answers, as_model=as_model, options=options)
    assert victim.ended() in {0, CRASHED}
    result = recipe_of(shape, answers, as_model=as_model).build(path, progress=False, **options)
    assert (result.status, result.failures["message"].tolist()) == ("complete", [])
    expected = expected_of(shape, answers, as_model=as_model)
    for found in [result.dataset["x"].tolist(), *read_by_all(path)]:
        check(expected, found)


@given(case=cases(), crash=st.integers(1, 40))
@example(
    case=(["object", {"a": ["int"]}, ["a"], "silent"], ['{"a": 1}'] * 4 + ['{"a": 1, "more": 2}'], False), crash=30
)
@settings(max_examples=16)
def test_nothing_is_lost_and_no_run_is_ended_by_a_value(
    victim: Victims, tmp_path_factory: pytest.TempPathFactory, case: tuple[Shape, list[str], bool], crash: int
):
    """Unions, free keys, recursion, tuples, empty objects, big integers, aliases, computed fields, tagged unions."""
    check_case(victim, tmp_path_factory.mktemp("drawn") / "out", case, crash)


@pytest.mark.stress
@pytest.mark.timeout(900)
@given(case=cases(), crash=st.integers(1, 40))
@settings(max_examples=1500)
def test_nothing_is_lost_of_many_more(
    victim: Victims, tmp_path_factory: pytest.TempPathFactory, case: tuple[Shape, list[str], bool], crash: int
):
    """The same for as many as one has time for."""
    check_case(victim, tmp_path_factory.mktemp("drawn") / "out", case, crash)
