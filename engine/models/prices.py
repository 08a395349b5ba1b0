"""Prices: what a request to a model cost, and how an amount is written."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .provider import Priced, provider_of
from .usage import Asked

if TYPE_CHECKING:
    from ..core.events import Usage
    from .model import Model
    from .provider import Pricing


def price_of(model: Model) -> Pricing | None:
    """Return the model's own price, else the one that its provider knows, else None."""
    if model.price is not None:
        return model.price
    provider = provider_of(model)
    return provider.price(model) if isinstance(provider, Priced) else None


def cost_of(price: Pricing | None, usage: Usage) -> float | None:
    """Return the cost of an attempt in US dollars, None if it is not known.

    The requests of one attempt are priced one by one. An answer from the response cache costs nothing, and neither do
    requests that were refused. Without a price, the cost is the bill that the endpoint states.
    """
    if type(usage) is Asked:
        if usage.each:
            costs = [cost_of(price, one) for one in usage.each]
            known = [cost for cost in costs if cost is not None]
            return math.fsum(known) if len(known) == len(costs) else None
        if usage.free or not usage.requests:
            return 0.0
    if price is not None:
        return price.cost_of(usage)
    return None if usage.billing is None else usage.billing.billed


def dollars(cost: float) -> str:
    """Write an amount: $1,234.50 from a dollar up, below that $0.0123."""
    if cost >= 1:
        return f"${cost:,.2f}"
    return f"${cost:.4f}" if cost == 0 or cost >= 0.0001 else "<$0.0001"  # noqa: PLR2004 - the smallest amount shown


def as_far_as_known(known_cost: float, cost: float | None) -> str:
    """Write the known part of a cost, and whether the rest is unknown."""
    return dollars(known_cost) + (" + unpriced" if cost is None else "")
