"""HttpModel: embeddings over aiohttp directly, beside the chat completions of the same model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..wire.embedding_batches import embedding
from .embeddings import EmbeddingWire
from .http_model import HttpChat

if TYPE_CHECKING:
    from ....engine.models.provider import Embed, Embedded, EmbeddingParameters


class HttpModel(HttpChat):
    """A connected model on a shared session, which chats or embeds."""

    def embed(self, parameters: EmbeddingParameters) -> Embed:
        """Encode a column's parameters once."""
        wire = EmbeddingWire(self._name, parameters, replace(self._failures, expected="list of embeddings"))
        post, encode, decode = self._exchange.poster("embeddings"), wire.encode, wire.decode

        async def send(texts: list[str]) -> list[Embedded]:
            raw, _ = await post(encode(texts))
            return decode(raw, texts)

        return embedding(send, parameters)
