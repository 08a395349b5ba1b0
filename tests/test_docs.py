"""What the documents say, held against the code: their examples run, their options exist, their files are there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fake_openai import FakeOpenAI
from fake_validator import FakeValidator
from rowloop import Recipe, Result

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]


def blocks(document: str, language: str) -> list[str]:
    """Give the fenced blocks of a document that are in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def endpoint(monkeypatch, tmp_path):
    """Stand in for OpenAI, in an empty working directory."""
    with FakeOpenAI() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.chdir(tmp_path)
        yield server


def test_python_in_the_readme_runs(endpoint, capsys):
    """The README's Python makes the hundred rows it says, and is fifteen lines at most, give or take brackets."""
    (source,) = blocks("README.md", "python")
    exec(compile(source, "README.md", "exec"), {})  # noqa: S102 - it is our own
    assert "complete" in capsys.readouterr().out
    assert endpoint.counters().requests == 2 * 103
    assert len(source.splitlines()) <= 16


def test_yaml_in_the_readme_runs(endpoint, tmp_path):
    """The README's recipe makes rows, by the very commands that follow it."""
    (source,) = blocks("README.md", "yaml")
    assert len(source.splitlines()) <= 15
    (tmp_path / "exam.yaml").write_text(source)
    commands = re.findall(r"^    (rowloop .*exam\.yaml.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        arguments = command.replace("10000", "10").split()[1:]
        done = subprocess.run([sys.executable, "-m", "rowloop.adapters.cli", *arguments], check=True, timeout=50)
        assert done.returncode == 0
    assert endpoint.counters().by_status == {200: 3 * 15}


def test_workflow_in_the_documents_runs(endpoint, tmp_path):
    """Its second stage asks once for each of the six rows that the first passes on."""
    (source,) = [block for block in blocks("docs/recipes.md", "python") if "rl.Workflow" in block]
    names: dict[str, object] = {}
    exec(compile(source, "recipes.md", "exec"), names)  # noqa: S102 - it is our own
    assert isinstance(names["last"], Result)
    assert names["last"].actual == endpoint.counters().requests == 6
    assert (tmp_path / "out/essays/topics/metadata.json").exists()


def test_lookup_in_the_documents_runs():
    """Its function finds each row's capital, though the first answer for each country is a 503."""
    (source,) = [block for block in blocks("docs/recipes.md", "python") if "/capitals" in block]
    names: dict[str, object] = {}
    with FakeValidator() as server:
        exec(compile(source.replace("http://localhost:8000", server.url), "recipes.md", "exec"), names)  # noqa: S102
    assert isinstance(names["result"], Result)
    frame = names["result"].dataset
    assert frame["capital"].tolist() == [f"the capital of {country}" for country in frame["country"]]


def test_resuming_in_the_documents_runs(endpoint):
    """The second build asks for the thirty rows that are new."""
    (source,) = blocks("docs/resuming.md", "python")
    names: dict[str, object] = {}
    exec(compile(source, "resuming.md", "exec"), names)  # noqa: S102 - it is our own
    assert isinstance(names["result"], Result)
    assert names["result"].actual == endpoint.counters().requests == 50


def test_recipes_in_the_documents_are_recipes():
    """Every YAML block is a whole recipe, and comes back from its own YAML the same."""
    for document in ("README.md", "docs/recipes.md"):
        for source in blocks(document, "yaml"):
            recipe = Recipe.from_yaml(source)
            assert Recipe.from_yaml(recipe.to_yaml()).to_dict() == recipe.to_dict()


def test_reviews_example_is_a_recipe_of_the_promised_shape():
    """The demo's recipe has at least five columns, and its reply needs its review."""
    recipe = Recipe.from_yaml(ROOT / "examples/reviews.yaml")
    columns = {column["name"]: column for column in recipe.to_dict()["columns"]}
    assert len(columns) >= 5
    assert {"category", "text", "structured", "expression"} <= {column["type"] for column in columns.values()}
    assert "{{ review }}" in columns["reply"]["prompt"]


def test_quickstart_example_runs(endpoint):
    """The Python example works as a script, on another model as well."""
    command = [sys.executable, str(ROOT / "examples/quickstart.py"), "openai:any"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=50)
    assert "complete: 6 of 6 rows" in done.stdout
    assert endpoint.counters().requests == 6


@pytest.mark.parametrize("command", ["run", "preview"])
def test_options_in_the_documents_are_those_of_the_program(command):
    """docs/command-line.md lists the options of --help, all of them and no others."""
    asked = [sys.executable, "-m", "rowloop.adapters.cli", command, "--help"]
    helped = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=50).stdout
    there = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", helped)) - {"--help"}
    section = (ROOT / "docs/command-line.md").read_text().split(f"## rowloop {command}\n")[1].split("\n## ")[0]
    told = {option for line in section.splitlines() for option in re.findall(r"`(--[a-z-]+)`", line.split(" | ")[0])}
    assert told == there


def test_columns_and_fields_in_the_documents_are_those_of_the_schema():
    """docs/recipes.md has each type of column and processor with its fields, and each field of a model."""
    schema = Recipe.json_schema()
    models, columns = (ROOT / "docs/recipes.md").read_text("utf-8").split("## Columns")
    common = {"name", "type", "on_error"}
    there = {
        part["properties"]["type"]["const"]: set(part["properties"]) - common
        for part in schema["$defs"].values()
        if "type" in part["properties"]
    }
    rows = re.findall(r"^\| `([a-z_]+)` \| (.*?) \|", columns, re.MULTILINE)
    assert {kind: set(re.findall(r"`([a-z_]+)`", fields)) for kind, fields in rows} == there
    fields = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| `.*? \|", models, re.MULTILINE))))
    assert fields == set(schema["$defs"]["Model"]["properties"]) - {"api_key"}


def module_lines(folder: str) -> list[str]:
    """Give the README's lines for the modules of a folder: each with the first line of its docstring."""
    lines = []
    for path in sorted((ROOT / folder).glob("[!_]*.py")):
        told = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert told, f"{path} has no docstring"
        lines.append(f"| [{path.name}]({folder}/{path.name}) | {told.splitlines()[0].removesuffix('.')} |")
    return lines


@pytest.mark.parametrize("folder", ["runtime", "engine", "adapters"])
def test_readme_lists_every_module(folder):
    """The README's table of a folder has each of its modules and the first line of its docstring, and no other."""
    section = re.split(r"\n(?=\*\*\w+/\*\*|## )", (ROOT / "README.md").read_text("utf-8").split("## Files")[1])
    (table,) = [part for part in section if part.startswith(f"**{folder}/**")]
    listed = [line for line in table.splitlines() if line.startswith("| [")]
    assert "\n".join(listed) == "\n".join(module_lines(folder))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document):
    """A relative link in a document leads to a file that is there."""
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text("utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_benchmark_is_described():
    """benchmarks/README.md has a line for each benchmark."""
    told = set(re.findall(r"^\| \[(\w+\.py)\]", (ROOT / "benchmarks/README.md").read_text("utf-8"), re.MULTILINE))
    assert told == {path.name for path in (ROOT / "benchmarks").glob("*.py")}


def test_chores_in_contributing_are_those_of_the_makefile():
    """CONTRIBUTING.md has each target of the Makefile, and none that is not there."""
    told = set(re.findall(r"^\| `make (\w+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert told == set(phony[1].split())
