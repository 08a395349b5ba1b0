"""Kinds of columns and processors: one class and one line, in rowloop or in a package of another's."""

from __future__ import annotations

import inspect
import re
import statistics
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jsonschema_rs
import pytest
from pydantic import Field

import rowloop as rl
from packages import run_with, write_package
from rowloop.engine.columns import Column, Render, Sampler, column_types, spec
from rowloop.engine.columns.column import ColumnSpec
from rowloop.engine.core.graph import Node
from rowloop.engine.core.spec import check_kind
from rowloop.engine.processors import processor_types

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from fake_openai import FakeOpenAI
    from rowloop.engine.columns import Binding, Lane

GUIDE = (Path(__file__).parents[2] / "docs/extending.md").read_text("utf-8")


def block(language: str) -> str:
    """Return the only block of docs/extending.md in a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    return found


# A package of another's, in processes of their own


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Install the package of the documents, and one that cannot be imported."""
    folder = tmp_path / "packages"
    write_package(folder, "rowloop_tags", block("python"), tomllib.loads(block("toml"))["project"]["entry-points"])
    broken = {"rowloop.columns": {"broken": "rowloop_broken:Broken"}}
    write_package(folder, "rowloop_broken", "raise RuntimeError('no licence')", broken)
    return folder


BUILD = """
import json, sys
import rowloop as rl
source, path, options = sys.argv[1:]
result = rl.Recipe.from_yaml(source).build(path, 12, row_group_size=4, progress=False, **json.loads(options))
print(json.dumps({
    "status": result.status,
    "rows": result.to_arrow().to_pylist(),
    "asked": {name: spent.requests for name, spent in result.usage_by_column.items()},
    "types": {column["name"]: column["type"] for column in result.metadata["columns"]},
}))
"""


def test_a_package_brings_a_kind_of_column_and_of_processor(packages: Path, server: FakeOpenAI, tmp_path: Path):
    """In a recipe file: rows, types, usage by column; cut short and resumed, nothing is asked for again."""
    source = block("yaml").replace(
        '"openai:gpt-5-mini"', f"{{spec: 'openai:m', base_url: '{server.url}', max_parallel: 2}}"
    )
    path = tmp_path / "out"
    first = run_with(packages, BUILD, source, path, '{"max_tokens_total": 50}')
    asked = server.counters().requests
    assert first["status"] == "partial"
    assert 0 < asked < 12
    last = run_with(packages, BUILD, source, path, '{"resume": "always"}')
    assert (last["status"], len(last["rows"])) == ("complete", 12)
    assert last["asked"] == {"labels": server.counters().requests} == {"labels": 12}
    assert last["types"] == {"topic": "category", "labels": "tags"}
    assert all(list(row) == ["topic", "tags"] and isinstance(row["tags"], list) for row in last["rows"])
    again = run_with(packages, BUILD, source, path, '{"resume": "always"}')
    assert (again["rows"], server.counters().requests) == (last["rows"], 12)


DESCRIBE = """
import json, sys
import rowloop as rl
import rowloop_tags
source = sys.argv[1]
columns = [
    rl.Category("topic", ["math", "law", "art"]),
    rowloop_tags.Tags("labels", model="writer", prompt="Tags for {{ topic }}:", most=3),
]
processors = [rowloop_tags.RenameColumns({"labels": "tags"})]
made = rl.Recipe(models={"writer": "openai:gpt-5-mini"}, columns=columns, processors=processors)
read = rl.Recipe.from_yaml(source)
other = rl.Recipe.from_yaml(source.replace("most: 3", "most: 4"))

def refused(old, new):
    try:
        rl.Recipe.from_yaml(source.replace(old, new))
    except rl.RecipeError as error:
        return str(error)

print(json.dumps({
    "same": made.to_yaml() == read.to_yaml() == rl.Recipe.from_yaml(made.to_yaml()).to_yaml(),
    "fingerprints": [made.fingerprint, read.fingerprint, other.fingerprint],
    "written": read.written,
    "data": made.to_dict(),
    "schema": rl.Recipe.json_schema(),
    "field": refused("most: 3", "mist: 3"),
    "value": refused("most: 3", "most: 0"),
    "need": refused("{labels: tags}", "{label: tags}"),
    "kind": refused("type: tags", "type: tag"),
    "broken": refused("type: tags", "type: broken"),
}))
"""


