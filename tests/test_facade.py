"""The facade: `import rowloop` has the public names, documents each, and costs next to nothing."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rowloop

ERRORS = {
    "RowloopError": "Exception",
    "RecipeError": "RowloopError ValueError",
    "DatasetGenerationError": "RowloopError",
    "DatasetProcessingError": "DatasetGenerationError",
    "PartialDatasetError": "DatasetGenerationError",
    "EarlyShutdownError": "DatasetGenerationError",
    "ResumeError": "RowloopError",
    "ModelError": "RowloopError",
}
PUBLIC: list[str] = vars(rowloop)["__all__"]  # type checkers read the stub, which has no __all__
COLUMNS = ["Category", "Uniform", "Seed", "Expression", "Text", "Structured", "Embedding", "Validate"]
OTHERS = [
    *("Recipe", "Workflow", "Stage", "Model", "Price", "batch", "cell", "Processor", "DropColumns", "SchemaTransform"),
    *(
        "Result",
        "Run",
        "ProgressSnapshot",
        "TaskTrace",
        "Part",
        "Plan",
        "RetryPolicy",
        "ErrorBudget",
        "run_sync",
        "client",
    ),
]
# Planned public names; no other may be added
TO_COME = [
    *("Subcategory", "Gaussian", "Poisson", "Bernoulli", "Datetime", "UUID", "Person"),
    *("Judge", "Code"),
]
HEAVY = ["pandas", "pyarrow", "numpy", "openai", "aiohttp", "pydantic", "jinja2", "rich", "msgspec", "asyncio"]

CHILD = """
import sys, time
begun = time.perf_counter()
import rowloop
taken = time.perf_counter() - begun
import json
print(json.dumps({"seconds": taken, "modules": sorted(sys.modules)}))
"""


def loaded_by(program: str) -> dict[str, object]:
    """Run a program in a fresh interpreter and return the JSON that it prints."""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=50)
    printed: dict[str, object] = json.loads(done.stdout)
    return printed


def test_public_names_are_these():
    """Names are part of the interface: none is lost, and none is added except the planned ones."""
    wanted = {*ERRORS, *COLUMNS, *OTHERS}
    assert wanted <= set(PUBLIC) <= wanted | set(TO_COME)
    assert dir(rowloop) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(rowloop, name) is not None


def test_the_stub_is_the_only_list_of_names():
    """Every line of it that is not a comment imports one name."""
    lines = (Path(rowloop.__file__).parent / "__init__.pyi").read_text("utf-8").splitlines()
    imports = [line for line in lines if line and not line.startswith("#")]
    found = [re.fullmatch(r"from \.([\w.]+) import (\w+) as \2", line) for line in imports]
    assert [line for line, match in zip(imports, found, strict=True) if match is None] == []
    assert [match[2] for match in found if match] == PUBLIC
    for match in found:
        assert match
        module = importlib.import_module(f"rowloop.{match[1]}")
        assert getattr(rowloop, match[2]) is vars(module)[match[2]]


def test_an_unknown_name_is_an_attribute_error():
    """A name that is not public is refused as for any module."""
    with pytest.raises(AttributeError, match="no attribute 'Recipee'"):
        getattr(rowloop, "Recipee")  # noqa: B009 - type checkers know better


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name):
    """Every public name has a docstring of its own, and so has every public method of a public class."""
    value = getattr(rowloop, name)
    assert value.__doc__
    assert value.__doc__.strip()
    if inspect.isclass(value):
        for attribute, member in vars(value).items():
            if not attribute.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                assert member.__doc__, f"{name}.{attribute} has no docstring"


@pytest.mark.parametrize("name", ERRORS)
def test_errors_make_this_tree(name):
    """Every error has the parents that the tree in engine/core/errors.py draws."""
    assert " ".join(parent.__name__ for parent in getattr(rowloop, name).__bases__) == ERRORS[name]


def test_no_error_is_outside_the_tree():
    """Every public exception is in the tree."""
    kinds = {name for name in PUBLIC if inspect.isclass(kind := getattr(rowloop, name))
             and issubclass(kind, BaseException)}  # fmt: skip
    assert kinds == ERRORS.keys()


@pytest.mark.outside
def test_import_loads_nothing_heavy():
    """`import rowloop` loads no other package, and takes far less than 150 ms."""
    runs = [loaded_by(CHILD) for _ in range(3)]
    modules = runs[0]["modules"]
    assert isinstance(modules, list)
    assert [name for name in HEAVY if name in modules] == []
    assert [name for name in modules if name.startswith("rowloop.")] == []
    assert min(float(str(run["seconds"])) for run in runs) < 0.15


@pytest.mark.outside
def test_a_recipe_loads_no_http_client_and_no_frames():
    """Making a recipe needs neither pandas and pyarrow nor an HTTP client; running it does."""
    printed = loaded_by(
        "import json, sys, rowloop as rl\n"
        "rl.Recipe(models={'w': 'openai:m'}, columns=[rl.Text('a', model='w', prompt='b')])\n"
        "print(json.dumps({'modules': sorted(sys.modules)}))"
    )
    modules = printed["modules"]
    assert isinstance(modules, list)
    assert [name for name in ("pandas", "pyarrow", "openai", "aiohttp") if name in modules] == []


@pytest.mark.outside
def test_prices_are_loaded_by_the_first_run_that_needs_them():
    """The list of prices takes a third of a second to import: no recipe pays for it, nor a run at an own server."""
    printed = loaded_by(
        "import json, sys, rowloop as rl\n"
        "def loaded():\n"
        "    return 'genai_prices' in sys.modules\n"
        "recipe = rl.Recipe(models={'w': 'openai:m', 'c': rl.Model('anthropic:m', price=rl.Price(1, 2))},\n"
        "                   columns=[rl.Text('a', model='w', prompt='b'), rl.Text('c', model='c', prompt='d')])\n"
        "seen = [loaded()]\n"
        "from rowloop.engine.models.prices import price_of\n"
        "price_of(rl.Model('openai:m', base_url='http://localhost:8000/v1'))\n"
        "price_of(recipe.models['c'])\n"
        "price_of(rl.Model(lambda prompt: prompt))\n"
        "seen.append(loaded())\n"
        "price_of(rl.Model('openai:gpt-5-mini', base_url='https://api.openai.com/v1'))\n"
        "seen.append(loaded())\n"
        "print(json.dumps({'seen': seen, 'fetching': sys.modules['genai_prices.data_snapshot'].get_snapshot()\n"
        "                                           .from_auto_update}))"
    )
    assert printed == {"seen": [False, False, True], "fetching": False}


@pytest.mark.outside
def test_the_runtime_is_public_as_a_module():
    """`rowloop.runtime` has the background loop on its own, and loads the standard library only."""
    printed = loaded_by(
        "import json, sys\n"
        "from rowloop.runtime import Call, Runtime, default, run_sync\n"
        "print(json.dumps({'modules': sorted(sys.modules)}))"
    )
    modules = printed["modules"]
    assert isinstance(modules, list)
    assert [name for name in HEAVY if name in modules and name != "asyncio"] == []
