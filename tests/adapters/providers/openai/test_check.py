"""The check of a model: what it refuses before anything is connected."""

import pytest
from pydantic import SecretStr

from rowloop.adapters.http.addresses import is_loopback
from rowloop.adapters.http.endpoint import Endpoint
from rowloop.adapters.providers.openai.endpoint import OPENAI, headers_for
from rowloop.adapters.providers.openai.provider import provider
from rowloop.engine.core.errors import RecipeError
from rowloop.engine.models.model import Model


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """Start without keys and addresses."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


def test_a_missing_key_names_its_variable():
    """The default variable, or the one that the model names."""
    with pytest.raises(RecipeError, match=r"OPENAI_API_KEY is not set; put the key for api\.openai\.com into that"):
        provider.check(Model("openai:gpt"))
    with pytest.raises(RecipeError, match="MY_KEY is not set"):
        provider.check(Model("openai:gpt", api_key_env="MY_KEY"))
    with pytest.raises(RecipeError, match=r"OPENAI_API_KEY is not set; put the key for vllm\.example into"):
        provider.check(Model("openai:gpt", base_url="https://vllm.example/v1"))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]", "my.localhost"])
def test_an_endpoint_on_this_machine_needs_no_key(host):
    """But one that is named must be there."""
    model = Model("openai:gpt", base_url=f"http://{host}:8000/v1")
    provider.check(model)
    assert Endpoint.of(model, OPENAI).key is None
    with pytest.raises(RecipeError, match="MY_KEY is not set"):
        provider.check(Model("openai:gpt", base_url=f"http://{host}:8000/v1", api_key_env="MY_KEY"))


def test_the_environment_gives_address_and_key(monkeypatch):
    """OPENAI_BASE_URL and OPENAI_API_KEY count unless the model overrides them."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://10.0.0.1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment\n")
    assert Endpoint.of(Model("openai:gpt"), OPENAI) == Endpoint("http://10.0.0.1/v1", "from-environment")
    model = Model("openai:gpt", base_url="https://other/v1", api_key=SecretStr("given"))
    assert Endpoint.of(model, OPENAI) == Endpoint("https://other/v1", "given")
    monkeypatch.setenv("MY_KEY", "named")
    assert Endpoint.of(Model("openai:gpt", api_key_env="MY_KEY"), OPENAI).key == "named"


def test_openai_is_the_default_address(monkeypatch):
    """As in the openai package; an empty variable is none."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert Endpoint.of(Model("openai:gpt"), OPENAI).url == "https://api.openai.com/v1"


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", "http://[::1", ""]
)
def test_an_address_that_is_none_is_refused(url):
    """With its place and an example of a valid one."""
    with pytest.raises(RecipeError, match=r"base_url: this is no http address; it looks like http://localhost:8000/v1"):
        provider.check(Model("openai:gpt", base_url=url))


def test_an_address_holds_no_password():
    """It would appear in every message."""
    with pytest.raises(RecipeError, match="api_key_env") as caught:
        provider.check(Model("openai:gpt", base_url="http://me:secret@localhost/v1"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused(key):
    """Without being shown."""
    with pytest.raises(RecipeError, match="this is no key") as caught:
        provider.check(Model("openai:gpt", api_key=SecretStr(key)))
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ({"stream": True}, r"extra.stream: answers are read whole; leave it out"),
        ({"messages": []}, r"extra.messages: the messages come from the column's prompt"),
        ({"n": 2}, r"extra.n: one answer is read; leave it out"),
        ({"seed": object()}, r"extra: this cannot be written as JSON: .*object"),
        ({"user": "\ud800"}, r"extra: this cannot be written as JSON: .*surrogates"),
    ],
)
def test_an_extra_that_cannot_work_is_refused(extra, problem):
    """What cannot be sent, and what would change how answers are read."""
    with pytest.raises(RecipeError, match=problem):
        provider.check(Model("openai:gpt", base_url="http://localhost/v1", extra=extra))


def test_organization_and_project_go_to_openai_alone(monkeypatch):
    """As the openai package sends them; other endpoints have no business with them."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    headers = headers_for(Endpoint("https://api.openai.com/v1", "k"))
    assert (headers["OpenAI-Organization"], headers["OpenAI-Project"]) == ("org-1", "proj-1")
    assert "OpenAI-Project" not in headers_for(Endpoint("https://elsewhere.example/v1", "k"))


def test_an_address_that_goes_too_far_is_refused():
    """People copy it from a curl command."""
    with pytest.raises(RecipeError, match="leave that out"):
        provider.check(Model("openai:gpt", base_url="http://localhost/v1/chat/completions"))


def test_a_name_is_needed():
    """`openai:` alone is not enough."""
    with pytest.raises(RecipeError, match="write openai:NAME"):
        provider.check(Model("openai:", base_url="http://localhost/v1"))


@pytest.mark.parametrize(
    "field", [{"base_url": "http://localhost/v1"}, {"api_key": SecretStr("k")}, {"api_key_env": "MY_KEY"}]
)
def test_a_client_brings_its_own_address_and_key(field):
    """Two addresses are one too many."""
    with pytest.raises(RecipeError, match="the client brings its own; give one or the other"):
        provider.check(Model("openai:gpt", client=object, **field))
    provider.check(Model("openai:gpt", client=object))


def test_the_key_is_in_no_repr():
    """Resources are known by their endpoint, and named by its repr."""
    assert "very-secret" not in repr(Endpoint("http://host/v1", "very-secret"))


def test_a_query_stays_behind_the_path_and_out_of_messages():
    """Some gateways want ?api-version=..., some a key there."""
    endpoint = Endpoint("https://host/base/?key=abc")
    assert endpoint.at("chat/completions") == "https://host/base/chat/completions?key=abc"
    assert endpoint.shown == "https://host/base/"


def test_loopback_is_distinguished_from_similar_names():
    """localhost.example is somebody else's."""
    assert is_loopback("::1")
    assert not is_loopback("localhost.example")
    assert not is_loopback("128.0.0.1")
    assert not is_loopback("0.0.0.0")  # noqa: S104 - nothing is bound
