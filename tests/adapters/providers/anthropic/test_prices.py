"""List prices of Anthropic's models: which models have one, and where."""

from __future__ import annotations

import pytest

import rowloop as rl
from rowloop.adapters.providers.anthropic.prices import PRICES
from rowloop.adapters.providers.openai import prices as of_openai
from rowloop.engine.models.prices import price_of


@pytest.mark.parametrize(
    ("model", "price"),
    [
        (rl.Model("anthropic:claude-haiku-5-5"), rl.Price(0.1, 0.5)),
        (rl.Model("anthropic:claude-sonnet-4-5-20250929"), rl.Price(3, 15)),
        (rl.Model("anthropic:claude-opus-5-5", base_url="https://api.anthropic.com/v1/"), rl.Price(4, 20)),
        (rl.Model("anthropic:claude-opus-5-5", extra={"output_config": {"effort": "low"}}), rl.Price(4, 20)),
        (rl.Model("anthropic:claude-opus-5-5", base_url="http://localhost:8000"), None),
        (rl.Model("anthropic:claude-opus-5-5", extra={"inference_geo": "us"}), None),
        (rl.Model("anthropic:gpt-5-mini"), None),
        (rl.Model("openai:claude-opus-5-5"), None),
    ],
)
def test_anthropics_models_have_its_list_prices(
    model: rl.Model, price: rl.Price | None, monkeypatch: pytest.MonkeyPatch
):
    """At its own address, by its names for them, for what every request costs."""
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost")
    assert price_of(model) == price
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://localhost")
    assert price_of(rl.Model(model.spec)) is None
    assert not PRICES.keys() & of_openai.PRICES
