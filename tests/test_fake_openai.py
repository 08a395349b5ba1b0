"""The fake server does what its settings say: other tests, and the benchmarks, stand on it."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from struct import unpack
from typing import Any, Literal

import httpx
import msgspec
import openai
import pytest
from pydantic import BaseModel, Field

from fake_openai import Behaviour, FakeOpenAI
from fake_openai.behaviour import Dice
from fake_openai.schemas import conforming

FOLDER = Path(__file__).parent / "fake_openai"
TLS = ssl.create_default_context()  # not used here, but without it each client spends 30 ms on making its own


@pytest.fixture
def client(server: FakeOpenAI) -> Iterator[httpx.Client]:
    """Talk to the server over connections that are new in each test."""
    with httpx.Client(base_url=server.url, verify=TLS) as client:
        yield client


def chat(prompt: str = "hello", **more: Any) -> dict[str, Any]:
    """Write the body of a chat request."""
    return {"model": "m", "messages": [{"role": "user", "content": prompt}]} | more


def ask(client: httpx.Client, prompt: str = "hello", **more: Any) -> httpx.Response:
    """Send a chat request."""
    return client.post("/chat/completions", json=chat(prompt, **more))


def said(response: httpx.Response) -> str:
    """Take the content out of a good answer."""
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def hold(server: FakeOpenAI, prompt: str = "hello") -> socket.socket:
    """Send a request and leave it there."""
    url = httpx.URL(server.url)
    body = msgspec.json.encode(chat(prompt))
    connection = socket.create_connection((url.host, url.port))
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    return connection


def wanting(schema: dict[str, Any]) -> dict[str, Any]:
    """Write the response_format for a schema."""
    return {"type": "json_schema", "json_schema": {"name": "wanted", "schema": schema}}


# Answers


def test_an_answer_depends_on_the_prompt_alone(client):
    """The same prompt gets the same words again, another one others, and the usage adds up."""
    first, again, other = ask(client, "a"), ask(client, "a"), ask(client, "b")
    assert said(first) == said(again) != said(other)
    usage = first.json()["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 2


def test_every_answer_carries_its_own_request_id(client):
    """Errors carry one as well."""
    answers = [ask(client), ask(client), client.get("/models"), client.post("/nowhere")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 4


def test_a_prompt_is_its_texts_and_its_model(server, client):
    """How the JSON was written makes no difference to what counts as asked before."""
    ask(client, "a")
    ask(client, messages=[{"role": "user", "content": [{"type": "text", "text": "a"}]}])
    ask(client, "a", temperature=1)
    assert server.counters().repeats == 2
    ask(client, "a", model="other")
    ask(client, messages=[{"role": "system", "content": "be brief"}, {"role": "user", "content": "a"}])
    counters = server.counters()
    assert (counters.distinct_prompts, counters.repeats) == (3, 2)
    assert counters.requests_by_model == {"m": 4, "other": 1}


@pytest.mark.parametrize(
    ("reply", "content"),
    [("echo", "hi"), ("echo:you said ", "you said hi"), ("fixed:yes: {}", "yes: {}"), ('schema:{"const": 3}', "3")],
)
def test_reply_says_what_is_answered(server, client, reply, content):
    """Echo, echo with a prefix, a fixed text, or JSON for a schema of the server's own."""
    server.configure(reply=reply)
    assert said(ask(client, "hi")) == content


class Leaf(BaseModel):
    """Recursive."""

    kind: Literal["leaf", "needle"]
    day: date
    children: "list[Leaf]" = []


class Grade(BaseModel):
    """Everything the schema writer knows."""

    score: int = Field(ge=1, le=5)
    even: int = Field(gt=10, lt=20, multiple_of=2)
    share: float = Field(gt=0, lt=1)
    name: str = Field(min_length=80, max_length=90)
    note: str | None
    tags: set[Literal["a", "b", "c"]] = Field(min_length=2)
    pair: tuple[int, str]
    leaf: Leaf
    choice: int | Leaf
    sure: bool


def test_values_conform_to_the_schema_of_a_pydantic_model():
    """Bounds, lengths, enums, unions, sets, references and recursion are all obeyed."""
    schema = Grade.model_json_schema()
    for seed in range(300):
        Grade.model_validate(conforming(schema, Random(seed)))  # noqa: S311 - repeatable, not secret


