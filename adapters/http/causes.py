"""Causes: what a status, an error code or an exception of an HTTP client means.

It is decided here once: for the requests of providers and validators, and for whatever client a user's own function
brings. Exceptions of clients are known by their names, so that no client is imported to recognise its errors, and any
version of httpx will do.
"""

from __future__ import annotations

import errno
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from .certificates import advice_for
from .chains import chain_of, names_of

if TYPE_CHECKING:
    from ...engine.core.errors import FailureKind


class Meaning(NamedTuple):
    """What a failure means: its kind, whether a retry may succeed, whether every other request fails for it too.

    `alone`: its kind if others of the endpoint's requests have been answered, so that it is about one request only.
    """

    kind: FailureKind
    retryable: bool = False
    fatal: bool = False
    advice: str = ""
    alone: FailureKind | None = None


class Cause(NamedTuple):
    """Why there is no answer: the end of a sentence that begins with the endpoint, and its meaning."""

    text: str
    meaning: Meaning


REQUEST = Meaning("bad_request")
MOVED = Meaning("not_found", fatal=True, advice="set base_url accordingly", alone="not_found")
TRUNCATED = Meaning("truncated", retryable=True)
UNREADABLE = Meaning("unreadable", retryable=True)
FILTERED = Meaning("refused")
AUTH = Meaning("auth", fatal=True, advice="check the key, and that it may use this model")
QUOTA = Meaning("quota", fatal=True, advice="the account has no credit left")
_FORBIDDEN = AUTH._replace(alone="refused")
_ADDRESS = Meaning("not_found", fatal=True, advice="check the model's name and base_url", alone="not_found")
RATE = Meaning("rate_limited", retryable=True)
_SERVER = Meaning("server", retryable=True)
_CONNECTION = Meaning("connection", retryable=True)
_TIMEOUT = Meaning("timeout", retryable=True)
_HOPELESS = Meaning("connection", fatal=True)
_ACCOUNT = Meaning(
    "connection",
    fatal=True,
    advice="the proxy's address needs a user name and password: http://user:password@host:port",
)
_HEADERS = Meaning("unreadable")  # the next answer has them too

_BY_STATUS = {
    401: AUTH,
    402: QUOTA,
    403: _FORBIDDEN,
    404: _ADDRESS,
    405: _ADDRESS,
    407: _ACCOUNT,
    408: _TIMEOUT,
    409: _SERVER,
    425: _SERVER,
    429: RATE,
}
_BY_CLASS = {3: MOVED, 5: _SERVER}
_BY_CODE = {  # endpoints send these codes with several statuses; the code is more precise
    "insufficient_quota": QUOTA,
    "invalid_api_key": AUTH,
    "model_not_found": _ADDRESS,
    "authentication_error": AUTH,
    "account_deactivated": AUTH,
    "billing_error": QUOTA,
    "billing_hard_limit_reached": QUOTA,
    "billing_not_active": QUOTA,
    "credit_limit": QUOTA,
    "exceeded_current_quota_error": QUOTA,
    "rate_limit_error": RATE,
    "overloaded_error": _SERVER,
    "content_filter": FILTERED,
    "content_policy_violation": FILTERED,
    "data_inspection_failed": FILTERED,
    "moderation_blocked": FILTERED,
    "json_validate_failed": UNREADABLE,  # a sample of the model that is no JSON, and no fault of the request
    "tool_use_failed": Meaning("tool_calls", retryable=True),
}

CLOSED = Cause("closed the connection before it had answered", _CONNECTION)
_BROKE_OFF = Cause("broke off its answer", TRUNCATED)
_NOT_HTTP = Cause("answered with something that is not HTTP", UNREADABLE)
_UNPACKED = Cause("answered with a body that cannot be read", UNREADABLE)
_TOO_LONG = Cause("took too long", _TIMEOUT)
_UNREACHABLE = Cause("could not be reached", _CONNECTION)
_NOT_IN_TIME = Cause("could not be reached in time", _CONNECTION)
_NO_PROXY = Cause("could not be reached through the proxy", _CONNECTION)
_LONG_HEADERS = Cause("answered with response headers that are too long to be read", _HEADERS)
_BAD_ADDRESS = Cause("has an address that cannot be used", _HOPELESS)
_NO_ACCOUNT = _NO_PROXY._replace(meaning=_ACCOUNT)
_NO_CONNECTION = Cause("had no free connection in time", _CONNECTION)

NEVER_SENT = frozenset({_UNREACHABLE, _NOT_IN_TIME, _NO_PROXY, _NO_ACCOUNT, _BAD_ADDRESS, _NO_CONNECTION})
"""The causes for which no request was sent, so that there is nothing to pay."""

