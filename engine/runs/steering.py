"""Steering: what anybody may ask of a run while it lasts, from any thread: pause, resume, other limits and caps.

Each request becomes an event for the tracker. It is made on the loop, in the run's own context, so that it fits the
state of that moment; before the scheduler has begun, requests wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
from collections import deque
from types import EllipsisType
from typing import TYPE_CHECKING, TypeAlias

from ..core.errors import RecipeError, nearest, shown
from ..core.events import Budgeted, Limited, Paused, Resumed
from .budget import check_prices, cost_budget

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.events import Steering as Event
    from ..core.graph import Graph
    from ..telemetry.spending import Spending
    from .facts import RecipeFacts
    from .scheduler import Scheduler
    from .settings import Settings

Cap: TypeAlias = float | EllipsisType | None
Tokens: TypeAlias = int | EllipsisType | None
"""A cap on what a run may spend: None for no cap, and ... for the one that it has."""


class Steering:
    """The requests to one run. All methods may be called from any thread, except `begin` and `take_over`."""

    def __init__(self, graph: Graph, recipe: RecipeFacts, settings: Settings, spending: Callable[[], Spending]) -> None:
        """Take the names of models, the caps at the start, and what tells the spending of all runs so far."""
        self._lanes = {
            alias: {graph.columns[i].lane for i, of in recipe.model_of.items() if of == alias}
            for alias in recipe.model_of.values()
        }
        self._recipe = recipe
        self._caps = settings.max_cost, settings.max_tokens_total
        self._spending = spending
        self._requests: deque[Callable[[], Event]] = deque()
        self._context = contextvars.Context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduler: Scheduler | None = None

    def pause(self) -> None:
        """Start nothing new; requests in flight end."""
        self._request(Paused)

    def resume(self) -> None:
        """End a pause."""
        self._request(Resumed)

    def set_limit(self, model: str, limit: int) -> None:
        """Change how many requests to a model may be in flight; raises RecipeError for what cannot be."""
        if model not in self._lanes:
            raise RecipeError(f"models.{model}", f"no column calls this model; {nearest(str(model), self._lanes)}")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise RecipeError("limit", f"takes a whole number of at least 1, not {shown(limit)}")
        for lane in self._lanes[model]:
            if lane is not None:
                self._request(functools.partial(Limited, lane, limit))

    def set_budget(self, max_cost: Cap = ..., max_tokens_total: Tokens = ...) -> None:
        """Change what all runs of the dataset may spend; raises RecipeError for what cannot be."""
        cost = self._caps[0] if isinstance(max_cost, EllipsisType) else max_cost
        tokens = self._caps[1] if isinstance(max_tokens_total, EllipsisType) else max_tokens_total
        for name, cap, kind in (("max_cost", cost, (int, float)), ("max_tokens_total", tokens, int)):
            if cap is not None and (isinstance(cap, bool) or not isinstance(cap, kind) or not cap > 0):
                raise RecipeError(name, f"takes a number above 0, or None for no cap, not {shown(cap)}")
        check_prices(self._recipe, cost)
        self._caps = cost, tokens
        self._request(lambda: self._budgeted(cost, tokens))

    def begin(self) -> None:
        """Note the loop and the context of the run."""
        self._context, self._loop = contextvars.copy_context(), asyncio.get_running_loop()

    def take_over(self, scheduler: Scheduler) -> None:
        """Pass requests on to the scheduler, which is about to run; those that wait for it come first."""
        self._scheduler = scheduler
        asyncio.get_running_loop().call_soon(self._pass_on)

    def _request(self, make: Callable[[], Event]) -> None:
        self._requests.append(make)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the run is over
                self._loop.call_soon_threadsafe(self._pass_on, context=self._context.copy())

    def _pass_on(self) -> None:
        while self._scheduler is not None and self._requests:
            self._scheduler.steer(self._requests.popleft()())

    def _budgeted(self, max_cost: float | None, max_tokens: int | None) -> Budgeted:
        budget = cost_budget(self._recipe, max_cost, max_tokens, self._spending())
        return Budgeted(budget.max_cost, budget.max_tokens, budget.prices, budget.dollars, budget.tokens)
