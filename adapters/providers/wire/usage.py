"""Usage: the tokens of an answer as endpoints write them, in the engine's terms.

The prompt's tokens include those that a cache had, and the completion's include those of reasoning, wherever an
endpoint counts them:

    OpenAI and most others      prompt_tokens_details.cached_tokens and .cache_write_tokens
    DeepSeek                    prompt_cache_hit_tokens
    Moonshot, Together          cached_tokens
    xAI, Gemini                 reasoning is not part of completion_tokens, but of total_tokens
    some gateways               cached tokens are not part of prompt_tokens, but of total_tokens
    OpenRouter                  cost: the bill itself, and with the user's own key, that of the endpoint behind it
    Perplexity                  cost.total_cost: the bill itself
    DeepInfra                   estimated_cost: the bill itself
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec

from ....engine.core.events import Billing, Usage
from .lenient import Tokens, nested_counts


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: Tokens | None = None


class ChatUsage(msgspec.Struct, gc=False):
    """The usage of a chat completion."""

    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    total_tokens: Tokens | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: Tokens | None = None
    cached_tokens: Tokens | None = None
    cost: Any = None
    estimated_cost: Any = None
    cost_details: Any = None
    is_byok: Any = None


Measured: TypeAlias = tuple[int, int, Billing | None]
"""The tokens of the prompt and of the completion of an answer. Without any of a prompt, their number is unknown."""

UNKNOWN: Final[Measured] = (0, 0, None)
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_cache_hit_tokens", "cached_tokens")
_DETAILS = {
    "prompt_tokens_details": ("cached_tokens", "cache_write_tokens"),
    "completion_tokens_details": ("reasoning_tokens",),
}
_BILLS = ("cost", "estimated_cost", "cost_details", "is_byok")


def measured(usage: ChatUsage | None, tier: str | None) -> Measured:
    """Return what an answer of this service tier used. Half of the numbers would give a cost that is too low."""
    if usage is None:
        return UNKNOWN
    completion = usage.completion_tokens
    if completion is not None and _is_plain(usage):
        return usage.prompt_tokens or 0, completion, None if tier is None else stated(tier)
    billed = bill(usage)
    if completion is None:
        return UNKNOWN if billed is None else (0, 0, Billing(billed=billed))
    read, written, thought = _parts(usage)
    prompt, completion, thought = _wholes(usage, completion, read + written, thought)
    terms = () if tier is None else stated(tier).terms
    if billed is None and not (read or written or thought or terms):
        return prompt, completion, None
    return prompt, completion, Billing(read, written, 0, min(thought, completion), terms=terms, billed=billed)


def _is_plain(usage: ChatUsage) -> bool:
    """Return whether two numbers are all that there is, as in most answers: then nothing else needs a look."""
    read, thought = usage.prompt_tokens_details, usage.completion_tokens_details
    return not (
        (read is not None and (read.cached_tokens or read.cache_write_tokens))
        or (thought is not None and thought.reasoning_tokens)
        or usage.total_tokens != (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
        or usage.cost is not None
        or usage.estimated_cost is not None
        or usage.prompt_cache_hit_tokens
        or usage.cached_tokens
    )


def failed_usage(used: Measured) -> Usage:
    """Return what was used as the usage of a failed attempt."""
    prompt_tokens, completion_tokens, billing = used
    return Usage(prompt_tokens, completion_tokens, 0.0, billing)


def _parts(usage: ChatUsage) -> tuple[int, int, int]:
    """Return the tokens that were read from a cache, those that were written to one, and those of reasoning."""
    read = written = thought = 0
    if usage.prompt_tokens_details is not None:
        read = usage.prompt_tokens_details.cached_tokens or 0
        written = usage.prompt_tokens_details.cache_write_tokens or 0
    if usage.completion_tokens_details is not None:
        thought = usage.completion_tokens_details.reasoning_tokens or 0
    return read or usage.prompt_cache_hit_tokens or usage.cached_tokens or 0, written, thought


def _wholes(usage: ChatUsage, completion: int, cached: int, thought: int) -> tuple[int, int, int]:
    """Return the tokens of the prompt and of the completion, each with all of its parts, and those of reasoning."""
    prompt = usage.prompt_tokens or 0
    if not prompt:
        return 0, completion, thought
    if cached > prompt:
        prompt += cached  # they cannot be a part of it
    beside = (usage.total_tokens or 0) - prompt - completion
    if beside <= 0:
        return prompt, completion, thought
    if beside == thought or not (thought or beside == cached):
        return prompt, completion + beside, beside
    if beside in {cached, cached + thought}:
        return prompt + cached, completion + beside - cached, thought
    return prompt, completion, thought


def bill(usage: ChatUsage) -> float | None:
    """Return the bill that an endpoint states, in US dollars."""
    cost = usage.cost
    if cost is None:
        return _dollars(usage.estimated_cost)
    if isinstance(cost, dict):
        return _dollars(cost.get("total_cost"))
    billed = _dollars(cost)
    if billed is not None and usage.is_byok is True:  # the cost is a fee then: the user's own account pays the rest
        behind = usage.cost_details.get("upstream_inference_cost") if isinstance(usage.cost_details, dict) else None
        upstream = _dollars(behind)
        return None if upstream is None else billed + upstream
    return billed


def _dollars(value: Any) -> float | None:
    """Return an amount, None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        return None
    return float(value)


@lru_cache(maxsize=256)
def stated(service_tier: str | None, speed: str | None = None, inference_geo: str | None = None) -> Billing:
    """Return the billing of an answer that states these terms and nothing else; the same one for all such answers."""
    terms = {"service_tier": service_tier, "speed": speed, "inference_geo": inference_geo}
    return Billing(terms=tuple((name, value) for name, value in terms.items() if value))


def readable(usage: Any) -> dict[str, Any] | None:
    """Return a usage of unusual form in the usual one; None, for unknown, if a number in it cannot be read."""
    found = nested_counts(usage, _COUNTS, _DETAILS)
    return None if found is None else {**found, **{name: usage[name] for name in _BILLS if name in usage}}
