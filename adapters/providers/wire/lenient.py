"""Lenient: the fields of an answer that its value does not need, read from whatever an endpoint writes into them.

Answers are decoded strictly first, which is fast. One that does not fit is decoded again, with these functions for the
fields around its content: what cannot be read there is unknown, and costs no answer that was paid for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

MOST_TOKENS: Final = 100_000_000
"""More than any request can use; a larger number is a mistake."""

Tokens: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]


def counts(usage: Any, names: tuple[str, ...]) -> dict[str, int] | None:
    """Return the numbers of tokens under these names; None, for unknown, if one of them cannot be read."""
    if not isinstance(usage, dict):
        return None
    given = {name: _count(usage[name]) for name in names if usage.get(name) is not None}
    known = {name: number for name, number in given.items() if number is not None}
    return known if len(known) == len(given) else None


def nested_counts(usage: Any, names: tuple[str, ...], nested: Mapping[str, tuple[str, ...]]) -> dict[str, Any] | None:
    """Return the numbers of tokens under these names, and of those in objects; None if one of them cannot be read."""
    found: dict[str, Any] | None = counts(usage, names)
    if found is None:
        return None
    for name, inner in nested.items():
        if isinstance(usage.get(name), dict):
            found[name] = counts(usage[name], inner)
            if found[name] is None:
                return None
    return found


def decoded(raw: bytes, decode: Callable[[bytes], T], mend: Callable[[dict[str, Any]], object], type_: type[T]) -> T:
    """Decode an answer; where the fields around its content are unusual, decode it again and let `mend` read them.

    Raises msgspec.DecodeError for a body that is no answer.
    """
    try:
        return decode(raw)
    except msgspec.ValidationError:
        body = msgspec.json.decode(raw)
        if not isinstance(body, dict):
            raise
    mend(body)
    return msgspec.convert(body, type_)


def _count(value: Any) -> int | None:
    """Return a number of tokens, which may be written as a whole float or as digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(MOST_TOKENS)):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST_TOKENS:
        return None
    return int(value) if value == int(value) else None


def name_of(value: Any) -> str | None:
    """Return an identifier or a reason as text; None for what is neither text nor a number."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def text_of(value: Any) -> str | None:
    """Return the text in a value: text, an object with text, or a list of those; None if there is none."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, dict):
        found = (text_of(value.get(name)) for name in ("text", "content", "thinking", "summary"))
        return next(filter(None, found), None)
    if isinstance(value, list):
        return "".join(filter(None, map(text_of, value))) or None
    return None
