"""AnthropicProvider: Claude models at Anthropic, and at every endpoint that speaks its Messages API.

anthropic:NAME                 ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL, else Anthropic itself
base_url=...                   any other endpoint, with or without /v1; one on this machine needs no key
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ....engine.core.errors import RecipeError
from ....engine.models.provider import Limits
from ...http.endpoint import Endpoint
from ...http.errors import Failures
from ...http.probe import probe
from ..wire.list_prices import list_price
from ..wire.request import check_extra
from .endpoint import ANTHROPIC, HEADERS
from .messages import RESERVED

if TYPE_CHECKING:
    from ....engine.models.model import Model
    from ....engine.models.provider import ChatModel, Pricing, Provider
    from ....runtime import Runtime


class AnthropicProvider:
    """Connects models to endpoints that speak the Messages API."""

    limits = Limits(most=512, first=16)

    def price(self, model: Model) -> Pricing | None:
        """Return the list price at the model's address."""
        return list_price(model, ANTHROPIC)

    def check(self, model: Model) -> None:
        """Refuse a missing name or key, an invalid address, and a client."""
        if not model.name:
            raise RecipeError(f"Model({model.spec!r})", "the model's name is missing; write anthropic:NAME")
        if model.client is not None:
            raise RecipeError(f"Model({model.spec!r}).client", "only openai: models take one; give base_url and a key")
        check_extra(model, RESERVED)
        if not isinstance(model.extra.get("output_config", {}), dict):
            raise RecipeError(f"Model({model.spec!r}).extra.output_config", "must be a mapping: {'effort': 'low'}")
        Endpoint.of(model, ANTHROPIC)

    async def connect(self, model: Model, runtime: Runtime) -> ChatModel:
        """Open or share the session, and check that the endpoint can be reached and accepts the key."""
        from ...http.transport import open_session  # noqa: PLC0415 - aiohttp is slow to import
        from .http_model import AnthropicChat  # noqa: PLC0415 - the same

        endpoint = Endpoint.of(model, ANTHROPIC)
        failures = Failures(f"{model.spec} at {endpoint.shown}", endpoint.key, "message", secrets=endpoint.secrets)
        opened = partial(open_session, HEADERS, secure=endpoint.secure, proxy=endpoint.proxy)
        session = await runtime.aenter(opened, key=("anthropic", endpoint))
        chat = AnthropicChat(session, endpoint, model.name, failures)
        await probe(chat, endpoint, ANTHROPIC, failures)
        return chat


provider: Provider = AnthropicProvider()
