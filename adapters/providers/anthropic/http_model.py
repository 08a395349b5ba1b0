"""AnthropicChat: messages over aiohttp directly."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ...http.headers import request_id
from ...http.transport import Exchange
from ..wire.adapting import adapting
from ..wire.dialect import dialect_of
from .messages import MessagesWire

if TYPE_CHECKING:
    import aiohttp

    from ....engine.models.provider import Ask, ChatParameters, Message, Reply
    from ...http.endpoint import Endpoint
    from ...http.errors import Failures


class AnthropicChat:
    """A connected model on a shared session."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: Endpoint, name: str, failures: Failures) -> None:
        """Take an open session."""
        self._name = name
        self._endpoint = endpoint
        self._failures = failures
        self._base = "" if urlsplit(endpoint.url).path.rstrip("/").endswith("/v1") else "v1/"
        key = {} if endpoint.key is None else {"x-api-key": endpoint.key}
        key |= dict(endpoint.headers)
        self._exchange = Exchange(session, endpoint, failures, key)

    @property
    def limit_key(self) -> bytes:
        """Identify what its requests share a limit with: the endpoint, the key and the model."""
        return self._endpoint.limit_key(self._name)

    async def probe(self) -> tuple[int, bytes]:
        """Ask for the list of models, which costs nothing; raises ModelError if there is no answer."""
        return await self._exchange.get(f"{self._base}models")

    def chat(self, parameters: ChatParameters) -> Ask:
        """Encode a column's parameters once."""
        wire = MessagesWire(self._name, parameters, self._failures, dialect_of(self._endpoint, self._name))
        post = self._exchange.poster(f"{self._base}messages")

        async def ask(wire: MessagesWire, messages: list[Message]) -> Reply:
            raw, headers = await post(wire.encode(messages))
            return wire.decode(raw, request_id(headers))

        return adapting(wire, ask)
