"""List prices of OpenAI's models: which models have one, and where."""

from __future__ import annotations

import pytest

import rowloop as rl
from rowloop.adapters.providers.openai.prices import PRICES
from rowloop.engine.models.prices import price_of

OWN = rl.Price(0.25, 2.0)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without addresses."""
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("model", "family"),
    [
        (rl.Model("openai:gpt-5-mini"), "gpt-5-mini"),
        (rl.Model("openai:gpt-5-mini-2025-08-07"), "gpt-5-mini"),
        (rl.Model("openai:gpt-5-mini", base_url="https://api.openai.com/v1/"), "gpt-5-mini"),
        (rl.Model("openai:gpt-4.1", temperature=1, extra={"seed": 5}), "gpt-4.1"),
    ],
)
def test_openais_models_have_its_list_prices(model: rl.Model, family: str):
    """By their exact names, and snapshots by the name without the date."""
    assert price_of(model) == PRICES[family]


@pytest.mark.parametrize(
    "model",
    [
        rl.Model("openai:gpt-5-mini", base_url="http://localhost:8000/v1"),
        rl.Model("openai:gpt-5-mini", base_url="https://api.openai.com.example.org/v1"),
        rl.Model("openai:gpt-5-mini", client=lambda: None),
        rl.Model("openai:gpt-5-mini", extra={"service_tier": "flex"}),
        rl.Model("openai:gpt-5-mini-latest"),
        rl.Model("openai:gpt-5-mini-2025"),
        rl.Model("openai:ft:gpt-4.1-2025-04-14:me"),
        rl.Model("openai:GPT-5"),
        rl.Model("local:gpt-5"),
        rl.Model("elsewhere:gpt-5"),
        rl.Model(lambda prompt: prompt),
    ],
    ids=lambda model: f"{model.lane} {model.extra}",
)
def test_other_endpoints_tiers_and_names_have_no_price_but_their_own(model: rl.Model):
    """None of them costs what OpenAI's model does."""
    assert price_of(model) is None
    fields = {"client": model.client, "base_url": model.base_url, "extra": model.extra}
    assert price_of(rl.Model(model.spec, price=OWN, **fields)) == OWN


def test_a_models_own_price_overrides_the_list():
    """Prices change, and discounts are agreed on."""
    assert price_of(rl.Model("openai:gpt-5-mini", price=rl.Price(1, 1))) == rl.Price(1.0, 1.0)


def test_the_environments_address_counts_for_models_without_one(monkeypatch: pytest.MonkeyPatch):
    """OPENAI_BASE_URL decides, unless the model has an address, or the variable is empty."""
    model = rl.Model("openai:gpt-5-mini")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    assert price_of(model) is None
    named = rl.Model("openai:gpt-5-mini", base_url="https://api.openai.com/v1")
    assert price_of(named) == PRICES["gpt-5-mini"]
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1")
    assert price_of(model) == PRICES["gpt-5-mini"]
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert price_of(model) == PRICES["gpt-5-mini"]
