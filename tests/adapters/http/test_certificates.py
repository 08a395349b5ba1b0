"""Certificates that are not trusted, and long headers: against a real server with TLS of its own."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
import trustme
from pydantic import SecretStr

import rowloop as rl
from canned import canned
from fake_network import SocksProxy, TlsFront
from rowloop.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fake_openai import FakeOpenAI

pytestmark = pytest.mark.outside

KEY = "sk-very-secret-1234"
ADVICE = "; set SSL_CERT_FILE to a PEM file that holds the certificate of the authority that signed it"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """Give each test a loop of its own."""
    with Runtime() as runtime:
        yield runtime


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return an authority that nobody trusts yet."""
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the authority."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


@pytest.fixture
def secured(server: FakeOpenAI, authority: trustme.CA, tmp_path: Path) -> Iterator[Callable[..., TlsFront]]:
    """Return what puts TLS in front of the server, with a certificate for a host."""
    fronts: list[TlsFront] = []

    def secure(host: str = "127.0.0.1", since: dt.datetime | None = None, until: dt.datetime | None = None) -> TlsFront:
        path = tmp_path / "server.pem"
        authority.issue_cert(host, not_before=since, not_after=until).private_key_and_cert_chain_pem.write_to_path(path)
        fronts.append(TlsFront(server.url, path).__enter__())
        return fronts[-1]

    yield secure
    for front in fronts:
        front.__exit__(None, None, None)


def by_address(url: str) -> rl.Model:
    """Take the fast path."""
    return rl.Model("openai:m", base_url=url, api_key=SecretStr(KEY))


def by_aiohttp_client(url: str) -> rl.Model:
    """Bring a client on aiohttp."""

    def make() -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=url, api_key=KEY, http_client=openai.DefaultAioHttpClient())

    return rl.Model("openai:m", client=make)


def by_client(url: str) -> rl.Model:
    """Bring a client as most people make it."""
    return rl.Model("openai:m", client=lambda: openai.AsyncOpenAI(base_url=url, api_key=KEY))


WAYS = [by_address, by_aiohttp_client, by_client]


def asked(model: rl.Model, runtime: Runtime) -> list[str]:
    """Return the answers of a small run."""
    recipe = rl.Recipe(models={"m": model}, columns=[rl.Text("a", model="m", prompt="hi")])
    answers: list[str] = recipe.preview(2, progress=False, runtime=runtime).dataset["a"].tolist()
    return answers


def refused(model: rl.Model, runtime: Runtime) -> str:
    """Return the message of a run that could not begin."""
    with pytest.raises(rl.ModelError) as caught:
        asked(model, runtime)
    assert (caught.value.kind, caught.value.fatal, caught.value.retryable) == ("connection", True, False)
    return str(caught.value)


@pytest.mark.parametrize("way", WAYS)
def test_a_certificate_of_an_unknown_authority_names_openssls_reason_and_the_variable(
    runtime: Runtime, server: FakeOpenAI, secured: Any, way: Any
):
    """Before anything is sent, and nothing else is advised."""
    url = secured().url
    reason = "unable to get local issuer certificate"
    said = refused(way(url), runtime)
    assert said == f"openai:m at {url} has a certificate that is not trusted: {reason}{ADVICE}"
    assert server.counters().requests == 0


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("way", WAYS)
def test_the_variable_makes_a_private_authority_trusted(runtime: Runtime, server: FakeOpenAI, secured: Any, way: Any):
    """As the message promises."""
    server.configure(reply="fixed:fine")
    assert asked(way(secured().url), runtime) == ["fine", "fine"]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("way", WAYS)
def test_a_certificate_for_another_host_or_time_has_other_advice(runtime: Runtime, secured: Any, way: Any):
    """An authority that is trusted cannot mend it."""
    said = refused(way(secured("model.example").url), runtime)
    assert "not trusted: IP address mismatch, certificate is not valid for '127.0.0.1'; use an address whose" in said
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    old = secured("127.0.0.1", past, past + dt.timedelta(days=9))
    said = refused(way(old.url), runtime)
    assert "not trusted: certificate has expired; check the clock of this machine, else the certificate needs" in said


