"""Exchange: requests to one endpoint over a shared aiohttp session, bytes out and bytes back.

One session per endpoint serves all models and columns. What all requests have in common (address, headers, time limits,
proxy) is prepared once. There is no total time limit here: the engine puts one around each attempt.
"""

from __future__ import annotations

import importlib
import io
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
from yarl import URL

from ...engine.models.bytes_received import Arrival
from .certificates import trusted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping
    from contextlib import AbstractAsyncContextManager

    from .endpoint import Endpoint
    from .errors import Failures
    from .proxies import Proxy

    Send: TypeAlias = Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]
    """A session's `post`, with the address and the options of a request filled in; the body is the argument `data`."""

CONNECT_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 30.0
_HEADER_BYTES = 2**16  # of one header: gateways report the whole request in one, or a policy, or cookies
_HEADERS_MOST = 1000
_WHOLE_BYTES = 2**20  # aiohttp warns about larger bodies in one piece
_OK = frozenset({200})
_ERRORS: tuple[type[Exception], ...] = (aiohttp.ClientError, OSError)  # TimeoutError is an OSError
_SOCKS_ERRORS = ("ProxyError", "ProxyConnectionError", "ProxyTimeoutError")
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
    headers: Mapping[str, str] | None = None, *, secure: bool, limit: int = 0, proxy: Proxy | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session to share. `headers` go with every request, so they must not hold a key.

    `secure` prepares the certificates for https. `limit` is the most connections at once, 0 for no limit: a lane
    already bounds the requests in flight, and a second queue below it would only use up the time of those waiting.
    Every connection goes through `proxy` if it speaks SOCKS; another one is an option of the requests.
    """
    connector = _connector(
        proxy,
        limit=limit,
        ttl_dns_cache=300,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        ssl=trusted() if secure else True,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        headers={**_HEADERS, **(headers or {})},
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        raise_for_status=False,
        max_line_size=_HEADER_BYTES,
        max_field_size=_HEADER_BYTES,
        max_headers=_HEADERS_MOST,
    ) as session:
        yield session


def _connector(proxy: Proxy | None, **options: Any) -> aiohttp.TCPConnector:
    if proxy is None or not proxy.socks:
        return aiohttp.TCPConnector(**options)
    aiohttp_socks: Any = importlib.import_module("aiohttp_socks")
    connector: aiohttp.TCPConnector = aiohttp_socks.ProxyConnector(
        proxy.host,
        proxy.port,
        aiohttp_socks.ProxyType[proxy.kind.upper()],
        proxy.user,
        proxy.password,
        rdns=proxy.resolves,
        **options,
    )
    return connector


def _errors(proxy: Proxy | None) -> tuple[type[Exception], ...]:
    """Return the exceptions of a failed request; those of a proxy of SOCKS have no class in common with others."""
    if proxy is None or not proxy.socks:
        return _ERRORS
    return (*_ERRORS, *(getattr(sys.modules["aiohttp_socks"], name) for name in _SOCKS_ERRORS))


class Exchange:
    """One model's requests on a shared session."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: Endpoint,
        failures: Failures,
        key_headers: Mapping[str, str],
    ) -> None:
        """Prepare what all requests share."""
        self._session = session
        self._endpoint = endpoint
        self._failures = failures
        self._options = request_options(endpoint.url, endpoint.proxy, key_headers)

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body of the resource at `path`; raises ModelError if there is no answer."""
        try:
            async with self._session.get(self._url(path), **self._options) as response:
                return response.status, await response.read()
        except _errors(self._endpoint.proxy) as error:
            raise self._failures.transport(error) from None

    def poster(self, path: str) -> Post:
        """Return the function that posts a body to `path`."""
        send = partial(self._session.post, self._url(path), **self._options)
        return poster(send, self._failures, proxy=self._endpoint.proxy)

    def _url(self, path: str) -> URL:
        return URL(self._endpoint.at(path), encoded=True)


def poster(send: Send, failures: Failures, accepted: Container[int] = _OK, proxy: Proxy | None = None) -> Post:
    """Return the function that sends a body, and raises ModelError for every status that is not `accepted`."""
    errors = _errors(proxy)

    async def post(body: bytes) -> tuple[bytes, Mapping[str, str]]:
        try:
            with Arrival() as answer:
                async with send(data=body if len(body) < _WHOLE_BYTES else io.BytesIO(body)) as response:
                    content = response.content
                    answer.count = lambda: content.total_bytes
                    raw = await response.read()
        except errors as error:
            # aiohttp's exceptions hold the request's headers, and so the key: they must not go any further.
            raise failures.transport(error) from None
        if response.status not in accepted:
            raise failures.status(response.status, response.headers, raw)
        return raw, response.headers

    return post


def request_options(url: str, proxy: Proxy | None, key_headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of every request to an address: no redirects, the proxy, and the headers with the key.

    The key is not among the session's headers, because aiohttp shows those to a proxy as well.
    """
    options: dict[str, Any] = {"allow_redirects": False, "headers": dict(key_headers)}
    if proxy is None or proxy.socks:
        return options
    options["proxy"] = URL(proxy.shown)
    if url.startswith("https"):  # through a tunnel the password is for the proxy alone
        options["proxy_headers"] = proxy.authorization
    else:  # without one, it travels with each request
        options["headers"] |= proxy.authorization
    return options
