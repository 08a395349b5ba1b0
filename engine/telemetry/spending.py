"""Spending: the requests and tokens of columns and models, and their cost."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

import msgspec

from ..core.events import Billing, Cancelled, Done, Failed, HedgeEnded, Usage
from ..models.prices import cost_of
from ..models.usage import Asked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..core.events import Event
    from ..models.provider import Pricing

_ATTEMPTS = (Done, Failed, Cancelled, HedgeEnded)


@dataclass(slots=True)
class Spent:
    """Requests to a model, tokens, and cost in US dollars, None if the cost of any of the requests is not known.

    `known_cost` is the cost of those requests whose cost is known, None if there is none. `cached_tokens` are those
    tokens of prompts that the endpoint has read from its cache. `hedges` of the requests were second requests for slow
    cells, and `hedges_won` of these gave the answer; the tokens and cost of the cancelled ones are estimates.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    known_cost: float | None = None
    cached_tokens: int = 0
    hedges: int = 0
    hedges_won: int = 0

    def __post_init__(self) -> None:
        """Know at least what is known in all."""
        if self.known_cost is None:
            self.known_cost = self.cost


_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class StructuredCounts(msgspec.Struct, gc=False):
    """How the answers of a structured column came to obey its schema.

    `native`: cells whose answer the endpoint itself held to the schema (response_format). `repaired`: cells whose JSON
    was extracted from prose or mended. `reasked`: requests that showed the model its mistake. `failed`: cells without
    an answer that obeys the schema.
    """

    native: _Count = 0
    repaired: _Count = 0
    reasked: _Count = 0
    failed: _Count = 0

    def add(self, other: StructuredCounts | Asked) -> None:
        """Add other counts to these."""
        self.native += other.native
        self.repaired += other.repaired
        self.reasked += other.reasked
        self.failed += other.failed


class Spending(msgspec.Struct, frozen=True, rename={"uncounted": "untold"}):
    """What all runs of a dataset have spent: per column, requests, prompt and completion tokens; and seconds.

    `uncounted` are the columns with an attempt of unknown cost ("untold" in journals): its number of tokens is unknown,
    or the price of its terms. `structured` are the counts of structured columns. `costs` are in US dollars; a column
    without a price has none, and journals of rowloop 0.1 have none at all. `caches` are, of the prompt tokens, those
    read from a cache and those written to one. `hedges` are, of the requests, the second ones for slow cells, and those
    of them that gave the answer.
    """

    columns: dict[int, tuple[int, int, int]] = {}
    uncounted: list[int] = []
    retries: int = 0
    seconds: float = 0.0
    structured: dict[int, StructuredCounts] = {}
    costs: dict[int, float] = {}
    caches: dict[int, tuple[int, int]] = {}
    hedges: dict[int, tuple[int, int]] = {}

    def costs_at(self, prices: Mapping[int, Pricing | None]) -> dict[int, float]:
        """Return the known cost of each column; attempts that had no price are charged as it is now."""
        found = dict(self.costs)
        for column, price in prices.items():
            requests, *tokens = self.columns.get(column, (0, 0, 0))
            if requests and column not in found and price is not None:
                cost = _cost_of_mean(price, requests, (*tokens, *self.caches.get(column, (0, 0))))
                found |= {} if cost is None else {column: cost}
        return found


def _cost_of_mean(price: Pricing, requests: int, tokens: tuple[int, ...]) -> float | None:
    """Return the cost of so many requests that have an equal share of the tokens: long prompts have other prices."""
    prompt, completion, read, written = cast("list[int]", [count / requests for count in tokens])  # whole or not
    cost = price.cost_of(Usage(prompt, completion, 0.0, Billing(read, written)))
    return None if cost is None else cost * requests