def test_structured_answers_conform_and_repeat(client):
    """A response_format with a JSON Schema gets a value of that schema, derived from the prompt."""
    form = wanting(Grade.model_json_schema())
    answers = [said(ask(client, prompt, response_format=form)) for prompt in ("a", "a", "b")]
    assert answers[0] == answers[1] != answers[2]
    Grade.model_validate_json(answers[0])
    assert isinstance(msgspec.json.decode(said(ask(client, response_format={"type": "json_object"}))), dict)


def test_response_format_can_be_unsupported(server, client):
    """structured=False answers 400 to it, and 200 without it."""
    server.configure(structured=False)
    assert ask(client, response_format=wanting({"type": "object"})).status_code == 400
    assert ask(client).status_code == 200


def test_schemas_alone_can_be_unsupported(server, client):
    """json_schema=False leaves json_object."""
    server.configure(json_schema=False)
    assert ask(client, response_format=wanting({"type": "object"})).status_code == 400
    assert ask(client, response_format={"type": "json_object"}).status_code == 200


def test_fields_can_be_unknown(server, client):
    """400 names the first of them that the request has."""
    server.configure(unknown=["max_tokens", "temperature"])
    assert ask(client, max_completion_tokens=5).status_code == 200
    for name, refused in (("max_tokens", ask(client, max_tokens=1)), ("temperature", ask(client, temperature=1))):
        assert refused.status_code == 400
        assert f"'{name}'" in refused.json()["error"]["message"]


def test_answers_can_be_badly_put(server, client):
    """Fenced, prose in place of JSON, or no answer at all for reasoning; with heals, only until it is told."""
    form = wanting(Grade.model_json_schema())
    plain = said(ask(client, response_format=form))
    server.configure(fault_fenced=1)
    assert f"```json\n{plain}\n```" in said(ask(client, response_format=form))
    server.configure(fault_fenced=0, fault_overthink=1)
    (choice,) = ask(client).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")
    assert choice["message"]["reasoning_content"]
    server.configure(fault_overthink=0, fault_prose=1, heals=True)
    assert not said(ask(client, response_format=form)).startswith("{")
    talk = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hm"}]
    Grade.model_validate_json(said(ask(client, messages=talk, response_format=form)))


def test_a_stream_says_what_the_plain_answer_says(client):
    """The deltas add up to the content; the usage comes last when it is asked for."""
    with client.stream(
        "POST", "/chat/completions", json=chat(stream=True, stream_options={"include_usage": True})
    ) as r:
        assert r.headers["content-type"] == "text/event-stream"
        lines = [line.removeprefix("data: ") for line in r.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    events = [msgspec.json.decode(line) for line in lines[:-1]]
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    plain = ask(client)
    assert "".join(delta.get("content", "") for delta in deltas) == said(plain)
    assert events[-1]["usage"] == plain.json()["usage"]


def test_embeddings_are_unit_vectors_in_both_encodings(client):
    """Each input has its own vector, as numbers or as base64 of the same numbers."""
    request = {"model": "m", "input": ["a", "b"], "dimensions": 5}
    plain = client.post("/embeddings", json=request).json()
    packed = client.post("/embeddings", json=request | {"encoding_format": "base64"}).json()
    one, two = (item["embedding"] for item in plain["data"])
    assert one != two
    assert sum(number * number for number in one) == pytest.approx(1)
    assert unpack("<5f", b64decode(packed["data"][0]["embedding"])) == pytest.approx(one)


def test_the_openai_package_is_content_with_it(server):
    """Chat, streams, embeddings and the list of models pass through the official client."""
    with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0) as sdk:
        messages: Any = [{"role": "user", "content": "hi"}]
        whole = sdk.chat.completions.create(model="m", messages=messages).choices[0].message.content
        stream = sdk.chat.completions.create(model="m", messages=messages, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == whole
        assert len(sdk.embeddings.create(model="m", input="a").data[0].embedding) == 8
        assert [model.id for model in sdk.models.list()] == ["fake-model"]


# Refusals


def test_only_the_right_key_is_let_in(server, client):
    """401 for a missing or a wrong key, on every endpoint."""
    server.configure(api_key="sk-right")
    assert ask(client).status_code == client.get("/models").status_code == 401
    wrong = client.get("/models", headers={"Authorization": "Bearer sk-wrong"})
    assert wrong.json()["error"]["code"] == "invalid_api_key"
    assert client.get("/models", headers={"Authorization": "Bearer sk-right"}).status_code == 200


def test_only_listed_models_exist(server, client):
    """The list of models is what GET /v1/models tells; others are 404."""
    server.configure(models=["a", "b"])
    assert [model["id"] for model in client.get("/models").json()["data"]] == ["a", "b"]
    assert ask(client, model="a").status_code == 200
    assert ask(client).json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'{"model": "m"}', b'{"model": "m", "messages": [{}]}'])
