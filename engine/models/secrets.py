"""Secrets: which parts of a model's description are keys, so that no file, log, message or repr contains them.

A key is what the user gave as one (`api_key`, `headers`), a user name or password in an address, a parameter of an
address or text in `extra` that has a key's name or form, and any long parameter that is not known to be harmless.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SHORTEST = 4
"""The fewest characters of a secret that is searched for in texts: shorter ones are part of ordinary words."""

_LONGEST_PLAIN = 15
"""The most characters of an address's parameter that has no key's name and is yet no key: `?tier=batch`."""

_HARMLESS = re.compile(r"(.*[-_])?(version|region|location|deployment|model|project|provider)", re.IGNORECASE)
_NAMED = re.compile(
    r"(.*[-_])?((api|access|secret|private|subscription)[-_]?keys?|(access|auth|bearer|id|refresh|session)[-_]?token)"
    r"|.*(secret|passw|authorization|credential|cookie).*|key|token|auth|bearer|sig|signature|code|pwd",
    re.IGNORECASE,
)
_FORMED = re.compile(
    r"(Bearer |Basic )?(sk-|hf_|AIza|gsk_|xai-|ghp_|AKIA|eyJ)[\w.+/=~-]{8,}|(Bearer|Basic) \S{8,}", re.IGNORECASE
)


def public_address(url: str) -> str:
    """Return an address without a user's name, password and the parameters that may be keys."""
    parts = _split(url)
    if parts is None:
        return url.partition("?")[0].rpartition("@")[2]
    kept = [(name, value) for name, value in _parameters(parts) if not _is_key(name, value)]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, urlencode(kept) if kept else "", ""))


def secrets_in_address(url: str) -> list[str]:
    """Return the parts that `public_address` leaves out, as they are written and as they are meant."""
    parts = _split(url)
    if parts is None:
        return []
    found = [value for name, value in _parameters(parts) if _is_key(name, value)]
    written = [quote(value, safe=safe) for value in found for safe in ("", "/")]
    return searchable([*found, *written, parts.password or "", parts.fragment])


def secrets_in_headers(headers: Mapping[str, str]) -> list[str]:
    """Return the words of the values of headers that may hold keys: not of a version or a region."""
    return [word for name, value in headers.items() if not _HARMLESS.fullmatch(name) for word in value.split(" ")]


def public(value: Any) -> Any:
    """Return plain data without its secrets, which are left out of mappings."""
    if isinstance(value, dict):
        return {key: public(part) for key, part in value.items() if not _is_secret(key, part)}
    if isinstance(value, list | tuple):
        return [public(part) for part in value]
    return value


def secrets_in(value: Any) -> Iterator[str]:
    """Yield the texts that `public` leaves out."""
    if isinstance(value, dict):
        for key, part in value.items():
            if _is_secret(key, part):
                yield from _texts(part)
            else:
                yield from secrets_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from secrets_in(part)


def searchable(secrets: list[str]) -> list[str]:
    """Return the secrets that can be searched for in texts, the longest first, so that none is left in part."""
    return sorted({secret for secret in secrets if len(secret) >= _SHORTEST}, key=len, reverse=True)


def _is_key(name: str, value: str) -> bool:
    """Return whether a parameter of an address may be a key."""
    if _HARMLESS.fullmatch(name):
        return False
    return len(value) > _LONGEST_PLAIN or _is_secret(name, value)


def _is_secret(name: object, value: object) -> bool:
    if isinstance(value, str):
        return (isinstance(name, str) and _NAMED.fullmatch(name) is not None) or _FORMED.fullmatch(value) is not None
    return isinstance(value, dict) and isinstance(name, str) and name.lower().endswith("headers")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        yield from (word for word in value.split(" ")[1:] if value.startswith(("Bearer ", "Basic ")))
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _parameters(parts: SplitResult) -> list[tuple[str, str]]:
    return parse_qsl(parts.query, keep_blank_values=True)
