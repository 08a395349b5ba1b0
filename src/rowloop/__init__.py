"""Fill tables with asynchronous work, mostly model calls, from synchronous code.

The public names. Each is loaded when it is first used, so that `import rowloop` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engine.columns.embedding import Embedding
    from .engine.columns.expression import Expression
    from .engine.columns.functions import batch, cell
    from .engine.columns.samplers import Category, Uniform
    from .engine.columns.seeds import Seed
    from .engine.columns.structured import Structured
    from .engine.columns.text import Text
    from .engine.columns.validation import Validate
    from .engine.core.errors import (
        DatasetGenerationError,
        DatasetProcessingError,
        EarlyShutdownError,
        ModelError,
        RecipeError,
        ResumeError,
        RowloopError,
    )
    from .engine.core.policy import ErrorBudget, RetryPolicy
    from .engine.datasets.parts import Part
    from .engine.datasets.result import PartialDatasetError, Result
    from .engine.models.model import Model, Price
    from .engine.processors.processor import DropColumns, Processor, SchemaTransform
    from .engine.recipe import Recipe
    from .engine.runs.handle import Run
    from .engine.telemetry.progress import ProgressSnapshot
    from .engine.telemetry.traces import TaskTrace
    from .engine.workflow import Stage, Workflow
    from .runtime import client, run_sync

_MODULES = {
    "engine.columns.embedding": ["Embedding"],
    "engine.columns.expression": ["Expression"],
    "engine.columns.functions": ["batch", "cell"],
    "engine.columns.samplers": ["Category", "Uniform"],
    "engine.columns.seeds": ["Seed"],
    "engine.columns.structured": ["Structured"],
    "engine.columns.text": ["Text"],
    "engine.columns.validation": ["Validate"],
    "engine.core.errors": [
        "DatasetGenerationError",
        "DatasetProcessingError",
        "EarlyShutdownError",
        "ModelError",
        "RecipeError",
        "ResumeError",
        "RowloopError",
    ],
    "engine.core.policy": ["ErrorBudget", "RetryPolicy"],
    "engine.datasets.parts": ["Part"],
    "engine.datasets.result": ["PartialDatasetError", "Result"],
    "engine.models.model": ["Model", "Price"],
    "engine.processors.processor": ["DropColumns", "Processor", "SchemaTransform"],
    "engine.recipe": ["Recipe"],
    "engine.runs.handle": ["Run"],
    "engine.telemetry.progress": ["ProgressSnapshot"],
    "engine.telemetry.traces": ["TaskTrace"],
    "engine.workflow": ["Stage", "Workflow"],
    "runtime": ["client", "run_sync"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

_PROVIDERS = {
    "anthropic": "rowloop.adapters.providers.anthropic.provider:provider",
    "openai": "rowloop.adapters.providers.openai.provider:provider",
    "local": "rowloop.adapters.providers.local:provider",
    "python": "rowloop.adapters.providers.function:provider",
}
_VALIDATORS = dict.fromkeys(("http", "https"), "rowloop.adapters.validators.http:validator")
_DISPLAYS = {"auto": "rowloop.adapters.displays.auto:auto"}

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
    from .engine.columns.validation import validators  # noqa: PLC0415 - the same
    from .engine.models.provider import providers  # noqa: PLC0415 - nothing is loaded before it is used
    from .engine.telemetry.progress import displays  # noqa: PLC0415 - the same

    for name, target in _PROVIDERS.items():
        providers.register(name, target)
    for name, target in _DISPLAYS.items():
        displays.register(name, target)
    for name, target in _VALIDATORS.items():
        validators.register(name, target)
