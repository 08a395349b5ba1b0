"""Exchange: requests to one endpoint over a shared aiohttp session, bytes out and bytes back.

One session per endpoint serves all models and columns. What all requests have in common (address, headers, time limits,
proxy) is prepared once. There is no total time limit here: the engine puts one around each attempt.
"""

from __future__ import annotations

import base64
import io
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from ...engine.models.bytes_received import Arrival
from .endpoint import is_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping
    from contextlib import AbstractAsyncContextManager

    from .endpoint import Endpoint
    from .errors import Failures

    Send: TypeAlias = Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]
    """A session's `post`, with the address and the options of a request filled in; the body is the argument `data`."""

CONNECT_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 30.0
_WHOLE_BYTES = 2**20  # aiohttp warns about larger bodies in one piece
_OK = frozenset({200})
_ERRORS = (aiohttp.ClientError, OSError)  # TimeoutError is an OSError
_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # answers are small: unpacking them costs more than receiving them
    "User-Agent": "rowloop",
}

Post: TypeAlias = "Callable[[bytes], Awaitable[tuple[bytes, Mapping[str, str]]]]"
"""A body out; the body and the headers of a successful answer back, or ModelError."""


@asynccontextmanager
async def open_session(
    headers: Mapping[str, str] | None = None, *, secure: bool, limit: int = 0
) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session to share. `headers` go with every request, so they must not hold a key.

    `secure` prepares the certificates for https. `limit` is the most connections at once, 0 for no limit: a lane
    already bounds the requests in flight, and a second queue below it would only use up the time of those waiting.
    """
    connector = aiohttp.TCPConnector(
        limit=limit,
        ttl_dns_cache=300,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        ssl=_trusted() if secure else True,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        headers={**_HEADERS, **(headers or {})},
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        raise_for_status=False,
    ) as session:
        yield session


class Exchange:
    """One model's requests on a shared session."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: Endpoint,
        failures: Failures,
        key_headers: Mapping[str, str],
    ) -> None:
        """Look for a proxy once."""
        self._session = session
        self._endpoint = endpoint
        self._failures = failures
        self._options = request_options(endpoint.url, key_headers)

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body of the resource at `path`; raises ModelError if there is no answer."""
        try:
            async with self._session.get(self._url(path), **self._options) as response:
                return response.status, await response.read()
        except _ERRORS as error:
            raise self._failures.transport(error) from None

    def poster(self, path: str) -> Post:
        """Return the function that posts a body to `path`."""
        return poster(partial(self._session.post, self._url(path), **self._options), self._failures)

    def _url(self, path: str) -> URL:
        return URL(self._endpoint.at(path), encoded=True)


def poster(send: Send, failures: Failures, accepted: Container[int] = _OK) -> Post:
    """Return the function that sends a body, and raises ModelError for every status that is not `accepted`."""

    async def post(body: bytes) -> tuple[bytes, Mapping[str, str]]:
        try:
            with Arrival() as answer:
                async with send(data=body if len(body) < _WHOLE_BYTES else io.BytesIO(body)) as response:
                    content = response.content
                    answer.count = lambda: content.total_bytes
                    raw = await response.read()
        except _ERRORS as error:
            # aiohttp's exceptions hold the request's headers, and so the key: they must not go any further.
            raise failures.transport(error) from None
        if response.status not in accepted:
            raise failures.status(response.status, response.headers, raw)
        return raw, response.headers

    return post


def request_options(url: str, key_headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of every request to an address: no redirects, the proxy, and the headers with the key.

    The key is not among the session's headers, because aiohttp shows those to a proxy as well.
    """
    options = {"allow_redirects": False, **_proxy(URL(url))}
    return {**options, "headers": {**options.get("headers", {}), **key_headers}}


def _trusted() -> Any:
    """Return the certificates that the openai package trusts as well, so that both paths reach the same hosts."""
    import httpx2  # noqa: PLC0415 - not needed on this machine, and slow to import

    return httpx2.create_ssl_context()


def _proxy(url: URL) -> dict[str, Any]:
    """Read the proxy from the environment, once; aiohttp's trust_env would do so in a thread for each request."""
    host = url.host or ""
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found or is_loopback(host) or proxy_bypass(host):
        return {}
    proxy = URL(found)
    if proxy.user is None:
        return {"proxy": proxy}
    pair = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
    # Through a tunnel (https) the password is for the proxy alone; without one, it travels with each request.
    carrier = "proxy_headers" if url.scheme == "https" else "headers"
    return {"proxy": proxy.with_user(None), carrier: {"Proxy-Authorization": f"Basic {pair}"}}
