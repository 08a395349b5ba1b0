"""Presets: a known endpoint's address and key variable are filled in, and everything else is the OpenAI provider's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

import rowloop as rl
from rowloop.adapters.http.endpoint import Endpoint
from rowloop.adapters.providers.openai.presets import PRESETS
from rowloop.engine.models.provider import providers

if TYPE_CHECKING:
    from fake_openai import FakeOpenAI

LOCAL = {"ollama", "vllm", "lmstudio", "llamacpp"}
HOSTED = sorted(PRESETS.keys() - LOCAL - {"azure"})


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without keys and addresses."""
    for api in PRESETS.values():
        monkeypatch.delenv(api.url_variable, raising=False)
        monkeypatch.delenv(api.key_variable, raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://not-this-one/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-this-one")


@pytest.mark.parametrize("name", HOSTED)
def test_a_hosted_endpoint_needs_its_own_key(name: str, monkeypatch: pytest.MonkeyPatch):
    """OpenAI's key and address are for OpenAI alone."""
    model, api = rl.Model(f"{name}:m"), PRESETS[name]
    with pytest.raises(rl.RecipeError, match=f"{api.key_variable} is not set"):
        providers.get(name).check(model)
    monkeypatch.setenv(api.key_variable, "sk-its-own")
    providers.get(name).check(model)
    assert Endpoint.of(model, api) == Endpoint(api.url, "sk-its-own")
    assert api.url.startswith("https://")


@pytest.mark.parametrize("name", sorted(LOCAL))
def test_a_local_endpoint_needs_no_key(name: str, monkeypatch: pytest.MonkeyPatch):
    """It may have one; an address without a path gets /v1."""
    model, api = rl.Model(f"{name}:m"), PRESETS[name]
    providers.get(name).check(model)
    assert Endpoint.of(model, api) == Endpoint(api.url)
    monkeypatch.setenv(api.url_variable, "http://127.0.0.1:99/")
    monkeypatch.setenv(api.key_variable, "its-own")
    assert Endpoint.of(model, api) == Endpoint("http://127.0.0.1:99/v1", "its-own")
    assert (
        Endpoint.of(rl.Model(f"{name}:m", base_url="http://127.0.0.1:98/other"), api).url == "http://127.0.0.1:98/other"
    )


def test_azure_has_an_address_of_each_customer(monkeypatch: pytest.MonkeyPatch):
    """The resource's address, to which the path of its API is added."""
    model, api = rl.Model("azure:my-deployment"), PRESETS["azure"]
    with pytest.raises(rl.RecipeError, match="AZURE_OPENAI_ENDPOINT is not set; put the endpoint's address into it"):
        providers.get("azure").check(model)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com/")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "its-own")
    providers.get("azure").check(model)
    assert Endpoint.of(model, api) == Endpoint("https://mine.openai.azure.com/openai/v1", "its-own")
    given = rl.Model("azure:m", base_url="https://mine.openai.azure.com/openai/v1?api-version=preview")
    assert Endpoint.of(given, api).at("chat/completions").endswith("/openai/v1/chat/completions?api-version=preview")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_asks_its_endpoint(name: str, server: FakeOpenAI):
    """From end to end, in that vendor's dialect; no list price of OpenAI's is taken for it."""
    server.configure(dialect=name, record=4)
    model = rl.Model(f"{name}:gpt-5-mini", base_url=server.url, api_key=SecretStr("sk-its-own"))
    column = rl.Text("answer", model="m", prompt="Hello")
    result = rl.Recipe(models={"m": model}, columns=[column]).preview(2, progress=False)
    assert result.status == "complete"
    assert result.usage.cost is None
    (sent, *_) = server.requests()
    assert sent.headers["authorization"] == "Bearer sk-its-own"
    assert sent.json()["model"] == "gpt-5-mini"


def test_a_missing_name_and_a_client_are_refused():
    """With what to write."""
    with pytest.raises(rl.RecipeError, match="write groq:NAME"):
        providers.get("groq").check(rl.Model("groq:"))
    with pytest.raises(rl.RecipeError, match="only openai: models take one"):
        providers.get("groq").check(rl.Model("groq:m", client=lambda: None))


def test_the_documentation_lists_every_preset():
    """With its address and its variables."""
    text = (Path(__file__).parents[4] / "docs/endpoints.md").read_text("utf-8")
    for name, api in PRESETS.items():
        row = next(line for line in text.splitlines() if line.startswith("|") and f"`{name}:" in line)
        assert f"`{api.key_variable}`" in row
        assert f"`{api.url_variable}`" in row
        assert api.url in row


def test_python_in_the_documentation_makes_a_recipe():
    """With the models that its comments describe."""
    text = (Path(__file__).parents[4] / "docs/endpoints.md").read_text("utf-8")
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)  # noqa: S102 - it is our own
    models = names["recipe"].models
    assert [model.provider for model in models.values()] == ["groq", "ollama", "openai"]
