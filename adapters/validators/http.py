"""Remote validators over HTTP, through one httpx2 client that all of them lease from the runtime.

request     POST url, the needed columns of one row as a JSON object
answer      {"valid": true} or {"valid": false, "reason": "..."}
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from ...engine.columns.validators import Verdict
from ...engine.core.errors import ModelError, RecipeError
from ...runtime import Runtime
from ..http.endpoint import is_sendable, shown
from ..http.errors import Failures

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2

    from ...engine.columns.validators import AskVerdict, RemoteValidator

_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 60.0
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "rowloop"}
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
        """Read the key, and give what sends one row and reads the verdict."""
        import httpx2  # noqa: PLC0415 - slow to import

        try:
            address = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise RecipeError("url", f"is no address: {error}") from None
        key = _key(api_key_env)
        failures = Failures(f"the validator at {shown(url)}", key, "verdict", _ADVICE)
        headers = {**_HEADERS, **({} if key is None else {"Authorization": f"Bearer {key}"})}

        async def ask(row: Mapping[str, Any]) -> Verdict:
            body = _encoded(row, failures)
            runtime = Runtime.current()
            assert runtime is not None  # noqa: S101 - columns are worked on a runtime's loop
            try:
                async with runtime.lease(_client, idle=_IDLE_SECONDS) as client:
                    response = await client.post(address, content=body, headers=headers)
            except (httpx2.HTTPError, OSError) as error:
                # It holds the request's headers, and so the key: it goes no further.
                raise failures.transport(error) from None
            if not response.is_success:
                raise failures.status(response.status_code, response.headers, response.content)
            return _verdict(response.content, failures)

        return ask


def _client() -> httpx2.AsyncClient:
    """Make the client of all validators; the lanes bound its connections, and the engine the time of an attempt."""
    import httpx2  # noqa: PLC0415 - slow to import

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=30.0)
    return httpx2.AsyncClient(limits=limits, timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS))


def _encoded(row: Mapping[str, Any], failures: Failures) -> bytes:
    try:
        return msgspec.json.encode(row, enc_hook=_plain)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise failures.unsendable(error) from None


def _plain(value: object) -> Any:
    """Give the plain form of what numpy and pandas have."""
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
