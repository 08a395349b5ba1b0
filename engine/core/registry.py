"""Names in a recipe that stand for things outside the engine, loaded when they are first used.

The engine imports no adapter. The facade registers the ones that come with rowloop as `package.module:attribute`;
other packages bring theirs as entry points.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Generic, TypeVar, cast

from .errors import RecipeError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """From a name to a thing of one kind, or to the place it is loaded from."""

    def __init__(self, kind: str, entry_points: str) -> None:
        """Take what the things are called in messages, and the entry point group that adds to them."""
        self._kind = kind
        self._group = entry_points
        self._known: dict[str, T | str] = {}

    def register(self, name: str, target: T | str) -> None:
        """Let `name` stand for a thing, or for a place such as "rowloop.adapters.providers.local:provider"."""
        self._known[name] = target

    def get(self, name: str) -> T:
        """Return the thing called `name`; raises RecipeError with the nearest right name."""
        target = self._known.get(name)
        if target is None:
            target = self._from_entry_points(name)
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            target = cast("T", getattr(importlib.import_module(module), attribute))
            self._known[name] = target
        return target

    def _from_entry_points(self, name: str) -> T:
        found = importlib.metadata.entry_points(group=self._group)
        for entry in found:
            if entry.name == name:
                self._known[name] = thing = self._loaded(entry)
                return thing
        raise RecipeError("", f"unknown {self._kind} '{name}'; {nearest(name, {*self._known, *found.names})}")

    def _loaded(self, entry: importlib.metadata.EntryPoint) -> T:
        try:
            return cast("T", entry.load())
        except Exception as error:
            package = "a package" if entry.dist is None else f"the package {entry.dist.name}"
            problem = f"the {self._kind} '{entry.name}' of {package} cannot be loaded ({entry.value}): {error}"
            raise RecipeError("", problem) from error
