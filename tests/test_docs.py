"""The documents agree with the code: their examples run, and the options, files and folders that they name exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fake_validator import FakeValidator
from rowloop import Recipe, Result

ROOT = Path(__file__).parent.parent
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]


def blocks(document: str, language: str) -> list[str]:
    """Return the fenced blocks of a document that are in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def endpoint(server, monkeypatch, tmp_path):
    """Serve as OpenAI's endpoint for programs that run in an empty working directory."""
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.chdir(tmp_path)
    return server


def test_python_in_the_readme_runs(endpoint, capsys):
    """The README's Python example has at most 16 lines and makes its 3 and 100 rows."""
    (source,) = blocks("README.md", "python")
    exec(compile(source, "README.md", "exec"), {})  # noqa: S102 - it is our own
    assert "complete" in capsys.readouterr().out
    assert endpoint.counters().requests == 2 * 103
    assert len(source.splitlines()) <= 16


def test_yaml_in_the_readme_runs(endpoint, tmp_path):
    """The README's recipe has at most 15 lines and makes rows with the commands that follow it."""
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
    """Its second stage sends one request for each of the six rows from the first stage."""
    (source,) = [block for block in blocks("docs/recipes.md", "python") if "rl.Workflow" in block]
    names: dict[str, object] = {}
    exec(compile(source, "recipes.md", "exec"), names)  # noqa: S102 - it is our own
    assert isinstance(names["last"], Result)
    assert names["last"].actual == endpoint.counters().requests == 6
    assert (tmp_path / "out/essays/topics/.rowloop/metadata.json").exists()


@pytest.mark.outside
def test_lookup_in_the_documents_runs():
    """Its function returns each row's capital, although the first answer for each country is a 503."""
    (source,) = [block for block in blocks("docs/recipes.md", "python") if "/capitals" in block]
    names: dict[str, object] = {}
    with FakeValidator() as server:
        exec(compile(source.replace("http://localhost:8000", server.url), "recipes.md", "exec"), names)  # noqa: S102
    assert isinstance(names["result"], Result)
    frame = names["result"].dataset
    assert frame["capital"].tolist() == [f"the capital of {country}" for country in frame["country"]]


def test_seeds_in_the_documents_run(tmp_path, monkeypatch):
    """The greetings have the zip codes as the file has them."""
    (source,) = blocks("docs/seeds.md", "python")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(source, "seeds.md", "exec"), names)  # noqa: S102 - it is our own
    assert isinstance(names["result"], Result)
    greetings = names["result"].dataset["greeting"].tolist()
    assert greetings == ["Dear Ann in 02670", "Dear Bo in 10115", "Dear Cyd in 00501"]


def test_resuming_in_the_documents_runs(endpoint):
    """The two builds together send one request for each of the fifty rows."""
    (source,) = blocks("docs/resuming.md", "python")
    names: dict[str, object] = {}
    exec(compile(source, "resuming.md", "exec"), names)  # noqa: S102 - it is our own
    assert isinstance(names["result"], Result)
    assert names["result"].actual == endpoint.counters().requests == 50


def test_background_run_in_the_documents_runs(endpoint, capsys):
    """The run that was started in the background makes its twenty rows."""
    source = blocks("docs/background-runs.md", "python")[0]
    names: dict[str, object] = {}
    exec(compile(source, "background-runs.md", "exec"), names)  # noqa: S102 - it is our own
    assert isinstance(names["result"], Result)
    assert names["result"].actual == endpoint.counters().requests == 20
    assert "rows so far" in capsys.readouterr().out


def test_observer_in_the_documents_runs():
    """It counts the one whole column and the five cells of the other."""
    (source,) = [block for block in blocks("docs/diagnostics.md", "python") if "observers=" in block]
    names: dict[str, object] = {}
    exec(compile(source, "diagnostics.md", "exec"), names)  # noqa: S102 - it is our own
    counter: Any = names["counter"]
    assert counter.done == {"x": 1, "text": 5}


def test_recipes_in_the_documents_are_recipes(monkeypatch):
    """Every YAML block is a complete recipe, and stays the same when it is written and read again."""
    monkeypatch.chdir(ROOT)
    for document in ("README.md", "docs/recipes.md", "docs/seeds.md"):
        for source in blocks(document, "yaml"):
            recipe = Recipe.from_yaml(source)
            assert Recipe.from_yaml(recipe.to_yaml()).to_dict() == recipe.to_dict()


def test_reviews_example_has_a_column_of_each_kind_and_a_dependency():
    """The demo's recipe has at least five columns of four kinds, and its reply needs its review."""
    recipe = Recipe.from_yaml(ROOT / "examples/reviews.yaml")
    columns = {column["name"]: column for column in recipe.to_dict()["columns"]}
    assert len(columns) >= 5
    assert {"category", "text", "structured", "expression"} <= {column["type"] for column in columns.values()}
    assert "{{ review }}" in columns["reply"]["prompt"]


