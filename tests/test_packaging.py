"""What is installed: sdist -> wheel -> an environment of its own, in which every module can be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.outside

ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
FOLDERS = ("runtime", "engine", "adapters")

IMPORT_ALL = """
import importlib, json, pkgutil
import rowloop
names = [found.name for found in pkgutil.walk_packages(rowloop.__path__, "rowloop.")]
files = [importlib.import_module(name).__file__ for name in names]
print(json.dumps({"names": names, "files": files, "public": [str(getattr(rowloop, name)) for name in rowloop.__all__]}))
"""


def python(*arguments: object, cwd: Path = ROOT, executable: object = sys.executable) -> str:
    """Run Python and give what it prints; what it says on stderr is in the failure's message."""
    command = [str(executable), *map(str, arguments)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """Build the source distribution, without a network."""
    folder = tmp_path_factory.mktemp("sdist")
    python("-m", "hatchling", "build", "-t", "sdist", "-d", folder)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Build the wheel from the unpacked source distribution and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    python("-m", "hatchling", "build", "-t", "wheel", "-d", folder / "built", cwd=source)
    (built,) = (folder / "built").iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Install the wheel into a fresh environment; its dependencies are borrowed from this one, by a path file."""
    folder = tmp_path_factory.mktemp("environment")
    python("-m", "venv", "--without-pip", folder)
    executable = folder / "bin/python"
    python("-m", "pip", "--python", executable, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # The path files of the other environment are not read: the checkout that it may point to stays out of sight
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return executable


def modules() -> set[str]:
    """Give the modules that there are in the checkout."""
    found = [path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    found += [path.relative_to(ROOT / "src/rowloop") for path in (ROOT / "src/rowloop/testing").rglob("*.py")]
    names = {".".join(("rowloop", *path.with_suffix("").parts)) for path in found}
    return {name.removesuffix(".__init__") for name in names}


def test_every_module_is_imported_from_the_wheel(installed, tmp_path):
    """All modules and public names are there, and come from the environment rather than from the checkout."""
    told = json.loads(python("-I", "-W", "error", "-c", IMPORT_ALL, cwd=tmp_path, executable=installed))
    assert set(told["names"]) == modules()
    assert all(Path(file).is_relative_to(installed.parent.parent) for file in told["files"])


def test_the_command_is_installed(installed, tmp_path):
    """`rowloop` is a command, knows its version, and prints the schema."""
    command = installed.with_name("rowloop")
    assert python(command, "--version", cwd=tmp_path, executable=installed).strip() == VERSION
    schema = python(command, "schema", cwd=tmp_path, executable=installed)
    assert "columns" in json.loads(schema)["properties"]


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    """No tests, no benchmarks, no second copy of a module; the stub, the mark of a typed package and the licence."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    assert {name.split("/")[0] for name in names} == {"rowloop", f"rowloop-{VERSION}.dist-info"}
    assert {"rowloop/py.typed", "rowloop/__init__.pyi"} <= set(names)
    assert f"rowloop-{VERSION}.dist-info/licenses/LICENSE" in names
    inside = {Path(name).with_suffix("") for name in names if name.endswith(".py")}
    assert {".".join(path.parts).removesuffix(".__init__") for path in inside} == modules() | {"rowloop"}


def test_the_source_distribution_holds_what_a_checkout_has(sdist):
    """The three folders, the facade, the tests, the examples and the documents are in it."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = (*FOLDERS, "tests", "examples", "benchmarks", "docs")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.*") if "__pycache__" not in path.parts]
    wanted = [str(path.relative_to(ROOT)) for path in [*paths, *ROOT.glob("*.md")] if path.is_file()]
    assert len(wanted) > 100
    missing = [name for name in wanted if name not in names]
    assert missing == []
    assert {
        "LICENSE",
        "Makefile",
        "pyproject.toml",
        "src/rowloop/py.typed",
        "src/rowloop/__init__.pyi",
        "runtime/loop.py",
    } <= names
