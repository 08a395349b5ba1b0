"""Moved modules: the names that modules of engine/ had before it had folders, each with a warning, for one release."""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

MOVED: Final = {
    "errors": ("core.errors", "datasets.result"),
    "events": ("core.events",),
    "progress": ("telemetry.progress",),
    "registry": ("core.registry",),
    "results": ("datasets.result", "runs.handle"),
    "settings": ("runs.settings",),
    "validation": ("columns.validation", "columns.validators"),
}
"""The places of the names of each old module, in the order in which they are searched."""

_RENAMED: Final = {("events", "Run"): "Execute"}


class MovedModule(ModuleType):
    """An old module, which takes each name from its new place and warns the module that asks for it."""

    def __init__(self, package: str, old: str) -> None:
        """Load nothing yet."""
        name = f"{package}.{old}"
        super().__init__(name, f"Moved to {', '.join(f'{package}.{place}' for place in MOVED[old])}.")
        self.__spec__ = ModuleSpec(name, None)
        self._package = package
        self._old = old

    def __getattr__(self, name: str) -> object:
        """Return a public name from its new place."""
        if not name.startswith("_"):
            new_name = _RENAMED.get((self._old, name), name)
            for place in MOVED[self._old]:
                module = importlib.import_module(f"{self._package}.{place}")
                if hasattr(module, new_name):
                    message = f"{self.__name__}.{name} is now {module.__name__}.{new_name}; change the import"
                    warnings.warn(message, DeprecationWarning, stacklevel=2)
                    return getattr(module, new_name)
        raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")


def register_moved(package: str) -> None:
    """Make the old modules of a package importable."""
    for old in MOVED:
        module = sys.modules[f"{package}.{old}"] = MovedModule(package, old)
        setattr(sys.modules[package], old, module)
