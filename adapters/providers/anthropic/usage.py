"""Usage: the tokens of a message as Anthropic's API writes them, in the engine's terms.

`input_tokens` are those that no cache has anything to do with: the prompt's are the sum of three numbers. What is
written to a cache is kept for five minutes or, at another price, for an hour.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ....engine.core.events import Billing
from ..wire.lenient import Tokens, name_of, nested_counts
from ..wire.usage import UNKNOWN, Measured, stated


class _Written(msgspec.Struct, gc=False):
    ephemeral_1h_input_tokens: Tokens | None = None


class _Searched(msgspec.Struct, gc=False):
    web_search_requests: Tokens | None = None


class _Thought(msgspec.Struct, gc=False):
    thinking_tokens: Tokens | None = None


class MessageUsage(msgspec.Struct, gc=False):
    """The usage of a message."""

    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None
    cache_read_input_tokens: Tokens | None = None
    cache_creation: _Written | None = None
    server_tool_use: _Searched | None = None
    output_tokens_details: _Thought | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None


_COUNTS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_DETAILS = {
    "cache_creation": ("ephemeral_1h_input_tokens",),
    "server_tool_use": ("web_search_requests",),
    "output_tokens_details": ("thinking_tokens",),
}
_TERMS = ("service_tier", "speed", "inference_geo")


def measured(usage: MessageUsage | None) -> Measured:
    """Return what a message used. Half of the numbers would give a cost that is too low."""
    if usage is None or usage.output_tokens is None:
        return UNKNOWN
    read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    prompt = (usage.input_tokens or 0) + read + written
    plain = stated(usage.service_tier, usage.speed, usage.inference_geo)
    creation, searched, details = usage.cache_creation, usage.server_tool_use, usage.output_tokens_details
    for_an_hour = 0 if creation is None else creation.ephemeral_1h_input_tokens or 0
    searches = 0 if searched is None else searched.web_search_requests or 0
    thought = 0 if details is None else details.thinking_tokens or 0
    if not (read or written or searches or thought):
        return prompt, usage.output_tokens, plain if plain.terms else None
    billing = Billing(
        read, written, min(for_an_hour, written), min(thought, usage.output_tokens), searches, plain.terms
    )
    return prompt, usage.output_tokens, billing


def readable(usage: Any) -> dict[str, Any] | None:
    """Return a usage of unusual form in the usual one; None, for unknown, if a number in it cannot be read."""
    found = nested_counts(usage, _COUNTS, _DETAILS)
    return None if found is None else {**found, **{name: name_of(usage.get(name)) for name in _TERMS}}
