"""Prices: what has one and what has none, what is refused as one, and how costs add up."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

import rowloop as rl
from rowloop.engine.core.events import Billing, Cancelled, Done, Event, Failed, Failure, Usage
from rowloop.engine.models.prices import cost_of, dollars, price_of
from rowloop.engine.models.provider import Reply, providers
from rowloop.engine.models.usage import Asked, refused, usage_of
from rowloop.engine.telemetry.spending import Spending, Spent, UsageObserver, added_up, by_model, known_cost

OWN = rl.Price(0.25, 2.0)


def near(cost: float) -> Any:
    """Return what equals the cost, whatever its last digits are."""
    return pytest.approx(cost)


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
        whole = None if price is None else price.of(spent.prompt_tokens, spent.completion_tokens)
        assert spent.cost == (None if whole is None else pytest.approx(whole))  # each attempt is priced by itself
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
    assert added_up([priced, asked]) == Spent(2, 20, 20, None, 0.5)
    assert added_up([]) == added_up([idle]) == Spent()
    assert added_up([Spent(cost=0.0), idle]).cost == 0


def test_answers_without_token_counts_have_no_known_cost():
    """An endpoint may leave usage out, and a request without an answer may be billed; one that is refused is not."""
    observer = UsageObserver(dict.fromkeys(range(5), OWN))
    for column in range(5):
        observer.on_event(Done(0, column, 0, Usage(10, 10)))
    observer.on_event(Done(0, 0, 1, Usage()))
    observer.on_event(Failed(0, 1, 1, Failure("Timeout", ""), Usage(seconds=600.0)))
    observer.on_event(Failed(0, 2, 1, Failure("Refused", "")))
    observer.on_event(Done(0, 3, 1))
    observer.on_event(Cancelled(0, 4, 1))
    columns, known = observer.columns(), OWN.of(10, 10)
    for unknown in (0, 1, 3, 4):
        assert columns[unknown] == Spent(2, 10, 10, None, known)
    assert columns[2] == Spent(2, 10, 10, known)
    assert added_up(columns.values()) == Spent(10, 50, 50, None, near(5 * known))
    assert known_cost(columns.values()) == pytest.approx(5 * known)


def test_cached_written_and_reasoning_tokens_have_a_price_of_their_own_or_that_of_others():
    """The price of a token is the most specific one; those of other tokens of the prompt and of the completion else."""
    usage = Usage(1000, 100, 1.0, Billing(500, 300, 200, 60))
    assert rl.Price(1, 10).cost_of(usage) == pytest.approx(0.002)
    full = rl.Price(1, 10, cached=0.1, cache_write=1.25, cache_write_1h=2, reasoning=5)
    assert full.cost_of(usage) == pytest.approx((200 + 500 * 0.1 + 100 * 1.25 + 200 * 2 + 40 * 10 + 60 * 5) / 1e6)
    assert rl.Price(1, 10, cache_write=2).cost_of(usage) == pytest.approx((700 + 300 * 2 + 1000) / 1e6)
    assert rl.Price(1, 10, cache_write_1h=2).cost_of(usage) == pytest.approx((800 + 200 * 2 + 1000) / 1e6)
    assert rl.Price(1, 0, cached=0).cost_of(Usage(1000, 0, 0.0, Billing(1000))) == 0


@given(st.floats(0, 1000), st.floats(0, 1000), st.lists(st.integers(0, 10**6), min_size=5, max_size=5))
def test_a_cost_is_never_negative(prompt: float, cached: float, tokens: list[int]):
    """Whatever a price is, and whatever a plug-in reports: metadata.json holds no negative costs."""
    price = rl.Price(prompt, prompt, cached=cached, cache_write=cached, reasoning=cached)
    read, written, thought, prompt_tokens, completion_tokens = tokens
    cost = price.cost_of(Usage(prompt_tokens, completion_tokens, 0.0, Billing(read, written, 0, thought)))
    assert cost is None or cost >= 0


class Steep:
    """A price that is ten times as high from 1,000 tokens on."""

    def cost_of(self, usage: Usage) -> float | None:
        """Price one request."""
        return None if not usage.prompt_tokens else usage.prompt_tokens * (1 if usage.prompt_tokens < 1000 else 10)


def test_each_request_of_an_attempt_is_priced_by_itself():
    """A structured cell may ask several times: none of its prompts is as long as all of them together."""
    each = (Usage(600, 1), Usage(700, 1), Usage(2000, 1))
    assert cost_of(Steep(), Asked(3300, 3, 0.0, requests=3, each=each)) == 600 + 700 + 20_000
    assert cost_of(Steep(), Asked(600, 1, 0.0, requests=2)) == 600  # the first was refused
    assert cost_of(Steep(), Asked(1300, 1, 0.0, requests=3, each=(*each[:2], Usage()))) is None
    assert cost_of(Steep(), Asked(requests=0)) == 0  # from the response cache


def test_a_bill_is_the_cost_where_there_is_no_price():
    """A price of the user's own overrides it, unless the number of tokens is unknown."""
    billed = Usage(1000, 0, 0.0, Billing(billed=0.25))
    assert cost_of(None, billed) == 0.25
    assert cost_of(None, Usage(1000)) is None
    assert cost_of(rl.Price(1, 1), billed) == 0.001
    assert cost_of(rl.Price(1, 1), Usage(0, 0, 0.0, Billing(billed=0.25))) == 0.25
    observer = UsageObserver({0: None, 1: None, 2: None})
    for column in (0, 0, 1):
        observer.on_event(Done(0, column, 0, billed))
    observer.on_event(Done(0, 1, 0, Usage(500)))
    columns = observer.columns()
    assert columns == {0: Spent(2, 2000, 0, 0.5), 1: Spent(2, 1500, 0, None, 0.25), 2: Spent()}


