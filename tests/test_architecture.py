"""The house: folders stay small, and neither modules nor folders import each other in a circle.

`make check` compares the order of the folders with import-linter's contracts. import-linter does not look for circles
through the `__init__` of a package; here it is a module like any other. Type-only imports and imports inside functions
count.
"""

from __future__ import annotations

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = ("runtime", "engine", "adapters")
MOST_MODULES = 25

Graph = dict[str, set[str]]


def modules(root: Path) -> dict[str, Path]:
    """Return the files of all modules by dotted name; a package has the name of its folder."""
    paths = [path.relative_to(root) for top in TOP for path in sorted((root / top).rglob("*.py"))]
    named = {path: path.parent if path.name == "__init__.py" else path.with_suffix("") for path in paths}
    return {".".join(name.parts): root / path for path, name in named.items()}


def folder_of(module: str, path: Path) -> str:
    """Return the dotted name of the folder that the module is in."""
    return module if path.name == "__init__.py" else module.rpartition(".")[0]


def targets(node: ast.AST, folder: str) -> list[str]:
    """Return the dotted names that an import statement may mean: modules, or names in modules."""
    if isinstance(node, ast.Import):
        return [alias.name.removeprefix("rowloop.") for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    parents = folder.split(".")
    above = parents[: len(parents) - node.level + 1] if node.level else []
    source = ".".join([*above, *(node.module.split(".") if node.module else [])]).removeprefix("rowloop.")
    return [f"{source}.{alias.name}" for alias in node.names]


def import_graph(root: Path) -> Graph:
    """Return which module imports which; an import of a name is one of the module that has it."""
    found = modules(root)
    graph: Graph = {}
    for module, path in found.items():
        names = [
            name
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            for name in targets(node, folder_of(module, path))
        ]
        imported = {name if name in found else name.rpartition(".")[0] for name in names}
        graph[module] = (imported & found.keys()) - {module}
    return graph


def folder_graph(root: Path) -> Graph:
    """Return which folder imports from which."""
    folders = {module: folder_of(module, path) for module, path in modules(root).items()}
    graph: Graph = {folder: set() for folder in folders.values()}
    for module, imported in import_graph(root).items():
        graph[folders[module]] |= {folders[name] for name in imported} - {folders[module]}
    return graph


def circle(graph: Graph) -> list[str]:
    """Return one circle of the graph, from a node back to itself; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        nodes: list[str] = error.args[1]
        return nodes[::-1]
    return []


def crowded(root: Path) -> dict[str, int]:
    """Return the folders with more modules than a stranger can look through, `__init__` not counted."""
    found = modules(root).items()
    sizes = Counter(folder_of(module, path) for module, path in found if path.name != "__init__.py")
    return {folder: size for folder, size in sizes.items() if size > MOST_MODULES}


def test_no_modules_import_each_other_in_a_circle():
    """Type-only imports count: who reads one of the modules has to know the other."""
    graph = import_graph(ROOT)
    assert sum(map(len, graph.values())) > 300  # else the graph is not that of the house
    assert circle(graph) == []


def test_no_folders_import_each_other_in_a_circle():
    """Every arrow between folders runs one way, between a folder and one inside it too."""
    graph = folder_graph(ROOT)
    assert {"runtime", "engine", "engine.core", "adapters.providers.openai"} <= graph.keys()
    assert circle(graph) == []


def test_no_folder_holds_more_modules_than_a_stranger_can_look_through():
    """At most 25; a folder that outgrows this hides two concepts."""
    assert crowded(ROOT) == {}


@pytest.mark.parametrize(
    "planted",
    [
        {"engine/a.py": "from . import b", "engine/b.py": "from .a import name"},
        {"engine/a.py": "def f():\n    from .b import name", "engine/b.py": "import rowloop.engine.a"},
        {"engine/a.py": "if TYPE_CHECKING:\n    from .b import name", "engine/b.py": "from rowloop.engine import a"},
        {
            "engine/__init__.py": "from .a import name",
            "engine/a.py": "from .b import f",
            "engine/b.py": "from . import name",
        },
    ],
    ids=["plain", "in a function", "type-only", "through __init__"],
)
def test_a_planted_circle_of_modules_is_found(tmp_path: Path, planted: dict[str, str]):
    """The check can fail: whatever the form of the import."""
    plant(tmp_path, planted)
    found = circle(import_graph(tmp_path))
    assert {"engine.a", "engine.b"} <= set(found)
    assert found[0] == found[-1]


@pytest.mark.parametrize("door", ["engine/recipe.py", "engine/runs/handle.py"])
def test_planted_folders_that_import_each_other_are_found(tmp_path: Path, door: str):
    """The check can fail, though no two modules import each other."""
    plant(
        tmp_path,
        {
            door: "from rowloop.engine.columns.text import Text",
            "engine/columns/text.py": "",
            "engine/columns/spec.py": f"from rowloop.{door.removesuffix('.py').replace('/', '.')} import name",
        },
    )
    assert circle(import_graph(tmp_path)) == []
    assert "engine.columns" in circle(folder_graph(tmp_path))


def test_a_planted_crowd_is_found(tmp_path: Path):
    """The check can fail: 25 modules and an `__init__` are allowed, 26 are not."""
    plant(tmp_path, {"engine/__init__.py": ""} | {f"engine/module_{number}.py": "" for number in range(MOST_MODULES)})
    assert crowded(tmp_path) == {}
    plant(tmp_path, {"engine/one_more.py": ""})
    assert crowded(tmp_path) == {"engine": MOST_MODULES + 1}


def plant(root: Path, files: dict[str, str]) -> None:
    """Write the files of a small house."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
