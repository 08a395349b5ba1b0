"""Images: image cells as parts of a message: URLs, or the bytes of PNG, JPEG, GIF and WebP files."""

from __future__ import annotations

import base64
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ..core.errors import CellError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN = 60
_RIFF, _WEBP = b"RIFF", b"WEBP"
_BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


def image_parts(column: str, value: object) -> Iterator[dict[str, Any]]:
    """Yield the image of a cell, or each of a list of them, in the form of OpenAI's API; raises CellError."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from image_parts(column, one)
    else:
        yield {"type": "image_url", "image_url": {"url": _url(column, value)}}


def _url(column: str, value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        return f"data:{_media_type(column, data)};base64,{base64.b64encode(data).decode()}"
    if isinstance(value, str) and value.startswith(("http://", "https://", "data:image/")):
        return value
    advice = "images are bytes, http(s) or data URLs, or lists of those"
    if isinstance(value, str | PurePath):
        problem = f"is not an image URL; {advice}. Path(...).read_bytes() reads the bytes of a file"
        raise CellError(f"column '{column}' holds {str(value)[:_SHOWN]!r}, which {problem}")
    what = "null" if value is None else f"a value of type {type(value).__name__}"
    raise CellError(f"column '{column}' holds {what}, not an image; {advice}")


def _media_type(column: str, data: bytes) -> str:
    """Return the media type of an image, by its first bytes."""
    if data[:4] == _RIFF and data[8:12] == _WEBP:
        return "image/webp"
    for beginning, media_type in _BEGINNINGS.items():
        if data.startswith(beginning):
            return media_type
    began = f"bytes that begin with {data[:8]!r}" if data else "no bytes"
    raise CellError(f"column '{column}' holds {began}, not a PNG, JPEG, GIF or WebP file")
