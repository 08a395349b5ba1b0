"""Headers of answers: the seconds to wait before the next request, and the id of this one."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s?(ms|s|m|h|d)", re.IGNORECASE)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_BUDGETS = ("requests", "tokens", "input-tokens", "output-tokens")


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the id that the endpoint's support will ask for, under either of the usual names."""
    return headers.get("x-request-id") or headers.get("request-id")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait that an endpoint asks for, None if it asks for none.

    They are the value of retry-after-ms or Retry-After, a number or a date. Without these, they are the time until
    every budget that OpenAI's or Anthropic's headers report as used up is full again.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None:
        waits = (of(headers, budget) for of in (_refilled, _reset) for budget in _BUDGETS)
        return max((seconds for seconds in waits if seconds), default=None)
    seconds = _seconds(value)
    return _until(headers, parsedate_to_datetime, value) if seconds is None else seconds


def _reset(headers: Mapping[str, str], budget: str) -> float | None:
    """Return the seconds until a budget of OpenAI's is full again: "6m0s", "1.5s", "20ms". None if it is not empty."""
    if headers.get(f"x-ratelimit-remaining-{budget}") != "0":
        return None
    return span(headers.get(f"x-ratelimit-reset-{budget}", ""))


def span(text: str) -> float | None:
    """Return the seconds in a span of time: "6m0s", "1.5s", "20ms", "26 seconds". None if there is none."""
    parts = _SPAN.findall(text)
    return sum(float(number) * _UNITS[unit.lower()] for number, unit in parts) if parts else None


def _refilled(headers: Mapping[str, str], budget: str) -> float | None:
    """Return the seconds until a budget of Anthropic's is full again, None if it is not empty."""
    if headers.get(f"anthropic-ratelimit-{budget}-remaining") != "0":
        return None
    return _until(headers, datetime.fromisoformat, headers.get(f"anthropic-ratelimit-{budget}-reset", ""))


def _until(headers: Mapping[str, str], read: Callable[[str], datetime], text: str) -> float | None:
    """Return the seconds until a date in the headers."""
    try:
        # Both times come from the endpoint where it sends a Date: the clock of this machine may be wrong.
        here = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
        return max(0.0, (read(text) - here).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None
