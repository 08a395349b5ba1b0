"""Registry: names in a recipe that stand for things of one kind, loaded when they are first used.

rowloop registers its own things as places, `package.module:attribute`, so that the engine imports no adapter. Other
packages bring theirs as entry points.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from .errors import RecipeError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Registry(Generic[T]):
    """From a name to a thing of one kind."""

    def __init__(self, kind: str, entry_points: str, check: Callable[[str, T], None] | None = None) -> None:
        """Take the kind's name in messages, and the entry point group of other packages.

        `check` raises for a thing of a package that cannot be used under its name.
        """
        self._kind = kind
        self._group = entry_points
        self._check = check
        self._known: dict[str, T | str] = {}
        self._scanned: dict[str, importlib.metadata.EntryPoint] | None = None

    def register(self, name: str, target: T | str) -> None:
        """Let `name` stand for a thing, or for a place such as "rowloop.adapters.providers.local:provider"."""
        self._known[name] = target

    def get(self, name: str) -> T:
        """Return the thing called `name`.

        Raises RecipeError for an unknown name, with the nearest right one, and for a thing that cannot be loaded, with
        the package that brings it. Installed packages are searched once, and again only for a name that was not found.
        """
        target = self._known.get(name)
        if target is None:
            self._known[name] = target = self._loaded(self._entry(name))
        elif isinstance(target, str):
            module, _, attribute = target.partition(":")
            self._known[name] = target = cast("T", getattr(importlib.import_module(module), attribute))
        return target

    def names(self) -> list[str]:
        """Return all names: rowloop's own in the order of their registration, then those of packages."""
        return list(dict.fromkeys([*self._known, *sorted(self._entries())]))

    def _entry(self, name: str) -> importlib.metadata.EntryPoint:
        if name not in self._entries():
            self._scanned = None  # a package may have been installed since
        entry = self._entries().get(name)
        if entry is None:
            raise RecipeError("", f"unknown {self._kind} '{name}'; {nearest(name, self.names())}")
        return entry

    def _entries(self) -> dict[str, importlib.metadata.EntryPoint]:
        if self._scanned is None:
            found = importlib.metadata.entry_points(group=self._group)
            self._scanned = {entry.name: entry for entry in reversed(list(found))}  # the first of a name counts
        return self._scanned

    def _loaded(self, entry: importlib.metadata.EntryPoint) -> T:
        try:
            thing = cast("T", entry.load())
            if self._check is not None:
                self._check(entry.name, thing)
        except Exception as error:
            package = "a package" if entry.dist is None else f"the package {entry.dist.name}"
            problem = f"the {self._kind} '{entry.name}' of {package} cannot be loaded ({entry.value}): {error}"
            raise RecipeError("", problem) from error
        return thing
