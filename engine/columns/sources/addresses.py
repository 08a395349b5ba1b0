"""Paths and addresses as text: made absolute, and shown without the keys that an address may hold."""

from __future__ import annotations

import os
import re

from ...models.secrets import public_address

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_ADDRESS_AS_PATH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")


def is_address(location: str) -> bool:
    """Return whether a location begins with a scheme, such as s3://."""
    return _ADDRESS.match(location) is not None


def absolute(location: str | os.PathLike[str]) -> str:
    """Return a path as an absolute one, and an address as it is."""
    text = os.fspath(location)
    if not isinstance(location, str):
        text = _ADDRESS_AS_PATH.sub(r"\1://", text, count=1)  # pathlib drops a slash
    if not text or is_address(text):
        return text
    return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 - a Path would drop what is not canonical


def without_secrets(location: str) -> str:
    """Return an address without the parts that may be keys; a path as it is."""
    return public_address(location) if is_address(location) else location