def test_answers_from_the_response_cache_cost_nothing():
    """Nor are they requests; they do not make the cost of the others unknown."""
    observer = UsageObserver({0: OWN, 1: None})
    for column in (0, 1):
        observer.on_event(Done(0, column, 0, usage_of(Reply("", requests=0), 0.1)))
    observer.on_event(Done(0, 0, 1, Usage(10, 10)))
    assert observer.columns() == {0: Spent(1, 10, 10, OWN.of(10, 10)), 1: Spent()}


def test_requests_that_were_all_refused_cost_nothing():
    """They are counted; those of an answered attempt, of which all but one were refused, cost what that one did."""
    assert cost_of(OWN, refused(3)) == 0
    observer = UsageObserver({0: OWN, 1: None})
    for column in (0, 1):
        observer.on_event(Failed(0, column, 0, Failure("Broken", ""), refused(3)))
    observer.on_event(Done(0, 0, 1, usage_of(Reply("", None, 10, 10, requests=2), 0.1)))
    assert observer.columns() == {0: Spent(5, 10, 10, OWN.of(10, 10)), 1: Spent(3)}


def test_a_later_run_adds_to_what_earlier_ones_have_spent():
    """At the prices of their time. What had no price is charged as it is now; a cost once unknown stays unknown."""
    first = UsageObserver({0: rl.Price(1, 1), 1: None, 2: OWN, 3: None})
    for column in range(4):
        first.on_event(Done(0, column, 0, Usage(1000, 1000, 0.0, Billing(500, 100))))
    first.on_event(Done(0, 2, 1, Usage()))
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(first.spending(0, 1.0)), type=Spending)
    half = rl.Price(2, 2, cached=1, cache_write=4)
    second = UsageObserver({0: rl.Price(2, 2), 1: half, 2: OWN, 3: None}, kept)
    for column in range(4):
        second.on_event(Done(1, column, 0, Usage(1000, 1000)))
    columns = second.columns_of_all_runs()
    assert columns[0] == Spent(2, 2000, 2000, near(0.006), near(0.006), 500)
    assert columns[1].cost == pytest.approx((400 * 2 + 500 + 400 + 2000) / 1e6 + 0.004)
    assert (columns[2].cost, columns[2].known_cost) == (None, pytest.approx(2 * OWN.of(1000, 1000)))
    assert columns[3] == Spent(2, 2000, 2000, None, None, 500)
    assert second.columns()[0] == Spent(1, 1000, 1000, near(0.004), near(0.004))
    idle = UsageObserver({0: None, 1: None, 2: None, 3: None}, kept).columns_of_all_runs()
    assert idle[0].cost == pytest.approx(0.002)  # nothing more has been asked


def test_what_rowloop_0_1_has_spent_is_read_and_charged():
    """Its journals have no costs, only tokens."""
    old = {"columns": {0: (2, 2000, 500), 1: (1, 10, 0)}, "untold": [1], "retries": 0, "seconds": 2.5}
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=Spending)
    columns = UsageObserver({0: OWN, 1: OWN}, kept).columns_of_all_runs()
    assert columns[0] == Spent(2, 2000, 500, near(OWN.of(2000, 500)), near(OWN.of(2000, 500)))
    assert (columns[1].cost, columns[1].known_cost) == (None, pytest.approx(OWN.of(10, 0)))
