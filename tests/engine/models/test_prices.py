"""Prices: what has one and what has none, what is refused as one, and how costs add up."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

import rowloop as rl
from rowloop.engine.core.events import Done, Event, Failed, Failure, Usage
from rowloop.engine.models.prices import ANTHROPIC_PRICES, PRICES, dollars, price_of
from rowloop.engine.telemetry.spending import Spent, UsageObserver, added_up, by_model, known_cost

OWN = rl.Price(0.25, 2.0)


def test_a_price_is_of_a_million_tokens():
    """Prompts and completions each have their own."""
    assert OWN.of(1_000_000, 0) == 0.25
    assert OWN.of(2_000, 500) == pytest.approx(0.0015)
    assert OWN.of(0, 0) == 0


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
    assert price_of(model, {}) == PRICES[family]


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
def test_what_is_not_known_has_no_price_but_its_own(model: rl.Model):
    """Another endpoint, another tier, another name: none of them costs what OpenAI's model does."""
    assert price_of(model, {}) is None
    fields = {"client": model.client, "base_url": model.base_url, "extra": model.extra}
    assert price_of(rl.Model(model.spec, price=OWN, **fields), {}) == OWN


def test_a_price_of_ones_own_goes_before_the_table():
    """Prices change, and discounts are agreed on."""
    assert price_of(rl.Model("openai:gpt-5-mini", price=rl.Price(1, 1)), {}) == rl.Price(1.0, 1.0)


def test_models_without_an_address_are_asked_at_that_of_the_environment():
    """OPENAI_BASE_URL decides, unless the model has an address, or the variable is empty."""
    model = rl.Model("openai:gpt-5-mini")
    elsewhere = {"OPENAI_BASE_URL": "http://localhost:8000/v1"}
    assert price_of(model, elsewhere) is None
    assert price_of(model, {"OPENAI_BASE_URL": "https://api.openai.com/v1"}) == PRICES["gpt-5-mini"]
    assert price_of(model, {"OPENAI_BASE_URL": ""}) == PRICES["gpt-5-mini"]
    named = rl.Model("openai:gpt-5-mini", base_url="https://api.openai.com/v1")
    assert price_of(named, elsewhere) == PRICES["gpt-5-mini"]


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
def test_anthropics_models_have_its_list_prices(model: rl.Model, price: rl.Price | None):
    """At its own address, by the names it gives them, for what every request costs."""
    assert price_of(model, {"OPENAI_BASE_URL": "http://localhost"}) == price
    assert price_of(rl.Model(model.spec), {"ANTHROPIC_BASE_URL": "http://localhost"}) is None
    assert not PRICES.keys() & ANTHROPIC_PRICES


def test_a_model_put_in_anothers_place_does_not_keep_its_price():
    """Another spec or address costs something else; other settings do not."""
    recipe = rl.Recipe(models={"m": rl.Model("openai:x", price=OWN)})
    assert recipe.replace_model("m", temperature=1).models["m"].price == OWN
    assert recipe.replace_model("m", spec="openai:y").models["m"].price is None
    assert recipe.replace_model("m", base_url="http://localhost/v1").models["m"].price is None
    assert recipe.replace_model("m", spec="openai:y", price=rl.Price(1, 1)).models["m"].price == rl.Price(1, 1)


@pytest.mark.parametrize("wrong", [-0.01, math.nan, math.inf, "cheap", "1", True, None])
@pytest.mark.parametrize("field", ["prompt", "completion"])
def test_what_is_no_price_is_refused_by_its_field(field: str, wrong: Any):
    """Also within a model."""
    fields = {"prompt": 1.0, "completion": 2.0, field: wrong}
    with pytest.raises(rl.RecipeError, match=rf"^Price\.{field}: Input should be"):
        rl.Price(**fields)
    with pytest.raises(rl.RecipeError, match=rf"^Model\('openai:x'\)\.price\.{field}: Input should be"):
        rl.Model("openai:x", price=fields)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - as in a file


def test_amounts_are_written_with_the_digits_they_need():
    """Cents from a dollar up, four decimals below."""
    written = [dollars(cost) for cost in (0, 0.00001, 0.0001, 0.0123, 0.5, 1, 12.345, 1234.5)]
    assert written == ["$0.0000", "<$0.0001", "$0.0001", "$0.0123", "$0.5000", "$1.00", "$12.35", "$1,234.50"]


# Costs of columns, of models, and of a run

ATTEMPTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 10**6), st.integers(0, 10**6), st.booleans()), max_size=30
)
MAYBE_PRICE = st.none() | st.builds(rl.Price, st.floats(0, 1000), st.floats(0, 1000))


def attempt(column: int, prompt: int, completion: int, failed: bool) -> Event:  # noqa: FBT001 - it is drawn
    """Make the event of an attempt that took so many tokens."""
    usage = Usage(prompt, completion, 1.0)
    return Failed(0, column, 0, Failure("Broken", ""), usage) if failed else Done(0, column, 0, usage)


@given(st.tuples(MAYBE_PRICE, MAYBE_PRICE), ATTEMPTS)
def test_costs_add_up_over_columns(prices: tuple[rl.Price | None, rl.Price | None], attempts: list[Any]):
    """Four columns of two models: the sum is that of all attempts, and None where one that asked has no price."""
    observer = UsageObserver({column: prices[column % 2] for column in range(4)})
    for drawn in attempts:
        observer.on_event(attempt(*drawn))
    columns = observer.columns()
    models = by_model((str(column % 2), spent) for column, spent in columns.items())
    total = added_up(columns.values())
    assert total.requests == len(attempts)
    assert (total.prompt_tokens, total.completion_tokens) == (sum(a[1] for a in attempts), sum(a[2] for a in attempts))
    for column, spent in columns.items():
        price = prices[column % 2]
        assert spent.cost == (None if price is None else price.of(spent.prompt_tokens, spent.completion_tokens))
    assert added_up(models.values()).requests == total.requests
    of_models = added_up(models.values()).cost
    assert of_models == (None if total.cost is None else pytest.approx(total.cost))
    known = [(prices[a[0] % 2], a) for a in attempts]
    priced = [price.of(a[1], a[2]) for price, a in known if price is not None]
    if len(priced) < len(known):
        assert total.cost is None
    elif priced:
        assert total.cost == pytest.approx(sum(priced))
    assert known_cost(columns.values()) == (pytest.approx(sum(priced)) if priced else None)


def test_a_model_that_was_not_asked_takes_nothing_from_the_sum():
    """A column without a price that has no requests has cost nothing; one that has leaves the sum unknown."""
    priced, idle, asked = Spent(1, 10, 10, 0.5), Spent(), Spent(1, 10, 10)
    assert added_up([priced, idle]) == priced
    assert added_up([priced, asked]) == Spent(2, 20, 20)
    assert added_up([]) == added_up([idle]) == Spent()
    assert added_up([Spent(cost=0.0), idle]).cost == 0


def test_answers_that_do_not_tell_their_tokens_have_no_known_cost():
    """An endpoint may leave usage out; failures without tokens cost nothing."""
    observer = UsageObserver({0: OWN, 1: OWN})
    observer.on_event(Done(0, 0, 0, Usage(10, 10)))
    observer.on_event(Done(0, 0, 1, Usage()))
    observer.on_event(Done(0, 1, 0, Usage(10, 10)))
    observer.on_event(Failed(0, 1, 1, Failure("Timeout", ""), Usage(seconds=600.0)))
    columns = observer.columns()
    assert columns[0] == Spent(2, 10, 10)
    assert columns[1] == Spent(2, 10, 10, OWN.of(10, 10))
