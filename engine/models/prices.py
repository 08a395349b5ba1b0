"""Prices: what a model's tokens cost, and how an amount is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .provider import Priced, provider_of

if TYPE_CHECKING:
    from .model import Model, Price


def price_of(model: Model) -> Price | None:
    """Return the model's own price, else the one that its provider knows, else None."""
    if model.price is not None:
        return model.price
    provider = provider_of(model)
    return provider.price(model) if isinstance(provider, Priced) else None


def dollars(cost: float) -> str:
    """Write an amount: $1,234.50 from a dollar up, below that $0.0123."""
    if cost >= 1:
        return f"${cost:,.2f}"
    return f"${cost:.4f}" if cost == 0 or cost >= 0.0001 else "<$0.0001"  # noqa: PLR2004 - the smallest amount shown