def test_a_malformed_request_is_400(server, client, body):
    """The error says what is wrong, and the request counts."""
    response = client.post("/chat/completions", content=body)
    assert (response.status_code, server.counters().by_status) == (400, {400: 1})
    assert "not a valid request" in response.json()["error"]["message"]


def test_an_unknown_path_is_404_and_a_wrong_method_405(client):
    """As with any server."""
    assert (client.post("/nowhere").status_code, client.get("/chat/completions").status_code) == (404, 405)


def test_above_the_hidden_limit_is_429(server, client):
    """Requests in flight hold their places until they are answered or their client goes away."""
    server.configure(limit=2, fault_hang=1, retry_after=7)
    with hold(server, "a"), hold(server, "b"):
        server.wait_for(in_flight=2)
        refused = ask(client, "c")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    counters = server.wait_for(client_disconnects=2)
    assert (counters.peak, counters.refused, counters.in_flight) == (3, 1, 0)
    server.configure(fault_hang=0)
    assert ask(client, "c").status_code == 200


def test_requests_per_minute_are_a_bucket(server, client):
    """When it is empty there is 429, and the headers tell how it stands."""
    server.configure(requests_per_minute=2, ratelimit_headers=True)
    remaining = [ask(client).headers["x-ratelimit-remaining-requests"] for _ in range(2)]
    assert remaining == ["1", "0"]
    refused = ask(client)
    assert (refused.status_code, refused.headers["x-ratelimit-limit-requests"]) == (429, "2")
    # Full again in a minute, less the moments since the first request.
    assert refused.headers["x-ratelimit-reset-requests"] in {"1m0s"} | {f"{59 + n / 10:.1f}s" for n in range(11)}


def test_tokens_per_minute_are_a_bucket(server, client):
    """A long prompt empties it sooner than a short one; without the option no header tells."""
    server.configure(tokens_per_minute=100)
    answers = [ask(client, "x" * 300), ask(client, "x" * 300)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert not any(name.startswith("x-ratelimit") for name in answers[0].headers)


# Faults


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 422, 425, 429, 500, 503])
def test_a_status_fault_answers_with_an_error_object(server, client, status):
    """Each has its own rate."""
    server.configure(Behaviour(), **{f"fault_{status}": 1})
    response = ask(client)
    assert (response.status_code, bool(response.json()["error"]["message"])) == (status, True)
    counters = server.counters()
    assert (counters.by_status, counters.by_fault, counters.answered) == ({status: 1}, {str(status): 1}, 1)


@pytest.mark.parametrize(("fault", "status"), [("fault_502", 502), ("fault_garbage", 200)])
def test_a_page_comes_where_json_should(server, client, fault, status):
    """A proxy's 502 and garbage with status 200 are HTML."""
    server.configure(Behaviour(), **{fault: 1})
    response = ask(client)
    assert (response.status_code, response.headers["content-type"]) == (status, "text/html")


@pytest.mark.parametrize(("setting", "sent"), [(2, "2"), (0.5, "0.5"), (None, None), (1e9, "1000000000"), ("x", "x")])
def test_retry_after_is_sent_as_it_is_set(server, client, setting, sent):
    """Numbers, absurd ones included, and any text; or none at all."""
    server.configure(fault_429=1, retry_after=setting)
    assert ask(client).headers.get("retry-after") == sent


