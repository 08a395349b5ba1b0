"""The openai provider over real HTTP: one suite for the fast path and for the user's own client."""

import asyncio
import gc
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial

import openai
import pytest
from pydantic import SecretStr

from canned import PROXY_PASSWORD, canned, proxied
from rowloop.adapters.providers.openai.provider import provider
from rowloop.engine.core.errors import ModelError, RecipeError
from rowloop.engine.models.model import Model
from rowloop.engine.models.provider import Ask, ChatParameters, Reply
from rowloop.runtime.runtime import Runtime

pytestmark = pytest.mark.outside

KEY = "sk-very-secret-1234"
HELLO = [{"role": "user", "content": "hello"}]
NOTE = {"type": "object", "properties": {"title": {"type": "string"}, "stars": {"type": "integer"}}}


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """Give each test a loop of its own, with no clients on it yet."""
    with Runtime() as runtime:
        yield runtime


def by_address(url: str, key: str = KEY) -> Model:
    """Take the fast path."""
    return Model("openai:m", base_url=url, api_key=SecretStr(key))


def by_client(url: str, key: str = KEY) -> Model:
    """Bring a client as the openai package recommends it for many requests."""

    def make() -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=url, api_key=key, http_client=openai.DefaultAioHttpClient())

    return Model("openai:m", client=make)


def by_httpx_client(url: str, key: str = KEY) -> Model:
    """Bring a client as most people make it."""
    return Model("openai:m", client=lambda: openai.AsyncOpenAI(base_url=url, api_key=key))


@pytest.fixture(params=[by_address, by_client, by_httpx_client], ids=["aiohttp", "sdk-aiohttp", "sdk-httpx"])
def way(request: pytest.FixtureRequest) -> Callable[..., Model]:
    """Return what makes a model from an address: each way must do the same."""
    return request.param


def connect(runtime: Runtime, model: Model, **parameters) -> Ask:
    """Check, connect and compile a model."""
    provider.check(model)
    return runtime.run(provider.connect(model, runtime)).chat(ChatParameters(**parameters))


async def called(ask: Ask, prompt: str = "hello") -> Reply:
    """Ask, as a coroutine."""
    return await ask([{"role": "user", "content": prompt}])


def answer(runtime: Runtime, ask: Ask, prompt: str = "hello") -> Reply:
    """Return the reply to a call."""
    return runtime.run(called(ask, prompt))


def failure(runtime: Runtime, ask: Ask) -> ModelError:
    """Return the error that a call ends in."""
    with pytest.raises(ModelError) as caught:
        answer(runtime, ask)
    return caught.value


def test_a_reply_carries_text_usage_and_request_id(server, runtime, way):
    """Text, finish reason, tokens and the x-request-id header arrive."""
    server.configure(reply="fixed:four words of text")
    reply = answer(runtime, connect(runtime, way(server.url)))
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish_reason, reply.reasoning) == ("four words of text", "stop", None)
    assert (reply.prompt_tokens, reply.completion_tokens) == (3, 5)
    assert str(reply.request_id).startswith("req_")


def test_a_request_has_all_parameters(server, runtime, way):
    """Name, parameters and extra are in the body, the key in the header; extra overrides the rest."""
    ask = connect(
        runtime,
        way(server.url),
        temperature=0.5,
        max_tokens=7,
        stop=("\n",),
        schema=NOTE,
        extra={"seed": 3, "max_tokens": 9},
    )
    answer(runtime, ask)
    (request,) = server.requests()
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    body = request.json()
    closed = NOTE | {"additionalProperties": False, "required": ["title", "stars"]}
    assert body.pop("response_format") == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": closed},
    }
    assert body == {"model": "m", "messages": HELLO, "temperature": 0.5, "max_tokens": 9, "stop": ["\n"], "seed": 3}


@pytest.mark.parametrize("fault", ["think", "reasoning"])
def test_reasoning_is_kept_out_of_the_text(server, runtime, way, fault):
    """Both <think> and reasoning_content end in Reply.reasoning."""
    server.configure(reply="fixed:The answer.", **{f"fault_{fault}": 1})
    reply = answer(runtime, connect(runtime, way(server.url)))
    assert (reply.text, reply.reasoning) == ("The answer.", "Let me think about this step by step.")


@pytest.mark.parametrize("schema", [None, NOTE])
def test_a_cut_answer_has_the_finish_reason_length(server, runtime, way, schema):
    """The engine decides what half an answer is worth."""
    server.configure(fault_length=1)
    assert answer(runtime, connect(runtime, way(server.url), schema=schema)).finish_reason == "length"


