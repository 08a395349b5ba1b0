"""Fill tables with asynchronous work, mostly model calls, from synchronous code.

`__init__.pyi` lists the public names. Each is imported when it is first used, so that `import rowloop` stays light.
"""

from __future__ import annotations

import importlib

with open(f"{__path__[0]}/__init__.pyi", encoding="utf-8") as _stub:  # noqa: PTH123 - importing pathlib takes longer
    _lines = [line.split() for line in _stub if line.startswith("from .")]
_MODULE_OF = {name: module for _, module, _, name, *_ in _lines}

_ADAPTERS = (".adapters.displays", ".adapters.http", ".adapters.providers", ".adapters.validators")
"""The packages that register their contents with the engine."""

__all__ = [*_MODULE_OF]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll] - checkers read the stub


def __getattr__(name: str) -> object:
    """Import a public name, and register the adapters before the first name of the engine."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rowloop' has no attribute '{name}'")
    module = _MODULE_OF[name]
    if module.startswith(".engine"):
        for adapters in _ADAPTERS:
            importlib.import_module(adapters, __name__)
    value = getattr(importlib.import_module(module, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