def test_quickstart_example_runs(endpoint):
    """The Python example runs as a script with the model of its argument."""
    command = [sys.executable, str(ROOT / "examples/quickstart.py"), "openai:any"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=50)
    assert "complete: 6 of 6 rows" in done.stdout
    assert endpoint.counters().requests == 6


@pytest.mark.parametrize("command", ["run", "preview"])
@pytest.mark.outside
def test_options_in_the_documents_are_those_of_the_command(command):
    """docs/command-line.md lists exactly the options of --help."""
    arguments = [sys.executable, "-m", "rowloop.adapters.cli", command, "--help"]
    text = subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=50).stdout
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--help"}
    section = (ROOT / "docs/command-line.md").read_text().split(f"## rowloop {command}\n")[1].split("\n## ")[0]
    listed = {option for line in section.splitlines() for option in re.findall(r"`(--[a-z-]+)`", line.split(" | ")[0])}
    assert listed == options


def test_columns_and_fields_in_the_documents_are_those_of_the_schema():
    """docs/recipes.md lists each type of column and processor with its fields, and each field of a model."""
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


def packages() -> list[Path]:
    """Return the folders of the library that hold modules."""
    found = [path.parent for top in ("runtime", "engine", "adapters") for path in (ROOT / top).rglob("__init__.py")]
    return sorted(path.relative_to(ROOT) for path in found)


def modules(folder: Path) -> set[str]:
    """Return the names of a folder's modules, without __init__.py and __main__.py."""
    return {path.name for path in (ROOT / folder).glob("[!_]*.py")}


def docstring_of(module: Path) -> str:
    """Return the docstring of a module, which is empty where there is none."""
    return ast.get_docstring(ast.parse((ROOT / module).read_text("utf-8"))) or ""


def test_readme_lists_every_folder():
    """The README's table has a sentence for each folder of the library, and each folder in it exists."""
    section = (ROOT / "README.md").read_text("utf-8").split("## Folders\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\[.*\)) \| (.+) \|$", section, re.MULTILINE)
    listed = {target for cell, _ in rows for target in re.findall(r"\]\(([\w/]+)/\)", cell)}
    assert {str(folder) for folder in packages()} - listed == set()
    assert {target for target in listed if not (ROOT / target).is_dir()} == set()


@pytest.mark.parametrize("folder", packages(), ids=str)
def test_every_module_is_listed_with_its_folder(folder):
    """Each module is named in the docstring of its folder or in ARCHITECTURE.md, whose tables name no other modules."""
    docstring = docstring_of(folder / "__init__.py")
    tables = re.findall(r"^\| file.*\n\|[-|]+\n((?:\|.*\n?)+)", docstring, re.MULTILINE)
    described = {f"{name}.py" for name in re.findall(r"^\| `?(\w+)(?:\.py)?`? *\|", "".join(tables), re.MULTILINE)}
    mentioned = {f"{name}.py" for pair in re.findall(r"\b(\w+)\.py\b|`(\w+)`", docstring) for name in pair}
    row = re.search(rf"^\| \[`{folder}/`\]\({folder}/\) \|.*\|(.*)\|$", ARCHITECTURE, re.MULTILINE)
    assert row is not None, f"ARCHITECTURE.md has no row for {folder}"
    listed = {f"{name}.py" for name in re.findall(r"`(\w+)`", row[1])}
    assert modules(folder) - listed - described - mentioned == set()
    assert (listed | described) - modules(folder) - {"__main__.py"} == set()
    assert [name for name in modules(folder) if not docstring_of(folder / name)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document):
    """A relative link in a document leads to an existing file or folder."""
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text("utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_in_documents_exist(document):
    """A path below one of the repository's folders exists, and a file name in backticks is that of some file."""
    text = document.read_text("utf-8")
    tops = "runtime|engine|adapters|src|tests|docs|benchmarks|examples"
    paths = re.findall(rf"(?<![\w./-])((?:{tops})/[\w./-]*[\w/])", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    files = {path.name for top in tops.split("|") for path in [*ROOT.glob("*.*"), *(ROOT / top).rglob("*.*")]}
    names = re.findall(r"`(?:[\w/]+/)?(\w+\.(?:py|md))\b", text)
    assert [name for name in names if name not in files] == []


def test_every_benchmark_is_described():
    """benchmarks/README.md has a row for each benchmark."""
    described = set(re.findall(r"^\| \[(\w+\.py)\]", (ROOT / "benchmarks/README.md").read_text("utf-8"), re.MULTILINE))
    assert described == {path.name for path in (ROOT / "benchmarks").glob("*.py")}


def test_chores_in_contributing_are_those_of_the_makefile():
    """CONTRIBUTING.md lists exactly the targets of the Makefile."""
    listed = set(re.findall(r"^\| `make (\w+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert listed == set(phony[1].split())
