"""Bodies: the message and the code in the body of an error, from whichever of the usual shapes it has.

Gateways put the error of the endpoint behind them into their own, as an object, as JSON text or inside a sentence. The
innermost message is the reason; the outer ones only pass it on.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any, Final, NamedTuple

import msgspec

LONGEST: Final = 1200
"""The most bytes of a body that is not JSON which are read."""

_DEEPEST: Final = 6
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_OBJECT = re.compile(r"[\[{]\s*[\"'{]")
_LONGEST_EMBEDDED: Final = 100_000


class Complaint(NamedTuple):
    """An error in the endpoint's words: its innermost message, its own code, and the codes of the errors inside it."""

    message: str = ""
    code: str = ""
    inner: tuple[str, ...] = ()
    error: Any = None
    """The error as it came, for what only some endpoints put into it."""


def complaint_of(body: bytes) -> Complaint:
    """Return the complaint in the body of an answer."""
    content = decoded(body)
    if content is None:
        return Complaint(plain(body))
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, dict):
        return Complaint(str(content))
    return complaint_in(content.get("error") or content)


def complaint_in(error: Any) -> Complaint:
    """Return the complaint in an error, as an endpoint writes it into a body."""
    if not isinstance(error, dict):
        return Complaint(*_innermost(str(error), _DEEPEST), error=error)
    code = str(error.get("code") or error.get("type") or "")
    message, _, inner = _read(error, _DEEPEST)
    return Complaint(message, code, inner, error)


def decoded(body: bytes) -> Any:
    """Return the JSON in a body, None where it has none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def plain(body: bytes) -> str:
    """Return a body that is not JSON; of a page of HTML, its title alone."""
    text = body[:LONGEST].decode("utf-8", "replace").strip()
    if not text.startswith("<"):
        return text
    title = _TITLE.search(text)
    return " ".join(title[1].split()) if title else ""


def _read(error: dict[str, Any], depth: int) -> tuple[str, str, tuple[str, ...]]:
    """Return the innermost message, the code of it (empty for the error's own), and all codes inside."""
    own = error.get("message") or error.get("detail") or ""
    text = own if isinstance(own, str) else _compact(own)
    for behind in (_behind(error), own if isinstance(own, str) else None):
        message, code, codes = _inside(behind, depth)
        if message == behind and text and message != text:
            return f"{text}: {message}", "", ()  # a sentence, which may hold less than the one around it
        if message and message != text:
            return message, code, codes
    return text, "", ()


def _behind(error: dict[str, Any]) -> Any:
    """Return the error of the endpoint behind a gateway, where it has a field of its own."""
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and metadata.get("raw"):
        return metadata["raw"]
    return error.get("error")


def _inside(value: Any, depth: int) -> tuple[str, str, tuple[str, ...]]:
    """Return the message, the code and all codes of an error inside another; no message for what is none."""
    if isinstance(value, str):
        message, code, codes = _innermost(value, depth)
        return ("" if message.startswith("<") else message), code, codes
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict) or not depth:
        return "", "", ()
    inner = value.get("error") or value
    if not isinstance(inner, dict):
        return _inside(inner, depth - 1)
    code = str(inner.get("code") or inner.get("type") or "")
    if isinstance(inner.get("message"), (dict, list)):
        return "", "", ()  # a schema with a property of this name, not an error
    message, deeper, codes = _read(inner, depth - 1)
    return message, deeper or code, (code, *codes)


def _innermost(text: str, depth: int) -> tuple[str, str, tuple[str, ...]]:
    """Return the message of the error inside a text, or the text itself."""
    found = _embedded(text) if depth else None
    message, code, codes = ("", "", ()) if found is None else _inside(found, depth - 1)
    return (message, code, codes) if message else (text, "", ())


def _embedded(text: str) -> Any:
    """Return the first object in a text, as JSON or as Python writes it; None where there is none."""
    begin = _OBJECT.search(text)
    if begin is None or len(text) > _LONGEST_EMBEDDED:
        return None
    rest = text[begin.start() :]
    try:
        return json.JSONDecoder(strict=False).raw_decode(rest)[0]
    except (ValueError, RecursionError):
        pass  # Python's own way of writing an object is the next one to try
    try:
        return ast.literal_eval(rest[: max(rest.rfind("}"), rest.rfind("]")) + 1])
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _compact(value: object) -> str:
    return msgspec.json.encode(value).decode()
