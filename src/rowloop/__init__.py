"""Fill tables with asynchronous work, mostly model calls, from synchronous code.

The public names. Each is loaded when it is first used, so that `import rowloop` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engine.columns import Expression, Structured, Text
    from .engine.embedding import Embedding
    from .engine.errors import (
        DatasetGenerationError,
        DatasetProcessingError,
        EarlyShutdownError,
        ModelError,
        PartialDatasetError,
        RecipeError,
        ResumeError,
        RowloopError,
    )
    from .engine.functions import batch, cell
    from .engine.models import Model
    from .engine.parts import Part
    from .engine.policy import ErrorBudget, RetryPolicy
    from .engine.prices import Price
    from .engine.processors import DropColumns, Processor, SchemaTransform
    from .engine.progress import ProgressSnapshot
    from .engine.recipe import Recipe
    from .engine.results import Result, Run
    from .engine.samplers import Category, Uniform
    from .engine.seeds import Seed
    from .engine.traces import TaskTrace
    from .engine.validation import Validate
    from .engine.workflow import Stage, Workflow
    from .runtime import client, run_sync

_MODULES = {
    "engine.columns": ["Expression", "Structured", "Text"],
    "engine.embedding": ["Embedding"],
    "engine.errors": [
        "DatasetGenerationError",
        "DatasetProcessingError",
        "EarlyShutdownError",
        "ModelError",
        "PartialDatasetError",
        "RecipeError",
        "ResumeError",
        "RowloopError",
    ],
    "engine.functions": ["batch", "cell"],
    "engine.models": ["Model"],
    "engine.policy": ["ErrorBudget", "RetryPolicy"],
    "engine.prices": ["Price"],
    "engine.processors": ["DropColumns", "Processor", "SchemaTransform"],
    "engine.progress": ["ProgressSnapshot"],
    "engine.recipe": ["Recipe"],
    "engine.results": ["Result", "Run"],
    "engine.samplers": ["Category", "Uniform"],
    "engine.seeds": ["Seed"],
    "engine.parts": ["Part"],
    "engine.traces": ["TaskTrace"],
    "engine.validation": ["Validate"],
    "engine.workflow": ["Stage", "Workflow"],
    "runtime": ["client", "run_sync"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

_PROVIDERS = {
    "anthropic": "rowloop.adapters.anthropic:provider",
    "openai": "rowloop.adapters.openai:provider",
    "local": "rowloop.adapters.local:provider",
    "python": "rowloop.adapters.callable:provider",
}
_VALIDATORS = dict.fromkeys(("http", "https"), "rowloop.adapters.http_validation:validator")
_DISPLAYS = {"auto": "rowloop.adapters.displays:auto"}

__all__ = [
    "Category",
    "DatasetGenerationError",
    "DatasetProcessingError",
    "DropColumns",
    "EarlyShutdownError",
    "Embedding",
    "ErrorBudget",
    "Expression",
    "Model",
    "ModelError",
    "Part",
    "PartialDatasetError",
    "Price",
    "Processor",
    "ProgressSnapshot",
    "Recipe",
    "RecipeError",
    "Result",
    "ResumeError",
    "RetryPolicy",
    "RowloopError",
    "Run",
    "SchemaTransform",
    "Seed",
    "Stage",
    "Structured",
    "TaskTrace",
    "Text",
    "Uniform",
    "Validate",
    "Workflow",
    "batch",
    "cell",
    "client",
    "run_sync",
]


def __getattr__(name: str) -> object:
    """Load a public name, and make the adapters known to the engine when it is the first one."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rowloop' has no attribute '{name}'")
    if _MODULE_OF[name].startswith("engine"):
        _register_adapters()
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _register_adapters() -> None:
    from .engine.models import providers  # noqa: PLC0415 - nothing is loaded before it is used
    from .engine.progress import displays  # noqa: PLC0415 - the same
    from .engine.validation import validators  # noqa: PLC0415 - the same

    for name, target in _PROVIDERS.items():
        providers.register(name, target)
    for name, target in _DISPLAYS.items():
        displays.register(name, target)
    for name, target in _VALIDATORS.items():
        validators.register(name, target)
