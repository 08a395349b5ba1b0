"""HttpModel: chat completions and embeddings over aiohttp directly, the fast path for OpenAI-compatible endpoints."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...http.transport import Exchange
from ..wire.adapting import adapting
from ..wire.embedding_batches import embedding
from .chat import ChatWire
from .embeddings import EmbeddingWire, in_either_format
from .endpoint import dialect_for

if TYPE_CHECKING:
    import aiohttp

    from ....engine.models.provider import (
        Ask,
        ChatParameters,
        Embed,
        Embedded,
        EmbeddingParameters,
        Message,
        Reply,
    )
    from ...http.endpoint import Endpoint
    from ...http.errors import Failures


class HttpChat:
    """A connected model on a shared session, which chats."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: Endpoint, name: str, failures: Failures) -> None:
        """Take an open session."""
        self._endpoint = endpoint
        self._name = name
        self._failures = failures
        key = {} if endpoint.key is None else {"Authorization": f"Bearer {endpoint.key}"}
        key |= dict(endpoint.headers)
        self._exchange = Exchange(session, endpoint, failures, key)

    @property
    def limit_key(self) -> bytes:
        """Identify what its requests share a limit with: the endpoint, the key and the model."""
        return self._endpoint.limit_key(self._name)

    async def probe(self) -> tuple[int, bytes]:
        """Ask for the list of models, which costs nothing; raises ModelError if there is no answer."""
        return await self._exchange.get("models")

    def chat(self, parameters: ChatParameters) -> Ask:
        """Encode a column's parameters once."""
        wire = ChatWire(self._name, parameters, self._failures, dialect_for(self._endpoint, self._name))
        post = self._exchange.poster("chat/completions")

        async def ask(wire: ChatWire, messages: list[Message]) -> Reply:
            raw, headers = await post(wire.encode(messages))
            return wire.decode(raw, headers.get("x-request-id"))

        return adapting(wire, ask)


class HttpModel(HttpChat):
    """A connected model on a shared session, which chats or embeds."""

    def embed(self, parameters: EmbeddingParameters) -> Embed:
        """Encode a column's parameters once."""
        wire = EmbeddingWire(self._name, parameters, replace(self._failures, expected="list of embeddings"))
        post = self._exchange.poster("embeddings")

        async def send(wire: EmbeddingWire, texts: list[str]) -> list[Embedded]:
            raw, _ = await post(wire.encode(texts))
            return wire.decode(raw, texts)

        return embedding(self._failures.standing.around(in_either_format(wire, send)), parameters)
