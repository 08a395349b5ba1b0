"""Mask: cuts keys out of other parties' texts, whole, in part and encoded, and leaves ordinary words alone.

A key is what looks like one: it has digits, mixed case, or more letters in a row than a word. It is found

    whole                  as it is, with the escapes of an address (%2F), and with those of JSON
    in part                any eight of its characters that form no word, and `sk-ab...wxyz`, by its ends
    in base64              with whatever stands before it: `Basic dXNlcjprZXk=`

A placeholder (`none`, `ollama`, `not-needed`, `e`) may be an ordinary word of any message. It is cut out only where the
text presents it as a key: `Incorrect API key provided: ollama`.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CUT = "[key]"
_LONGEST_WORD = 12  # letters; 16 are an app password
_LONGEST_WORDS = 24
_WHOLE_ONLY = 8  # a shorter key may be part of a longer word or number
_PART = 8
_HINT = _PART // 2
_END = 3  # characters of an abbreviated key at either end
_RUNS = re.compile(r"[A-Za-z0-9]+")
_STARRED = re.compile(r"\S*\*{3,}\S*")
_FILLERS = ("..", "…", "••", "xxxx", "XXXX", "###", "**")
_ABBREVIATED = re.compile(r"([\w+/=~-]*?)(\.{2,}|…+|•{2,}|[xX]{4,}|#{3,}|\*{2,})([\w+/=~-]*)")
_CUE = (
    r"(?<![A-Za-z])"
    r"(?:keys?|(?:access|api|auth|bearer|secret)[ _-]tokens?|passwords?|authorization|credentials?|bearer|secret)"
    r"(?:\s+(?:provided|given|is|was))?"
)
_QUOTE = r"[\"'`(\[<]"
_PRESENTED = rf"((?i:{_CUE}(?:\s*[:=]\s*{_QUOTE}*(?:(?:bearer|basic)\s+)?|\s+{_QUOTE}+)))"


class Mask:
    """Covers the keys of one model or validator."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Prepare everything once: an error is no place to wait."""
        given = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        self._keys = [secret for secret in given if not is_word(secret)]
        self._short = any(len(key) < _PART for key in self._keys)
        variants = [variant for key in self._keys for variant in _written(key)]
        whole = "|".join(map(_pattern, sorted(set(variants), key=len, reverse=True)))
        self._whole = re.compile(whole) if whole else None
        words = "|".join(re.escape(secret) for secret in given if is_word(secret))
        self._presented = re.compile(rf"{_PRESENTED}(?:{words})(?![\w-])") if words else None
        long = [key for key in self._keys if len(key) >= _PART]
        forms = [*variants, *(form for key in long for form in _encoded(key))]
        self._pieces = frozenset(piece for form in forms for piece in _pieces(form))
        self._hints = frozenset(piece[at : at + _HINT] for piece in self._pieces for at in range(_PART - _HINT + 1))
        self._parts = frozenset(piece for piece in self._pieces if not _is_plain(piece))

    def cover(self, text: str) -> str:
        """Return a text in which `[key]` stands for every key."""
        if "***" in text:
            text = _STARRED.sub(_CUT, text)
        # Eight characters of a key hold four that begin at a multiple of four.
        hints = [text[at : at + _HINT] for at in range(0, len(text), _HINT)]
        hinted = not self._hints.isdisjoint(hints)
        if self._whole is not None and (hinted or self._short):
            text = self._whole.sub(_CUT, text)
        if self._presented is not None:
            text = self._presented.sub(rf"\1{_CUT}", text)
        if self._keys and any(filler in text for filler in _FILLERS):
            text = _ABBREVIATED.sub(self._cover_abbreviated, text)
        return self._cover_parts(text) if hinted else text

    def _cover_abbreviated(self, found: re.Match[str]) -> str:
        head, _, tail = found.groups()
        starts = len(head) >= _END and any(key.startswith(head) for key in self._keys)
        ends = len(tail) >= _END and any(key.endswith(tail) for key in self._keys)
        return _CUT if starts or ends else found[0]

    def _cover_parts(self, text: str) -> str:
        """Cover the longest runs in which each eight characters are of a key, and some of them form no word."""
        parts, pieces, kept, done, at = self._parts, self._pieces, [], 0, 0
        while at + _PART <= len(text):
            if text[at : at + _PART] not in parts:
                at += 1
                continue
            start, end = at, at + _PART
            while start > done and text[start - 1 : start - 1 + _PART] in pieces:
                start -= 1
            while end < len(text) and text[end - _PART + 1 : end + 1] in pieces:
                end += 1
            kept += [text[done:start], _CUT]
            done = at = end
        return "".join([*kept, text[done:]]) if kept else text


def is_word(secret: str) -> bool:
    """Return whether a key is a placeholder that looks like an ordinary word, or words, or is too short for a key."""
    if len(secret) < 4 or (secret.isdigit() and len(secret) < _WHOLE_ONLY):  # noqa: PLR2004 - `sk-1` is the shortest
        return True
    return len(secret) < _LONGEST_WORDS and all(
        len(run) <= _LONGEST_WORD and _is_cased(run) for run in _RUNS.findall(secret)
    )


def _is_cased(run: str) -> bool:
    """Return whether letters have the case of a word: lower, UPPER or Title."""
    return run.isalpha() and (run.islower() or run.isupper() or run.istitle())


def _is_plain(part: str) -> bool:
    """Return whether a part of a key could be any text: `sk-proj-`."""
    return all(map(_is_cased, _RUNS.findall(part)))


def _written(key: str) -> Iterator[str]:
    """Yield the ways to write a key in an address, in JSON and as it is."""
    yield from (key, quote(key, safe=""), quote(key), quote_plus(key), json.dumps(key)[1:-1])


def _encoded(key: str) -> Iterator[str]:
    """Yield the base64 of a key behind 0, 1 and 2 characters of a group, as far as the key alone decides it."""
    raw = key.encode()
    for before, undecided in enumerate((0, 2, 3)):
        decided = (before + len(raw)) * 8 // 6
        text = base64.b64encode(b"\0" * before + raw).decode()[undecided:decided]
        yield text
        yield text.replace("+", "-").replace("/", "_")


def _pieces(form: str) -> Iterator[str]:
    return (form[at : at + _PART] for at in range(len(form) - _PART + 1))


def _pattern(variant: str) -> str:
    pattern = re.escape(variant)
    return pattern if len(variant) >= _WHOLE_ONLY else rf"(?<!\w){pattern}(?!\w)"
