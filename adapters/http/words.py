"""Words: what the text of an error means, where its status and its code leave that open.

    Limit 30000, Requested 41218     one request that can never fit; fewer than the limit is an ordinary rate limit
    credit balance is too low        the account has nothing left: every request fails
    flagged, moderation              a filter refuses this prompt, and no other
    API key not valid                the key, whatever the status
    try again in 2.4s                a wait, where no header has one

docs/endpoints.md has the endpoint and the source of each.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from .causes import AUTH, FILTERED, QUOTA, RATE, Meaning, meaning_of_code, meaning_of_status
from .headers import span

if TYPE_CHECKING:
    from .bodies import Complaint

_READ: Final = 5000
"""The most characters of an error that are searched: some endpoints send the whole prompt back."""

TOO_LARGE: Final = Meaning("too_large", advice="this request alone exceeds the limit; shorten it, or lower max_tokens")
_DAY: Final = Meaning("quota", fatal=True, advice="resume the run when the quota is renewed")

_LIMIT = re.compile(
    r"\blimit\W{0,4}(\d[\d,]{0,15})\b.{0,120}?\brequested\W{0,4}(\d[\d,]{0,15})\b", re.IGNORECASE | re.DOTALL
)
_NEVER = re.compile(r"\brequest too large\b", re.IGNORECASE)
_SPENT = re.compile(
    r"credit balance is too low|insufficient[ _-](balance|credits?|funds|quota)|(out of|no|used all available) credits"
    r"|(any|available) credits\b.*\b(yet|depleted)|credits are depleted|spend(ing)?[ _]limit|billing[ _]hard[ _]limit"
    r"|billing[ _](is[ _])?not[ _]active|arrearage|exceeded your (monthly|included)",
    re.IGNORECASE,
)
_PER_DAY = re.compile(r"free-models-per-day|quota_?id\W+\w*perday|exceeded for metric: \S+, limit: 0\b", re.IGNORECASE)
_FILTER = re.compile(
    r"moderat(ion|ed)|\bflagged\b|content[ _-](policy|filter|management|exists risk)|safety[ _](system|filter|check)"
    r"|usage (polic|guideline)|inappropriate content|sensitive[ _](content|words)|\bguardrail",
    re.IGNORECASE,
)
_KEY = re.compile(
    r"\bapi[ _-]?key[ _](is |was )?(not[ _]valid|invalid|expired|missing|disabled|reported)"
    r"|\b(invalid|incorrect|wrong) api[ _-]?key"
    r"|\baccount\b.{0,20}\b(deactivated|suspended|disabled|terminated)",
    re.IGNORECASE,
)
_AGAIN = re.compile(
    r"\b(?:re)?try (?:again )?(?:in|after) ((?:\d{1,9}(?:\.\d{1,12})?\s?(?:seconds?|minutes?|ms|[smhd])(?![a-z])\s?)+)",
    re.IGNORECASE,
)
_DELAY = re.compile(r"retry_?delay\W+(\d[\w.]{0,20})", re.IGNORECASE)
_TOO_MANY = frozenset({413, 429})
_REFUSED = frozenset({400, 403, 422, 451})
_ACCOUNT = frozenset({400, 402, 403, 429})


def meaning_of(status: int, complaint: Complaint) -> Meaning:
    """Return what an error means: by sizes, by its own code, by its words, by the codes inside it, by its status."""
    complaint = complaint._replace(message=complaint.message[:_READ])
    return (
        _by_size(status, complaint)
        or meaning_of_code(complaint.code)
        or _by_words(status, complaint)
        or next((found for code in complaint.inner if (found := meaning_of_code(code)) and not found.fatal), None)
        or meaning_of_status(status)
    )


def _by_size(status: int, complaint: Complaint) -> Meaning | None:
    """Return what a limit and the size of the request mean, None where the error has none."""
    if status not in _TOO_MANY:
        return None
    found = _LIMIT.search(complaint.message)
    if found is None:
        return TOO_LARGE if status != 413 and _NEVER.search(complaint.message) else None  # noqa: PLR2004 - a status
    limit, requested = (int(number.replace(",", "")) for number in found.groups())
    return TOO_LARGE if requested > limit else RATE


def _by_words(status: int, complaint: Complaint) -> Meaning | None:
    """Return what the words of an error mean, None for words that add nothing to the status."""
    text = f"{complaint.code} {complaint.message}"
    if status in _ACCOUNT and _SPENT.search(text):
        return QUOTA
    if status == 429 and _PER_DAY.search(f"{text} {complaint.error}"[:_READ]):  # noqa: PLR2004 - a status
        return _DAY
    if status in _REFUSED and _KEY.search(text):
        return AUTH
    return FILTERED if status in _REFUSED and (_FILTER.search(text) or _flagged(complaint.error)) else None


def wait_in(complaint: Complaint) -> float | None:
    """Return the seconds that an error asks to wait in its details or its words, None where it has none."""
    found = _DELAY.search(str(complaint.error)[:_READ]) or _AGAIN.search(complaint.message[:_READ])
    return span(found[1]) if found else None


def _flagged(error: Any) -> bool:
    """Return whether a gateway's metadata has the reasons of its moderation."""
    metadata = error.get("metadata") if isinstance(error, dict) else None
    return isinstance(metadata, dict) and bool(metadata.get("flagged_input") or metadata.get("reasons"))
