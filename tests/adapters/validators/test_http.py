"""Remote validators over HTTP: proxies, keys, statuses and sessions, against real servers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import rowloop as rl
from canned import PROXY_PASSWORD, canned, proxied
from fake_validator import FakeValidator
from rowloop.adapters.validators import http
from rowloop.adapters.validators.http import validator
from rowloop.engine.columns.validators import Verdict
from rowloop.engine.models.bytes_received import received
from rowloop.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rowloop.engine.columns.validators import AskVerdict

pytestmark = pytest.mark.outside


KEY = "sk-very-secret-1234"
VALID = b'{"valid": true}'


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """Give each test a loop of its own, with no sessions on it yet."""
    with Runtime() as runtime:
        yield runtime


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a key into the environment, and name its variable."""
    monkeypatch.setenv("VALIDATOR_KEY", KEY)
    return "VALIDATOR_KEY"


def http_answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    """Write an answer as it is sent."""
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


async def asked(ask: AskVerdict) -> Verdict:
    """Ask, as a coroutine."""
    return await ask({"text": "good"})


def verdict(runtime: Runtime, url: str, key: str | None = None) -> Verdict:
    """Ask a validator about a row."""
    return runtime.run(asked(validator.connect(url, key)))


def test_a_proxy_from_the_environment_is_used(runtime, monkeypatch, key):
    """With its password, and with the key where it belongs."""
    with proxied(runtime, http_answer(VALID), monkeypatch) as seen:
        assert verdict(runtime, "http://validator.example/check?strict=1", key) == Verdict(valid=True)
    request, *headers = seen[-1].lower().split(b"\r\n")
    assert request == b"post http://validator.example/check?strict=1 http/1.1"
    assert PROXY_PASSWORD in headers
    assert [line for line in headers if KEY.encode() in line] == [b"authorization: bearer " + KEY.encode()]


def test_the_key_does_not_reach_a_proxy(runtime, monkeypatch, key):
    """The request for a tunnel has the proxy's password, and not our key."""
    with (
        proxied(runtime, http_answer(b"", b"403 Forbidden"), monkeypatch) as seen,
        pytest.raises(rl.ModelError, match=r"could not be reached through the proxy: .*Forbidden") as caught,
    ):
        verdict(runtime, "https://validator.example/check", key)
    assert (caught.value.kind, caught.value.retryable) == ("connection", True)
    (request,) = seen
    assert request.startswith(b"CONNECT validator.example:443 ")
    assert PROXY_PASSWORD in request.lower()
    assert KEY.encode() not in request


@pytest.mark.parametrize("status", [b"200 OK", b"201 Created", b"203 Non-Authoritative Information"])
def test_every_status_of_success_brings_a_verdict(runtime, status):
    """Not 200 alone."""
    with canned(runtime, http_answer(b'{"valid": false, "reason": "short"}', status)) as url:
        assert verdict(runtime, url) == Verdict(valid=False, reason="short")


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/check?key=a%2Fb&x=1", b"/check?key=a%2Fb&x=1"),
        ("//two//slashes/", b"//two//slashes/"),
        ("", b"/v1"),
        ("/grün?ä=ö", b"/gr%C3%BCn?%C3%A4=%C3%B6"),
        ("/check#part", b"/check"),
    ],
)
def test_an_address_is_sent_as_it_is_written(runtime, path, sent):
    """Nothing is appended, and what HTTP cannot carry is escaped."""
    seen: list[bytes] = []
    with canned(runtime, http_answer(VALID), seen) as url:
        base = url.removesuffix("/v1") if path else url
        assert verdict(runtime, f"{base}{path}").valid
    assert seen[0].split(b" ")[1] == sent


def test_an_address_that_no_request_can_have_is_refused():
    """When the column is bound, with the place."""
    with pytest.raises(rl.RecipeError, match=r"^url: is no address: "):
        validator.connect("http://[::1/check", None)


def test_the_bytes_of_an_answer_are_counted(runtime):
    """So that warnings about slow requests can name them: here half of the body has come."""
    half = b'HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{"valid": true, '

    async def trickle(url_of: asyncio.Future[str], rest: asyncio.Event) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"}")
            writer.write(half)
            await rest.wait()
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url_of.set_result(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            await rest.wait()

    async def main() -> int:
        url_of: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        rest = asyncio.Event()
        server = asyncio.create_task(trickle(url_of, rest))
        request: asyncio.Task[Any] = asyncio.create_task(asked(validator.connect(await url_of, None)))
        while not (came := received(request)):  # noqa: ASYNC110 - the transport has no event for it
            await asyncio.sleep(0)
        rest.set()
        with pytest.raises(rl.ModelError, match="broke off its answer"):
            await request
        await server
        return came

    assert runtime.run(main()) == len(half.partition(b"\r\n\r\n")[2])


def test_a_session_is_closed_when_no_validator_has_used_it_for_a_while(runtime, monkeypatch):
    """The time counts from the last request; a later one opens another session."""
    monkeypatch.setattr(http, "_IDLE_SECONDS", 0.0)

    def sessions() -> list[str]:
        return [name for name in runtime.thread.resources.names() if "session" in name]

    async def until_none() -> None:
        while sessions():  # noqa: ASYNC110 - nor have resources for their end
            await asyncio.sleep(0)

    with FakeValidator() as server:
        for _ in range(2):
            assert verdict(runtime, f"{server.url}/validate") == Verdict(valid=True)
            runtime.run(until_none())
        assert len(server.seen()["requests"]) == 2


def test_validators_of_one_scheme_share_a_session(runtime):
    """Whatever their addresses and keys are, and while all of them ask at once."""

    async def main() -> list[Verdict]:
        asks = [validator.connect(f"{server.url}/{path}", None) for path in ("validate", "validate?b", "validate?c")]
        return await asyncio.gather(*(asked(ask) for ask in asks))

    with FakeValidator() as server:
        assert runtime.run(main()) == [Verdict(valid=True)] * 3
        assert [name for name in runtime.thread.resources.names() if "session" in name] == [
            "'session of http validators'"
        ]