def test_retry_after_has_a_date_form(server, client):
    """An HTTP-date so many seconds from now."""
    server.configure(fault_503=1, retry_after="date:60")
    moment = parsedate_to_datetime(ask(client).headers["retry-after"])
    assert 57 < (moment - datetime.now(UTC)).total_seconds() <= 60


@pytest.mark.parametrize("fault", ["fault_cut", "fault_disconnect"])
@pytest.mark.parametrize("stream", [True, False])
def test_the_connection_breaks(server, client, fault, stream):
    """Midway through a body or a stream, or before any of it."""
    server.configure(Behaviour(), **{fault: 1})
    with pytest.raises(httpx.RemoteProtocolError):
        ask(client, stream=stream)
    counters = server.counters()
    assert (counters.broken, counters.answered, counters.client_disconnects) == (1, 0, 0)


def test_a_cut_body_arrives_in_part(server, client):
    """The promised length is more than what comes."""
    server.configure(fault_cut=1)
    with client.stream("POST", "/chat/completions", json=chat()) as response:
        pieces = response.iter_raw()
        start = next(pieces)
        with pytest.raises(httpx.RemoteProtocolError):
            next(pieces)
    assert start.startswith(b'{"id":')
    assert 0 < len(start) < int(response.headers["content-length"])


def test_a_hung_request_is_never_answered(server, client):
    """Its client gives up, which the server sees."""
    server.configure(fault_hang=1)
    with pytest.raises(httpx.ReadTimeout):
        client.post("/chat/completions", json=chat(), timeout=0.05)
    counters = server.wait_for(client_disconnects=1)
    assert (counters.requests, counters.in_flight, counters.by_fault) == (1, 0, {"hang": 1})


def test_a_trickled_body_comes_in_many_pieces(server, client):
    """All of it, over trickle_seconds."""
    server.configure(fault_trickle=1, trickle_seconds=0.3)
    started = time.monotonic()
    with client.stream("POST", "/chat/completions", json=chat()) as response:
        pieces = list(response.iter_raw())
    assert time.monotonic() - started >= 0.3
    assert len(pieces) > 10
    assert msgspec.json.decode(b"".join(pieces))["object"] == "chat.completion"