@pytest.mark.outside
def test_the_kinds_of_a_package_are_like_our_own_in_python_yaml_and_schema(packages: Path):
    """Read and written the same, checked the same, refused with the same words."""
    found = run_with(packages, DESCRIBE, block("yaml"))
    assert found["same"]
    made, read, other = found["fingerprints"]
    assert made == read != other
    assert found["written"] == ["topic", "tags"]
    schema = jsonschema_rs.validator_for(found["schema"])
    schema.validate(found["data"])
    found["data"]["columns"][1]["most"] = 0
    assert not schema.is_valid(found["data"])
    assert found["field"] == "columns.labels.mist: unknown field; did you mean 'most'?"
    assert found["value"].startswith("columns.labels.most: Input should be greater than or equal to 1")
    assert found["need"] == "processors.RenameColumns: unknown column 'label'; did you mean 'labels'?"
    assert found["kind"] == "columns.labels.type: unknown type of column 'tag'; did you mean 'tags'?"


@pytest.mark.outside
def test_a_package_that_cannot_be_imported_is_named_and_harms_no_other(packages: Path):
    """A recipe of its kind is refused with its name and error; the JSON Schema is written without it."""
    found = run_with(packages, DESCRIBE, block("yaml"))
    assert found["broken"] == (
        "columns.labels.type: the type of column 'broken' of the package rowloop-broken cannot be loaded"
        " (rowloop_broken:Broken): no licence"
    )
    assert {"Tags", "RenameColumns", "Category", "DropColumns"} <= found["schema"]["$defs"].keys()
    assert "Broken" not in found["schema"]["$defs"]


# In this process


@pytest.fixture
def fresh_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo registrations at the end of the test."""
    for kinds in (column_types, processor_types):
        monkeypatch.setattr(kinds, "_known", dict(vars(kinds)["_known"]))


@spec
class Gaussian(Sampler):
    """A number of a normal distribution."""

    mean: float = 0.0
    stddev: float = Field(default=1.0, gt=0)
    type: Literal["gaussian"] = Field(default="gaussian", kw_only=True)

    def arrow_type(self) -> str:
        """Return floats."""
        return "float64"

    def values_of(self) -> Callable[[NDArray[np.float64]], list[float]]:
        """Invert the cumulative distribution."""
        inverse = statistics.NormalDist(self.mean, self.stddev).inv_cdf
        return lambda numbers: [inverse(number) for number in numbers.clip(1e-300).tolist()]


@pytest.mark.usefixtures("fresh_tables")
def test_a_sampler_is_one_class_and_one_line():
    """The line makes it known to recipe files and their schema; its values do not depend on the row groups."""
    column_types.register("gaussian", Gaussian)
    recipe = rl.Recipe.from_yaml("seed: 3\ncolumns:\n  - {name: g, type: gaussian, mean: 10, stddev: 2}\n")
    assert rl.Recipe.from_yaml(recipe.to_yaml()).fingerprint == recipe.fingerprint
    jsonschema_rs.validator_for(rl.Recipe.json_schema()).validate(recipe.to_dict())
    values = recipe.preview(2000, progress=False).dataset["g"].tolist()
    assert statistics.fmean(values) == pytest.approx(10, abs=0.2)
    assert statistics.stdev(values) == pytest.approx(2, abs=0.2)
    assert recipe.preview(2000, row_group_size=7, progress=False).dataset["g"].tolist() == values


@spec
class Squared(Column):
    """The square of another column. `note` says nothing of its values."""

    of: str
    note: str = Field(default="", kw_only=True)
    type: Literal["squared"] = Field(default="squared", kw_only=True)

    def identity(self) -> dict[str, Any]:
        """Leave the note out."""
        return {field: value for field, value in super().identity().items() if field != "note"}

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Need the other column."""
        return Node(self.name, (self.of,))

    def bind(self, _binding: Binding) -> Render:
        """Multiply."""
        return Render(lambda value: value * value)