@dataclass(slots=True)
class _Sums:
    """The sums of one column over the attempts of this run.

    `unknown`: the cost of an attempt with a price is unknown. `unpriced`: an attempt had no price.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cost: float = 0.0
    priced: int = 0
    unknown: bool = False
    unpriced: bool = False

    def add(self, usage: Usage, cost: float | None, *, priced: bool) -> None:
        """Add the usage of an attempt."""
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        if usage.billing is not None:
            self.cached_tokens += usage.billing.cached_tokens
            self.cache_write_tokens += usage.billing.cache_write_tokens
        if cost is not None:
            self.cost += cost
            self.priced += 1
        elif priced or not usage.prompt_tokens:
            self.unknown = True
        else:
            self.unpriced = True


class UsageObserver:
    """Adds up requests, tokens and costs of the columns that ask a model.

    Each attempt is priced by itself: the price of a token depends on the length of its prompt, on the terms and on the
    time. Answers without their number of tokens have an unknown cost, and so have requests that got no answer, because
    they failed or were cancelled. Requests that were refused with an error cost nothing.
    """

    def __init__(self, prices: Mapping[int, Pricing | None], earlier: Spending | None = None) -> None:
        """Take the price of each column to count, and what earlier runs of the dataset have spent."""
        self._prices = prices
        self._earlier = earlier or Spending()
        self._columns = {column: _Sums() for column in prices}
        self._structured: dict[int, StructuredCounts] = {}
        self._hedges: dict[int, tuple[int, int]] = {}

    def on_event(self, event: Event) -> None:
        """Count an attempt."""
        if isinstance(event, _ATTEMPTS) and event.column in self._columns:
            sums, price = self._columns[event.column], self._prices[event.column]
            usage = None if isinstance(event, Cancelled) else event.usage
            sums.requests += 1
            if usage is not None:
                if not getattr(usage, "free", False):
                    sums.add(usage, cost_of(price, usage), priced=price is not None)
                if type(usage) is Asked:
                    sums.requests += usage.requests - 1
                    self._structured.setdefault(event.column, StructuredCounts()).add(usage)
            elif type(event) is not Failed and getattr(event, "failure", None) is None:
                sums.unknown = True
            if type(event) is HedgeEnded:
                hedges, won = self._hedges.get(event.column, (0, 0))
                self._hedges[event.column] = hedges + 1, won + event.won

    def structured(self) -> dict[int, StructuredCounts]:
        """Return the counts of each structured column with answers in this run."""
        return {i: copy(counts) for i, counts in self._structured.items()}

    def structured_of_all_runs(self) -> dict[int, StructuredCounts]:
        """Return the counts of each structured column with answers in any run of the dataset."""
        counted = {i: copy(counts) for i, counts in self._earlier.structured.items()}
        for i, counts in self._structured.items():
            counted.setdefault(i, StructuredCounts()).add(counts)
        return counted

    def columns(self) -> dict[int, Spent]:
        """Return what each column has spent in this run."""
        return self._spent(self._totals(Spending()))

    def columns_of_all_runs(self) -> dict[int, Spent]:
        """Return what each column has spent in all runs of the dataset."""
        return self._spent(self._totals(self._earlier))

    def spending(self, retries: int, seconds: float) -> Spending:
        """Return what all runs have spent, for a later run to continue from."""
        totals = self._totals(self._earlier)
        return msgspec.structs.replace(
            totals, retries=retries, seconds=seconds, structured=self.structured_of_all_runs()
        )

    def _totals(self, earlier: Spending) -> Spending:
        """Add what this run has spent to what earlier ones have."""
        columns, caches, uncounted = {}, {}, set(earlier.uncounted)
        before = earlier.costs_at(self._prices)
        costs = dict(before)
        for i, sums in self._columns.items():
            requests, prompt_tokens, completion_tokens = earlier.columns.get(i, (0, 0, 0))
            columns[i] = (
                requests + sums.requests,
                prompt_tokens + sums.prompt_tokens,
                completion_tokens + sums.completion_tokens,
            )
            read, written = earlier.caches.get(i, (0, 0))
            caches[i] = read + sums.cached_tokens, written + sums.cache_write_tokens
            if self._prices[i] is not None or sums.priced:
                costs[i] = costs.get(i, 0.0) + sums.cost
            if sums.unknown or (i in costs and (sums.unpriced or (requests and i not in before))):
                uncounted.add(i)
        hedges = dict(earlier.hedges)
        for i, (sent, won) in self._hedges.items():
            before_sent, before_won = hedges.get(i, (0, 0))
            hedges[i] = before_sent + sent, before_won + won
        return Spending(columns, sorted(uncounted), costs=costs, caches=caches, hedges=hedges)

    def _spent(self, totals: Spending) -> dict[int, Spent]:
        """Return the totals as values for users."""
        spent = {}
        for i, counts in totals.columns.items():
            known = totals.costs.get(i)
            cost = None if i in totals.uncounted else known
            spent[i] = Spent(*counts, cost, known or cost, totals.caches[i][0], *totals.hedges.get(i, (0, 0)))
        return spent


def added_up(parts: Iterable[Spent]) -> Spent:
    """Add up. The cost of the whole is known if the cost of each part with requests is."""
    parts = list(parts)
    costs = [part.cost for part in parts if part.requests or part.cost is not None]
    known = [cost for cost in costs if cost is not None]
    return Spent(
        requests=sum(part.requests for part in parts),
        prompt_tokens=sum(part.prompt_tokens for part in parts),
        completion_tokens=sum(part.completion_tokens for part in parts),
        cost=math.fsum(known) if known and len(known) == len(costs) else None,
        known_cost=known_cost(parts),
        cached_tokens=sum(part.cached_tokens for part in parts),
        hedges=sum(part.hedges for part in parts),
        hedges_won=sum(part.hedges_won for part in parts),
    )


def by_model(columns: Iterable[tuple[str, Spent]]) -> dict[str, Spent]:
    """Add up what the columns of each model have spent; `columns` are pairs of a model and a column's part."""
    parts: dict[str, list[Spent]] = {}
    for model, spent in columns:
        parts.setdefault(model, []).append(spent)
    return {model: added_up(spent) for model, spent in parts.items()}


def known_cost(parts: Iterable[Spent]) -> float | None:
    """Add up the known costs of the parts with requests; None if no cost is known."""
    known = [part.known_cost for part in parts if part.requests and part.known_cost is not None]
    return math.fsum(known) if known else None
