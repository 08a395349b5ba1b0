"""One judgement for models, validators and functions: every common client, against real servers that fail."""

from __future__ import annotations

import asyncio
import enum
import http.client
import json
import socket
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import httpx2
import openai
import pytest
import requests
import urllib3

import rowloop as rl
from canned import canned
from fake_validator import FakeValidator
from rowloop.adapters.http.clients import judge
from rowloop.adapters.validators.http import validator
from rowloop.engine.runs.foreign import Judgement
from rowloop.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Client = Callable[[str], Awaitable[Any]]

SECONDS = 20.0
CONNECTION = Judgement("connection", retryable=True)


async def by_aiohttp(url: str, text: str = "good") -> Any:
    """Post with aiohttp."""
    limit = aiohttp.ClientTimeout(SECONDS)
    async with (
        aiohttp.ClientSession(raise_for_status=True, timeout=limit) as session,
        session.post(url, json={"text": text}) as answer,
    ):
        return await answer.json(content_type=None)


async def by_httpx(url: str, text: str = "good") -> Any:
    """Post with httpx."""
    async with httpx.AsyncClient(timeout=SECONDS) as client:
        return (await client.post(url, json={"text": text})).raise_for_status().json()


async def by_httpx2(url: str, text: str = "good") -> Any:
    """Post with httpx2."""
    async with httpx2.AsyncClient(timeout=SECONDS) as client:
        return (await client.post(url, json={"text": text})).raise_for_status().json()


async def by_openai(url: str, text: str = "good") -> Any:
    """Post with the openai package."""
    async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0, timeout=SECONDS) as client:
        return (await client.post(url, cast_to=httpx2.Response, body={"text": text})).json()


async def by_openai_on_aiohttp(url: str, text: str = "good") -> Any:
    """Post with the openai package and its other transport, which calls everything a time-out."""
    carrier = openai.DefaultAioHttpClient(timeout=SECONDS)
    async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0, http_client=carrier) as client:
        return (await client.post(url, cast_to=httpx2.Response, body={"text": text})).json()


async def by_requests(url: str, text: str = "good") -> Any:
    """Post with requests, in a thread."""

    def post() -> Any:
        answer = requests.post(url, json={"text": text}, timeout=SECONDS)
        answer.raise_for_status()
        return answer.json()

    return await asyncio.to_thread(post)


async def by_urllib3(url: str, text: str = "good") -> Any:
    """Post with urllib3, in a thread."""

    def post() -> Any:
        with urllib3.PoolManager(retries=False) as pool:
            return pool.request("POST", url, json={"text": text}, timeout=SECONDS).json()

    return await asyncio.to_thread(post)


async def by_urllib(url: str, text: str = "good") -> Any:
    """Post with the standard library, in a thread."""

    def post() -> Any:
        request = urllib.request.Request(url, json.dumps({"text": text}).encode())  # noqa: S310 - our own server
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - the same
                return answer.read()
        except urllib.error.HTTPError as error:
            error.close()  # it is the answer as well
            raise

    return await asyncio.to_thread(post)


async def by_http_client(url: str, text: str = "good") -> Any:
    """Post with the lower half of the standard library, in a thread."""

    def post() -> Any:
        connection = http.client.HTTPConnection(url.split("/")[2], timeout=SECONDS)
        try:
            connection.request("POST", "/", json.dumps({"text": text}).encode())
            return connection.getresponse().read()
        finally:
            connection.close()

    return await asyncio.to_thread(post)


CLIENTS = [
    by_aiohttp,
    by_httpx,
    by_httpx2,
    by_openai,
    by_openai_on_aiohttp,
    by_requests,
    by_urllib3,
    by_urllib,
    by_http_client,
]


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    """Share a loop among the servers of this module."""
    with Runtime() as runtime:
        yield runtime


def raised(client: Client, url: str) -> Exception:
    """Return what a client raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
        asyncio.run(client(url))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - all are coroutines
    return caught.value


@contextmanager
def nowhere() -> Iterator[str]:
    """Give an address at which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}/"


BROKEN = {
    "no answer": (b"", CONNECTION),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", Judgement("truncated", retryable=True)),
    "half a chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\n{",
        Judgement("truncated", retryable=True),
    ),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", Judgement("unreadable", retryable=True)),
    "long headers": (
        b"HTTP/1.1 200 OK\r\nX: %b\r\nContent-Length: 0\r\n\r\n" % (b"p" * 200_000),
        Judgement("unreadable", retryable=False),
    ),
}


