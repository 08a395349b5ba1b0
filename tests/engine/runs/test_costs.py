"""Costs, end to end: what a run reports against the server's own bill, and budgets that end where the money does."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from genai_prices import data_snapshot
from genai_prices.types import ClauseEquals, ModelInfo, ModelPrice, PriceVariant, Provider, Tier, TieredPrices

import rowloop as rl
from rowloop.engine.datasets.reading import read_result

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fake_openai import FakeOpenAI

QUIET: Any = {"progress": False}
TARIFF = "2.5/10/0.25/3.125"
PRICE = rl.Price(2.5, 10, cached=0.25, cache_write=3.125)
SHARES = [0.0, 0.3, 0.9, 0.99]
RETRY = rl.RetryPolicy(wait=lambda _: 0.0)


def recipe(url: str, prompt: str = "Write about the number {{ n }}, at length", **model: Any) -> rl.Recipe:
    """Make a recipe of one model column."""
    fields = {"price": PRICE, "timeout": 30.0, **model}
    return rl.Recipe(
        models={"m": rl.Model(fields.pop("spec", "openai:any"), base_url=url, **fields)},
        columns=[rl.Uniform("n"), rl.Text("t", model="m", prompt=prompt)],
        seed=1,
    )


@pytest.mark.parametrize("form", ["openai", "deepseek", "moonshot", "apart"])
@pytest.mark.parametrize("share", SHARES)
def test_the_reported_cost_is_the_billed_one(server: FakeOpenAI, share: float, form: str):
    """Whatever share of prompts is cached, in whichever form the endpoint writes it, reasoning included."""
    server.configure(price=TARIFF, cached=share, usage=form, fault_reasoning=0.5, fault_500=0.1)
    result = recipe(server.url).preview(60, retry=RETRY, **QUIET)
    counted = server.counters()
    assert result.usage.cost == pytest.approx(counted.billed)
    assert result.usage.prompt_tokens == counted.prompt_tokens
    assert result.usage.completion_tokens == counted.completion_tokens
    assert result.usage.cached_tokens == pytest.approx(share * counted.prompt_tokens, abs=60)
    line = f"{result.usage.cached_tokens / counted.prompt_tokens:.0%} of the tokens of prompts were read from"
    assert (line in str(result.report)) is (share > 0)


@pytest.mark.parametrize(("cached", "written"), [(0.0, 0.0), (0.9, 0.0), (0.5, 0.4), (0.0, 0.99)])
@pytest.mark.parametrize("spec", ["openai:any", "anthropic:any"])
def test_what_is_written_to_a_cache_is_billed_too(server: FakeOpenAI, spec: str, cached: float, written: float):
    """Anthropic counts both apart from the other tokens of a prompt, OpenAI among them."""
    server.configure(price=TARIFF, cached=cached, cache_write=written)
    result = recipe(server.url, spec=spec).preview(20, **QUIET)
    assert result.usage.cost == pytest.approx(server.counters().billed)
    assert result.usage.prompt_tokens == server.counters().prompt_tokens


@pytest.fixture
def listed(server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put the server's address on the list of the package genai-prices, as its maker does with vendors' own."""

    def at(factor: str) -> ModelPrice:
        names = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
        amounts = [Decimal(amount) * Decimal(factor) for amount in TARIFF.split("/")]
        tiered = [TieredPrices(base=amount, tiers=[Tier(start=40, price=2 * amount)]) for amount in amounts]
        return ModelPrice(**dict(zip(names, tiered, strict=True)))

    variants = [
        PriceVariant(when={"service_tier": "flex"}, prices=at("0.5")),
        PriceVariant(when={"service_tier": "priority"}, prices=at("2")),
    ]
    info = ModelInfo(id="any", match=ClauseEquals("any"), prices=at("1"), price_variants=variants)

    def put(address: str) -> None:
        vendor = Provider(id="vendor", name="A vendor", api_pattern=address, models=[info])
        monkeypatch.setattr(data_snapshot, "_custom_snapshot", data_snapshot.DataSnapshot([vendor], False))  # noqa: FBT003

    put(server.url)
    return put


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("tier", [None, "default", "flex", "priority"])
def test_list_prices_of_long_prompts_and_tiers_are_the_billed_ones(server: FakeOpenAI, tier: str | None):
    """Each request is priced by itself: half of the prompts are long, and the answers name the tier that counts."""
    server.configure(price=TARIFF, cached=0.5, cache_write=0.2, long_prompt=40, service_tier=tier)
    prompt = "Write about {{ n }}{% if n > 0.5 %}, and then about all the rest: {{ '. ' * 99 }}{% endif %}"
    asked = {} if tier is None else {"extra": {"service_tier": "flex"}}
    result = recipe(server.url, prompt, price=None, **asked).preview(40, **QUIET)
    assert result.usage.cost == pytest.approx(server.counters().billed)


