"""What exceptions of other people's clients mean: raised by the clients themselves, against a real server."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rowloop as rl
from fake_validator import FakeValidator
from rowloop.adapters.http.causes import cause_of, meaning_of_status, root_of
from rowloop.adapters.http.clients import judge
from rowloop.engine.runs.foreign import Judgement

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


pytestmark = pytest.mark.outside


@pytest.fixture(scope="module")
def there() -> Iterator[str]:
    """Give the address of a server."""
    with FakeValidator() as server:
        yield server.url


@pytest.fixture
def nowhere() -> Iterator[str]:
    """Give an address at which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """Give an address that can be connected to and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def by_httpx(url: str) -> None:
    """Post with httpx."""
    async with httpx.AsyncClient(timeout=0.3) as client:
        (await client.post(url, json={})).raise_for_status()


async def by_httpx2(url: str) -> None:
    """Post with httpx2."""
    async with httpx2.AsyncClient(timeout=0.3) as client:
        (await client.post(url, json={})).raise_for_status()


async def by_aiohttp(url: str) -> None:
    """Post with aiohttp."""
    async with (
        aiohttp.ClientSession(raise_for_status=True, timeout=aiohttp.ClientTimeout(0.3)) as session,
        session.post(url, json={}) as response,
    ):
        await response.read()


async def by_openai(url: str) -> None:
    """Post with the openai package."""
    async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0, timeout=0.3) as client:
        await client.post(url, cast_to=httpx2.Response, body={})


async def by_urllib(url: str) -> None:
    """Post with the standard library, in a thread."""

    def post() -> None:
        request = urllib.request.Request(url, b"{}")  # noqa: S310 - our own server
        with urllib.request.urlopen(request, timeout=0.3) as answer:  # noqa: S310 - the same
            answer.read()

    await asyncio.to_thread(post)


CLIENTS = [by_httpx, by_httpx2, by_aiohttp, by_openai, by_urllib]


def raised(client: Callable[[str], Awaitable[None]], url: str) -> Exception:
    """Give what a client raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
        asyncio.run(client(url))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - all are coroutines
    if isinstance(caught.value, urllib.error.HTTPError):  # it is the answer as well
        caught.value.close()
    return caught.value


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("status", "judgement"),
    [
        (503, Judgement("server", retryable=True)),
        (429, Judgement("rate_limited", retryable=True)),
        (408, Judgement("timeout", retryable=True)),
        (422, Judgement("bad_request", retryable=False)),
        (401, Judgement("auth", retryable=False)),
    ],
)
def test_the_status_of_every_client_is_read(there: str, client: Any, status: int, judgement: Judgement):
    """Wherever the client keeps it."""
    assert judge(raised(client, f"{there}/{status}")) == judgement


@pytest.mark.parametrize("client", CLIENTS[:4])
def test_a_failed_connection_is_retryable(nowhere: str, client: Any):
    """Whatever each client calls it."""
    assert judge(raised(client, nowhere)) == Judgement("connection", retryable=True)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_time_out_is_retryable(silent: str, client: Any):
    """Whatever each client calls it."""
    assert judge(raised(client, silent)) == Judgement("timeout", retryable=True)


def test_an_address_that_no_client_can_use_is_hopeless():
    """No retry would mend it."""
    error = raised(by_httpx, "ftp://localhost/")
    assert judge(error) == Judgement("connection", retryable=False)
    cause = cause_of(root_of(error))
    assert cause is not None
    assert cause.meaning.fatal


@pytest.mark.parametrize("error", [ValueError("x"), FileNotFoundError("x"), OSError("x"), asyncio.CancelledError()])
def test_errors_of_no_connection_are_not_judged(error: BaseException):
    """They allow no conclusion about a later attempt."""
    assert judge(error) is None


def test_a_connection_error_counts_whatever_caused_it():
    """Functions wrap what their drivers raise."""
    error = ConnectionError("the database is gone")
    error.__cause__ = OSError("broken pipe")
    assert judge(error) == Judgement("connection", retryable=True)
    outer = ValueError("no capital found")
    outer.__cause__ = error
    assert judge(outer) == Judgement("connection", retryable=True)


@given(st.integers(100, 599))
def test_the_retryable_statuses_are_these(status: int):
    """408, 409, 425, 429 and 5xx; only 429 is a rate limit."""
    meaning = meaning_of_status(status)
    assert meaning.retryable == (status in {408, 409, 425, 429} or status >= 500)
    assert (meaning.kind == "rate_limited") == (status == 429)


def test_a_functions_lookup_is_tried_again_and_one_that_is_refused_is_not(there: str):
    """From end to end: the first answer to each lookup is 503, and 404 for good at another path."""
    recipe = rl.Recipe(columns=[rl.Category("country", values=["Peru"])], seed=1)

    @recipe.column
    async def capital(country: str) -> str:
        client = rl.client(aiohttp.ClientSession, raise_for_status=True)
        async with client.get(f"{there}/capitals", params={"country": country}) as answer:
            found: str = (await answer.json(content_type=None))["capital"]
            return found

    @recipe.column(on_error="null")
    async def nothing(country: str) -> str:
        client = rl.client(aiohttp.ClientSession, raise_for_status=True)
        async with client.post(f"{there}/404", json={"country": country}) as answer:
            return await answer.text()

    result = recipe.preview(1, progress=False, retry=rl.RetryPolicy(attempts=2, wait=lambda _: 0.0))
    assert result.dataset["capital"].tolist() == ["the capital of Peru"]
    assert result.failures[["column", "attempts"]].to_numpy().tolist() == [["nothing", 1]]


def named(name: str, *parents: type[Exception]) -> type[Exception]:
    """Make a class with a name of the requests package, which the tests do not install."""
    return type(name, parents, {"__module__": "requests.exceptions"})


@pytest.mark.parametrize(
    ("name", "parents", "judgement"),
    [
        ("ReadTimeout", ["Timeout"], Judgement("timeout", retryable=True)),
        ("ConnectTimeout", ["ConnectionError", "Timeout"], Judgement("connection", retryable=True)),
        ("ConnectionError", [], Judgement("connection", retryable=True)),
        ("InvalidSchema", [], None),
    ],
)
def test_errors_of_requests_are_known_by_their_names(name: str, parents: list[str], judgement: Judgement | None):
    """With the classes above them in that package, all of them OSErrors."""
    above = [named(parent, OSError) for parent in parents] or [OSError]
    assert judge(named(name, *above)("no")) == judgement
