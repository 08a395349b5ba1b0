"""Budget: what a run may still spend, from its settings, the prices of its models and what earlier runs have spent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ...runtime.logs import safe_logger
from ..core.errors import RecipeError
from ..core.policy import CostBudget
from ..models.prices import cost_of, dollars

if TYPE_CHECKING:
    from ..core.events import BudgetLow, Usage
    from ..core.policy import CostOf
    from ..models.provider import Pricing
    from ..telemetry.spending import Spending
    from .facts import RecipeFacts

logger = safe_logger()


def warn(low: BudgetLow) -> None:
    """Log that much of a budget is spent, and what is left."""
    share, left = low.spent / low.limit, low.limit - low.spent
    if low.option == "max_cost":
        facts = f"{dollars(low.spent)} of {dollars(low.limit)}, {dollars(left)} left"
    else:
        facts = f"{low.spent:,.0f} of {low.limit:,.0f} tokens, {left:,.0f} left"
    logger.warning("%d %% of %s is spent: %s", int(100 * share), low.option, facts)


def check_prices(recipe: RecipeFacts, max_cost: float | None) -> None:
    """Raise RecipeError if the cost of a model cannot be computed and there is a cap on it."""
    for i, price in recipe.prices.items():
        if price is None and max_cost is not None:
            problem = (
                f"the price of model '{recipe.model_of[i]}' is not known; set it: Model(..., price=Price(0.25, 2.0))"
            )
            raise RecipeError("max_cost", problem)


def cost_budget(recipe: RecipeFacts, max_cost: float | None, max_tokens: int | None, spent: Spending) -> CostBudget:
    """Return the budget of a run; raises RecipeError if a model's cost cannot be computed."""
    check_prices(recipe, max_cost)
    prices = recipe.prices
    cost = math.fsum(spent.costs_at(prices).values())
    tokens = sum(prompt + answer for _, prompt, answer in spent.columns.values())
    charged = {i: _charged(price, recipe.model_of[i]) for i, price in prices.items() if max_cost is not None}
    return CostBudget(max_cost, max_tokens, charged, cost, tokens)


def _charged(price: Pricing | None, model: str) -> CostOf:
    """Return the function from usage to cost, which warns once about an attempt of unknown cost."""
    warned = False

    def charged(usage: Usage) -> float | None:
        nonlocal warned
        cost = cost_of(price, usage)
        if cost is None and not warned:
            warned = True
            problem = "a request to model '%s' has an unknown cost; for max_cost, it counts as the mean of the others"
            logger.warning(problem, model)
        return cost

    return charged