def test_a_kind_that_is_not_registered_works_in_python(tmp_path: Path):
    """With the defaults of Column: the first values decide the type, every field but the excluded one the identity."""

    def made(**fields: Any) -> rl.Recipe:
        return rl.Recipe(columns=[rl.Uniform("u", 1, 6, decimals=0), Squared("s", **{"of": "u", **fields})], seed=1)

    result = made().build(tmp_path, 20, progress=False)
    assert result.dataset["s"].tolist() == (result.dataset["u"] ** 2).tolist()
    assert result.metadata["columns"][1]["type"] == "squared"
    made(note="other").build(tmp_path, 30, resume="always", progress=False)
    with pytest.raises(rl.ResumeError, match=r"columns\.s\.of is 's2', and was 'u'"):
        rl.Recipe(columns=[rl.Uniform("u", 1, 6, decimals=0), rl.Uniform("s2"), Squared("s", "s2")], seed=1).build(
            tmp_path, 40, resume="always", progress=False
        )


def scaled_by_two() -> type[Squared]:
    """Return a kind."""

    @spec
    class Scaled(Squared):
        """A multiple of another column."""

        def bind(self, _binding: Binding) -> Render:
            """Multiply."""
            return Render(lambda value: value * 2)

    return Scaled


def scaled_by_three() -> type[Squared]:
    """Return a kind of the same name and fields."""

    @spec
    class Scaled(Squared):
        """A multiple of another column."""

        def bind(self, _binding: Binding) -> Render:
            """Multiply."""
            return Render(lambda value: value * 3)

    return Scaled


def test_the_code_of_a_kind_outside_rowloop_counts():
    """Two kinds that differ in code alone make two datasets."""

    def fingerprint(kind: type[Squared]) -> str:
        return rl.Recipe(columns=[rl.Uniform("u"), kind("s", "u")]).fingerprint

    assert fingerprint(scaled_by_two()) == fingerprint(scaled_by_two()) != fingerprint(scaled_by_three())


def test_a_subclass_without_spec_is_refused():
    """Its fields could not be checked, and would not count in the identity."""

    class Plain(Squared):
        """Without @spec."""

    with pytest.raises(rl.RecipeError, match=r"^columns: the class Plain of .* needs @spec above it"):
        rl.Recipe(columns=[rl.Uniform("u"), Plain("s", "u")])


@spec
class Misnamed(Squared):
    """A kind whose field `type` is another word than its entry point."""


class Bare(Column):
    """A kind without @spec."""


@spec
class Unfinished(Column):
    """A kind without work."""

    type: Literal["odd"] = Field(default="odd", kw_only=True)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (Misnamed, r'the field `type` of Misnamed must be Literal\["odd"\], and is \'squared\''),
        (Bare, "a kind is a subclass of ColumnSpec with @spec above it, not <class .*Bare"),
        (rl.Processor, "a kind is a subclass of ColumnSpec with @spec above it, not <class .*Processor"),
        (5, "a kind is a subclass of ColumnSpec with @spec above it, not 5"),
        (Unfinished, "Unfinished does not implement bind, node"),
    ],
)
def test_a_package_whose_entry_point_is_no_kind_is_named(
    kind: object, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Before any recipe makes use of it."""
    write_package(tmp_path, "rowloop_odd", "kind = None", {"rowloop.columns": {"odd": "rowloop_odd:kind"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(column_types, "_scanned", None)
    __import__("rowloop_odd").kind = kind
    with pytest.raises(rl.RecipeError, match=rf"^columns\.a\.type: .*'odd' of the package rowloop-odd .*: {problem}"):
        rl.Recipe.from_dict({"columns": [{"name": "a", "type": "odd"}]})


# Our own

OURS = [(name, column_types.get(name), ColumnSpec) for name in vars(column_types)["_known"]]
OURS += [(name, processor_types.get(name), rl.Processor) for name in vars(processor_types)["_known"]]


@pytest.mark.parametrize(("name", "kind", "parent"), OURS, ids=[name for name, *_ in OURS])
def test_every_kind_of_our_own_obeys_the_rules_for_those_of_packages(name: str, kind: type, parent: type):
    """It subclasses the public class, and its field `type` is the word in the table."""
    check_kind(kind, parent, name)


def test_the_public_kinds_are_those_in_the_tables():
    """No kind is public without being registered, nor registered without being public."""
    public = {getattr(rl, name) for name in dir(rl) if inspect.isclass(getattr(rl, name))}
    kinds = {kind for kind in public if issubclass(kind, ColumnSpec | rl.Processor)}
    assert kinds - {rl.Processor} == {kind for _, kind, _ in OURS}