# The first match counts. A name without its package is one of httpx, of any version; some of requests are the same.
_BY_NAME = {
    "aiohttp.InvalidURL": _BAD_ADDRESS,
    "UnsupportedProtocol": _BAD_ADDRESS,
    "aiohttp.ConnectionTimeoutError": _NOT_IN_TIME,
    "ConnectTimeout": _NOT_IN_TIME,
    "urllib3.ConnectTimeoutError": _NOT_IN_TIME,
    "botocore.ConnectTimeoutError": _NOT_IN_TIME,
    "PoolTimeout": _NO_CONNECTION,
    "aiohttp.ClientHttpProxyError": _NO_PROXY,
    "aiohttp.ClientProxyConnectionError": _NO_PROXY,
    "aiohttp_socks.ProxyConnectionError": _NO_PROXY,
    "aiohttp_socks.ProxyTimeoutError": _NO_PROXY,
    "ProxyError": _NO_PROXY,
    "aiohttp.ClientConnectorError": _UNREACHABLE,
    "ConnectError": _UNREACHABLE,
    "socket.gaierror": _UNREACHABLE,
    "ssl.SSLError": _UNREACHABLE,
    "aiohttp.ContentEncodingError": _UNPACKED,
    "aiohttp.ClientPayloadError": _BROKE_OFF,
    "requests.ChunkedEncodingError": _BROKE_OFF,
    "requests.IncompleteRead": _BROKE_OFF,
    "botocore.IncompleteReadError": _BROKE_OFF,
    "botocore.ResponseStreamingError": _BROKE_OFF,
    "http.IncompleteRead": _BROKE_OFF,  # of urllib3 as well
    "urllib.ContentTooShortError": _BROKE_OFF,
    "asyncio.IncompleteReadError": _BROKE_OFF,
    "aiohttp.ClientResponseError": _NOT_HTTP,
    "http.RemoteDisconnected": CLOSED,
    "http.BadStatusLine": _NOT_HTTP,
    "http.LineTooLong": _NOT_HTTP,
    "DecodingError": _UNPACKED,
    "requests.ContentDecodingError": _UNPACKED,
    "urllib3.DecodeError": _UNPACKED,
    "APIResponseValidationError": _UNPACKED,
    "requests.RetryError": Cause("answered with an error to every attempt", _SERVER),
    "builtins.TimeoutError": _TOO_LONG,
    "TimeoutException": _TOO_LONG,
    "requests.Timeout": _TOO_LONG,
    "urllib3.TimeoutError": _TOO_LONG,
    "botocore.ReadTimeoutError": _TOO_LONG,
    "aiohttp.ClientError": CLOSED,
    "RemoteProtocolError": _NOT_HTTP,  # unless its text says otherwise
    "TransportError": CLOSED,
    "requests.ConnectionError": CLOSED,
    "urllib3.NewConnectionError": _UNREACHABLE,
    "urllib3.ProtocolError": CLOSED,
    "botocore.HTTPClientError": CLOSED,
    "builtins.ConnectionError": CLOSED,
}
_OF_CLIENTS = frozenset(
    {
        "TransportError",
        "TimeoutException",
        "requests.ConnectionError",
        "requests.Timeout",
        "requests.ChunkedEncodingError",
        "aiohttp_socks.ProxyConnectionError",
        "aiohttp_socks.ProxyError",
        "aiohttp_socks.ProxyTimeoutError",
    }
)
_CERTIFICATE = "ssl.SSLCertVerificationError"
_UNTRUSTED = "has a certificate that is not trusted"
_LONG = re.compile("Too many headers|Receive buffer too long|header is too long|Header.*too (long|large)")
_NO_ROUTE = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH})
_known: WeakKeyDictionary[type[BaseException], Cause | None] = WeakKeyDictionary()


def meaning_of_status(status: int) -> Meaning:
    """Return what an answer with this status means."""
    return _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, REQUEST)


def meaning_of_code(code: str) -> Meaning | None:
    """Return what an endpoint's own error code means, None for a code that adds nothing to the status."""
    return _BY_CODE.get(code)


def root_of(error: BaseException) -> BaseException:
    """Return the innermost exception that an HTTP client raised, else the system's, else `error` itself.

    Of aiohttp's, which say more than those inside them, it is the outermost. What `ssl` reports of a certificate and
    what `http.client` reports inside requests and urllib3 says more than all others.
    """
    of_aiohttp: BaseException | None = None
    of_client: BaseException | None = None
    of_system: BaseException | None = None
    for inner in chain_of(error):
        names = names_of(inner)
        if _CERTIFICATE in names or "http.HTTPException" in names:
            return inner
        if of_aiohttp is None and "aiohttp.ClientError" in names:
            of_aiohttp = inner
        if not _OF_CLIENTS.isdisjoint(names):
            of_client = inner
        if isinstance(inner, OSError):
            of_system = inner
    return of_aiohttp or of_client or of_system or error


def cause_of(root: BaseException) -> Cause | None:
    """Return why there is no answer, None for an exception that is not one of a connection."""
    names = names_of(root)
    if _CERTIFICATE in names:
        return Cause(_UNTRUSTED, _HOPELESS._replace(advice=advice_for(root)))
    cause = _cause_by_name(root)
    if cause is _NO_PROXY and getattr(root, "status", None) == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return _NO_ACCOUNT
    if cause is _NOT_HTTP:
        return _cause_by_text(root)
    if cause is None and isinstance(root, OSError) and root.errno in _NO_ROUTE:
        return _UNREACHABLE
    return cause


def _cause_by_name(root: BaseException) -> Cause | None:
    """Return the first match in the table, which is looked up once for each class."""
    kind = type(root)
    if kind not in _known:
        names = names_of(root)
        _known[kind] = next((cause for name, cause in _BY_NAME.items() if name in names), None)
    return _known[kind]


def _cause_by_text(root: BaseException) -> Cause:
    """Return the cause of an answer that the client could not read; httpx has one exception for four causes."""
    text = str(root)
    if any("LineTooLong" in names_of(inner) for inner in chain_of(root)) or _LONG.search(text):
        return _LONG_HEADERS
    if "RemoteProtocolError" in names_of(root):
        if "complete message body" in text:
            return _BROKE_OFF
        if text.startswith("Server disconnected"):
            return CLOSED
    return _NOT_HTTP
