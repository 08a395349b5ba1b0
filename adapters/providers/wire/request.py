"""Requests: checks and text handling that all chat APIs share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from ....engine.core.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ....engine.models.model import Model

RESERVED = {
    "messages": "the messages come from the column's prompt",
    "stream": "answers are read whole; leave it out",
}
"""The fields of a body that no `extra` may set, and why."""

NOT_JSON = (TypeError, ValueError, msgspec.MsgspecError)
"""Raised for a value that cannot be written as JSON."""

NOT_READABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Raised for a body that cannot be read as the expected JSON."""


_ALONE = re.compile(r"(?:^|\n)[ \t]*</think>[ \t]*\r?(?:\n|$)")
_GLUED = re.compile(r"[^\s<>(){}\[\]'\"`*_=:/\\|]</think>(?![)}\]'\"`*_.,;:!?/\\|<>])")
"""The end of the reasoning right behind its last word; a text that mentions the tag has a space or a quote there."""


def check_extra(model: Model, reserved: Mapping[str, str]) -> None:
    """Refuse an `extra` that cannot be sent, or that has a `reserved` field; raises RecipeError.

    `reserved` maps the fields that the provider sets itself to the reason why.
    """
    where = f"Model({model.spec!r}).extra"
    for field, why in reserved.items():
        if field in model.extra:
            raise RecipeError(f"{where}.{field}", why)
    try:
        msgspec.json.encode(model.extra)
    except NOT_JSON as error:
        raise RecipeError(where, f"this cannot be written as JSON: {error}") from None


def split_thinking(text: str) -> tuple[str | None, str]:
    """Return the reasoning at the start of a text, and the text after it.

    Some chat templates put the opening tag into the prompt: then the closing tag stands alone on a line, or right
    behind a word. A text that only mentions the tags is left as it is. The closing tag may be missing when the answer
    was cut off during the reasoning.
    """
    before, closing, after = text.partition("</think>")
    head = before.lstrip()
    if head.startswith("<think>"):
        return head.removeprefix("<think>").strip(), after.lstrip()
    closed = closing and "<think>" not in text and "</think>" not in after
    if closed and (_ALONE.search(text) is not None or _GLUED.search(text) is not None):
        return before.strip(), after.lstrip()
    return None, text