@pytest.mark.usefixtures("listed")
def test_a_tier_without_a_price_has_an_unknown_cost(server: FakeOpenAI):
    """The answer names one that the list does not have."""
    server.configure(price=TARIFF, service_tier="scale")
    result = recipe(server.url, price=None).preview(3, **QUIET)
    assert (result.usage.cost, result.usage.known_cost) == (None, None)


def test_the_bill_that_an_endpoint_states_is_the_cost(server: FakeOpenAI):
    """Without a price, as at OpenRouter; a price of the user's own overrides it."""
    server.configure(price=TARIFF, cached=0.9, usage="bill")
    result = recipe(server.url, price=None).preview(20, **QUIET)
    assert result.usage.cost == pytest.approx(server.counters().billed)
    assert result.report.cost == result.usage.cost
    own = recipe(server.url, price=rl.Price(1, 1)).preview(20, **QUIET)
    assert own.usage.cost == pytest.approx((own.usage.prompt_tokens + own.usage.completion_tokens) / 1e6)


def test_embeddings_share_the_bill_of_their_request(server: FakeOpenAI):
    """Up to eight texts share a request, whatever its usage is like."""
    for form in ("openai", "bill"):
        server.reset()
        server.configure(price=TARIFF, usage=form)
        price = PRICE if form == "openai" else None
        made = rl.Recipe(
            models={"m": rl.Model("openai:any", base_url=server.url, price=price)},
            columns=[rl.Uniform("n"), rl.Embedding("e", model="m", text="The number {{ n }}", batch_size=8)],
        )
        result = made.preview(20, **QUIET)
        assert result.usage.cost == pytest.approx(server.counters().billed)


def test_every_request_of_a_structured_cell_is_paid_for(server: FakeOpenAI):
    """The answers that do not obey the schema, and those to the questions that show the model its mistake."""
    server.configure(price=TARIFF, cached=0.5, fault_prose=0.5, heals=True, structured=False)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    made = rl.Recipe(
        models={"m": rl.Model("openai:any", base_url=server.url, price=PRICE)},
        columns=[
            rl.Uniform("n"),
            rl.Structured("s", model="m", prompt="A number near {{ n }}", schema=schema, reasks=1),
        ],
    )
    server.configure(reply='schema:{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}')
    result = made.preview(30, **QUIET)
    assert result.structured_by_column["s"].reasked > 5
    assert result.usage.cost == pytest.approx(server.counters().billed)


FAULTS = {"cut": {}, "disconnect": {}, "garbage": {}, "hang": {"timeout": 0.3}, "trickle": {"timeout": 0.3}}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_attempt_whose_usage_is_unknown_makes_the_cost_unknown(server: FakeOpenAI, tmp_path: Path, fault: str):
    """It may be on the bill. The known part is that of all answers, also in the files and in the report's text."""
    server.configure(price=TARIFF, fault_attempts=1, **{f"fault_{fault}": 0.3})
    result = recipe(server.url, **FAULTS[fault]).build(tmp_path / "out", 20, retry=RETRY, **QUIET)
    answered = PRICE.of(result.usage.prompt_tokens, result.usage.completion_tokens)
    assert result.status == "complete"
    assert result.usage.requests > 20
    assert (result.usage.cost, result.metadata["cost"], result.report.cost) == (None, None, None)
    assert result.usage.known_cost == result.report.known_cost == pytest.approx(answered)
    assert result.report.headline.endswith(f"${answered:.4f} + unpriced")
    assert read_result(tmp_path / "out").usage == result.usage


@pytest.mark.parametrize("fault", ["429", "500", "503", "529"])
def test_a_refused_attempt_costs_nothing(server: FakeOpenAI, fault: str):
    """Nobody bills an answer with an error's status, so the cost is known."""
    server.configure(price=TARIFF, fault_attempts=1, retry_after=0.0, **{f"fault_{fault}": 0.3})
    result = recipe(server.url).preview(20, retry=RETRY, **QUIET)
    assert result.usage.requests > 20
    assert result.usage.cost == pytest.approx(server.counters().billed)


