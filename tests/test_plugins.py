"""docs/plugins.md: its examples, installed as one package, work in a process of their own, and so do its tests."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from packages import run_with, write_package

GUIDE = (Path(__file__).parents[1] / "docs/plugins.md").read_text("utf-8")
GROUPS = {"rowloop.models", "rowloop.validators", "rowloop.displays", "rowloop.columns", "rowloop.processors"}


def blocks(language: str) -> list[str]:
    """Return the blocks of docs/plugins.md in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


USE = """
import contextlib, io, json
import rowloop as rl
import rowloop_examples
from rowloop_examples import Errors

SOURCE = '''
models: {writer: "mirror:any"}
columns:
  - {name: text, type: category, values: [abc de f, gh]}
  - {name: said, type: text, model: writer, prompt: "{{ text }}"}
  - {name: long, type: validate, url: "words://least/2", needs: [text]}
  - {name: size, type: length, of: said}
processors:
  - {type: sort, by: size}
seed: 1
'''
errors, printed = Errors(), io.StringIO()

@rl.cell
def odd(size: int) -> int:
    raise LookupError("none")

with contextlib.redirect_stderr(printed):
    result = rl.Recipe.from_yaml(SOURCE).preview(8, progress="dots")
recipe = rl.Recipe(columns=[rl.Category("text", values=["a"]), rowloop_examples.Length("size", of="text"), odd])
try:
    recipe.preview(3, progress=False, observers=[errors])
except rl.EarlyShutdownError:
    pass
try:
    recipe.preview(3, progress="dot")
except rl.RecipeError as error:
    refused = str(error)
rowloop_examples.test_provider()
rowloop_examples.test_column()
print(json.dumps({
    "status": result.status,
    "rows": result.to_arrow().to_pylist(),
    "printed": printed.getvalue(),
    "errors": errors.counts,
    "refused": refused,
    "schema": sorted(rl.Recipe.json_schema()["$defs"]),
}))
"""


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Install the package of the page, use all of it, and return what happened."""
    folder = tmp_path_factory.mktemp("packages") / "installed"
    (entries,) = blocks("toml")
    source = "from __future__ import annotations\n\n" + "\n\n".join(blocks("python"))
    write_package(folder, "rowloop_examples", source, tomllib.loads(entries)["project"]["entry-points"])
    return run_with(folder, USE)


def test_a_provider_a_validator_a_column_and_a_processor_work_in_a_recipe_file(used: Any):
    """Each is found by its entry point."""
    rows = used["rows"]
    assert (used["status"], len(rows)) == ("complete", 8)
    assert [row["size"] for row in rows] == sorted(len(row["text"]) for row in rows)
    assert {(row["text"], row["said"], row["long"]) for row in rows} == {
        ("abc de f", "f ed cba", True),
        ("gh", "hg", False),
    }
    assert {"Length", "Sort"} <= set(used["schema"])


def test_a_display_is_chosen_by_its_name(used: Any):
    """An unknown name is refused with the nearest."""
    assert used["printed"].splitlines()[0] == "." * 8
    assert used["refused"] == "progress: unknown progress display 'dot'; did you mean 'dots'?"


def test_an_observer_sees_the_events_of_a_run(used: Any):
    """Here its failures."""
    assert used["errors"] == {"LookupError": 3}


def test_every_public_module_of_the_page_exists_and_every_group_is_listed():
    """The table's modules can be imported, and its groups are those of the registries."""
    table = GUIDE.split("| plug-in |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(rowloop[\w.]*)`", table))
    assert named >= GROUPS
    for module in named - GROUPS:
        importlib.import_module(module)
    (entries,) = blocks("toml")
    assert tomllib.loads(entries)["project"]["entry-points"].keys() == GROUPS
