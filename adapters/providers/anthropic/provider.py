"""The `anthropic:` provider: Claude models at Anthropic, and every endpoint that speaks its Messages API.

anthropic:NAME                 ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL, else Anthropic itself
base_url=...                   any other endpoint, with or without /v1; one on this machine needs no key
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ....engine.core.errors import RecipeError
from ...http.endpoint import Api, Endpoint
from ...http.errors import Failures, request_id
from ...http.probe import probe
from ...http.transport import Exchange, open_session
from ..openai.chat import check_extra
from ..wire.dialect import adapting, dialect_of
from .messages import OURS, MessagesWire

if TYPE_CHECKING:
    import aiohttp

    from ....engine.models.model import Model
    from ....engine.models.provider import Ask, ChatModel, ChatParameters, Message, Provider, Reply
    from ....runtime import Runtime

ANTHROPIC = Api("https://api.anthropic.com", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "/messages")
# The version that all endpoints know, and the last one in which a request may have a temperature.
_HEADERS = {"anthropic-version": "2023-06-01"}


class AnthropicProvider:
    """Connects models to endpoints that speak the Messages API."""

    def check(self, model: Model) -> None:
        """Refuse a model without a name, an address that is none, a missing key, and a client."""
        if not model.name:
            raise RecipeError(f"Model({model.spec!r})", "the model's name is missing; write anthropic:NAME")
        if model.client is not None:
            raise RecipeError(f"Model({model.spec!r}).client", "only openai: models take one; give base_url and a key")
        check_extra(model, OURS)
        if not isinstance(model.extra.get("output_config", {}), dict):
            raise RecipeError(f"Model({model.spec!r}).extra.output_config", "must be a mapping: {'effort': 'low'}")
        Endpoint.of(model, ANTHROPIC)

    async def connect(self, model: Model, runtime: Runtime) -> ChatModel:
        """Open or share the session, and see whether the endpoint is there and takes the key."""
        endpoint = Endpoint.of(model, ANTHROPIC)
        failures = Failures(f"{model.spec} at {endpoint.shown}", endpoint.key, "message")
        session = await runtime.aenter(partial(open_session, endpoint, _HEADERS), key=("anthropic", endpoint))
        chat = AnthropicChat(session, endpoint, model.name, failures)
        await probe(chat, endpoint, failures)
        return chat


class AnthropicChat:
    """A connected model on a shared session."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: Endpoint, name: str, failures: Failures) -> None:
        """Take an open session."""
        self._name = name
        self._endpoint = endpoint
        self._failures = failures
        self._base = "" if urlsplit(endpoint.url).path.rstrip("/").endswith("/v1") else "v1/"
        self._exchange = Exchange(
            session, endpoint, failures, {} if endpoint.key is None else {"x-api-key": endpoint.key}
        )

    async def probe(self) -> tuple[int, bytes]:
        """Ask for the list of models, which costs nothing; raises ModelError where there is no answer."""
        return await self._exchange.get(f"{self._base}models")

    def chat(self, parameters: ChatParameters) -> Ask:
        """Encode a column's parameters once."""
        wire = MessagesWire(self._name, parameters, self._failures, dialect_of(self._endpoint, self._name))
        post, encode, decode = self._exchange.poster(f"{self._base}messages"), wire.encode, wire.decode

        async def ask(messages: list[Message]) -> Reply:
            raw, headers = await post(encode(messages))
            return decode(raw, request_id(headers))

        return adapting(wire, ask)


provider: Provider = AnthropicProvider()
