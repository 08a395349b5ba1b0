"""JSON repairs: the JSON found in an answer that is not JSON as a whole, repaired where it is broken.

Models put JSON into fences, write prose around it, and forget brackets and quotation marks. The JSON found here must
still obey the schema.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_FENCED = re.compile(r"```[ \t]*\w*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_OPENING = re.compile(r"[{\[]")
_MOST_TRIED = 20
_MOST_OPEN = 64
_MOST_LETTERS = 200_000
_decoder = json.JSONDecoder()


def found_in(text: str) -> Iterator[str]:
    """Yield the pieces of an answer that are valid JSON, the likeliest first; only objects and lists."""
    for fenced in _FENCED.finditer(text):
        yield from _whole(fenced[1])
    yield from _whole(text)


def repaired(text: str) -> Iterator[str]:
    """Yield the JSON that a piece of an answer was meant to be. Takes some milliseconds per thousand letters."""
    import json_repair  # noqa: PLC0415 - most runs never need it

    fenced = _FENCED.search(text)
    piece = fenced[1] if fenced is not None and _OPENING.search(fenced[1]) else text
    opening = _OPENING.search(piece)
    if opening is None or len(piece) > _MOST_LETTERS or _runs_wild(piece):
        return
    try:
        value = json_repair.repair_json(piece[opening.start() :], return_objects=True, skip_json_loads=True)
    except (ValueError, RecursionError):
        return
    # Two pieces of JSON in one answer become a list.
    for candidate in [value, *value] if isinstance(value, list) else [value]:
        if isinstance(candidate, dict | list):
            try:
                yield msgspec.json.encode(candidate).decode()
            except (TypeError, ValueError, msgspec.MsgspecError):  # halves of characters
                continue


def _whole(text: str) -> Iterator[str]:
    """Yield each complete object or list of a text, without those inside another."""
    start = 0
    for _ in range(_MOST_TRIED):
        opening = _OPENING.search(text, start)
        if opening is None:
            return
        start = opening.end()
        try:
            _, end = _decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            continue
        yield text[opening.start() : end]
        start = end


def _runs_wild(text: str) -> bool:
    """Return whether the text opens bracket upon bracket: a repair would take seconds and fail."""
    opened = text.count("{") + text.count("[")
    return opened - text.count("}") - text.count("]") > _MOST_OPEN
