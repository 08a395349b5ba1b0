"""Proxies: which one an address has, what is refused before anything is sent, and SOCKS against a real proxy."""

from __future__ import annotations

import base64
import importlib.util
import socket
import sys
from typing import TYPE_CHECKING, Any

import openai
import pytest
from pydantic import SecretStr

import rowloop as rl
from canned import canned
from fake_network import SocksProxy
from fake_validator import FakeValidator
from rowloop.adapters.http.proxies import Proxy, proxy_of
from rowloop.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fake_openai import FakeOpenAI

Setter = Any
URL = "http://model.example/v1"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what sets variables in an environment that names no proxy."""
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)

    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize(
    ("variables", "shown", "source"),
    [
        ({"HTTP_PROXY": "http://proxy.example:3128"}, "http://proxy.example:3128", "HTTP_PROXY"),
        ({"http_proxy": "proxy.example:3128"}, "http://proxy.example:3128", "http_proxy"),
        ({"HTTP_PROXY": " https://proxy.example/ "}, "https://proxy.example:443", "HTTP_PROXY"),
        ({"ALL_PROXY": "http://[::1]:8080"}, "http://[::1]:8080", "ALL_PROXY"),
        ({"ALL_PROXY": "socks5h://10.0.0.1"}, "socks5://10.0.0.1:1080", "ALL_PROXY"),
        ({"ALL_PROXY": "socks5://a:1", "HTTP_PROXY": "http://b:2"}, "http://b:2", "HTTP_PROXY"),
        ({"all_proxy": "SOCKS4A://a:1"}, "socks4://a:1", "all_proxy"),
    ],
)
def test_the_environment_names_the_proxy(environment: Setter, variables: dict[str, str], shown: str, source: str):
    """In all the forms that curl, httpx and the openai package read, and by the variable that counts."""
    environment(**variables)
    proxy = proxy_of(URL)
    assert proxy is not None
    assert (proxy.shown, proxy.source) == (shown, source)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://localhost/v1", "http://model.example/v1"])
def test_hosts_of_this_machine_and_of_no_proxy_are_reached_directly(environment: Setter, url: str):
    """Whatever the other variables hold, and also where they hold nonsense."""
    environment(ALL_PROXY="nonsense://", NO_PROXY="example")
    assert proxy_of(url) is None


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ("10.0.0.0/8", {"10.1.2.3"}),
        ("10.1.2.3, fd00::/8", {"10.1.2.3", "fd00::1"}),
        ("model.example:8000", {"model.example"}),
        ("example", {"model.example"}),
        ("/etc/nonsense,10.0.0.0/99", set()),
        ("*", {"10.1.2.3", "fd00::1", "model.example"}),
    ],
)
def test_no_proxy_names_hosts_ports_and_networks(environment: Setter, no_proxy: str, direct: set[str]):
    """As curl reads it."""
    environment(HTTP_PROXY="http://proxy:1", NO_PROXY=no_proxy)
    hosts = {"10.1.2.3": "10.1.2.3:8000", "fd00::1": "[fd00::1]:8000", "model.example": "model.example:8000"}
    assert {host for host, shown in hosts.items() if proxy_of(f"http://{shown}/v1") is None} == direct


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("ftp://proxy:21", r"begins with ftp://; it can be one of http, https, socks, socks5"),
        ("http://", r"no address of a proxy; it looks like http://proxy.example:3128"),
        ("http://proxy:port", r"no address of a proxy"),
        ("http://[::1", r"no address of a proxy"),
    ],
)
@pytest.mark.parametrize("spec", ["openai:m", "anthropic:m"])
def test_a_proxy_that_cannot_be_used_is_refused_by_name(environment: Setter, spec: str, value: str, problem: str):
    """Before anything is sent, for every provider that sends."""
    environment(HTTP_PROXY=value)
    recipe = rl.Recipe(
        models={"m": rl.Model(spec, base_url=URL, api_key=SecretStr("sk-1"))},
        columns=[rl.Text("a", model="m", prompt="hi")],
    )
    with pytest.raises(rl.RecipeError, match=rf"^models\.m: HTTP_PROXY: .*{problem}"):
        recipe.preview(1)


def test_a_proxy_of_socks_without_its_package_is_refused_by_name(environment: Setter, monkeypatch: pytest.MonkeyPatch):
    """With what to install, and how to do without."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "aiohttp_socks" else real(name))
    environment(ALL_PROXY="socks5://me:hunter2@proxy.example:1080")
    with pytest.raises(rl.RecipeError) as caught:
        proxy_of(URL)
    assert str(caught.value) == (
        "ALL_PROXY: names a SOCKS proxy (socks5://proxy.example:1080), which needs a package that is not installed;"
        " pip install 'rowloop[socks]', or set NO_PROXY=model.example to connect without the proxy"
    )


def test_the_repr_of_a_proxy_hides_its_account(environment: Setter):
    """It can appear among the names of open resources."""
    environment(ALL_PROXY="http://me:hunt%20er@proxy:1")
    proxy = proxy_of(URL)
    assert isinstance(proxy, Proxy)
    assert "hunt" not in repr(proxy)
    assert proxy.authorization == {"Proxy-Authorization": f"Basic {base64.b64encode(b'me:hunt er').decode()}"}


