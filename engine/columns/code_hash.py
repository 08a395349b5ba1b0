"""Code hashes: whether a function or class is still the one that made a table."""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

_OURS = __name__.partition(".")[0]


def code_of(thing: object) -> dict[str, str]:
    """Return {"code": hash of the source} of a function, or of an object's class.

    Empty for rowloop's own classes, whose fields say it all, and where there is no source to read.
    """
    code: Any = thing if inspect.isroutine(thing) else type(thing)
    if (code.__module__ or "").partition(".")[0] == _OURS:
        return {}
    try:
        return {"code": hash_of(inspect.getsource(inspect.unwrap(code)).encode())}
    except (OSError, TypeError):  # typed into an interpreter, or not written in Python
        return {}


def hash_of(data: bytes) -> str:
    """Return a short hash of any bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