def test_a_certificate_behind_a_proxy_of_socks_is_checked_too(
    runtime: Runtime, server: FakeOpenAI, secured: Any, monkeypatch: pytest.MonkeyPatch
):
    """Against the name in the address, with the same message; the proxy is not blamed for it."""
    front = secured("model.example")
    with SocksProxy(front.url) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{proxy.port}")
        said = refused(by_address("https://model.example/v1"), runtime)
    assert said.endswith(f"not trusted: unable to get local issuer certificate{ADVICE}")
    assert server.counters().requests == 0


@pytest.mark.usefixtures("trusted")
def test_an_endpoint_with_a_private_authority_is_reached_through_a_proxy_of_socks(
    runtime: Runtime, server: FakeOpenAI, secured: Any, monkeypatch: pytest.MonkeyPatch
):
    """Both at once, as behind the wall of a company."""
    server.configure(reply="fixed:fine")
    with SocksProxy(secured("model.example").url) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{proxy.port}")
        assert asked(by_address("https://model.example/v1"), runtime) == ["fine", "fine"]
        assert {"version": 5, "host": "model.example", "port": 443} in proxy.seen()


@pytest.mark.parametrize("content", [None, b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_variable_that_names_no_certificates_is_refused_by_name(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
):
    """Else the message would be about a file or an argument that the user never wrote."""
    path = tmp_path / "authority.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(rl.RecipeError, match=r"^SSL_CERT_FILE: the certificates in .*authority.pem cannot be read: "):
        asked(by_address("https://model.example/v1"), runtime)


def test_tls_with_a_server_that_has_none_names_openssls_reason(runtime: Runtime, server: FakeOpenAI):
    """Not an error number of the operating system."""
    said = refused(by_address(server.url.replace("http:", "https:")), runtime)
    assert "could not be reached: [SSL: " in said
    assert "Operation not permitted" not in said


def test_functions_and_models_judge_a_certificate_alike(runtime: Runtime, secured: Any):
    """A function's row is not asked for again: no later attempt could succeed."""
    url = secured().url
    recipe = rl.Recipe(columns=[rl.Category("c", values=["x"])])

    @recipe.column(on_error="null")
    async def looked_up(c: str) -> str:
        async with httpx.AsyncClient() as client:
            return (await client.get(url, params={"c": c})).text

    result = recipe.preview(1, progress=False, runtime=runtime, retry=rl.RetryPolicy(attempts=4, wait=lambda _: 0.0))
    assert result.failures["attempts"].tolist() == [1]


def with_headers(*sizes: int) -> bytes:
    """Write an answer with headers of so many bytes each."""
    body = b'{"choices":[{"message":{"content":"fine"},"finish_reason":"stop"}]}'
    headers = b"".join(b"X-Policy-%d: %b\r\n" % (i, b"p" * size) for i, size in enumerate(sizes))
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (headers, len(body), body)


KIB = 1024


@pytest.mark.parametrize("sizes", [[20 * KIB], [60 * KIB], [5 * KIB] * 4, [50] * 400], ids=["20", "60", "4x5", "many"])
def test_response_headers_of_64_kib_are_read(runtime: Runtime, sizes: list[int]):
    """Gateways report policies, cookies and whole requests in them."""
    with canned(runtime, with_headers(*sizes)) as url:
        assert asked(by_address(url), runtime) == ["fine", "fine"]


@pytest.mark.parametrize(("way", "size"), [(by_address, 100), (by_aiohttp_client, 100), (by_client, 200)])
def test_longer_response_headers_fail_by_name_and_are_not_paid_for_again(runtime: Runtime, way: Any, size: int):
    """The next answer would have them too."""
    seen: list[bytes] = []
    with (
        canned(runtime, with_headers(size * KIB), seen) as url,
        pytest.raises(rl.DatasetGenerationError, match="response headers that are too long to be read") as caught,
    ):
        asked(way(url), runtime)
    assert "ppp" not in str(caught.value)
    assert len([head for head in seen if head.startswith(b"POST")]) == 2