def test_no_client_is_loaded_to_read_a_proxy():
    """Models are checked before aiohttp is needed."""
    loaded = "aiohttp_socks" in sys.modules
    importlib.import_module("rowloop.adapters.http.proxies")
    assert ("aiohttp_socks" in sys.modules) == loaded


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """Give each test a loop of its own."""
    with Runtime() as runtime:
        yield runtime


def asked(url: str, runtime: Runtime) -> list[str]:
    """Return the answers of a small run."""
    recipe = rl.Recipe(
        models={"m": rl.Model("openai:m", base_url=url, api_key=SecretStr("sk-very-secret-1234"), max_parallel=1)},
        columns=[rl.Text("a", model="m", prompt="hi")],
    )
    answers: list[str] = recipe.preview(3, progress=False, runtime=runtime).dataset["a"].tolist()
    return answers


@pytest.mark.outside
@pytest.mark.parametrize(
    ("scheme", "account", "seen"),
    [
        ("socks5", "", {"version": 5, "host": "model.example", "port": 80}),
        ("socks5h", "me:pass%20word@", {"version": 5, "user": "me", "host": "model.example", "port": 80}),
        ("socks4a", "", {"version": 4, "user": "", "host": "model.example", "port": 80}),
    ],
)
def test_a_run_goes_through_a_proxy_of_socks(  # noqa: PLR0913, PLR0917 - one table
    environment: Setter, server: FakeOpenAI, runtime: Runtime, scheme: str, account: str, seen: dict[str, Any]
):
    """The proxy looks up the endpoint's name, and one connection serves several requests."""
    server.configure(reply="fixed:fine")
    user, _, password = account.rstrip("@").partition(":")
    with SocksProxy(server.url, user, password.replace("%20", " ")) as proxy:
        environment(ALL_PROXY=f"{scheme}://{account}127.0.0.1:{proxy.port}")
        assert asked(URL, runtime) == ["fine"] * 3
        connections = proxy.seen()
    assert seen in connections
    assert all(connection == seen for connection in connections)


@pytest.mark.outside
def test_validators_go_through_a_proxy_of_socks(environment: Setter, runtime: Runtime):
    """As models do."""
    with FakeValidator() as there, SocksProxy(there.url) as proxy:
        environment(ALL_PROXY=f"socks5://127.0.0.1:{proxy.port}")
        recipe = rl.Recipe(
            columns=[
                rl.Category("text", values=["good"]),
                rl.Validate("ok", needs=["text"], url="http://validator.example/validate"),
            ]
        )
        assert recipe.preview(2, progress=False, runtime=runtime).dataset["ok"].tolist() == [True, True]
        assert {connection["host"] for connection in proxy.seen()} == {"validator.example"}


@pytest.mark.outside
@pytest.mark.parametrize("account", ["", "me:wrong@"])
def test_a_proxy_that_refuses_gets_the_blame(environment: Setter, server: FakeOpenAI, runtime: Runtime, account: str):
    """The endpoint was never asked, and nothing was paid for."""
    with SocksProxy(server.url, "me", "right") as proxy:
        environment(ALL_PROXY=f"socks5://{account}127.0.0.1:{proxy.port}")
        with pytest.raises(rl.ModelError) as caught:
            asked(URL, runtime)
        assert f"check the proxy socks5://127.0.0.1:{proxy.port} that ALL_PROXY names" in str(caught.value)
    assert "could not be reached through the proxy: " in str(caught.value)
    assert "wrong" not in str(caught.value)
    assert server.counters().requests == 0


@pytest.mark.outside
def test_the_proxy_of_a_client_of_the_users_own_is_named_too(environment: Setter, runtime: Runtime):
    """The client reads the same variables, and its failures name none."""
    model = rl.Model("openai:m", client=lambda: openai.AsyncOpenAI(base_url=URL, api_key="k"))
    recipe = rl.Recipe(models={"m": model}, columns=[rl.Text("a", model="m", prompt="hi")])
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        environment(HTTP_PROXY=f"http://127.0.0.1:{port}")
        with pytest.raises(rl.ModelError, match=rf"check the proxy http://127.0.0.1:{port} that HTTP_PROXY names"):
            recipe.preview(1, progress=False, runtime=runtime)


@pytest.mark.outside
@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_at_which_nobody_listens_gets_the_blame(environment: Setter, runtime: Runtime, scheme: str):
    """By its own address and the variable."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        environment(HTTP_PROXY=f"{scheme}://127.0.0.1:{port}")
        with pytest.raises(rl.ModelError) as caught:
            asked(URL, runtime)
    assert f"openai:m at {URL} could not be reached through the proxy: " in str(caught.value)
    assert f"; check the proxy {scheme}://127.0.0.1:{port} that HTTP_PROXY names, or set another" in str(caught.value)


@pytest.mark.outside
def test_a_proxy_that_wants_an_account_gets_the_blame(environment: Setter, server: FakeOpenAI, runtime: Runtime):
    """Its 407 is no answer of the endpoint, with and without a tunnel."""
    answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    with canned(runtime, answer) as url:
        port = url.removesuffix("/v1").rpartition(":")[2]
        environment(ALL_PROXY=f"http://127.0.0.1:{port}")
        for scheme in ("http", "https"):
            with pytest.raises(rl.ModelError, match=r"the proxy's address needs a user name and password") as caught:
                asked(f"{scheme}://model.example/v1", runtime)
            assert caught.value.kind == "connection"
    assert server.counters().requests == 0
