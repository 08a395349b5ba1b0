"""A model, its price, and one request to it.

| file | what it has |
|---|---|
| model | Model and Price: what a user writes |
| secrets | the keys that a model holds, and how text is cleaned of them |
| provider | the protocols of an adapter that serves models, and the values that pass between it and the engine |
| sharing | one limit, pace and circuit per endpoint, key and model, for all runs of the process |
| prices | what a request to a model cost, and how an amount is written |
| usage | the tokens and requests of a reply, and what its price depends on |
| verdict | whether a reply is a complete answer |
| deadline | the time limit of each attempt, fixed or learnt from answers |
| time_limit | how long one attempt may take, learnt from earlier answers |
| sweep | finds what has lasted too long, with one timer for a whole column |
| response_cache | answers of earlier runs, in one SQLite file |
| sqlite_file | how the SQLite files of rowloop are opened |
| bytes_received | how many bytes of an answer have been received |

This package hands on the names that authors of providers need, each when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.events import Billing, Usage
    from ..core.store import Vector
    from .model import Model, ModelFunction, Price
    from .provider import (
        IN_PROCESS_UNUSED,
        Ask,
        ChatModel,
        ChatParameters,
        Embed,
        Embedded,
        Embedder,
        EmbeddingParameters,
        Limits,
        Message,
        Pricing,
        Provider,
        Reply,
        in_words,
        providers,
    )
    from .sharing import limit_key

__all__ = [
    "IN_PROCESS_UNUSED",
    "Ask",
    "Billing",
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
    "Pricing",
    "Provider",
    "Reply",
    "Usage",
    "Vector",
    "in_words",
    "limit_key",
    "providers",
]

_MODULES = {
    "Billing": "..core.events",
    "Model": ".model",
    "ModelFunction": ".model",
    "Price": ".model",
    "Usage": "..core.events",
    "limit_key": ".sharing",
    "Vector": "..core.store",
}
"""The modules of the names that are not in `provider`."""


def __getattr__(name: str) -> object:
    """Load a name from its module; the modules of this package need none of its names themselves."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module = _MODULES.get(name, ".provider")
    value = globals()[name] = getattr(importlib.import_module(module, __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
