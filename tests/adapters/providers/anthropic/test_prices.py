"""List prices of Anthropic's models: which models have one, and where."""

from __future__ import annotations

import pytest

import rowloop as rl
from rowloop.engine.core.events import Billing, Usage
from rowloop.engine.models.prices import price_of

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("model", "price"),
    [
        (rl.Model("anthropic:claude-haiku-5-5"), (0.1, 0.5)),
        (rl.Model("anthropic:claude-sonnet-4-5-20250929"), (3, 15)),
        (rl.Model("anthropic:claude-opus-5-5", base_url="https://api.anthropic.com/v1/"), (4, 20)),
        (rl.Model("anthropic:claude-opus-5-5", extra={"output_config": {"effort": "low"}}), (4, 20)),
        (rl.Model("anthropic:claude-opus-5-5", base_url="http://localhost:8000"), None),
        (rl.Model("anthropic:claude-opus-5-5", extra={"inference_geo": "us"}), None),
        (rl.Model("anthropic:gpt-5-mini"), None),
        (rl.Model("openai:claude-opus-5-5"), None),
    ],
)
def test_anthropics_models_have_its_list_prices(
    model: rl.Model, price: tuple[float, float] | None, monkeypatch: pytest.MonkeyPatch
):
    """At its own address, by its names for them, for what every request costs."""
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost")
    listed = price_of(model)
    if price is None:
        assert listed is None
    else:
        assert listed is not None
        assert listed.cost_of(Usage(1000, 0)) == pytest.approx(price[0] / 1000)
        assert listed.cost_of(Usage(1000, 1000)) == pytest.approx(sum(price) / 1000)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://localhost")
    assert price_of(rl.Model(model.spec)) is None


def cost(name: str, usage: Usage, **settings: object) -> float | None:
    """Return what a request to a Claude model costs by the list."""
    listed = price_of(rl.Model(f"anthropic:{name}", **settings))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert listed is not None
    return listed.cost_of(usage)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without an address."""
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)


def test_caches_long_prompts_speeds_and_searches_have_their_own_prices():
    """As the list of October 2026 has them."""
    haiku, opus = "claude-haiku-5-5", "claude-opus-5-5"
    assert cost(haiku, Usage(10_000, 0, 0, Billing(10_000))) == pytest.approx(0.01 * 0.01)
    assert cost(haiku, Usage(10_000, 0, 0, Billing(0, 10_000))) == pytest.approx(0.125 * 0.01)
    assert cost(haiku, Usage(10_000, 0, 0, Billing(0, 10_000, 10_000))) == pytest.approx(0.2 * 0.01)
    assert cost(haiku, Usage(200_000, 10_000)) == pytest.approx(0.5 * 0.2 + 2.5 * 0.01)
    assert cost(haiku, Usage(200_000, 0, 0, Billing(199_000))) == pytest.approx(0.05 * 0.199 + 0.5 * 0.001)
    assert cost(opus, Usage(1000, 0, 0, Billing(searches=3))) == pytest.approx(4 / 1000 + 3 * 0.01)
    fast, standard = Billing(terms=(("speed", "fast"),)), Billing(terms=(("service_tier", "standard"),))
    assert cost(opus, Usage(1000, 1000, 0, standard)) == pytest.approx(0.024)
    assert cost(opus, Usage(1000, 1000, 0, fast)) == pytest.approx(0.048)


def test_terms_without_a_listed_price_have_an_unknown_cost():
    """A committed tier, another place, or a speed that was asked for and that the answer does not state."""
    for terms in ([("service_tier", "priority")], [("inference_geo", "us")], [("speed", "ludicrous")]):
        assert cost("claude-opus-5-5", Usage(1000, 1000, 0, Billing(terms=tuple(terms)))) is None
    fast = {"speed": "fast"}
    assert cost("claude-opus-5-5", Usage(1000, 1000), extra=fast) is None
    stated = Billing(terms=(("speed", "standard"),))
    assert cost("claude-opus-5-5", Usage(1000, 1000, 0, stated), extra=fast) == pytest.approx(0.024)
