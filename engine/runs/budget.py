"""Budget: what a run may still spend, from its settings, the prices of its models and what earlier runs have spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import RecipeError
from ..core.policy import CostBudget

if TYPE_CHECKING:
    from ..telemetry.spending import Spending
    from .facts import RecipeFacts
    from .settings import Settings


def cost_budget(recipe: RecipeFacts, settings: Settings, spent: Spending) -> CostBudget | None:
    """Return the budget, None if the run has none; raises RecipeError if a model's cost cannot be computed."""
    if settings.max_cost is None and settings.max_tokens_total is None:
        return None
    prices = recipe.prices
    for i, price in prices.items():
        if price is None and settings.max_cost is not None:
            problem = (
                f"the price of model '{recipe.model_of[i]}' is not known; set it: Model(..., price=Price(0.25, 2.0))"
            )
            raise RecipeError("max_cost", problem)
    per_token = {i: (price.prompt / 1e6, price.completion / 1e6) for i, price in prices.items() if price is not None}
    counts = spent.columns
    dollars = sum(
        counts[i][1] * prompt + counts[i][2] * answer for i, (prompt, answer) in per_token.items() if i in counts
    )
    tokens = sum(prompt + answer for _, prompt, answer in counts.values())
    return CostBudget(settings.max_cost, settings.max_tokens_total, per_token, dollars, tokens)
