"""A model, its price, and one request to it.

    model             Model and Price: what a user writes
    provider          Provider: the protocols of an adapter that serves models, and the values that pass
    prices            what a model's tokens cost
    usage             the tokens and requests of a reply
    deadline          Deadline: the time limit of each attempt
    response_cache    ResponseCache: answers of earlier runs
    bytes_received    Arrival: how much of an answer has been received

This package hands on the names that authors of providers need, each when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Model, ModelFunction, Price
    from .provider import (
        Ask,
        ChatModel,
        ChatParameters,
        Embed,
        Embedded,
        Embedder,
        EmbeddingParameters,
        Limits,
        Message,
        Provider,
        Reply,
        in_words,
        providers,
    )

__all__ = [
    "Ask",
    "ChatModel",
    "ChatParameters",
    "Embed",
    "Embedded",
    "Embedder",
    "EmbeddingParameters",
    "Limits",
    "Message",
    "Model",
    "ModelFunction",
    "Price",
    "Provider",
    "Reply",
    "in_words",
    "providers",
]


def __getattr__(name: str) -> object:
    """Load a name from its module; the modules of this package need none of its names themselves."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module = "model" if name in {"Model", "ModelFunction", "Price"} else "provider"
    value = globals()[name] = getattr(importlib.import_module(f".{module}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
