"""List prices: what a model costs at an endpoint, from the list that the package genai-prices keeps.

A price belongs to an address, not to a name: a server of one's own that calls its model gpt-5 has no list price. The
list knows prices of cached tokens, of long prompts, of service tiers, and when prices have changed or will. It is part
of the package, and nothing is fetched; a program that runs `genai_prices.UpdatePrices` has newer prices here as well.

The package takes a third of a second to import, so that is done for the first model that may have a list price, and it
takes a fraction of a millisecond for a request. So the prices that hold at the time of a request are looked up once,
and the arithmetic is our own.
"""

from __future__ import annotations

import os
import re
import sys
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from ....engine.models.model import Price

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from genai_prices.types import ModelInfo, ModelPrice, Provider

    from ....engine.core.events import Usage
    from ....engine.models.model import Model
    from ....engine.models.provider import Pricing
    from ...http.endpoint import Api

Terms: TypeAlias = tuple[tuple[str, str], ...]

_ORDINARY: Final = frozenset({"default", "standard", "standard_only", "on_demand", "auto", "global", "not_available"})
"""Terms of service that have the ordinary price. Any other has a price only if the list has it."""

_TERMS: Final = ("service_tier", "speed", "inference_geo")
"""The fields of a request that ask for terms of service."""

_STATE_THEIR_BILL: Final = frozenset({"openrouter"})
"""Providers whose answers state what they cost, also for models that the list does not have."""

_ALSO_AT: Final = {"https://api.together.ai": "https://api.together.xyz"}
"""Addresses that vendors document, and those under which the list has them."""

_PRICES: Final = {
    "input_mtok": "prompt",
    "output_mtok": "completion",
    "cache_read_mtok": "cached",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
}
"""The names of the list for the fields of a Price."""

_FEES: Final = frozenset({"requests_kcount", "web_searches_kcount"})
_OF_OTHER_MEDIA: Final = re.compile(r"audio|image|video|document|text_messages|storage|mchars|hours")
"""The names of prices for what is neither sent nor asked for here, or counted as ordinary tokens."""


def list_price(model: Model, api: Api) -> Pricing | None:
    """Return the list price of a model at the address where it is asked, None where there is none."""
    if model.client is not None:
        return None
    address = (model.base_url or os.environ.get(api.url_variable) or api.url).strip()
    return price_at(address, model.name, {name: model.extra[name] for name in _TERMS if name in model.extra})


def price_at(address: str, name: str, asked: Mapping[str, object] | None = None) -> Pricing | None:
    """Return the list price of a model at an address, where requests ask for these terms; None where there is none."""
    if "genai_prices" not in sys.modules and not address.startswith("https://"):
        return None  # the package's own list has public addresses alone, and nobody has given it another one
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - it takes a third of a second

    for own, listed_at in _ALSO_AT.items():
        address = listed_at + address.removeprefix(own) if address.startswith(f"{own}/") else address
    providers = get_snapshot().providers
    provider = next((one for one in providers if _is_at(address, one.api_pattern)), None)
    if provider is None:
        return None
    info = provider.find_model(name, all_providers=providers)
    if info is None:
        return Billed() if provider.id in _STATE_THEIR_BILL else None
    unusual = {term: value for term, value in (asked or {}).items() if str(value) not in _ORDINARY}
    listed = ListPrice(info, provider, frozenset(unusual))
    return listed if all(listed.knows(term, value) for term, value in unusual.items()) else None


def _is_at(address: str, pattern: str) -> bool:
    """Return whether an address begins with a pattern, which must not end within a name: example.com.example.org."""
    if ".*" in pattern:  # it is about hosts
        address = "/".join(address.split("/")[:3])
    found = re.match(pattern, address)
    return found is not None and (found[0][-1] in "./" or not re.match(r"[\w.-]", address[found.end() :]))


class Billed:
    """The price of a model that is not listed, at an endpoint that states its bill in every answer."""

    def cost_of(self, usage: Usage) -> float | None:
        """Return the bill."""
        return None if usage.billing is None else usage.billing.billed


