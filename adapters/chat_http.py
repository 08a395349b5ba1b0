"""HttpChat: chat completions over aiohttp directly, the fast path for OpenAI-compatible endpoints.

One session per endpoint serves all models and columns. What aiohttp can be told once (address, headers, time limits,
proxy) is told once. There is no total time limit here: the engine puts one around each attempt.
"""

from __future__ import annotations

import base64
import io
import os
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from ..engine.arrivals import Arrival
from .chat_wire import ChatWire
from .endpoint import is_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..engine.models import Ask, ChatParameters, Message, Reply
    from .endpoint import Endpoint
    from .failures import Failures

CONNECT_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 30.0
_WHOLE_BYTES = 2**20  # aiohttp warns of larger bodies in one piece
_OK = 200
_ERRORS = (aiohttp.ClientError, OSError)  # TimeoutError is an OSError


@asynccontextmanager
async def open_session(endpoint: Endpoint, limit: int = 0) -> AsyncIterator[aiohttp.ClientSession]:
    """Open the session that everyone who talks to `endpoint` shares.

    `limit` is the most connections at once; 0 is no limit, since a lane already bounds the requests in flight, and
    a second queue below it would only eat the time limits of those who wait there.
    """
    connector = aiohttp.TCPConnector(
        limit=limit,
        ttl_dns_cache=300,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        ssl=_trusted() if endpoint.url.startswith("https") else True,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        headers=headers_for(endpoint),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        raise_for_status=False,
    ) as session:
        yield session


def headers_for(endpoint: Endpoint) -> dict[str, str]:
    """Return what every request to `endpoint` carries, but for the key.

    For OpenAI itself the variables of its own package count too.
    """
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # completions are small: unpacking them costs more than receiving them
        "User-Agent": "rowloop",
    }
    if endpoint.is_openai:
        named = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
        headers |= {name: os.environ[variable] for name, variable in named.items() if os.environ.get(variable)}
    return headers


class HttpChat:
    """A connected model on a shared session."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: Endpoint, name: str, failures: Failures) -> None:
        """Parse addresses and look for a proxy once."""
        self._endpoint = endpoint
        self._name = name
        self._failures = failures
        way = {"allow_redirects": False, **_proxy(endpoint)}
        if endpoint.key is not None:
            # Not with the session's headers: aiohttp shows those to a proxy as well.
            way["headers"] = {**way.get("headers", {}), "Authorization": f"Bearer {endpoint.key}"}
        self._post = partial(session.post, URL(endpoint.at("chat/completions"), encoded=True), **way)
        self._models = partial(session.get, URL(endpoint.at("models"), encoded=True), **way)

    async def probe(self) -> tuple[int, bytes]:
        """Ask for the list of models, which costs nothing; raises ModelError where there is no answer."""
        try:
            async with self._models() as response:
                return response.status, await response.read()
        except _ERRORS as error:
            raise self._failures.transport(error) from None

    def chat(self, parameters: ChatParameters) -> Ask:
        """Encode a column's parameters once."""
        wire = ChatWire(self._name, parameters, self._failures, is_openai=self._endpoint.is_openai)
        post, failures, encode, decode = self._post, self._failures, wire.encode, wire.decode

        async def ask(messages: list[Message]) -> Reply:
            body = encode(messages)
            try:
                with Arrival() as answer:
                    async with post(data=body if len(body) < _WHOLE_BYTES else io.BytesIO(body)) as response:
                        content = response.content
                        answer.count = lambda: content.total_bytes
                        raw = await response.read()
            except _ERRORS as error:
                # What aiohttp raises holds the request's headers, and so the key: it goes no further.
                raise failures.transport(error) from None
            headers = response.headers
            if response.status != _OK:
                raise failures.status(response.status, headers, raw)
            return decode(raw, headers.get("x-request-id"))

        return ask


def _trusted() -> Any:
    """Return the certificates that the openai package trusts as well, so that both paths reach the same hosts."""
    import httpx2  # noqa: PLC0415 - not needed on this machine, and slow to import

    return httpx2.create_ssl_context()


def _proxy(endpoint: Endpoint) -> dict[str, Any]:
    """Read the proxy from the environment, once; aiohttp's trust_env would do so in a thread for each request."""
    url = URL(endpoint.url)
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found or is_loopback(endpoint.host) or proxy_bypass(endpoint.host):
        return {}
    proxy = URL(found)
    if proxy.user is None:
        return {"proxy": proxy}
    pair = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
    # Through a tunnel (https) the password is for the one who opens it; without one, it travels with each request.
    carrier = "proxy_headers" if url.scheme == "https" else "headers"
    return {"proxy": proxy.with_user(None), carrier: {"Proxy-Authorization": f"Basic {pair}"}}
