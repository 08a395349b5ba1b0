"""A model, its price, and one request to it.

The names that authors of providers need are handed on from here.
"""

from .model import Model, ModelFunction, Price
from .provider import (
    Ask,
    ChatModel,
    ChatParameters,
    Embed,
    Embedded,
    Embedder,
    EmbeddingParameters,
    Message,
    Provider,
    Reply,
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
    "Message",
    "Model",
    "ModelFunction",
    "Price",
    "Provider",
    "Reply",
    "providers",
]
