"""What a provider states about itself: whether it runs in this process, its limits and its prices."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import rowloop as rl
from rowloop.engine.compiler.compiling import compile_recipe
from rowloop.engine.models import Limits, Reply, providers
from rowloop.engine.models.provider import limits_of

if TYPE_CHECKING:
    from rowloop.engine.core.graph import Lane
    from rowloop.engine.models import Ask, ChatModel, ChatParameters, Message
    from rowloop.runtime import Runtime


class Busy:
    """A provider from outside, whose models count how many calls they have at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def check(self, model: rl.Model) -> None:
        """Refuse nothing."""

    async def connect(self, _model: rl.Model, _runtime: Runtime) -> ChatModel:
        """Connect to nothing."""
        return self

    def chat(self, parameters: ChatParameters) -> Ask:  # noqa: ARG002 - it always answers the same
        """Answer after a few turns of the loop."""

        async def ask(_messages: list[Message]) -> Reply:
            self.now += 1
            self.most = max(self.most, self.now)
            for _ in range(5):
                await asyncio.sleep(0)
            self.now -= 1
            return Reply("yes", "stop", prompt_tokens=1000, completion_tokens=500)

        return ask


class InProcess(Busy):
    """One that runs in this process, and knows a price."""

    limits = Limits(most=3, in_process=True)

    def price(self, model: rl.Model) -> rl.Price | None:
        """Know the price of one of its models."""
        return rl.Price(2.0, 4.0) if model.name == "known" else None


class Remote(Busy):
    """One that is remote, and takes fewer requests at once than most."""

    limits = Limits(most=8, first=2)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Register providers as another package would."""
    assert rl.Model  # whoever is first to use a public name registers our own providers
    ours: dict[str, Any] = {"here": InProcess(), "there": Remote(), "plain": Busy()}
    monkeypatch.setattr(providers, "_known", {**vars(providers)["_known"], **ours})
    return ours


def lane(spec: str, **settings: Any) -> Lane:
    """Give the lane of a model."""
    columns = [rl.Text("said", model="m", prompt="Well?")]
    models = {"m": rl.Model(spec, **settings)}
    graph = compile_recipe(models, columns, [], rl.Recipe(columns=columns, models=models).to_dict()).graph
    found = graph.columns[0].lane
    assert found is not None
    return graph.lanes[found]


def recipe(spec: str, **settings: Any) -> rl.Recipe:
    """Ask a model without further columns."""
    models = {"m": rl.Model(spec, **settings)}
    return rl.Recipe(models=models, columns=[rl.Text("said", model="m", prompt="Well?")], seed=1)


def test_a_provider_from_outside_runs_in_this_process_with_its_own_limit(outside):
    """A run has three of its calls in flight, never more, and starts with all three."""
    result = recipe("here:any").preview(40, progress=False)
    assert (result.status, outside["here"].most) == ("complete", 3)
    assert (lane("here:any").limit, lane("here:any").start) == (3, None)


def test_a_models_max_parallel_overrides_its_providers_limit(outside):
    """In both directions."""
    recipe("here:any", max_parallel=2).preview(20, progress=False)
    assert outside["here"].most == 2
    recipe("here:any", max_parallel=5).preview(20, progress=False)
    assert outside["here"].most == 5
    assert (lane("there:any", max_parallel=5).limit, lane("there:any", max_parallel=5).start) == (5, 5)


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("spec", "limit", "start"),
    [
        ("there:any", 8, 2),
        ("plain:any", 512, 16),
        ("openai:any", 512, 16),
        ("anthropic:any", 512, 16),
        ("local:gemma-3-270m", 32, None),
    ],
)
def test_limits_are_those_that_a_provider_states(spec: str, limit: int, start: int | None):
    """One that states none is remote."""
    found = lane(spec)
    assert (found.limit, found.start) == (limit, start)


def test_a_provider_that_is_not_installed_counts_as_remote():
    """Its models have the usual limits, wherever they are described."""
    assert limits_of(rl.Model("elsewhere:any")) == Limits(512, 16)


def test_functions_run_in_this_process():
    """Thirty-two calls at once, unless the user sets another limit."""
    assert limits_of(rl.Model(lambda prompt: prompt)) == Limits(32, in_process=True)


def test_a_remote_lane_never_starts_above_its_limit(monkeypatch):
    """A provider may state a limit below the number that remote models start with."""
    provider = Busy()
    monkeypatch.setattr(provider, "limits", Limits(most=4), raising=False)
    monkeypatch.setattr(providers, "_known", {**vars(providers)["_known"], "small": provider})
    found = lane("small:any")
    assert (found.limit, found.start) == (4, 4)


@pytest.mark.usefixtures("outside")
def test_a_provider_that_knows_a_price_has_its_runs_priced():
    """A model that it has no price for costs None; a model's own price goes first."""
    known = recipe("here:known").preview(10, progress=False)
    assert known.usage.cost == pytest.approx(10 * (1000 * 2.0 + 500 * 4.0) / 1e6)
    assert recipe("here:unknown").preview(10, progress=False).usage.cost is None
    own = recipe("here:known", price=rl.Price(1.0, 1.0)).preview(10, progress=False)
    assert own.usage.cost == pytest.approx(10 * 1500 / 1e6)
    limited = recipe("here:known").preview(10, progress=False, max_cost=1.0)
    assert limited.status == "complete"
    with pytest.raises(rl.RecipeError, match="the price of model 'm' is not known"):
        recipe("here:unknown").preview(10, progress=False, max_cost=1.0)