def test_an_endpoint_without_usage_has_an_unknown_cost_and_a_budget_that_warns(
    server: FakeOpenAI, caplog: pytest.LogCaptureFixture
):
    """Once, as nothing can be counted."""
    server.configure(price=TARIFF, usage="none")
    result = recipe(server.url).preview(5, max_cost=1.0, **QUIET)
    assert (result.usage.cost, result.usage.known_cost) == (None, None)
    warnings = [record.getMessage() for record in caplog.records if "unknown cost" in record.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].startswith("a request to model 'm' has an unknown cost; for max_cost")


@pytest.mark.parametrize("share", SHARES)
def test_max_cost_ends_the_run_within_one_request_of_the_truth(server: FakeOpenAI, share: float):
    """One request at a time: the last one is the one that spends the budget."""
    server.configure(price="2500/10000/250", cached=share)
    price = rl.Price(2500, 10_000, cached=250)
    result = recipe(server.url, price=price, max_parallel=1).preview(100, max_cost=5.0, **QUIET)
    counted = server.counters()
    assert result.metadata["budget_spent"] is True
    assert result.usage.cost == pytest.approx(counted.billed)
    assert 5.0 <= counted.billed < 5.0 + 1.5 * counted.billed / counted.answered


def test_max_cost_is_exceeded_by_what_is_in_flight_at_most(server: FakeOpenAI):
    """No request starts once the budget is spent; those in flight are awaited, and are on the bill."""
    server.configure(price="2500/10000/250", cached=0.9, latency=0.01)
    price = rl.Price(2500, 10_000, cached=250)
    result = recipe(server.url, price=price, max_parallel=8).preview(200, max_cost=5.0, **QUIET)
    counted = server.counters()
    assert result.usage.cost == pytest.approx(counted.billed)
    assert 5.0 <= counted.billed < 5.0 + 8 * 1.5 * counted.billed / counted.answered


FIRST = """
import sys
import rowloop as rl
url, path = sys.argv[1:]
price = rl.Price(2.5, 10, cached=0.25, cache_write=3.125)
recipe = rl.Recipe(
    models={"m": rl.Model("openai:any", base_url=url, price=price, timeout=30.0)},
    columns=[rl.Uniform("n"), rl.Text("t", model="m", prompt="Write about the number {{ n }}, at length")],
    seed=1,
)
print(recipe.build(path, 30, progress=False).usage.cost)
"""


@pytest.mark.outside
def test_a_resumed_run_adds_to_what_earlier_processes_have_spent(server: FakeOpenAI, tmp_path: Path):
    """At the shares and prices of their time, and every later build of the same rows reports the same cost."""
    path = tmp_path / "out"
    server.configure(price=TARIFF, cached=0.9)
    command = [sys.executable, "-c", FIRST, server.url, str(path)]
    first = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert first == pytest.approx(server.counters().billed)
    server.configure(price=TARIFF, cached=0.0)
    result = recipe(server.url).build(path, 60, resume="always", **QUIET)
    assert result.usage.cost == pytest.approx(server.counters().billed)
    assert result.report.cost == pytest.approx(server.counters().billed - first)
    again = recipe(server.url, price=rl.Price(1, 1)).build(path, 60, resume="always", **QUIET)
    assert again.usage == result.usage == read_result(path).usage
    assert again.metadata["cost"] == result.metadata["cost"]


def test_requests_in_flight_when_a_run_ends_early_have_an_unknown_cost(server: FakeOpenAI, tmp_path: Path):
    """The first answers are cut off, so the run ends and cancels the others, some of which the server bills."""
    server.configure(price=TARIFF, fault_length=1.0, jitter=0.5)
    made = recipe(server.url, max_parallel=20)
    with pytest.raises(rl.EarlyShutdownError):
        made.build(tmp_path / "out", 40, **QUIET)
    server.configure(fault_length=0.0, jitter=0.0)
    result = made.build(tmp_path / "out", 40, resume="always", retry_failed=True, **QUIET)
    assert (result.status, result.usage.cost) == ("complete", None)
    known = PRICE.of(result.usage.prompt_tokens, result.usage.completion_tokens)
    assert result.usage.known_cost == pytest.approx(known)
    assert known < server.counters().billed + 1e-9
    assert result.report.cost == result.report.known_cost  # all of this run's own is known
