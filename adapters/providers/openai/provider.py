"""The `openai:` provider: models of OpenAI and of every endpoint that speaks its API, for chat and for embeddings.

    openai:NAME                    OPENAI_API_KEY and OPENAI_BASE_URL, else OpenAI itself
    base_url=...                   any other endpoint; one on this machine needs no key
    client=lambda: AsyncAzureOpenAI(...)    a client of the user's own carries the requests

Both ways encode, decode and classify with the same code; the client only carries bytes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ....engine.core.errors import RecipeError
from ...http.endpoint import Endpoint
from ...http.errors import Failures
from ...http.probe import probe
from ...http.transport import open_session
from .chat import check_extra
from .http_model import HttpModel, headers_for

if TYPE_CHECKING:
    from ....engine.models.model import Model
    from ....engine.models.provider import ChatModel, Provider
    from ....runtime import Runtime
    from .sdk_model import ClientChat


class OpenAIProvider:
    """Connects models to OpenAI-compatible endpoints."""

    def check(self, model: Model) -> None:
        """Refuse a model without a name, an address that is none, and a missing key."""
        if not model.name:
            raise RecipeError(f"Model({model.spec!r})", "the model's name is missing; write openai:NAME")
        check_extra(model)
        if model.client is None:
            Endpoint.of(model)
            return
        for field in ("base_url", "api_key", "api_key_env"):
            if getattr(model, field) is not None:
                raise RecipeError(f"Model({model.spec!r}).{field}", "the client brings its own; give one or the other")

    async def connect(self, model: Model, runtime: Runtime) -> ChatModel:
        """Open or share the client, and see whether the endpoint is there and takes the key."""
        chat: HttpModel | ClientChat
        if model.client is None:
            endpoint = Endpoint.of(model)
            failures = Failures(f"{model.spec} at {endpoint.shown}", endpoint.key)
            opened = partial(open_session, endpoint, headers_for(endpoint))
            session = await runtime.aenter(opened, key=("openai", endpoint))
            chat = HttpModel(session, endpoint, model.name, failures)
        else:
            # openai is imported by those who bring a client: they have it anyway, and it takes a second.
            from .sdk_model import ClientChat, endpoint_of, open_client  # noqa: PLC0415

            client = await runtime.aenter(partial(open_client, model.client), key=("openai", model.client))
            endpoint = endpoint_of(client)
            failures = Failures(f"{model.spec} at {endpoint.shown}", endpoint.key)
            chat = ClientChat(client, model.name, failures)
        await probe(chat, endpoint, failures)
        return chat


provider: Provider = OpenAIProvider()