@pytest.mark.outside
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("way", BROKEN)
def test_an_answer_that_breaks_means_the_same_from_every_client(runtime: Runtime, client: Any, way: str):
    """Whatever each calls it, and however deep it wraps it."""
    answer, judgement = BROKEN[way]
    with canned(runtime, answer) as url:
        assert judge(raised(client, url)) == judgement


async def verdict_of(url: str) -> None:
    """Ask a validator."""
    await validator.connect(url, None)({"text": "good"})


@pytest.mark.outside
@pytest.mark.parametrize("way", BROKEN)
def test_validators_judge_as_functions_do(runtime: Runtime, way: str):
    """By the same table; models have a test of their own for each kind."""
    answer, judgement = BROKEN[way]
    with canned(runtime, answer) as url, pytest.raises(rl.ModelError) as caught:
        runtime.run(verdict_of(url))
    assert (caught.value.kind, caught.value.retryable) == judgement


@pytest.mark.outside
@pytest.mark.parametrize("client", [by_httpx, by_httpx2, by_requests, by_urllib3])
def test_a_body_that_cannot_be_unpacked_is_unreadable(runtime: Runtime, client: Any):
    """A proxy may have cut it without touching its length."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\n\x1f\x8b\x08garbage"
    with canned(runtime, answer) as url:
        assert judge(raised(client, url)) == Judgement("unreadable", retryable=True)


@pytest.mark.outside
@pytest.mark.parametrize("client", CLIENTS)
def test_a_connection_that_fails_is_retryable_from_every_client(client: Any):
    """At a port where nobody listens, and for a host that is not found."""
    with nowhere() as url:
        assert judge(raised(client, url)) == CONNECTION
    assert judge(raised(client, "http://no-such-host.invalid/")) == CONNECTION


@pytest.mark.outside
@pytest.mark.parametrize("client", CLIENTS)
def test_a_time_out_is_retryable_from_every_client(monkeypatch: pytest.MonkeyPatch, client: Any):
    """At a server that never answers."""
    monkeypatch.setitem(globals(), "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert judge(raised(client, url)) == Judgement("timeout", retryable=True)


@pytest.mark.outside
@pytest.mark.parametrize("client", [by_requests, by_aiohttp, by_httpx])
@pytest.mark.parametrize(
    ("status", "judgement"),
    [
        (429, Judgement("rate_limited", retryable=True)),
        (503, Judgement("server", retryable=True)),
        (404, Judgement("not_found", retryable=False)),
    ],
)
def test_a_status_is_read_through_exceptions_of_the_functions_own(client: Any, status: int, judgement: Judgement):
    """Raised from those of a client, or several at once by a task group."""

    async def wrapped(url: str) -> None:
        try:
            await client(url)
        except Exception as error:
            raise LookupError("no capital found") from error

    async def grouped(url: str) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(client(url))

    with FakeValidator() as server:
        assert judge(raised(wrapped, f"{server.url}/{status}")) == judgement
        assert judge(raised(grouped, f"{server.url}/{status}")) == judgement


def test_a_group_is_tried_again_only_if_that_can_mend_all_of_it():
    """One exception that allows no conclusion about a later attempt is enough not to."""
    transient, other = ConnectionError("gone"), ValueError("no number")
    assert judge(ExceptionGroup("two", [transient, TimeoutError()])) == CONNECTION
    assert judge(ExceptionGroup("two", [transient, other])) is None
    assert judge(ExceptionGroup("two", [transient, ExceptionGroup("inner", [other])])) is None


def named(module: str, *names: str) -> type[Exception]:
    """Make the last of a line of classes with names of a package that the tests do not install."""
    kind: Any = Exception
    for name in names:
        kind = type(name, (kind,), {"__module__": module})
    made: type[Exception] = kind
    return made


def with_fields(error: Any, **fields: Any) -> Exception:
    """Set the fields that a package sets."""
    for name, value in fields.items():
        setattr(error, name, value)
    made: Exception = error
    return made


class Code(enum.Enum):
    """A few codes of gRPC."""

    UNAVAILABLE = 14
    RESOURCE_EXHAUSTED = 8
    DEADLINE_EXCEEDED = 4
    INVALID_ARGUMENT = 3
    UNAUTHENTICATED = 16


@pytest.mark.parametrize(
    ("code", "judgement"),
    [
        (Code.UNAVAILABLE, CONNECTION),
        (Code.RESOURCE_EXHAUSTED, Judgement("rate_limited", retryable=True)),
        (Code.DEADLINE_EXCEEDED, Judgement("timeout", retryable=True)),
        (Code.INVALID_ARGUMENT, Judgement("bad_request", retryable=False)),
        (Code.UNAUTHENTICATED, Judgement("auth", retryable=False)),
    ],
)
def test_grpcs_codes_are_read(code: Code, judgement: Judgement):
    """From the method that all of its exceptions have."""
    error = named("grpc", "RpcError")("no")
    assert judge(with_fields(named("grpc.aio", "RpcError", "AioRpcError")("no"), code=lambda: code)) is not None
    assert judge(with_fields(error, code=lambda: code)) == judgement


@pytest.mark.parametrize(
    ("status", "code", "judgement"),
    [
        (400, "ThrottlingException", Judgement("rate_limited", retryable=True)),
        (503, "SlowDown", Judgement("rate_limited", retryable=True)),
        (500, "InternalError", Judgement("server", retryable=True)),
        (400, "ValidationException", Judgement("bad_request", retryable=False)),
    ],
)
def test_botocores_answers_are_read(status: int, code: str, judgement: Judgement):
    """Its throttling comes with status 400, and its answer is a dict."""
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert judge(with_fields(named("botocore.exceptions", "ClientError")("no"), response=response)) == judgement


@pytest.mark.parametrize(
    ("module", "names", "judgement"),
    [
        ("botocore.exceptions", ["HTTPClientError", "EndpointConnectionError"], CONNECTION),
        ("botocore.exceptions", ["HTTPClientError", "ReadTimeoutError"], Judgement("timeout", retryable=True)),
        ("botocore.exceptions", ["NoCredentialsError"], None),
        ("niquests.exceptions", ["ConnectionError"], CONNECTION),
        ("curl_cffi.requests.exceptions", ["Timeout"], Judgement("timeout", retryable=True)),
        ("curl_cffi.requests.exceptions", ["IncompleteRead"], Judgement("truncated", retryable=True)),
    ],
)
def test_clients_that_are_not_installed_here_are_known_by_their_names(
    module: str, names: list[str], judgement: Judgement | None
):
    """With those of their packages that mean the same."""
    assert judge(named(module, *names)("no")) == judgement


@pytest.mark.parametrize("field", ["status", "status_code", "http_status"])
def test_a_status_on_an_exception_of_any_client_is_read(field: str):
    """Most keep it under one of these names, and a status of success explains nothing."""
    error = named("their_api", "ApiException")("no")
    assert judge(with_fields(error, **{field: 502})) == Judgement("server", retryable=True)
    for nothing in (200, 7, True, "503", None):
        assert judge(with_fields(error, **{field: nothing})) is None


@pytest.mark.parametrize("error", [ValueError(TypeError("x")), KeyError("x"), OSError(2, "x"), RuntimeError()])
def test_other_exceptions_stay_unjudged(error: Exception):
    """Also with others among their arguments, and with themselves."""
    error.args = (*error.args, error)
    assert judge(error) is None


@pytest.mark.outside
@pytest.mark.parametrize("client", [by_aiohttp, by_httpx, by_httpx2, by_openai, by_requests, by_urllib])
def test_no_row_is_lost_to_an_endpoint_that_fails_for_now(client: Any):
    """From end to end: each row's first request gets 500, 429, half a body or no answer."""
    with FakeValidator() as server:
        recipe = rl.Recipe(columns=[rl.Uniform("number", low=0, high=1)], seed=1)

        @recipe.column
        async def valid(number: float) -> bool:
            await client(f"{server.url}/flaky", str(number))
            return True

        result = recipe.preview(8, progress=False, retry=rl.RetryPolicy(attempts=2, wait=lambda _: 0.0))
        sent = len(server.seen()["requests"])
    assert result.dataset["valid"].tolist() == [True] * 8
    assert len(result.failures) == 0
    assert sent == 16
