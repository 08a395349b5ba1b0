"""List prices of OpenAI's models, and of others behind its API: which models have one, and where."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import genai_prices
import hypothesis.strategies as st
import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice, Tier, TieredPrices
from hypothesis import given

import rowloop as rl
from rowloop.adapters.providers.wire import list_prices
from rowloop.adapters.providers.wire.list_prices import price_at, rates_of
from rowloop.engine.core.events import Billing, Usage
from rowloop.engine.models.prices import price_of

OWN = rl.Price(0.25, 2.0)
OPENAI = "https://api.openai.com/v1"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without addresses."""
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def cost(name: str, usage: Usage, address: str = OPENAI, **asked: str) -> float | None:
    """Return what a request costs by the list."""
    listed = price_at(address, name, asked)
    assert listed is not None
    return listed.cost_of(usage)


def per_million(model: rl.Model) -> tuple[float, float] | None:
    """Return the prices of short prompts and of completions."""
    listed = price_of(model)
    if listed is None:
        return None
    prompt, both = listed.cost_of(Usage(1000, 0)), listed.cost_of(Usage(1000, 1000))
    assert prompt is not None
    assert both is not None
    return round(prompt * 1000, 6), round((both - prompt) * 1000, 6)


MINI, FULL = (0.25, 2.0), (2.0, 8.0)


@pytest.mark.parametrize(
    ("model", "price"),
    [
        (rl.Model("openai:gpt-5-mini"), MINI),
        (rl.Model("openai:gpt-5-mini-2025-08-07"), MINI),
        (rl.Model("openai:gpt-5-mini", base_url="https://api.openai.com/v1/"), MINI),
        (rl.Model("openai:gpt-4.1", temperature=1, extra={"seed": 5}), FULL),
    ],
)
def test_openais_models_have_its_list_prices(model: rl.Model, price: tuple[float, float]):
    """By their exact names, and snapshots by the name without the date."""
    assert per_million(model) == price


