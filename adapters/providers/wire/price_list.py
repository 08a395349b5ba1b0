"""PriceList: the list prices of one maker's models, and the addresses and settings for which they are valid."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

    from ....engine.models.model import Model, Price
    from ...http.endpoint import Api


@dataclass(frozen=True, slots=True)
class PriceList:
    """Prices by model name, valid at the maker's own `addresses` only.

    A server of one's own that calls its model gpt-5 has other costs. So has a request with a field in `tariffs`, such
    as another service tier. `snapshot` matches the date in the name of a snapshot, which costs what its family does.
    """

    api: Api
    addresses: tuple[str, ...]
    prices: Mapping[str, Price]
    snapshot: re.Pattern[str]
    tariffs: frozenset[str]

    def price(self, model: Model) -> Price | None:
        """Return the list price of a model, None where the list is not valid or does not have it."""
        address = model.base_url or os.environ.get(self.api.url_variable) or self.api.url
        if address.strip().rstrip("/") not in self.addresses or model.client is not None:
            return None
        if self.tariffs & model.extra.keys():
            return None
        return self.prices.get(model.name) or self.prices.get(self.snapshot.sub("", model.name))
