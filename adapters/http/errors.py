"""Failures: what went wrong with a request, told apart by its root cause and told in one line.

    a status of 4xx or 5xx      by the status, and by the error code where the endpoint gives one
    no answer, or half of one   by the exception at the root: clients wrap each other's, and lose the difference
    an answer that says nothing that cannot be read, or holds no completion

Retrying is the tracker's business; here it is only said whether it may help.
"""

from __future__ import annotations

import math
import os
import re
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import msgspec

from ...engine.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...engine.core.errors import FailureKind

_SHOWN = 300
_MASKED = re.compile(r"\S*\*{3,}\S*")
_STATUS = re.compile(r"[45]\d\d")
_ERRNO = re.compile(r"\[Errno -?\d+\] ")
_SPACE = re.compile(r"\s+")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_BUDGETS = ("requests", "tokens", "input-tokens", "output-tokens")


class _Verdict(NamedTuple):
    kind: FailureKind
    retryable: bool = False
    fatal: bool = False
    advice: str = ""


_AUTH = _Verdict("auth", fatal=True, advice="check the key, and that it may use this model")
_QUOTA = _Verdict("quota", fatal=True, advice="the account has no credit left")
_ADDRESS = _Verdict("not_found", fatal=True, advice="check the model's name and base_url")
_MOVED = _Verdict("not_found", fatal=True, advice="set base_url accordingly")
_RATE = _Verdict("rate_limited", retryable=True)
_SERVER = _Verdict("server", retryable=True)
_REQUEST = _Verdict("bad_request")

_BY_STATUS = {
    401: _AUTH,
    402: _QUOTA,
    403: _AUTH,
    404: _ADDRESS,
    405: _ADDRESS,
    408: _Verdict("timeout", retryable=True),
    409: _SERVER,
    425: _SERVER,
    429: _RATE,
}
_BY_CLASS = {3: _MOVED, 5: _SERVER}
_BY_CODE = {  # endpoints say these with several statuses; the code is more precise
    "insufficient_quota": _QUOTA,
    "invalid_api_key": _AUTH,
    "model_not_found": _ADDRESS,
    "authentication_error": _AUTH,
    "billing_error": _QUOTA,
    "rate_limit_error": _RATE,
    "overloaded_error": _SERVER,
}