def test_content_can_be_wrong_in_a_right_answer(server, client):
    """JSON that breaks off, an answer cut at its length, reasoning beside the content and within it."""
    form = wanting({"type": "object", "properties": {"a": {"type": "integer"}}})
    right = said(ask(client))
    server.configure(Behaviour(fault_invalid_json=1))
    for prompt in (said(ask(client, response_format=form)), said(ask(client))):
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(prompt)
    server.configure(Behaviour(fault_length=1))
    short = ask(client)
    assert short.json()["choices"][0]["finish_reason"] == "length"
    assert right.startswith(said(short))
    server.configure(Behaviour(fault_reasoning=1))
    thought = ask(client).json()
    assert thought["choices"][0]["message"]["reasoning_content"]
    assert thought["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    server.configure(Behaviour(fault_think=1))
    assert said(ask(client)).startswith("<think>")
    assert said(ask(client)).endswith(right)


def test_faults_repeat_whatever_the_order_of_arrival(server, client):
    """The same seed fails the same prompts at the same attempts; another seed fails others."""
    prompts = [f"p{number}" for number in range(40)]

    def statuses(order: list[str], seed: int) -> dict[str, list[int]]:
        server.configure(fault_500=0.4, seed=seed)
        server.reset()
        return {prompt: [ask(client, prompt).status_code for _ in range(2)] for prompt in order}

    forwards = statuses(prompts, 1)
    assert forwards == statuses(prompts[::-1], 1) != statuses(prompts, 2)
    assert {tuple(pair) for pair in forwards.values()} == {(200, 200), (200, 500), (500, 200), (500, 500)}


def test_faults_can_be_kept_to_first_attempts(server, client):
    """With fault_attempts=1 every second attempt succeeds."""
    server.configure(fault_500=1, fault_attempts=1)
    assert [ask(client).status_code for _ in range(3)] == [500, 200, 200]


def test_faults_have_the_rates_they_are_given():
    """Over many prompts each fault gets its share, and jitter is spread over its range."""
    dice = Dice(Behaviour(fault_429=0.1, fault_cut=0.05, fault_hang=0.2, latency=1, jitter=2))
    throws = [dice.throw(b"%d" % number, 1) for number in range(20_000)]
    for fault, rate in {"429": 0.1, "cut": 0.05, "hang": 0.2, "": 0.65}.items():
        assert sum(throw.fault == fault for throw in throws) / len(throws) == pytest.approx(rate, abs=0.01)
    waits = sorted(throw.wait for throw in throws)
    assert (waits[0], waits[-1]) == pytest.approx((1, 3), abs=0.01)
    assert max(after - before for before, after in pairwise(waits)) < 0.01


def test_an_answer_waits_for_its_latency(server, client):
    """And for its jitter, which is the same for the same prompt and attempt."""
    server.configure(latency=0.1)
    started = time.monotonic()
    ask(client)
    assert time.monotonic() - started >= 0.1


# Counters and controls


def test_counters_add_up(server, client):
    """After a run of all kinds of ends every request is in exactly one of them."""
    server.configure(fault_500=0.2, fault_cut=0.2, fault_disconnect=0.2, fault_length=0.2)
    for number in range(50):
        try:
            ask(client, f"p{number % 30}")
        except httpx.RemoteProtocolError:
            continue
    counters = server.counters()
    assert counters.requests == counters.answered + counters.broken == 50
    assert counters.answered == sum(counters.by_status.values())
    assert (counters.distinct_prompts, counters.repeats, counters.in_flight) == (30, 20, 0)
    assert set(counters.by_fault) == {"500", "cut", "disconnect", "length"}


def test_every_client_that_goes_away_is_seen(server):
    """Many at once, during latency."""
    server.configure(latency=60)
    held = [hold(server, f"p{number}") for number in range(50)]
    assert server.wait_for(in_flight=50).peak_by_model == {"m": 50}
    for connection in held:
        connection.close()
    counters = server.wait_for(client_disconnects=50)
    assert (counters.in_flight, counters.answered, counters.broken, counters.peak) == (0, 0, 0, 50)


def test_usage_is_summed(server, client):
    """What complete answers said they used."""
    usages = [ask(client, prompt).json()["usage"] for prompt in ("a", "a longer prompt")]
    counters = server.counters()
    assert counters.prompt_tokens == sum(usage["prompt_tokens"] for usage in usages)
    assert counters.completion_tokens == sum(usage["completion_tokens"] for usage in usages)


def test_connections_are_those_of_clients(server, client):
    """A client that keeps its connection is one; control calls are none."""
    for _ in range(3):
        ask(client)
    server.counters()
    assert server.counters().connections == 1


def test_requests_can_be_read_back(server, client):
    """The last one, or as many as `record` says, as they were sent."""
    ask(client, "a")
    server.configure(record=2)
    for prompt in ("b", "c"):
        client.post("/chat/completions?v=1", json=chat(prompt), headers={"X-Extra": "yes"})
    first, last = server.requests()
    assert first.json() == chat("b")
    assert (last.method, last.path, last.headers["x-extra"]) == ("POST", "/v1/chat/completions?v=1", "yes")


def test_reset_forgets_requests_and_keeps_the_behaviour(server, client):
    """A request in flight at a reset does not count afterwards."""
    server.configure(fault_500=1, fault_attempts=1)
    assert ask(client).status_code == 500
    with hold(server):
        server.wait_for(requests=2)
        server.reset()
        counters = server.counters()
        assert (counters.requests, counters.in_flight, counters.by_status) == (0, 0, {})
    assert ask(client).status_code == 500


def test_wait_for_gives_up(server):
    """It says what it waited for and how things stand."""
    with pytest.raises(TimeoutError, match=r"'in_flight': 1.*requests=0"):
        server.wait_for(in_flight=1, timeout=0.02)
    with pytest.raises(ValueError, match="nothing"):
        server.wait_for(nothing=1)


@pytest.mark.parametrize("settings", [{"falt_500": 1}, {"fault_500": 2}, {"fault_500": 0.6, "fault_429": 0.6}])
@pytest.mark.parametrize("setting", [{"reply": "echo!"}, {"latency": -1}, {"retry_after": "date:soon"}, {}])
def test_settings_that_make_no_sense_are_refused(server, settings, setting):
    """Before a process is started, and by a running one."""
    with pytest.raises(ValueError, match=r"\w"):
        FakeOpenAI(**settings | setting)
    with pytest.raises(ValueError, match=r"\w"):
        server.configure(**settings | setting)


def test_a_stopped_server_refuses_connections(server, client):
    """It cuts those it has, keeps its counts, and comes back on the same port."""
    server.configure(latency=60)
    with hold(server) as held:
        server.wait_for(in_flight=1)
        server.stop()
        assert held.recv(1) == b""
    with pytest.raises(httpx.ConnectError):
        ask(client)
    server.configure(latency=0)
    server.start()
    assert ask(client).status_code == 200
    counters = server.counters()
    assert (counters.requests, counters.broken, counters.client_disconnects) == (2, 1, 0)


def test_refuse_for_ends_by_itself(server, client):
    """Nothing gets through before the time is over, and everything does after that."""
    begun = time.monotonic()
    server.refuse_for(0.2)
    refused = 0
    while True:
        try:
            assert ask(client).status_code == 200
            break
        except httpx.ConnectError:
            refused += 1
    assert time.monotonic() - begun >= 0.2
    assert refused


def test_a_renewed_server_is_one_that_nobody_has_talked_to(server, client):
    """Its address is new and the old one refuses, what was in flight is cut, and settings and counts are the first."""
    old = server.url
    server.configure(latency=60, models=("m",))
    with hold(server) as held:
        server.wait_for(in_flight=1)
        server.renew()
        assert held.recv(1) == b""
    with pytest.raises(httpx.ConnectError):
        ask(client)
    assert server.url != old
    assert server.behaviour == Behaviour()
    with httpx.Client(base_url=server.url, verify=TLS) as other:
        assert ask(other).status_code == 200
    counters = server.counters()
    assert (counters.requests, counters.connections, counters.broken, counters.peak) == (1, 1, 0, 1)


# The process


@pytest.mark.outside
def test_the_process_ends_with_the_block():
    """It is gone, and waited for; as long as it runs it can be pinned to a core."""
    core = min(os.sched_getaffinity(0))
    with FakeOpenAI(cpu=core) as server:
        assert os.sched_getaffinity(server.pid) == {core}
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


@pytest.mark.outside
def test_the_process_ends_with_its_parent():
    """Even when the parent is killed: its error output, which the server shares, closes only when both are gone."""
    script = "import os, sys; sys.path.insert(0, sys.argv[1])\nfrom fake_openai import FakeOpenAI\n"
    script += f"with FakeOpenAI(): os.kill(os.getpid(), {int(signal.SIGKILL)})"
    command = [sys.executable, "-c", script, str(FOLDER.parent)]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False, timeout=20)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"")


@pytest.mark.outside
def test_it_runs_by_hand():
    """Flags are settings; the first line is the URL, and controls answer on the same port."""
    command = [
        sys.executable,
        str(FOLDER),
        "--latency",
        "0.01",
        "--models",
        "a",
        "b",
        "--no-structured",
        "--limit",
        "4",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = httpx.URL(server.stdout.readline().strip())
            behaviour = msgspec.json.decode(httpx.get(url.join("/control/behaviour")).content, type=Behaviour)
        finally:
            server.terminate()
    assert behaviour == Behaviour(latency=0.01, models=("a", "b"), structured=False, limit=4)


@pytest.mark.outside
def test_a_wrong_flag_is_a_usage_error():
    """Status 2, and a line that names the field."""
    done = subprocess.run([sys.executable, str(FOLDER), "--latency", "slow"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"latency" in done.stderr


@pytest.mark.outside
def test_importing_it_is_light():
    """The parent needs neither aiohttp nor rowloop for it."""
    script = "import sys; sys.path.insert(0, sys.argv[1]); import fake_openai; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", script, str(FOLDER.parent)], text=True).split()
    assert not {"aiohttp", "rowloop", "httpx"} & set(modules)