@pytest.mark.parametrize(
    ("fault", "kind", "retryable", "fatal", "status"),
    [
        ("400", "bad_request", False, False, 400),
        ("401", "auth", False, True, 401),
        ("403", "auth", False, True, 403),
        ("404", "not_found", False, True, 404),
        ("408", "timeout", True, False, 408),
        ("409", "server", True, False, 409),
        ("422", "bad_request", False, False, 422),
        ("425", "server", True, False, 425),
        ("429", "rate_limited", True, False, 429),
        ("500", "server", True, False, 500),
        ("502", "server", True, False, 502),
        ("503", "server", True, False, 503),
        ("cut", "truncated", True, False, None),
        ("disconnect", "connection", True, False, None),
        ("garbage", "unreadable", True, False, None),
    ],
)
def test_each_failure_has_its_kind(server, runtime, way, fault, kind, retryable, fatal, status):  # noqa: PLR0913, PLR0917 - one table
    """Kind, retryable and one short line for each fault; no request is sent twice."""
    ask = connect(runtime, way(server.url))
    server.configure(**{f"fault_{fault}": 1})
    error = failure(runtime, ask)
    assert (error.kind, error.retryable, error.fatal, error.status) == (kind, retryable, fatal, status)
    assert str(error).startswith(f"openai:m at {server.url}")
    assert "\n" not in str(error)
    assert "<" not in str(error)
    assert len(str(error)) < 500
    assert server.counters().requests == 1


def test_an_error_has_the_endpoints_message_and_request_id(server, runtime, way):
    """The id is the one that its support will ask for."""
    ask = connect(runtime, way(server.url))
    server.configure(fault_400=1)
    error = failure(runtime, ask)
    assert "answered 400 Bad Request: Your request could not be understood" in str(error)
    assert str(error.request_id).startswith("req_")
    assert str(error).endswith(f"(request {error.request_id})")


def test_retry_after_is_read_in_both_forms(server, runtime, way):
    """Seconds and an HTTP date both become seconds."""
    ask = connect(runtime, way(server.url))
    server.configure(fault_429=1, retry_after=2.5)
    assert failure(runtime, ask).retry_after == 2.5
    server.configure(retry_after="date:30")
    assert failure(runtime, ask).retry_after == pytest.approx(30, abs=1.5)
    server.configure(retry_after="soon")
    assert failure(runtime, ask).retry_after is None


