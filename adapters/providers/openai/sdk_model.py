"""ClientChat: requests through a client that the user brings, an openai.AsyncOpenAI in any of its forms.

It is the general path (Azure, custom authentication, custom transports) and behaves like the fast path: the client
carries the requests and does nothing else, neither retries nor redirects nor decoding.
"""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx2
import openai

from ....engine.core.errors import RecipeError
from ....engine.models.bytes_received import Arrival
from ...http.endpoint import Endpoint
from ...http.proxies import proxy_of
from ..wire.adapting import adapting
from ..wire.embedding_batches import embedding
from .chat import ChatWire
from .embeddings import EmbeddingWire, in_either_format
from .endpoint import dialect_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ....engine.models.provider import Ask, ChatParameters, Embed, Embedded, EmbeddingParameters, Message, Reply
    from ...http.errors import Failures

_AS_IT_IS: Any = {"follow_redirects": False}


@asynccontextmanager
async def open_client(make: Callable[[], Any]) -> AsyncIterator[openai.AsyncOpenAI]:
    """Call the user's factory on the loop that will use its client, and close the client there at the end."""
    try:
        made = make()
    except Exception as error:
        raise RecipeError("client", f"the factory raised {type(error).__name__}: {error}") from error
    if not isinstance(made, openai.AsyncOpenAI):
        kind = f"{type(made).__module__}.{type(made).__qualname__}"
        raise RecipeError("client", f"the factory must return an openai.AsyncOpenAI, and returned a {kind}")
    async with made:
        yield made.with_options(max_retries=0)


def endpoint_of(client: openai.AsyncOpenAI) -> Endpoint:
    """Return the address of the user's client, the key it holds, and the proxy that it finds in the environment."""
    url, proxy = str(client.base_url).rstrip("/"), None
    with contextlib.suppress(RecipeError):  # the client has its own view of the variables
        proxy = proxy_of(url)
    return Endpoint(url, client.api_key or None, proxy=proxy)


class ClientChat:
    """A connected model on the user's client."""

    def __init__(self, client: openai.AsyncOpenAI, name: str, failures: Failures) -> None:
        """Take an entered client."""
        self._client = client
        self._endpoint = endpoint_of(client)
        self._name = name
        self._failures = failures

    @property
    def limit_key(self) -> bytes:
        """Identify what its requests share a limit with: the endpoint, the key and the model."""
        return self._endpoint.limit_key(self._name)

    async def probe(self) -> tuple[int, bytes]:
        """Ask for the list of models, which costs nothing; raises ModelError if there is no answer."""
        try:
            response = await self._client.get("/models", cast_to=httpx2.Response, options=_AS_IT_IS)
        except openai.APIStatusError as error:
            return error.status_code, error.response.content
        except Exception as error:  # noqa: BLE001 - a client that the user put together may raise anything
            raise self._failures.transport(error) from None
        return response.status_code, response.content

    def chat(self, parameters: ChatParameters) -> Ask:
        """Prepare what all calls of a column have in common."""
        wire = ChatWire(self._name, parameters, self._failures, dialect_for(self._endpoint, self._name))

        async def ask(wire: ChatWire, messages: list[Message]) -> Reply:
            # Encoding raises the ModelError of messages that cannot be sent.
            response = await self._answer("/chat/completions", wire.body(messages), lambda: wire.encode(messages))
            return wire.decode(response.content, response.headers.get("x-request-id"))

        return adapting(wire, ask)

    def embed(self, parameters: EmbeddingParameters) -> Embed:
        """Prepare what all calls of a column have in common."""
        wire = EmbeddingWire(self._name, parameters, replace(self._failures, expected="list of embeddings"))

        async def send(wire: EmbeddingWire, texts: list[str]) -> list[Embedded]:
            response = await self._answer("/embeddings", wire.body(texts), lambda: wire.encode(texts))
            return wire.decode(response.content, texts)

        return embedding(self._failures.standing.around(in_either_format(wire, send)), parameters)

    async def _answer(self, path: str, body: dict[str, Any], encode: Callable[[], bytes]) -> httpx2.Response:
        """Return an answer with status 200, or raise ModelError; `encode` raises one if the body is the reason."""
        try:
            return await self._post(path, body)
        except openai.APIStatusError as error:
            answer = error.response
            raise self._failures.status(error.status_code, answer.headers, answer.content) from None
        except Exception as error:  # noqa: BLE001 - a client that the user put together may raise anything
            if isinstance(error, (TypeError, ValueError)):
                encode()
            raise self._failures.transport(error) from None

    async def _post(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        """Post and read the whole answer, whose bytes are counted as they arrive."""
        with Arrival() as answer:
            posted: Any = await self._client.post(
                path,
                cast_to=httpx2.Response,
                body=body,
                options=_AS_IT_IS,
                stream=True,  # for the client alone: it then returns the response before its body has arrived
                stream_cls=openai.AsyncStream[object],
            )
            response: httpx2.Response = posted  # the types of `post` do not know it
            answer.count = lambda: response.num_bytes_downloaded
            try:
                await response.aread()
            finally:
                await response.aclose()
            return response
