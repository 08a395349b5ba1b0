"""The server's own bill: what each answer costs, and how its usage says what a cache had.

It is computed in exact fractions and from the settings alone, so that tests can compare it with what a client reports.
"""

from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from .answers import Reply
from .behaviour import Behaviour

TIERS = {"flex": Fraction(1, 2), "priority": Fraction(2)}
"""By what the price of another service tier is multiplied."""


class Tariff(NamedTuple):
    """Prices of a token, in US dollars."""

    prompt: Fraction
    completion: Fraction
    cached: Fraction
    cache_write: Fraction

    @classmethod
    def of(cls, text: str) -> "Tariff":
        """Read PROMPT/COMPLETION, then CACHED and CACHE_WRITE where they are not those of prompts; per million."""
        given = [Fraction(part) / 1_000_000 for part in text.split("/")]
        return cls(*given, *[given[0]] * (4 - len(given)))


class Counted(NamedTuple):
    """The tokens of one answer. Cached and written ones are among the prompt's."""

    prompt: int
    completion: int
    cached: int
    written: int
    reasoning: int


def charged(reply: Reply, behaviour: Behaviour) -> Reply:
    """Return a reply with its bill, and with a usage of the form that the behaviour asks for."""
    if reply.events is not None or reply.usage is None or not _is_asked_for(behaviour):
        return reply
    body = msgspec.json.decode(reply.body)
    usage = reply.usage
    cached, written = (int(usage.prompt_tokens * share) for share in (behaviour.cached, behaviour.cache_write))
    details = usage.completion_tokens_details
    reasoning = details.get("reasoning_tokens", 0) if isinstance(details, dict) else 0
    counted = Counted(usage.prompt_tokens, usage.completion_tokens, cached, written, reasoning)
    billed = bill(counted, behaviour) if behaviour.price else Fraction(0)
    if behaviour.usage == "none":
        body["usage"] = None
    elif body.get("type") == "message":
        body["usage"] = _messages(counted, behaviour)
    else:
        body["usage"] = _chat(counted, behaviour, float(billed))
        if behaviour.service_tier is not None:
            body["service_tier"] = behaviour.service_tier
    return reply._replace(body=msgspec.json.encode(body), billed=billed)


def bill(counted: Counted, behaviour: Behaviour) -> Fraction:
    """Return what an answer costs, in US dollars."""
    price = Tariff.of(behaviour.price)
    plain = counted.prompt - counted.cached - counted.written
    cost = plain * price.prompt + counted.cached * price.cached + counted.written * price.cache_write
    cost += counted.completion * price.completion
    if behaviour.long_prompt is not None and counted.prompt > behaviour.long_prompt:
        cost *= 2
    return cost * TIERS.get(behaviour.service_tier or "", Fraction(1))


def _is_asked_for(behaviour: Behaviour) -> bool:
    return bool(
        behaviour.price
        or behaviour.cached
        or behaviour.cache_write
        or behaviour.service_tier
        or behaviour.usage != "openai"
    )


def _chat(counted: Counted, behaviour: Behaviour, billed: float) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": counted.prompt,
        "completion_tokens": counted.completion,
        "total_tokens": counted.prompt + counted.completion,
        "completion_tokens_details": {"reasoning_tokens": counted.reasoning},
    }
    match behaviour.usage:
        case "deepseek":
            usage["prompt_cache_hit_tokens"] = counted.cached
            usage["prompt_cache_miss_tokens"] = counted.prompt - counted.cached
        case "moonshot":
            usage["cached_tokens"] = counted.cached
        case "apart":
            usage["prompt_tokens"] -= counted.cached
            usage["completion_tokens"] -= counted.reasoning
            usage["prompt_tokens_details"] = {"cached_tokens": counted.cached}
        case _:
            usage["prompt_tokens_details"] = {
                "cached_tokens": counted.cached,
                "cache_write_tokens": counted.written,
                "audio_tokens": 0,
            }
    if behaviour.usage == "bill":
        usage["cost"] = billed
    return usage


def _messages(counted: Counted, behaviour: Behaviour) -> dict[str, Any]:
    return {
        "input_tokens": counted.prompt - counted.cached - counted.written,
        "cache_read_input_tokens": counted.cached,
        "cache_creation_input_tokens": counted.written,
        "cache_creation": {"ephemeral_5m_input_tokens": counted.written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": counted.completion,
        "service_tier": behaviour.service_tier or "standard",
    }