@dataclass(frozen=True, slots=True)
class Failures:
    """Makes the errors of one connected model. `label` names it in messages; `secret` appears in none.

    `expected` is what an answer should have been, `advice` what to say of a kind of failure in place of what is said of
    models.
    """

    label: str
    secret: str | None = field(default=None, repr=False)
    expected: str = "chat completion"
    advice: Mapping[str, str] = field(default_factory=dict, repr=False)

    def status(self, status: int, headers: Mapping[str, str], body: bytes) -> ModelError:
        """Tell what an answer with this status means."""
        told, code = _told(body)
        verdict = _BY_CODE.get(code) or _verdict(status)
        if verdict is _MOVED:
            location = headers.get("location", "another address")
            told = f"it has moved to {location}"
        return self._error(
            f"{self.label} answered {status} {_phrase(status)}".rstrip(),
            told,
            verdict,
            status=status,
            retry_after=retry_after(headers),
            request_id=request_id(headers),
        )

    def transport(self, error: BaseException) -> ModelError:
        """Tell why there is no answer, or only part of one."""
        root = _root(error)
        what, verdict = _no_answer(root)
        return self._error(f"{self.label} {what}", _detail(root), verdict)

    def undecoded(self, body: bytes, error: Exception) -> ModelError:
        """Tell that a body with status 200 cannot be decoded: it breaks off, or is something else."""
        return self.unreadable(body, truncated=not body or str(error).startswith("Input data was truncated"))

    def unreadable(self, body: bytes, *, truncated: bool) -> ModelError:
        """Tell that a body with status 200 is not what was asked for."""
        said = _json(body)
        if isinstance(said, dict) and said.get("error"):
            # Gateways pass errors of the endpoints behind them on with status 200.
            told, code = _told(body)
            status = int(code) if _STATUS.fullmatch(code) else None
            verdict = _BY_CODE.get(code) or _verdict(status or 500)
            return self._error(f"{self.label} answered with an error", told, verdict, status=status)
        if truncated:
            return self._error(f"{self.label} broke off its answer after {len(body)} bytes", "", _TRUNCATED)
        problem = f"{self.label} answered with something that is no {self.expected}"
        return self._error(problem, _plain(body), _UNREADABLE)

    def refused(self, why: str, request_id: str | None) -> ModelError:
        """Tell that the model, or a filter behind it, would not answer."""
        return self._error(f"{self.label} refused", why, _Verdict("refused"), request_id=request_id)

    def unsendable(self, error: Exception) -> ModelError:
        """Tell that the messages cannot be written as JSON."""
        return self._error(f"a message to {self.label} cannot be sent", str(error), _REQUEST)

    def fatal(self, problem: str, kind: FailureKind) -> ModelError:
        """Tell that no request will succeed."""
        return self._error(problem, "", _Verdict(kind, fatal=True))

    def _error(self, problem: str, detail: str, verdict: _Verdict, **facts: Any) -> ModelError:
        text = ": ".join(filter(None, (problem, self.clean(detail))))
        text = "; ".join(filter(None, (text, self.advice.get(verdict.kind, verdict.advice))))
        return ModelError(text, kind=verdict.kind, retryable=verdict.retryable, fatal=verdict.fatal, **facts)

    def clean(self, text: str) -> str:
        """Put text of others on one line, short, and without the key, which some endpoints echo half masked."""
        text = _SPACE.sub(" ", _ERRNO.sub("", text)).strip().rstrip(".")
        if self.secret:
            text = text.replace(self.secret, "[key]")
        text = _MASKED.sub("[key]", text)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the id that the endpoint's support will ask for, under either of the usual names."""
    return headers.get("x-request-id") or headers.get("request-id")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds an endpoint asks to wait.

    They are those of retry-after-ms or of either form of Retry-After, else until all of the budgets that OpenAI or
    Anthropic tell to be used up are filled again.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None:
        told = (of(headers, budget) for of in (_refilled, _reset) for budget in _BUDGETS)
        return max((seconds for seconds in told if seconds), default=None)
    seconds = _seconds(value)
    return _until(headers, parsedate_to_datetime, value) if seconds is None else seconds


def _reset(headers: Mapping[str, str], budget: str) -> float | None:
    """Return the seconds until one of OpenAI's budgets that is used up is whole again: "6m0s", "1.5s", "20ms"."""
    if headers.get(f"x-ratelimit-remaining-{budget}") != "0":
        return None
    parts = _SPAN.findall(headers.get(f"x-ratelimit-reset-{budget}", ""))
    return sum(float(number) * _UNITS[unit] for number, unit in parts) if parts else None


def _refilled(headers: Mapping[str, str], budget: str) -> float | None:
    """Return the seconds until a budget that is used up is filled again; None for one that is not."""
    if headers.get(f"anthropic-ratelimit-{budget}-remaining") != "0":
        return None
    return _until(headers, datetime.fromisoformat, headers.get(f"anthropic-ratelimit-{budget}-reset", ""))


