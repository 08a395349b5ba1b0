"""OpenAIProvider: models of OpenAI and of every endpoint that speaks its API, for chat and for embeddings.

    openai:NAME                    OPENAI_API_KEY and OPENAI_BASE_URL, else OpenAI itself
    base_url=...                   any other endpoint; one on this machine needs no key
    client=lambda: AsyncAzureOpenAI(...)    the user's own client carries the requests

Both ways encode, decode and classify with the same code; the client only carries bytes.
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
from .chat import RESERVED
from .endpoint import OPENAI, headers_for

if TYPE_CHECKING:
    from ....engine.models.model import Model
    from ....engine.models.provider import ChatModel, Pricing, Provider
    from ....runtime import Runtime
    from ...http.endpoint import Api
    from .http_model import HttpModel
    from .sdk_model import ClientChat


class OpenAIProvider:
    """Connects models to OpenAI-compatible endpoints."""

    limits = Limits(most=512, first=16)

    def __init__(self, api: Api = OPENAI) -> None:
        """Take the address, and the variables of address and key, of the models' endpoint."""
        self._api = api

    def price(self, model: Model) -> Pricing | None:
        """Return the list price at the model's address."""
        return list_price(model, self._api)

    def check(self, model: Model) -> None:
        """Refuse a missing name or key, an invalid address, and what a client of the user's own overrides."""
        if not model.name:
            raise RecipeError(f"Model({model.spec!r})", f"the model's name is missing; write {model.provider}:NAME")
        check_extra(model, RESERVED)
        if model.client is None:
            Endpoint.of(model, self._api)
            return
        if self._api is not OPENAI:
            raise RecipeError(f"Model({model.spec!r}).client", "only openai: models take one, which brings its address")
        for field in ("base_url", "api_key", "api_key_env", "headers", "headers_env"):
            if getattr(model, field) not in (None, {}):
                raise RecipeError(f"Model({model.spec!r}).{field}", "the client brings its own; give one or the other")

    async def connect(self, model: Model, runtime: Runtime) -> ChatModel:
        """Open or share the client, and check that the endpoint can be reached and accepts the key."""
        if model.client is None:
            endpoint, failures, chat = await _by_address(model, self._api, runtime)
        else:
            endpoint, failures, chat = await _by_client(model, runtime)
        await probe(chat, endpoint, self._api, failures)
        return chat


async def _by_address(model: Model, api: Api, runtime: Runtime) -> tuple[Endpoint, Failures, HttpModel | ClientChat]:
    from ...http.transport import open_session  # noqa: PLC0415 - aiohttp is slow to import
    from .http_model import HttpModel  # noqa: PLC0415 - the same

    endpoint = Endpoint.of(model, api)
    failures = Failures(f"{model.spec} at {endpoint.shown}", endpoint.key, secrets=endpoint.secrets)
    opened = partial(open_session, headers_for(endpoint), secure=endpoint.secure, proxy=endpoint.proxy)
    session = await runtime.aenter(opened, key=("openai", endpoint))
    return endpoint, failures, HttpModel(session, endpoint, model.name, failures)


async def _by_client(model: Model, runtime: Runtime) -> tuple[Endpoint, Failures, HttpModel | ClientChat]:
    assert model.client is not None  # noqa: S101 - by the caller
    # The openai package takes a second to import; only users who bring a client pay for it.
    from .sdk_model import ClientChat, endpoint_of, open_client  # noqa: PLC0415

    client = await runtime.aenter(partial(open_client, model.client), key=("openai", model.client))
    endpoint = endpoint_of(client)
    failures = Failures(f"{model.spec} at {endpoint.shown}", endpoint.key, secrets=tuple(model.secrets))
    return endpoint, failures, ClientChat(client, model.name, failures)


provider: Provider = OpenAIProvider()
