"""Mending: the JSON that an answer holds which is not JSON from beginning to end.

Models put it into fences, write prose around it, and forget brackets and quotation marks. What is taken out or mended
here still has to obey the schema.
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
    """Give the pieces of an answer that are JSON as they stand, the likeliest first; objects and lists alone."""
    for fenced in _FENCED.finditer(text):
        yield from _whole(fenced[1])
    yield from _whole(text)


def mended(text: str) -> Iterator[str]:
    """Give the JSON that a piece of an answer was meant to be. It takes some milliseconds for a thousand letters."""
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
    """Give each object or list of a text that is whole; what lies inside of one is passed over."""
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
    """Tell whether it opens bracket upon bracket: nothing comes of mending it, and that takes seconds."""
    opened = text.count("{") + text.count("[")
    return opened - text.count("}") - text.count("]") > _MOST_OPEN