def _until(headers: Mapping[str, str], read: Callable[[str], datetime], text: str) -> float | None:
    """Return the seconds until a date of the endpoint's."""
    try:
        # Both dates are the endpoint's where it says what time it is there: our clock may be off.
        here = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
        return max(0.0, (read(text) - here).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


_TRUNCATED = _Verdict("truncated", retryable=True)
_UNREADABLE = _Verdict("unreadable", retryable=True)
_CONNECTION = _Verdict("connection", retryable=True)
_TIMEOUT = _Verdict("timeout", retryable=True)
_HOPELESS = _Verdict("connection", fatal=True)

# The first that fits. httpx's are known by name, since a client of the user's may be of any of its versions.
_CAUSES: tuple[tuple[type[BaseException] | str, str, _Verdict], ...] = (
    (ssl.SSLCertVerificationError, "has a certificate that is not trusted", _HOPELESS),
    (aiohttp.ClientConnectorCertificateError, "has a certificate that is not trusted", _HOPELESS),
    (aiohttp.InvalidURL, "has an address that cannot be used", _HOPELESS),
    ("UnsupportedProtocol", "has an address that cannot be used", _HOPELESS),
    (aiohttp.ConnectionTimeoutError, "could not be reached in time", _CONNECTION),
    ("ConnectTimeout", "could not be reached in time", _CONNECTION),
    ("PoolTimeout", "had no free connection in time", _CONNECTION),
    (aiohttp.ClientHttpProxyError, "could not be reached through the proxy", _CONNECTION),
    ("ProxyError", "could not be reached through the proxy", _CONNECTION),
    (aiohttp.ClientConnectorError, "could not be reached", _CONNECTION),
    ("ConnectError", "could not be reached", _CONNECTION),
    (aiohttp.ClientPayloadError, "broke off its answer", _TRUNCATED),
    (aiohttp.ClientResponseError, "answered with something that is not HTTP", _UNREADABLE),
    (TimeoutError, "took too long", _TIMEOUT),
    ("TimeoutException", "took too long", _TIMEOUT),
)


_HTTPX = {"TransportError", "TimeoutException"}


def _no_answer(root: BaseException) -> tuple[str, _Verdict]:
    names = {cls.__name__ for cls in type(root).__mro__}
    for cause, what, verdict in _CAUSES:
        if cause in names if isinstance(cause, str) else isinstance(root, cause):
            return what, verdict
    if "RemoteProtocolError" in names:  # httpx has one for three causes
        text = str(root)
        if "complete message body" in text:
            return "broke off its answer", _TRUNCATED
        if not text.startswith("Server disconnected"):
            return "answered with something that is not HTTP", _UNREADABLE
    if isinstance(root, (aiohttp.ClientError, OSError)) or "TransportError" in names:
        return "closed the connection before it had answered", _CONNECTION
    return f"could not be asked: {type(root).__name__}", _Verdict("connection")


def _root(error: BaseException) -> BaseException:
    """Find the innermost exception that an HTTP client raised, else the system's, else `error` itself."""
    of_client: BaseException | None = None
    of_system: BaseException | None = None
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, aiohttp.ClientError):
            return inner
        if not _HTTPX.isdisjoint(cls.__name__ for cls in type(inner).__mro__):
            of_client = inner
        if isinstance(inner, OSError):
            of_system = inner
        inner = inner.__cause__
    return of_client or of_system or error


def _detail(root: BaseException) -> str:
    """Say what an exception says; aiohttp's are partly reprs of others that say it better."""
    if isinstance(root, aiohttp.ClientConnectorError):
        return os.strerror(root.errno) if root.errno and root.errno > 0 else str(root.os_error)
    inner = getattr(root.__cause__, "message", None)
    return inner if isinstance(inner, str) else str(root) or type(root).__name__


def _verdict(status: int) -> _Verdict:
    return _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, _REQUEST)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _told(body: bytes) -> tuple[str, str]:
    """Return the endpoint's own message and error code, whichever of the usual shapes they come in."""
    said = _json(body)
    if said is None:
        return _plain(body), ""
    if isinstance(said, list) and len(said) == 1:
        said = said[0]
    if not isinstance(said, dict):
        return str(said), ""
    error = said.get("error") or said
    if not isinstance(error, dict):
        return str(error), ""
    message = error.get("message") or error.get("detail") or ""
    code = error.get("code") or error.get("type") or ""
    return message if isinstance(message, str) else _compact(message), str(code)


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _plain(body: bytes) -> str:
    """Return a body that is not JSON, but not a page of HTML."""
    text = body[: 4 * _SHOWN].decode("utf-8", "replace").strip()
    return "" if text.startswith("<") else text


def _compact(value: object) -> str:
    return msgspec.json.encode(value).decode()