class _Rate(NamedTuple):
    """What a request costs whose prompt has more tokens than `over`. `request` and `search` are fees, in US dollars."""

    over: int
    price: Price
    request: float
    search: float | None
    answers: bool
    """Whether completions have a price."""


class ListPrice:
    """The list price of one model at one endpoint."""

    def __init__(self, info: ModelInfo, provider: Provider, asked: frozenset[str]) -> None:
        """Take a model of the list; requests ask for `asked` terms, so each answer must state them to have a price."""
        self._info = info
        self._asked = asked
        # The terms of another provider's model are not those of this endpoint.
        self._variants = (info.price_variants or ()) if any(info is one for one in provider.models) else ()
        prices = info.prices if isinstance(info.prices, list) else ()
        self._changes = any(one.constraint is not None for one in (*prices, *self._variants))
        self._rates = lru_cache(maxsize=256)(self._rates_at)

    def knows(self, term: str, value: object) -> bool:
        """Return whether the list has a price for these terms of service, at some time."""
        return any(variant.when.get(term) == value for variant in self._variants)

    def cost_of(self, usage: Usage) -> float | None:
        """Return the bill if the endpoint states it, else the cost at the prices of the time of the request."""
        billing, searches = usage.billing, 0
        terms: Terms = ()
        if billing is not None:
            if billing.billed is not None:
                return billing.billed
            terms, searches = billing.terms, billing.searches
        if not usage.prompt_tokens:
            return None
        # Prices change at whole minutes.
        minute = int((time.time() - usage.seconds) // 60) if self._changes else 0
        for over, price, request, search, answers in self._rates(terms, minute):
            if usage.prompt_tokens > over:
                cost = price.cost_of(usage)
                if cost is None or (searches and search is None) or (usage.completion_tokens and not answers):
                    return None
                return cost + request + searches * (search or 0.0)
        return None

    def _rates_at(self, terms: Terms, minute: int) -> list[_Rate]:
        """Return the rates that hold for these terms in a minute since 1970, for the longest prompts first."""
        if not self._asked <= {term for term, _ in terms}:
            return []
        unusual = {term: value for term, value in terms if value not in _ORDINARY}
        moment = datetime.fromtimestamp(minute * 60, UTC)
        active = [one for one in self._variants if one.constraint is None or one.constraint.active(moment)]
        if not all(any(one.when.get(term) == value for one in active) for term, value in unusual.items()):
            return []
        return rates_of(self._info.get_prices(moment, unusual))


def rates_of(prices: ModelPrice) -> list[_Rate]:
    """Return the rates in a list's prices, for the longest prompts first; none if they have a part that is unknown."""
    given = {name: price for name, price in vars(prices).items() if price is not None}
    unknown = [name for name in given.keys() - _PRICES.keys() - _FEES if not _OF_OTHER_MEDIA.search(name)]
    if unknown or "input_mtok" not in given:
        return []
    starts = {tier.start for price in given.values() for tier in _tiers(price)}
    return [_rate(given, over) for over in sorted({-1, *starts}, reverse=True)]


def _rate(given: Mapping[str, Any], over: int) -> _Rate:
    at = {name: _amount(price, over) for name, price in given.items()}
    fields = {field: at[name] for name, field in _PRICES.items() if name in at}
    answers, search = "completion" in fields, at.get("web_searches_kcount")
    return _Rate(
        over,
        Price(**{"completion": 0.0, **fields}),
        at.get("requests_kcount", 0.0) / 1000,
        None if search is None else search / 1000,
        answers,
    )


def _amount(price: Any, over: int) -> float:
    """Return the price of a unit in prompts of more than so many tokens; -1 stands for the shortest."""
    tiers = [tier.price for tier in _tiers(price) if tier.start <= over]
    return float(tiers[-1] if tiers else getattr(price, "base", price))


def _tiers(price: Any) -> Iterable[Any]:
    return getattr(price, "tiers", ())