def test_cancelling_closes_the_connection(server, runtime, way):
    """A cancelled call is not left running at the server, which sees its client go."""
    ask = connect(runtime, way(server.url))
    server.configure(fault_hang=1)
    call = runtime.submit(called(ask))
    server.wait_for(in_flight=1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        call.result()
    assert server.wait_for(client_disconnects=1).in_flight == 0


def test_cancelling_in_the_middle_of_a_body_closes_the_connection(server, runtime, way):
    """Also when half of the answer has arrived."""
    ask = connect(runtime, way(server.url))
    server.configure(fault_trickle=1)

    async def give_up() -> None:
        async with asyncio.timeout(0.3):
            await ask(HELLO)

    with pytest.raises(TimeoutError):
        runtime.run(give_up())
    server.wait_for(client_disconnects=1)


def test_models_of_one_endpoint_share_connections(server, runtime, way):
    """100 calls one after the other, from two columns of a model, go through one connection."""
    model = way(server.url)
    first, second = connect(runtime, model), connect(runtime, model, temperature=1)

    async def calls() -> None:
        for _ in range(50):
            await first(HELLO)
            await second(HELLO)

    runtime.run(calls())
    assert server.counters().requests == 100
    assert server.counters().connections == 1


def test_256_calls_are_in_flight_at_once(server, runtime, way):
    """No client limit sits below the lane's."""
    ask = connect(runtime, way(server.url))
    server.configure(fault_hang=1)

    async def calls() -> None:
        await asyncio.gather(*(called(ask, str(number)) for number in range(256)))

    call = runtime.submit(calls())
    server.wait_for(in_flight=256, timeout=20)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        call.result()


def test_a_body_of_megabytes_goes_through(server, runtime):
    """A prompt of 3 MB is sent without a warning; the openai package does not manage that on aiohttp."""
    server.configure(reply="echo")
    prompt = "ä" * 1_500_000
    reply = answer(runtime, connect(runtime, by_address(server.url)), prompt)
    assert reply.text == prompt


def test_a_message_that_cannot_be_encoded_is_not_sent(server, runtime, way):
    """A lone surrogate has no UTF-8 form; only this call fails, with that reason."""
    ask = connect(runtime, way(server.url))
    with pytest.raises(ModelError, match=r"a message to openai:m at .* cannot be sent: .*surrogates") as caught:
        answer(runtime, ask, "\ud800")
    assert (caught.value.kind, caught.value.retryable) == ("bad_request", False)
    assert server.counters().requests == 0


def test_an_unreachable_endpoint_fails_before_any_call(runtime, way):
    """Connecting to a closed port fails at once, with the address and what to do."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(ModelError) as caught:
            connect(runtime, way(url))
    error = caught.value
    assert (error.kind, error.retryable, error.fatal) == ("connection", False, True)
    assert f"openai:m at {url} could not be reached" in str(error)
    assert "start a server there, or set another address (base_url" in str(error)


def test_an_unknown_host_fails_before_any_call(runtime, way):
    """The name cannot be resolved."""
    with pytest.raises(
        ModelError, match=r"no-such-host.invalid/v1 could not be reached: .*; check the network"
    ) as caught:
        connect(runtime, way("http://no-such-host.invalid/v1"))
    assert (caught.value.kind, caught.value.fatal) == ("connection", True)


def test_https_at_an_http_server_fails_before_any_call(server, runtime, way):
    """The wrong scheme is a common slip; no retry can help."""
    with pytest.raises(ModelError, match=r"openai:m at https://.* could not be reached: ") as caught:
        connect(runtime, way(server.url.replace("http:", "https:")))
    assert (caught.value.kind, caught.value.fatal) == ("connection", True)


SDK_ON_PROXIES = "ignore:.*(BasicAuth|proxy_auth).*:DeprecationWarning"  # the openai package's own transport


@pytest.mark.filterwarnings(SDK_ON_PROXIES)
def test_a_proxy_from_the_environment_is_used(runtime, way, monkeypatch):
    """With its password, and with the key where it belongs."""
    said = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}'
    answered = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)
    with proxied(runtime, answered, monkeypatch) as seen:
        assert answer(runtime, connect(runtime, way("http://model.example/v1"))).text == "hi"
    request, *headers = seen[-1].lower().split(b"\r\n")
    assert request == b"post http://model.example/v1/chat/completions http/1.1"
    assert PROXY_PASSWORD in headers
    assert [line for line in headers if KEY.encode() in line] == [b"authorization: bearer " + KEY.encode()]


@pytest.mark.filterwarnings(SDK_ON_PROXIES)
def test_the_key_does_not_reach_a_proxy(runtime, way, monkeypatch):
    """The request for a tunnel has the proxy's password, and not our key."""
    with (
        proxied(runtime, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", monkeypatch) as seen,
        pytest.raises(ModelError, match=r"could not be reached through the proxy: .*Forbidden") as caught,
    ):
        connect(runtime, way("https://model.example/v1"))
    assert (caught.value.kind, caught.value.fatal) == ("connection", True)
    assert seen
    for request in seen:
        assert request.startswith(b"CONNECT model.example:443 ")
        assert PROXY_PASSWORD in request.lower()
        assert KEY.encode() not in request


def test_a_refused_connection_is_retryable(server, runtime, way):
    """In the middle of a run, a stopped server may start again."""
    ask = connect(runtime, way(server.url))
    server.stop()
    error = failure(runtime, ask)
    assert (error.kind, error.retryable, error.fatal) == ("connection", True, False)


def test_a_wrong_key_fails_before_any_call(server, runtime, way):
    """The request for the list of models, which costs nothing, is answered 401."""
    server.configure(api_key="another")
    with pytest.raises(ModelError, match=r"answered 401 Unauthorized: .*; check the key") as caught:
        connect(runtime, way(server.url))
    assert (caught.value.kind, caught.value.fatal) == ("auth", True)
    assert server.counters().requests == 0


def test_an_endpoint_without_a_list_of_models_is_fine(runtime, way):
    """404 for the list allows no conclusion about chat completions."""
    with canned(runtime, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as url:
        connect(runtime, way(url))


def test_a_key_that_may_not_list_models_is_fine(runtime, way):
    """OpenAI's restricted keys may chat all the same."""
    body = b'{"error": {"message": "Missing scopes: api.model.read"}}'
    with canned(runtime, b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)) as url:
        connect(runtime, way(url))


def test_a_moved_endpoint_is_not_followed(runtime, way):
    """A redirect would turn the request into another one; the error gives the new address."""
    answer = b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://new.example/v1\r\nContent-Length: 0\r\n\r\n"
    with canned(runtime, answer) as url:
        error = failure(runtime, connect(runtime, way(url)))
    assert (error.kind, error.retryable, error.fatal) == ("not_found", False, True)
    assert "it has moved to https://new.example/v1; set base_url accordingly" in str(error)


def test_an_answer_that_is_not_http_is_an_error(runtime, way):
    """Something else may be listening on that port."""
    with canned(runtime, b"SSH-2.0-OpenSSH_9.6\r\n\r\n") as url:
        error = failure(runtime, connect(runtime, way(url)))
    assert (error.kind, error.retryable) == ("unreadable", True)
    assert "answered with something that is not HTTP" in str(error)


def test_json_that_breaks_off_is_truncated_and_other_json_is_unreadable(runtime, way):
    """Half an object with status 200 differs from a whole one of another form."""
    with canned(runtime, b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"choices":[') as url:
        error = failure(runtime, connect(runtime, way(url)))
    assert (error.kind, error.retryable) == ("truncated", True)
    with canned(runtime, b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"data": "x"}') as url:
        error = failure(runtime, connect(runtime, way(url)))
    assert (error.kind, error.retryable) == ("unreadable", True)


def test_the_key_is_in_no_message(runtime, way):
    """An endpoint that echoes the key, whole or half masked, does not get it into an error."""
    body = b'{"error": {"message": "Incorrect API key provided: %b or sk-ver*****1234."}}' % KEY.encode()
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with canned(runtime, answer) as url:
        error = failure(runtime, connect(runtime, way(url)))
    assert "Incorrect API key provided: [key] or [key]" in str(error)
    shown: BaseException | None = error
    while shown is not None:
        assert KEY not in repr(shown) + str(shown)
        shown = None if shown.__suppress_context__ else shown.__context__


def test_a_client_is_made_once_and_closed_with_the_runtime(server):
    """The user's factory runs once for all that share it; its client is closed on the loop."""
    made: list[openai.AsyncOpenAI] = []

    def make() -> openai.AsyncOpenAI:
        made.append(openai.AsyncOpenAI(base_url=server.url, api_key="k", max_retries=5))
        return made[-1]

    model = Model("openai:m", client=make)
    with Runtime() as runtime:
        server.configure(fault_500=1)
        failure(runtime, connect(runtime, model))
        failure(runtime, connect(runtime, model))
        assert server.counters().requests == 2  # its own retries are off
    assert [client.is_closed() for client in made] == [True]


def test_a_client_of_another_kind_is_refused(runtime):
    """A synchronous client would stop the loop."""
    with pytest.raises(RecipeError, match=r"must return an openai.AsyncOpenAI, and returned a openai.OpenAI"):
        connect(runtime, Model("openai:m", client=lambda: openai.OpenAI(api_key="k")))


def test_a_factory_that_raises_is_named(runtime):
    """As httpx does for a proxy of SOCKS without its extra."""

    def make() -> openai.AsyncOpenAI:
        raise ImportError("Using SOCKS proxy, but the 'socksio' package is not installed.")

    with pytest.raises(RecipeError, match=r"^client: the factory raised ImportError: Using SOCKS proxy") as caught:
        connect(runtime, Model("openai:m", client=make))
    assert isinstance(caught.value.__cause__, ImportError)


def test_azure_goes_through_a_client(runtime):
    """The deployment's path and the api-version are the client's doing."""
    said = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}'
    seen: list[bytes] = []
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)
    with canned(runtime, reply, seen) as url:
        azure = partial(
            openai.AsyncAzureOpenAI, azure_endpoint=url.removesuffix("/v1"), api_key="k", api_version="2026-01-01"
        )
        assert answer(runtime, connect(runtime, Model("openai:gpt", client=azure))).text == "hi"
    assert seen[-1].startswith(b"POST /openai/deployments/gpt/chat/completions?api-version=2026-01-01 HTTP/1.1")


def test_nothing_is_left_open(server, way):
    """After the runtime is closed, the garbage collector finds no open session or socket."""
    with Runtime() as runtime:
        answer(runtime, connect(runtime, way(server.url)))
    gc.collect()


def test_a_date_is_measured_by_the_endpoints_clock(runtime, way):
    """A server whose clock is an hour behind asks for the same pause."""
    there = datetime.now(UTC) - timedelta(hours=1)
    date, until = (format_datetime(moment, usegmt=True) for moment in (there, there + timedelta(seconds=20)))
    answer = f"HTTP/1.1 429 Too Many Requests\r\nDate: {date}\r\nRetry-After: {until}\r\nContent-Length: 0\r\n\r\n"
    with canned(runtime, answer.encode()) as url:
        error = failure(runtime, connect(runtime, way(url)))
    assert error.retry_after == pytest.approx(20, abs=1.1)
