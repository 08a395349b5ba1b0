"""Spending: the requests and tokens of columns and models, and their cost."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec

from ..core.events import Done, Failed
from ..models.usage import Asked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ..core.events import Event
    from ..models.model import Price

_ATTEMPTS = (Done, Failed)


@dataclass(slots=True)
class Spent:
    """Requests to a model, tokens, and cost in US dollars, None if a price is not known."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None


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

    `uncounted` are the columns with an answer that came without its number of tokens ("untold" in journals).
    `structured` are the counts of structured columns.
    """

    columns: dict[int, tuple[int, int, int]] = {}
    uncounted: list[int] = []
    retries: int = 0
    seconds: float = 0.0
    structured: dict[int, StructuredCounts] = {}


class UsageObserver:
    """Adds up requests and tokens of the columns that ask a model. Costs are computed when someone reads them."""

    def __init__(self, prices: Mapping[int, Price | None], earlier: Spending | None = None) -> None:
        """Take the price of each column to count, and what earlier runs of the dataset have spent."""
        self._prices = prices
        self._earlier = earlier or Spending()
        self._columns = {column: Spent() for column in prices}
        self._uncounted: set[int] = set()
        self._structured: dict[int, StructuredCounts] = {}

    def on_event(self, event: Event) -> None:
        """Count an attempt."""
        if isinstance(event, _ATTEMPTS) and event.column in self._columns:
            spent = self._columns[event.column]
            spent.requests += 1
            if event.usage is not None:
                spent.prompt_tokens += event.usage.prompt_tokens
                spent.completion_tokens += event.usage.completion_tokens
                if not event.usage.prompt_tokens and type(event) is Done:
                    self._uncounted.add(event.column)
                if type(event.usage) is Asked:
                    spent.requests += event.usage.requests - 1
                    self._structured.setdefault(event.column, StructuredCounts()).add(event.usage)

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
        return {i: replace(spent, cost=self._cost(i, spent, self._uncounted)) for i, spent in self._columns.items()}

    def columns_of_all_runs(self) -> dict[int, Spent]:
        """Return what each column has spent in all runs of the dataset."""
        spending = self.spending(0, 0.0)
        totals = {column: Spent(*counts) for column, counts in spending.columns.items()}
        return {i: replace(spent, cost=self._cost(i, spent, spending.uncounted)) for i, spent in totals.items()}

    def spending(self, retries: int, seconds: float) -> Spending:
        """Return what all runs have spent, for a later run to continue from."""
        columns = {}
        for column, spent in self._columns.items():
            requests, prompt_tokens, completion_tokens = self._earlier.columns.get(column, (0, 0, 0))
            columns[column] = (
                requests + spent.requests,
                prompt_tokens + spent.prompt_tokens,
                completion_tokens + spent.completion_tokens,
            )
        uncounted = sorted(self._uncounted.union(self._earlier.uncounted))
        return Spending(columns, uncounted, retries, seconds, self.structured_of_all_runs())

    def _cost(self, column: int, spent: Spent, uncounted: Collection[int]) -> float | None:
        """Compute the cost; it is not known where answers came without their number of tokens."""
        price = self._prices[column]
        if price is None or column in uncounted:
            return None
        return price.of(spent.prompt_tokens, spent.completion_tokens)


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
    )


def by_model(columns: Iterable[tuple[str, Spent]]) -> dict[str, Spent]:
    """Add up what the columns of each model have spent; `columns` are pairs of a model and a column's part."""
    parts: dict[str, list[Spent]] = {}
    for model, spent in columns:
        parts.setdefault(model, []).append(spent)
    return {model: added_up(spent) for model, spent in parts.items()}


def known_cost(parts: Iterable[Spent]) -> float | None:
    """Add up the known costs of the parts with requests; None if no cost is known."""
    known = [part.cost for part in parts if part.requests and part.cost is not None]
    return math.fsum(known) if known else None
