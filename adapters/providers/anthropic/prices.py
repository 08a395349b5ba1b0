"""Prices: the list prices of Anthropic's models."""

from __future__ import annotations

import re
from typing import Final

from ....engine.models.model import Price
from ..wire.price_list import PriceList
from .endpoint import ANTHROPIC

PRICES: Final = {
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
"""List prices as published at https://platform.claude.com/docs/en/about-claude/pricing and on the models' own pages by
October 2026, without the discount for cached prompts."""

PRICE_LIST: Final = PriceList(
    api=ANTHROPIC,
    addresses=("https://api.anthropic.com", "https://api.anthropic.com/v1"),
    prices=PRICES,
    snapshot=re.compile(r"-\d{8}$"),
    tariffs=frozenset({"service_tier", "inference_geo", "speed"}),
)
