"""Prices: what models cost per token, where that is known."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from .model import Price

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model import Model


PRICES: Final = {
    "gpt-6.1-terra": Price(1.00, 5.00),
    "gpt-6-astra": Price(10.00, 50.00),
    "gpt-6-sol": Price(2.00, 10.00),
    "gpt-6-luna": Price(0.10, 0.50),
    "gpt-5.6": Price(4.00, 20.00),  # another name of gpt-5.6-sol
    "gpt-5.6-sol": Price(4.00, 20.00),
    "gpt-5.6-terra": Price(2.00, 12.00),
    "gpt-5.6-luna": Price(0.20, 1.20),
    "gpt-5.5": Price(5.00, 30.00),
    "gpt-5.4": Price(2.50, 15.00),
    "gpt-5.4-mini": Price(0.75, 4.50),
    "gpt-5.4-nano": Price(0.20, 1.25),
    "gpt-5": Price(1.25, 10.00),
    "gpt-5-mini": Price(0.25, 2.00),
    "gpt-5-nano": Price(0.05, 0.40),
    "gpt-4.1": Price(2.00, 8.00),
    "gpt-4.1-mini": Price(0.40, 1.60),
    "gpt-4.1-nano": Price(0.10, 0.40),
    "gpt-4o-mini": Price(0.15, 0.60),
}
"""Chat models of OpenAI at its list prices, as published at https://developers.openai.com/api/docs/pricing and on the
models' own pages next to it, and as documents that quote these had them by 2026-10-27.

They are prices of the standard service tier for short prompts, and hold no discount for prompts that OpenAI has cached.
Prices change: whoever knows better gives a model its own, `Model(..., price=Price(0.25, 2.0))`.
"""

ANTHROPIC_PRICES: Final = {
    "claude-fable-5-1": Price(10.00, 50.00),
    "claude-fable-5": Price(10.00, 50.00),
    "claude-opus-5-5": Price(4.00, 20.00),
    "claude-opus-5": Price(5.00, 25.00),
    "claude-opus-4-8": Price(5.00, 25.00),
    "claude-opus-4-7": Price(5.00, 25.00),
    "claude-opus-4-6": Price(5.00, 25.00),
    "claude-opus-4-5": Price(5.00, 25.00),
    "claude-sonnet-5-5": Price(2.00, 10.00),
    "claude-sonnet-5": Price(2.00, 10.00),
    "claude-sonnet-4-5": Price(3.00, 15.00),
    "claude-haiku-5-5": Price(0.10, 0.50),  # five times as much where a prompt has more than 100,000 tokens
    "claude-haiku-4-5": Price(1.00, 5.00),
}
"""Anthropic's models at its list prices, as published at https://platform.claude.com/docs/en/about-claude/pricing and
on the models' own pages next to it by October 2026. They hold no discount for cached prompts either."""


class _List(NamedTuple):
    """The prices of one maker: where they hold, and what may be in a request that has another one."""

    addresses: tuple[str, ...]
    variable: str
    prices: Mapping[str, Price]
    snapshot: re.Pattern[str]
    elsewise: frozenset[str]


_LISTS: Final = {
    "openai": _List(
        ("https://api.openai.com/v1",),
        "OPENAI_BASE_URL",
        PRICES,
        re.compile(r"-\d{4}-\d{2}-\d{2}$"),
        frozenset({"service_tier"}),
    ),
    "anthropic": _List(
        ("https://api.anthropic.com", "https://api.anthropic.com/v1"),
        "ANTHROPIC_BASE_URL",
        ANTHROPIC_PRICES,
        re.compile(r"-\d{8}$"),
        frozenset({"service_tier", "inference_geo", "speed"}),
    ),
}


def price_of(model: Model, environ: Mapping[str, str]) -> Price | None:
    """Give the price of a model: its own, else that of its maker's list, None where it is not known.

    The lists go by name and by address: a server of one's own that calls its model gpt-5 costs something else.
    `environ` may hold the address of models without a `base_url`. A dated snapshot costs what its family does; another
    service tier costs something else.
    """
    known = _LISTS.get(model.provider)
    if model.price is not None or known is None:
        return model.price
    address = (model.base_url or environ.get(known.variable) or known.addresses[0]).strip().rstrip("/")
    if address not in known.addresses or model.client is not None or known.elsewise & model.extra.keys():
        return None
    return known.prices.get(model.name) or known.prices.get(known.snapshot.sub("", model.name))


def dollars(cost: float) -> str:
    """Write an amount: $1,234.50 from a dollar up, below that $0.0123."""
    if cost >= 1:
        return f"${cost:,.2f}"
    return f"${cost:.4f}" if cost == 0 or cost >= 0.0001 else "<$0.0001"  # noqa: PLR2004 - the least that is written