def test_limits_under_which_nothing_could_be_sent_are_refused():
    """When the provider is loaded."""
    with pytest.raises(ValueError, match=r"Limits\.most must be at least 1, not 0"):
        Limits(most=0)
    with pytest.raises(ValueError, match=r"Limits\.first must be at least 1, not -1"):
        Limits(first=-1)


@pytest.mark.parametrize("columns", [[], [rl.Text("said", model="m", prompt="Well?")]])
@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("opnai:gpt-5-mini", r"^models\.m: unknown model provider 'opnai'; did you mean 'openai'\?$"),
        ("Anthropic:claude", r"^models\.m: unknown model provider 'Anthropic'; did you mean 'anthropic'\?$"),
        (
            "vertex:any",
            (
                r"^models\.m: unknown model provider 'vertex'; choose from: anthropic, azure, deepseek, gemini, groq, "
                r"llamacpp, lmstudio, local, mistral, ollama, openai, openrouter, python, together, vllm$"
            ),
        ),
        ("gpt-5-mini", r"^models\.m\.spec: 'gpt-5-mini' names no provider; write PROVIDER:NAME, such as openai:gpt-5"),
    ],
)
def test_a_provider_that_does_not_exist_is_refused_when_the_recipe_is_made(columns: Any, spec: str, problem: str):
    """In Python, in a file and for a replaced model, with the nearest name."""
    with pytest.raises(rl.RecipeError, match=problem):
        rl.Recipe(models={"m": spec}, columns=columns)
    with pytest.raises(rl.RecipeError, match=problem):
        rl.Recipe.from_dict({"models": {"m": {"spec": spec}}, "columns": [{"type": "uniform", "name": "u"}]})
    with pytest.raises(rl.RecipeError, match=problem):
        recipe("openai:any").replace_model("m", spec=spec)


def shout(prompt: str) -> str:
    """Answer in capitals."""
    return prompt.upper()


FOR_ENDPOINTS: dict[str, Any] = {
    "base_url": "http://localhost:1/v1",
    "api_key": "sk-1",
    "api_key_env": "SOME_KEY",
    "headers": {"X-Team": "a"},
    "headers_env": {"X-Team": "TEAM"},
    "client": object,
}


@pytest.mark.parametrize("field", FOR_ENDPOINTS)
def test_fields_that_a_model_does_not_use_are_refused_when_the_recipe_is_made(field: str):
    """Else a header that a gateway needs would be left out without a word."""
    given = {field: FOR_ENDPOINTS[field]}
    with pytest.raises(rl.RecipeError, match=rf"^models\.m\.{field}: models of local: do not use this field; leave it"):
        recipe("local:gemma-3-270m", **given)
    with pytest.raises(rl.RecipeError, match=rf"^models\.m\.{field}: models that are functions do not use this field"):
        rl.Recipe(models={"m": rl.Model(shout, **given)})
    assert rl.Recipe(models={"m": rl.Model("openai:m", **given)}).models["m"].spec == "openai:m"


def test_a_model_that_is_replaced_by_one_in_this_process_loses_its_endpoint():
    """Its address and headers were the other's; those that are given with it are refused."""
    ours = recipe("openai:any", **{name: value for name, value in FOR_ENDPOINTS.items() if name != "client"})
    for spec in ("local:gemma-3-270m", shout):
        replaced = ours.replace_model("m", spec=spec).models["m"]
        assert [getattr(replaced, name) for name in FOR_ENDPOINTS] == [None, None, None, {}, {}, None]
    kept = ours.replace_model("m", spec="anthropic:any").models["m"]
    assert (kept.base_url, kept.headers_env) == ("http://localhost:1/v1", {"X-Team": "TEAM"})
    with pytest.raises(rl.RecipeError, match=r"^models\.m\.base_url: models of local: do not use this field"):
        ours.replace_model("m", spec="local:gemma-3-270m", base_url="http://localhost:2/v1")


@pytest.mark.parametrize("spec", ["openai:m", "anthropic:m", "local:gemma-3-270m"])
@pytest.mark.outside
def test_the_limits_of_our_providers_are_known_without_an_http_client(spec: str):
    """Writing a recipe down asks its provider for them, and loads neither aiohttp nor the openai package."""
    program = (
        "import json, sys, rowloop as rl\n"
        f"rl.Recipe(models={{'w': {spec!r}}}, columns=[rl.Text('a', model='w', prompt='b')])\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=50)
    loaded = json.loads(done.stdout)
    assert [name for name in ("aiohttp", "openai", "httpx2", "xllamacpp", "pandas", "pyarrow") if name in loaded] == []
    assert "rowloop.adapters.http.endpoint" in loaded
