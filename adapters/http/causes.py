"""Causes: what a status, an error code or an exception of an HTTP client means.

It is decided here once: for the requests of providers and validators, and for whatever client a user's own function
brings. Exceptions of clients are known by their names, so that no client is imported to recognise its errors, and any
version of httpx will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from ...engine.runs.foreign import Judgement

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

_BY_STATUS = {
    401: AUTH,
    402: QUOTA,
    403: _FORBIDDEN,
    404: _ADDRESS,
    405: _ADDRESS,
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
_TOO_LONG = Cause("took too long", _TIMEOUT)
_UNREACHABLE = Cause("could not be reached", _CONNECTION)
_NOT_IN_TIME = Cause("could not be reached in time", _CONNECTION)
_NO_PROXY = Cause("could not be reached through the proxy", _CONNECTION)
_UNTRUSTED = Cause("has a certificate that is not trusted", _HOPELESS)
_BAD__ADDRESS = Cause("has an address that cannot be used", _HOPELESS)

# The first match counts. A name without its package is one of httpx, of any version; some of requests are the same.
_BY_NAME = {
    "SSLCertVerificationError": _UNTRUSTED,
    "aiohttp.ClientConnectorCertificateError": _UNTRUSTED,
    "aiohttp.InvalidURL": _BAD__ADDRESS,
    "UnsupportedProtocol": _BAD__ADDRESS,
    "aiohttp.ConnectionTimeoutError": _NOT_IN_TIME,
    "ConnectTimeout": _NOT_IN_TIME,
    "PoolTimeout": Cause("had no free connection in time", _CONNECTION),
    "aiohttp.ClientHttpProxyError": _NO_PROXY,
    "ProxyError": _NO_PROXY,
    "aiohttp.ClientConnectorError": _UNREACHABLE,
    "ConnectError": _UNREACHABLE,
    "aiohttp.ClientPayloadError": _BROKE_OFF,
    "aiohttp.ClientResponseError": _NOT_HTTP,
    "builtins.TimeoutError": _TOO_LONG,
    "TimeoutException": _TOO_LONG,
    "requests.Timeout": _TOO_LONG,
}
_OF_CLIENTS = frozenset({"TransportError", "TimeoutException", "requests.ConnectionError", "requests.Timeout"})
_CLOSED = frozenset({"aiohttp.ClientError", "TransportError", "requests.ConnectionError", "builtins.ConnectionError"})
_WITH_STATUS = frozenset({"aiohttp.ClientResponseError", "urllib.HTTPError"})
_names: WeakKeyDictionary[type[BaseException], frozenset[str]] = WeakKeyDictionary()


def meaning_of_status(status: int) -> Meaning:
    """Return what an answer with this status means."""
    return _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, REQUEST)


def meaning_of_code(code: str) -> Meaning | None:
    """Return what an endpoint's own error code means, None for a code that adds nothing to the status."""
    return _BY_CODE.get(code)


def names_of(error: BaseException) -> frozenset[str]:
    """Return the names of an exception's classes, bare and after their package: `InvalidURL`, `aiohttp.InvalidURL`."""
    kind = type(error)
    names = _names.get(kind)
    if names is None:
        packages = (f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in kind.__mro__)
        names = _names[kind] = frozenset((*(cls.__name__ for cls in kind.__mro__), *packages))
    return names


def root_of(error: BaseException) -> BaseException:
    """Return the innermost exception that an HTTP client raised, else the system's, else `error` itself.

    Clients wrap each other's exceptions, and lose what went wrong.
    """
    of_client: BaseException | None = None
    of_system: BaseException | None = None
    inner: BaseException | None = error
    while inner is not None:
        names = names_of(inner)
        if "aiohttp.ClientError" in names:
            return inner
        if not _OF_CLIENTS.isdisjoint(names):
            of_client = inner
        if isinstance(inner, OSError):
            of_system = inner
        inner = inner.__cause__
    return of_client or of_system or error


def cause_of(root: BaseException) -> Cause | None:
    """Return why there is no answer, None for an exception that is not one of a connection."""
    names = names_of(root)
    for name, cause in _BY_NAME.items():
        if name in names:
            return cause
    if "RemoteProtocolError" in names:  # httpx has one for three causes
        text = str(root)
        if "complete message body" in text:
            return _BROKE_OFF
        if not text.startswith("Server disconnected"):
            return _NOT_HTTP
    return None if _CLOSED.isdisjoint(names) else CLOSED


def judge(error: BaseException) -> Judgement | None:
    """Judge an exception of a client that a user's function brings, by its status or by its cause."""
    status = _status_of(error)
    if status is not None:
        meaning = meaning_of_status(status)
    elif (cause := _cause_within(error)) is not None:
        meaning = cause.meaning
    else:
        return None
    return Judgement(meaning.kind, meaning.retryable)


def _cause_within(error: BaseException) -> Cause | None:
    """Return the cause at the root of an exception, else the first on the way there."""
    cause, inner = cause_of(root_of(error)), error.__cause__
    while cause is None and inner is not None:
        cause, inner = cause_of(inner), inner.__cause__
    return cause or cause_of(error)


def _status_of(error: BaseException) -> int | None:
    """Return the status on an error (openai), on its response (httpx, requests), or under aiohttp's name for it."""
    status: Any = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if status is None and not _WITH_STATUS.isdisjoint(names_of(error)):
        status = getattr(error, "status", None) or None
    return status if isinstance(status, int) else None