@pytest.mark.parametrize(
    "model",
    [
        rl.Model("openai:gpt-5-mini", base_url="http://localhost:8000/v1"),
        rl.Model("openai:gpt-5-mini", base_url="https://api.openai.com.example.org/v1"),
        rl.Model("openai:gpt-5-mini", base_url="https://example.org/api.openai.com/v1"),
        rl.Model("openai:gemini-3-pro", base_url="https://example.org/x.googleapis.com"),
        rl.Model("openai:gpt-5-mini", client=lambda: None),
        rl.Model("openai:gpt-5-mini", extra={"service_tier": "unheard of"}),
        rl.Model("openai:gpt-5-mini", extra={"service_tier": ["flex"]}),
        rl.Model("openai:gpt-5-mini-latest"),
        rl.Model("openai:gpt-5-mini-2025"),
        rl.Model("openai:ft:gpt-4.1-2025-04-14:me"),
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
    assert per_million(named) == MINI
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1")
    assert per_million(model) == MINI
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert per_million(model) == MINI


def test_cached_tokens_long_prompts_and_tiers_have_their_own_prices():
    """As the list of October 2026 has them."""
    assert cost("gpt-5-mini", Usage(10_000, 1000, 0, Billing(9000))) == pytest.approx((250 + 225 + 2000) / 1e6)
    assert cost("gpt-5.4", Usage(272_000, 1000)) == pytest.approx(2.5 * 0.272 + 15 * 0.001)
    assert cost("gpt-5.4", Usage(272_001, 1000)) == pytest.approx(5 * 0.272001 + 22.5 * 0.001)
    assert cost("gpt-5.4", Usage(300_000, 0, 0, Billing(200_000))) == pytest.approx(5 * 0.1 + 0.5 * 0.2)
    for tier, factor in (("default", 1.0), ("flex", 0.5), ("priority", 1.8)):
        answered = Billing(terms=(("service_tier", tier),))
        assert cost("gpt-5-mini", Usage(1000, 1000, 0, answered)) == pytest.approx(factor * 2.25 / 1000)


def test_a_tier_costs_what_the_answer_states_and_not_what_was_asked_for():
    """A request for flex that is served as default costs what default does; one that states neither is unknown."""
    default = Billing(terms=(("service_tier", "default"),))
    assert cost("gpt-5-mini", Usage(1000, 1000, 0, default), service_tier="flex") == pytest.approx(2.25 / 1000)
    assert cost("gpt-5-mini", Usage(1000, 1000), service_tier="flex") is None
    assert cost("gpt-5-mini", Usage(1000, 1000), service_tier="auto") == pytest.approx(2.25 / 1000)
    scale = Billing(terms=(("service_tier", "scale"),))
    assert cost("gpt-5-mini", Usage(1000, 1000, 0, scale)) is None


def test_prices_are_those_of_the_time_of_the_request(monkeypatch: pytest.MonkeyPatch):
    """gpt-5.6-sol became cheaper on 21 August 2026; DeepSeek is dearer by day. A request counts from when it began."""

    def at(*moment: int, seconds: float = 0.0, name: str = "gpt-5.6-sol", address: str = OPENAI) -> float | None:
        monkeypatch.setattr(list_prices.time, "time", datetime(*moment, tzinfo=UTC).timestamp)
        return cost(name, Usage(1000, 0, seconds), address)

    assert at(2026, 8, 20, 23, 59) == pytest.approx(5 / 1000)
    assert at(2026, 8, 21) == pytest.approx(4 / 1000)
    assert at(2026, 8, 21, seconds=5.0) == pytest.approx(5 / 1000)
    deepseek: dict[str, Any] = {"name": "deepseek-chat", "address": "https://api.deepseek.com/v1"}
    assert at(2026, 11, 1, 0, 29, **deepseek) == pytest.approx(0.135 / 1000)
    assert at(2026, 11, 1, 0, 30, **deepseek) == pytest.approx(0.27 / 1000)
    assert at(2026, 11, 1, 16, 30, **deepseek) == pytest.approx(0.135 / 1000)
    assert at(2026, 11, 1, 16, 31, seconds=90.0, **deepseek) == pytest.approx(0.27 / 1000)


def test_other_vendors_are_known_by_their_address():
    """The same API at another address has that vendor's prices, also for models that several vendors have."""
    grok = price_at("https://api.x.ai/v1", "grok-4")
    assert grok is not None
    assert grok.cost_of(Usage(1000, 1000)) == pytest.approx(0.018)
    assert price_at("https://api.groq.com/openai/v1", "llama-3.3-70b-versatile") is not None
    assert price_at("https://api.mistral.ai/v1", "mistral-large-latest") is not None
    assert price_at("https://api.mistral.ai/v1", "gpt-5-mini") is None
    together = [price_at(f"https://api.together.{end}/v1", "openai/gpt-oss-120b") for end in ("ai", "xyz")]
    costs = [price.cost_of(Usage(1000, 1000)) for price in together if price is not None]
    assert len(costs) == 2
    assert costs[0] == costs[1] is not None
    embedding = price_at(OPENAI, "text-embedding-3-small")
    assert embedding is not None
    assert embedding.cost_of(Usage(1000)) == pytest.approx(0.02 / 1000)
    assert embedding.cost_of(Usage(1000, 5)) is None  # it has no price of completions


def test_openrouters_bill_is_the_cost():
    """Whether the list has the model or not; without a bill, a model that it does not have has an unknown cost."""
    address = "https://openrouter.ai/api/v1"
    billed = Usage(1000, 1000, 0, Billing(billed=0.5))
    for name in ("openai/gpt-5-mini", "nobody/has-heard-of-it"):
        assert cost(name, billed, address) == 0.5
    assert cost("openai/gpt-5-mini", Usage(1000, 1000), address) == pytest.approx(2.25 / 1000)
    assert cost("nobody/has-heard-of-it", Usage(1000, 1000), address) is None


def test_a_price_with_a_part_that_is_not_understood_is_no_price():
    """A cost without that part would be too low; parts for other media do not count here."""
    known = {"input_mtok": Decimal(1), "output_mtok": Decimal(2)}
    assert rates_of(ModelPrice(**known, input_audio_mtok=Decimal(9)))
    assert rates_of(ModelPrice(**known, output_citation_mtok=Decimal(9))) == []
    assert rates_of(ModelPrice(**known, cache_write_5m_mtok=Decimal(9))) == []
    assert rates_of(ModelPrice(output_mtok=Decimal(2))) == []
    tiered = TieredPrices(base=Decimal(1), tiers=[Tier(start=10, price=Decimal(5)), Tier(start=20, price=Decimal(7))])
    rates = rates_of(ModelPrice(input_mtok=tiered, output_mtok=Decimal(2)))
    assert [(rate.over, rate.price.prompt, rate.price.completion) for rate in rates] == [
        (20, 7, 2),
        (10, 5, 2),
        (-1, 1, 2),
    ]


VENDORS = {"openai", "anthropic", "google", "x-ai", "deepseek", "mistral", "groq", "moonshotai", "perplexity"}
LISTED = [
    (provider.id, model.id)
    for provider in get_snapshot().providers
    if provider.id in VENDORS
    for model in provider.models
    if rates_of(model.get_prices(datetime.now(UTC))) and provider.find_model(model.id) is model
]
TERMS = st.sampled_from([(), *((("service_tier", tier),) for tier in ("default", "flex", "priority"))])


@given(st.sampled_from(LISTED), st.lists(st.integers(0, 400_000), min_size=6, max_size=6), TERMS)
def test_the_arithmetic_is_that_of_the_package(which: tuple[str, str], tokens: list[int], terms: list_prices.Terms):
    """For whichever model and numbers of tokens: the same cost as genai-prices computes, in a hundredth of the time."""
    provider_id, name = which
    provider = next(one for one in get_snapshot().providers if one.id == provider_id)
    info = provider.find_model(name)
    assert info is not None
    plain, read, written, hour, completion, thought = tokens
    prompt, hour, thought = plain + read + written, min(hour, written), min(thought, completion)
    listed = list_prices.ListPrice(info, provider, frozenset())
    ours = listed.cost_of(Usage(prompt, completion, 0.0, Billing(read, written, hour, thought, terms=terms)))
    unusual = {term: value for term, value in terms if value != "default"}
    if not prompt or not all(listed.knows(*term) for term in unusual.items()):
        assert ours is None
        return
    used = genai_prices.Usage(
        input_tokens=prompt,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=hour,
        output_tokens=completion,
        output_reasoning_tokens=thought,
    )
    theirs = info.calc_price(used, provider, price_context=dict(terms))
    if ours is None:
        assert "output_mtok" not in vars(theirs.model_price)
    else:
        assert ours == pytest.approx(float(theirs.total_price), rel=1e-9, abs=1e-12)
