"""Modules of engine/ under their old names: they still work, and each use warns with the new place."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import warnings

import pytest

import rowloop
from rowloop.engine.moved import MOVED

NAMES = {
    "errors": [
        *(
            "DatasetGenerationError",
            "DatasetProcessingError",
            "EarlyShutdownError",
            "ModelError",
            "PartialDatasetError",
        ),
        *("RecipeError", "ResumeError", "RowloopError", "nearest", "writable"),
    ],
    "events": ["WHOLE", "Admit", "Command", "Done", "Event", "Failed", "Failure", "Record", "Run", "Stop", "Usage"],
    "progress": ["ColumnProgress", "Display", "ProgressSnapshot", "displays"],
    "registry": ["Registry"],
    "results": ["Result", "Run"],
    "settings": ["RunOptions", "Settings"],
    "validation": ["AskVerdict", "RemoteValidator", "Validate", "Verdict", "validators"],
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in NAMES.items() for name in names])
def test_a_name_in_an_old_module_is_the_new_one_and_warns(module: str, name: str):
    """The warning names both places, and points at the line that asks."""
    with pytest.warns(
        DeprecationWarning, match=rf"rowloop\.engine\.{module}\.{name} is now rowloop\.engine\."
    ) as caught:
        value = getattr(importlib.import_module(f"rowloop.engine.{module}"), name)
    place = str(caught[0].message).split(" is now ")[1].split(";")[0].rpartition(".")
    assert getattr(importlib.import_module(place[0]), place[2]) is value
    assert caught[0].filename == __file__


def test_old_modules_are_these():
    """Those that documents or messages once named."""
    assert MOVED.keys() == NAMES.keys()


def test_public_names_are_the_same_objects():
    """Whoever catches an error by its old name catches it."""
    with pytest.warns(DeprecationWarning, match=r"is now rowloop\.engine\.core\.errors\.ModelError"):
        from rowloop.engine.errors import ModelError  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports] # noqa: PLC0415 - the point
    results = importlib.import_module("rowloop.engine.results")
    with pytest.warns(DeprecationWarning, match=r"is now rowloop\.engine\.runs\.handle\.Run"):
        run = results.Run
    assert run is rowloop.Run
    assert ModelError is rowloop.ModelError


def test_a_name_that_never_was_there_is_an_attribute_error():
    """Without a warning."""
    old = importlib.import_module("rowloop.engine.results")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("Resultt", "_private", "__path__"):
            with pytest.raises(AttributeError, match=f"module 'rowloop.engine.results' has no attribute '{name}'"):
                getattr(old, name)


@pytest.mark.outside
def test_old_modules_cost_nothing_until_they_are_used():
    """Importing the engine, or an old module, loads none of the new ones."""
    program = (
        "import sys, json, rowloop.engine.errors, rowloop.engine.settings\n"
        "print(json.dumps(sorted(name for name in sys.modules if name.startswith('rowloop.'))))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True, timeout=50
    )
    old = {f"rowloop.engine.{module}" for module in MOVED}
    assert set(json.loads(done.stdout)) == {"rowloop.engine", "rowloop.engine.moved", *old}


@pytest.mark.outside
def test_the_models_package_hands_its_names_on_without_a_warning():
    """It is where docs/providers.md says that they are, each when it is first used."""
    program = (
        "import sys, rowloop.engine.models as models\n"
        "assert 'rowloop.engine.models.model' not in sys.modules\n"
        "assert 'rowloop.engine.models.provider' not in sys.modules\n"
        "assert [getattr(models, name) for name in models.__all__]\n"
        "assert set(models.__all__) <= set(dir(models))\n"
        "from rowloop.engine.models import *\n"
        "assert Model is models.Model\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=50)
    models = importlib.import_module("rowloop.engine.models")
    with pytest.raises(AttributeError, match=r"module 'rowloop\.engine\.models' has no attribute 'Modell'"):
        _ = models.Modell
