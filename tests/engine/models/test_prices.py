"""Prices: what has one and what has none, what is refused as one, and how costs add up."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

import rowloop as rl
from rowloop.engine.core.events import Done, Event, Failed, Failure, Usage
from rowloop.engine.models.prices import dollars, price_of
from rowloop.engine.models.provider import providers
from rowloop.engine.telemetry.spending import Spent, UsageObserver, added_up, by_model, known_cost

OWN = rl.Price(0.25, 2.0)


def test_a_price_is_of_a_million_tokens():
    """Prompts and completions each have their own."""
    assert OWN.of(1_000_000, 0) == 0.25
    assert OWN.of(2_000, 500) == pytest.approx(0.0015)
    assert OWN.of(0, 0) == 0


class Maker:
    """A provider that knows a price, and one that knows none."""

    def __init__(self, known: rl.Price | None) -> None:
        self.known = known

    def price(self, _model: rl.Model) -> rl.Price | None:
        """Return it for every model."""
        return self.known


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a provider that knows one price as `maker`, one that knows none as `shy`, and one without `price`."""
    assert rl.Model  # whoever is first to use a public name registers our own providers
    known: dict[str, Any] = {"maker": Maker(OWN), "shy": Maker(None), "silent": object()}
    monkeypatch.setattr(providers, "_known", {**vars(providers)["_known"], **known})


@pytest.mark.usefixtures("maker")
def test_a_model_has_the_price_that_its_provider_knows():
    """Models of a provider that knows none, states none, or is not installed have no price."""
    assert price_of(rl.Model("maker:any")) == OWN
    for spec in ("shy:any", "silent:any", "elsewhere:any"):
        assert price_of(rl.Model(spec)) is None


@pytest.mark.usefixtures("maker")
def test_a_models_own_price_overrides_the_providers():
    """Prices change, and discounts are agreed on."""
    own = rl.Price(1, 1)
    for spec in ("maker:any", "shy:any", "silent:any", "elsewhere:any"):
        assert price_of(rl.Model(spec, price=own)) == own


def test_models_in_this_process_have_no_price():
    """Neither a local model nor a function costs anything per token that rowloop knows of."""
    assert price_of(rl.Model("local:gpt-5")) is None
    assert price_of(rl.Model(lambda prompt: prompt)) is None


def test_a_replaced_model_does_not_keep_its_price():
    """Another spec or address costs something else; other settings do not."""
    recipe = rl.Recipe(models={"m": rl.Model("openai:x", price=OWN)})
    assert recipe.replace_model("m", temperature=1).models["m"].price == OWN
    assert recipe.replace_model("m", spec="openai:y").models["m"].price is None
    assert recipe.replace_model("m", base_url="http://localhost/v1").models["m"].price is None
    assert recipe.replace_model("m", spec="openai:y", price=rl.Price(1, 1)).models["m"].price == rl.Price(1, 1)


@pytest.mark.parametrize("wrong", [-0.01, math.nan, math.inf, "cheap", "1", True, None])
@pytest.mark.parametrize("field", ["prompt", "completion"])
def test_an_invalid_price_is_refused_with_its_field(field: str, wrong: Any):
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


def test_a_model_without_requests_does_not_make_the_sum_unknown():
    """A column without a price and without requests costs nothing; one with requests makes the sum unknown."""
    priced, idle, asked = Spent(1, 10, 10, 0.5), Spent(), Spent(1, 10, 10)
    assert added_up([priced, idle]) == priced
    assert added_up([priced, asked]) == Spent(2, 20, 20)
    assert added_up([]) == added_up([idle]) == Spent()
    assert added_up([Spent(cost=0.0), idle]).cost == 0


def test_answers_without_token_counts_have_no_known_cost():
    """An endpoint may leave usage out; failures without tokens cost nothing."""
    observer = UsageObserver({0: OWN, 1: OWN})
    observer.on_event(Done(0, 0, 0, Usage(10, 10)))
    observer.on_event(Done(0, 0, 1, Usage()))
    observer.on_event(Done(0, 1, 0, Usage(10, 10)))
    observer.on_event(Failed(0, 1, 1, Failure("Timeout", ""), Usage(seconds=600.0)))
    columns = observer.columns()
    assert columns[0] == Spent(2, 10, 10)
    assert columns[1] == Spent(2, 10, 10, OWN.of(10, 10))
