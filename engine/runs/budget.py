"""Budget: what a run may still spend, from its settings, its models' prices and what earlier runs have spent."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..core.errors import RecipeError
from ..core.policy import CostBudget
from ..models.prices import price_of

if TYPE_CHECKING:
    from ..compiler.compiling import Compiled
    from ..models.model import Price
    from ..telemetry.spending import Spending
    from .settings import Settings


def prices_of(compiled: Compiled) -> dict[int, Price | None]:
    """Give the price of each column that asks a model, None where it is not known."""
    return {i: price_of(compiled.models[alias], os.environ) for i, alias in compiled.model_of.items()}


def cost_budget(compiled: Compiled, settings: Settings, spent: Spending) -> CostBudget | None:
    """Give the budget, None where there is none; raises RecipeError for a cost that cannot be told."""
    if settings.max_cost is None and settings.max_tokens_total is None:
        return None
    prices = prices_of(compiled)
    for i, price in prices.items():
        if price is None and settings.max_cost is not None:
            alias = compiled.model_of[i]
            problem = f"the price of model '{alias}' is not known; give it one, Model(..., price=Price(0.25, 2.0))"
            raise RecipeError("max_cost", problem)
    per_token = {i: (price.prompt / 1e6, price.completion / 1e6) for i, price in prices.items() if price is not None}
    counts = spent.columns
    dollars = sum(
        counts[i][1] * prompt + counts[i][2] * answer for i, (prompt, answer) in per_token.items() if i in counts
    )
    tokens = sum(prompt + answer for _, prompt, answer in counts.values())
    return CostBudget(settings.max_cost, settings.max_tokens_total, per_token, dollars, tokens)
