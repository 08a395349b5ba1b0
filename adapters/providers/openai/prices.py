"""Prices: the list prices of OpenAI's chat models."""

from __future__ import annotations

import re
from typing import Final

from ....engine.models.model import Price
from ..wire.price_list import PriceList
from .endpoint import OPENAI

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
"""List prices as published at https://developers.openai.com/api/docs/pricing and on the models' own pages, and as
documents quoted them by 2026-10-27.

They are prices of the standard service tier for short prompts, without the discount for cached prompts. Prices change:
a user who knows better sets them, `Model(..., price=Price(0.25, 2.0))`.
"""

PRICE_LIST: Final = PriceList(
    api=OPENAI,
    addresses=("https://api.openai.com/v1",),
    prices=PRICES,
    snapshot=re.compile(r"-\d{4}-\d{2}-\d{2}$"),
    tariffs=frozenset({"service_tier"}),
)
