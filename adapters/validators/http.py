"""HttpValidator: remote validators over HTTP, through sessions that all of them lease from the runtime.

request     POST url, the needed columns of one row as a JSON object
answer      {"valid": true} or {"valid": false, "reason": "..."}
"""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from ...engine.columns.validators import Verdict
from ...engine.core.errors import ModelError, RecipeError
from ...runtime import Runtime
from ..http.addresses import shown
from ..http.endpoint import is_sendable
from ..http.errors import Failures
from ..http.proxies import proxy_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from yarl import URL

    from ...engine.columns.validators import AskVerdict, RemoteValidator

_IDLE_SECONDS = 60.0
_SUCCESS = range(200, 300)
_ESCAPED = re.compile(r"[\w.~:/?#\[\]@!$&'()*+,;=%-]*", re.ASCII)  # it is sent as it is, down to each %2F
_ADVICE = {
    "auth": "check the key that api_key_env names",
    "not_found": "check the url",
}
_CONTRACT = 'it answers {"valid": true} or {"valid": false, "reason": "..."}'


class _Answer(msgspec.Struct):
    valid: bool
    reason: str | None = None


class HttpValidator:
    """Asks validators at http: and https: addresses."""

    def connect(self, url: str, api_key_env: str | None) -> AskVerdict:
        """Read the key, and return the function that sends one row and reads the verdict."""
        from ..http.transport import open_session, poster, request_options  # noqa: PLC0415 - aiohttp is slow to import

        address = _address(url)
        key = _key(api_key_env)
        failures = Failures(f"the validator at {shown(url)}", key, "verdict", _ADVICE)
        proxy = proxy_of(str(address))
        options = request_options(str(address), proxy, {} if key is None else {"Authorization": f"Bearer {key}"})
        tunnel = proxy if proxy is not None and proxy.socks else None
        opened = partial(open_session, secure=address.scheme == "https", proxy=tunnel)
        name = f"session of {address.scheme} validators"
        shared = name if tunnel is None else (name, tunnel)

        async def ask(row: Mapping[str, Any]) -> Verdict:
            body = _encoded(row, failures)
            runtime = Runtime.current()
            assert runtime is not None  # noqa: S101 - columns are worked on a runtime's loop
            async with runtime.lease(opened, key=shared, idle=_IDLE_SECONDS) as session:
                send = partial(session.post, address, **options)
                post = poster(send, failures, _SUCCESS, tunnel)
                answer, _ = await failures.standing.around(post)(body)
            return _verdict(answer, failures)

        return ask


def _address(url: str) -> URL:
    from yarl import URL  # noqa: PLC0415 - it comes with aiohttp

    try:
        return URL(url, encoded=_ESCAPED.fullmatch(url) is not None)
    except ValueError as error:
        raise RecipeError("url", f"is no address: {error}") from None


def _encoded(row: Mapping[str, Any], failures: Failures) -> bytes:
    try:
        return msgspec.json.encode(row, enc_hook=_plain)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise failures.unsendable(error) from None


def _plain(value: object) -> Any:
    """Return the plain form of values from numpy and pandas."""
    for way in ("tolist", "isoformat"):
        if hasattr(value, way):
            return getattr(value, way)()
    raise TypeError(f"a {type(value).__name__} is no JSON")


def _verdict(body: bytes, failures: Failures) -> Verdict:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.ValidationError as error:
        problem = f"{failures.label} gave no verdict: {error}; {_CONTRACT}"
        raise ModelError(problem, kind="invalid_output", retryable=False) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise failures.unreadable(body, truncated=False) from None
    return Verdict(answer.valid, failures.clean(answer.reason or ""))


def _key(api_key_env: str | None) -> str | None:
    if api_key_env is None:
        return None
    key = os.environ.get(api_key_env, "").strip()
    if not key:
        raise RecipeError("api_key_env", f"the environment variable {api_key_env} is not set; it is to hold the key")
    if not is_sendable(key):
        raise RecipeError(
            "api_key_env", f"the key in {api_key_env} has spaces or other characters that no header can carry"
        )
    return key


validator: RemoteValidator = HttpValidator()
