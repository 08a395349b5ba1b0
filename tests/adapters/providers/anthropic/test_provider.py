"""The anthropic provider over real HTTP, against a server that speaks the Messages API."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

import rowloop as rl
from rowloop.adapters.http.endpoint import Endpoint
from rowloop.adapters.providers.anthropic.provider import ANTHROPIC, provider
from rowloop.adapters.providers.wire.dialect import forget
from rowloop.engine.core.errors import ModelError, RecipeError
from rowloop.engine.models.provider import Ask, ChatParameters, Message, Reply
from rowloop.runtime.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "sk-ant-very-secret-1234"
HELLO: list[Message] = [{"role": "user", "content": "hello"}]
NOTE: dict[str, Any] = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["title", "stars"],
}
GRADE = {"type": "object", "properties": {"stars": {"enum": [1, 2, 3]}}, "required": ["stars"]}


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """Give each test a loop of its own, with no clients on it yet."""
    with Runtime() as runtime:
        yield runtime


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without keys and addresses."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def model(url: str, **settings: Any) -> rl.Model:
    """Make a model at an address."""
    return rl.Model("anthropic:m", base_url=url, api_key=SecretStr(KEY), **settings)


def connect(runtime: Runtime, to: rl.Model, **parameters: Any) -> Ask:
    """Check, connect and compile a model."""
    provider.check(to)
    return runtime.run(provider.connect(to, runtime)).chat(ChatParameters(**parameters))


def answer(runtime: Runtime, ask: Ask, messages: list[Message] | None = None) -> Reply:
    """Return the reply to a call."""

    async def call() -> Reply:
        return await ask(HELLO if messages is None else messages)

    return runtime.run(call())


def failure(runtime: Runtime, ask: Ask) -> ModelError:
    """Return the error that a call ends in."""
    with pytest.raises(ModelError) as caught:
        answer(runtime, ask)
    return caught.value


def test_a_reply_carries_text_usage_and_request_id(server, runtime):
    """Text, finish reason in the engine's words, tokens and the request-id header arrive."""
    server.configure(reply="fixed:four words of text")
    reply = answer(runtime, connect(runtime, model(server.url)))
    assert (reply.text, reply.finish_reason, reply.reasoning) == ("four words of text", "stop", None)
    assert (reply.prompt_tokens, reply.completion_tokens) == (3, 5)
    assert str(reply.request_id).startswith("req_")


def test_a_request_is_what_the_api_documents(server, runtime):
    """Path, version, key and body: the system prompt and the stop sequences in fields of their own."""
    ask = connect(runtime, model(server.url), temperature=0.5, max_tokens=7, stop=("END",), extra={"top_k": 3})
    answer(runtime, ask, [{"role": "system", "content": "be brief"}, *HELLO])
    (request,) = server.requests()
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["x-api-key"] == KEY
    assert request.headers["content-type"] == "application/json"
    assert "authorization" not in request.headers
    assert request.json() == {
        "model": "m",
        "max_tokens": 7,
        "temperature": 0.5,
        "stop_sequences": ["END"],
        "top_k": 3,
        "system": "be brief",
        "messages": HELLO,
    }


def test_max_tokens_is_always_sent(server, runtime):
    """The API needs it, so there is a default."""
    answer(runtime, connect(runtime, model(server.url)))
    assert server.requests()[0].json() == {"model": "m", "max_tokens": 8192, "messages": HELLO}


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_the_address_may_name_the_version_or_not(server, runtime, path):
    """Anthropic's own package wants it without; other endpoints are often given with it."""
    answer(runtime, connect(runtime, model(server.url.removesuffix("/v1") + path)))
    assert server.counters().answered == 1


def test_a_schema_becomes_an_output_format(server, runtime):
    """Objects are closed, and keywords that cannot be enforced are in descriptions: the server refuses them."""
    ask = connect(runtime, model(server.url), schema=NOTE, extra={"output_config": {"effort": "low"}})
    reply = answer(runtime, ask)
    assert json.loads(reply.text).keys() == {"title", "stars"}
    sent = server.requests()[0].json()["output_config"]
    assert sent["effort"] == "low"
    assert sent["format"]["type"] == "json_schema"
    assert sent["format"]["schema"] == {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "stars": {"type": "integer", "description": "(minimum: 1, maximum: 5)"},
        },
        "required": ["title", "stars"],
        "additionalProperties": False,
    }


def test_a_schema_that_cannot_be_enforced_goes_into_the_prompt(server, runtime):
    """The model reads a schema with free keys in the system prompt, after the column's own."""
    free = {"type": "object", "additionalProperties": {"type": "integer"}}
    ask = connect(runtime, model(server.url), schema=free)
    answer(runtime, ask, [{"role": "system", "content": "be brief"}, *HELLO])
    body = server.requests()[0].json()
    assert "output_config" not in body
    assert body["system"].startswith("be brief\n\nAnswer with JSON that obeys this JSON Schema")
    assert json.loads(body["system"].splitlines()[-1]) == free


def test_a_request_is_adapted_to_what_the_endpoint_accepts(server, runtime, caplog):
    """Older models support no output format, the newest no temperature: a changed request is sent, and counted."""
    forget()
    server.configure(structured=False, unknown=("temperature",), record=3)
    reply = answer(runtime, connect(runtime, model(server.url), schema=NOTE, temperature=0.5))
    assert (reply.requests, reply.native) == (3, False)
    assert "takes no temperature: temperature=0.5 is left out" in caplog.text
    assert server.requests()[-1].json().keys() == {"model", "max_tokens", "system", "messages"}
    forget()


@pytest.mark.parametrize("fault", ["think", "reasoning"])
def test_thinking_is_kept_out_of_the_text(server, runtime, fault):
    """Thinking blocks end in Reply.reasoning; so do the tags that other models behind this API write."""
    server.configure(reply="fixed:The answer.", **{f"fault_{fault}": 1})
    reply = answer(runtime, connect(runtime, model(server.url)))
    assert (reply.text, reply.reasoning) == ("The answer.", "Let me think about this step by step.")


def test_a_cut_answer_has_the_finish_reason_length(server, runtime):
    """`max_tokens` as the reason to stop is "length" to the engine."""
    server.configure(fault_length=1)
    assert answer(runtime, connect(runtime, model(server.url))).finish_reason == "length"


@pytest.mark.parametrize(
    ("fault", "kind", "retryable", "fatal", "status"),
    [
        ("400", "bad_request", False, False, 400),
        ("401", "auth", False, True, 401),
        ("403", "auth", False, True, 403),
        ("404", "not_found", False, True, 404),
        ("409", "server", True, False, 409),
        ("413", "bad_request", False, False, 413),
        ("429", "rate_limited", True, False, 429),
        ("500", "server", True, False, 500),
        ("502", "server", True, False, 502),
        ("529", "server", True, False, 529),
        ("cut", "truncated", True, False, None),
        ("disconnect", "connection", True, False, None),
        ("garbage", "unreadable", True, False, None),
    ],
)
def test_each_failure_has_its_kind(server, runtime, fault, kind, retryable, fatal, status):  # noqa: PLR0913, PLR0917 - one table
    """Kind, retryable and one short line for each fault; no request is sent twice."""
    ask = connect(runtime, model(server.url))
    server.configure(**{f"fault_{fault}": 1})
    error = failure(runtime, ask)
    assert (error.kind, error.retryable, error.fatal, error.status) == (kind, retryable, fatal, status)
    assert str(error).startswith(f"anthropic:m at {server.url}")
    assert "\n" not in str(error)
    assert "<" not in str(error)
    assert len(str(error)) < 500
    assert server.counters().requests == 1


def test_an_error_has_the_endpoints_message_and_request_id(server, runtime):
    """The id is the one that its support will ask for."""
    ask = connect(runtime, model(server.url))
    server.configure(fault_529=1)
    error = failure(runtime, ask)
    assert "answered 529: Overloaded" in str(error)
    assert str(error).endswith(f"(request {error.request_id})")
    assert str(error.request_id).startswith("req_")


def test_retry_after_is_read(server, runtime):
    """It arrives with 429."""
    ask = connect(runtime, model(server.url))
    server.configure(fault_429=1, retry_after=2.5)
    assert failure(runtime, ask).retry_after == 2.5


def test_cancelling_closes_the_connection(server, runtime):
    """A cancelled call is not left running at the server, which sees its client go."""
    ask = connect(runtime, model(server.url))
    server.configure(fault_hang=1)

    async def call() -> Reply:
        return await ask(HELLO)

    submitted = runtime.submit(call())
    server.wait_for(in_flight=1)
    submitted.cancel()
    with pytest.raises(asyncio.CancelledError):
        submitted.result()
    assert server.wait_for(client_disconnects=1).in_flight == 0


def test_models_of_one_endpoint_share_connections(server, runtime):
    """Calls one after the other, from two columns of a model, go through one connection."""
    first, second = connect(runtime, model(server.url)), connect(runtime, model(server.url), temperature=1)

    async def calls() -> None:
        for _ in range(20):
            await first(HELLO)
            await second(HELLO)

    runtime.run(calls())
    assert (server.counters().requests, server.counters().connections) == (40, 1)


def test_a_wrong_key_fails_before_any_call(server, runtime):
    """The request for the list of models, which costs nothing, is answered 401; the key is not repeated."""
    server.configure(api_key="another")
    with pytest.raises(ModelError, match=r"answered 401 Unauthorized: .*; check the key") as caught:
        connect(runtime, model(server.url))
    assert (caught.value.kind, caught.value.fatal) == ("auth", True)
    assert "[key]" in str(caught.value)
    shown: BaseException | None = caught.value
    while shown is not None:
        assert KEY not in repr(shown) + str(shown)
        shown = None if shown.__suppress_context__ else shown.__context__
    assert server.counters().requests == 0


def test_an_unreachable_endpoint_fails_before_any_call(server, runtime):
    """Connecting to a closed port fails at once, with the variable that would give another address."""
    server.stop()
    with pytest.raises(
        ModelError, match=r"start a server there, or set another address .*ANTHROPIC_BASE_URL"
    ) as caught:
        connect(runtime, model(server.url))
    assert (caught.value.kind, caught.value.fatal) == ("connection", True)


def test_a_message_that_cannot_be_encoded_is_not_sent(server, runtime):
    """A lone surrogate has no UTF-8 form; only this call fails, with that reason."""
    ask = connect(runtime, model(server.url))
    with pytest.raises(ModelError, match=r"a message to anthropic:m at .* cannot be sent: .*surrogates"):
        answer(runtime, ask, [{"role": "user", "content": "\ud800"}])
    assert server.counters().requests == 0


def test_a_recipe_runs_from_end_to_end(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Key and address from the environment, text and structured columns, faults on the way; the key is in no file."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url.removesuffix("/v1"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    server.configure(api_key=KEY, fault_529=0.3, fault_429=0.3, retry_after=0.01, fault_attempts=1)
    recipe = rl.Recipe(
        models={"writer": rl.Model("anthropic:claude-x", max_tokens=100)},
        columns=[
            rl.Category("topic", values=[f"topic {number}" for number in range(40)]),
            rl.Text("question", model="writer", system="Be brief.", prompt="Ask about {{ topic }}."),
            rl.Structured("note", model="writer", prompt="Note on {{ question }}", schema=GRADE),
        ],
        seed=7,
    )
    result = recipe.build(tmp_path / "out", rows=20)
    assert (result.status, result.actual) == ("complete", 20)
    assert {1, 2, 3} >= {note["stars"] for note in result.to_pandas()["note"]}
    counters = server.counters()
    assert counters.repeats > 0
    used = result.usage_by_model["writer"]
    assert (used.requests, used.prompt_tokens) == (counters.requests, counters.prompt_tokens)
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()
    assert KEY not in repr(result) + repr(recipe) + recipe.to_yaml()


def test_images_of_a_column_are_sent(server):
    """In the API's own form, beside the prompt."""
    recipe = rl.Recipe(
        models={"m": model(server.url)},
        columns=[
            rl.Category("photo", values=["data:image/png;base64,aGk="]),
            rl.Text("seen", model="m", prompt="What is it?", images=["photo"]),
        ],
    )
    assert recipe.preview(1).status == "complete"
    (message,) = server.requests()[0].json()["messages"]
    assert {part["type"] for part in message["content"]} == {"text", "image"}
    (image,) = [part for part in message["content"] if part["type"] == "image"]
    assert image["source"] == {"type": "base64", "media_type": "image/png", "data": "aGk="}


def test_thinking_fills_a_column_of_its_own(server):
    """The column that `reasoning` names gets the thinking blocks."""
    server.configure(reply="fixed:The answer.", fault_reasoning=1)
    columns = [rl.Text("answer", model="m", prompt="Why?", reasoning="why")]
    frame = rl.Recipe(models={"m": model(server.url)}, columns=columns).preview(1).dataset
    assert (frame["answer"][0], frame["why"][0]) == ("The answer.", "Let me think about this step by step.")


class TestCheck:
    """A wrong model is refused before anything is connected."""

    def test_a_missing_key_names_its_variable(self):
        with pytest.raises(RecipeError, match=r"ANTHROPIC_API_KEY is not set; put the key for api\.anthropic\.com"):
            provider.check(rl.Model("anthropic:claude-x"))
        with pytest.raises(RecipeError, match="MY_KEY is not set"):
            provider.check(rl.Model("anthropic:claude-x", api_key_env="MY_KEY"))

    def test_openais_variables_do_not_count(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
        with pytest.raises(RecipeError, match="ANTHROPIC_API_KEY is not set"):
            provider.check(rl.Model("anthropic:claude-x"))

    def test_the_environment_gives_address_and_key(self, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://10.0.0.1")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "from-environment\n")
        found = Endpoint.of(rl.Model("anthropic:claude-x"), ANTHROPIC)
        assert (found.url, found.key) == ("http://10.0.0.1", "from-environment")

    def test_an_endpoint_on_this_machine_needs_no_key(self):
        provider.check(rl.Model("anthropic:claude-x", base_url="http://localhost:8000"))

    @pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://"])
    def test_an_address_that_is_none_is_refused(self, url):
        with pytest.raises(RecipeError, match="base_url: this is no http address"):
            provider.check(rl.Model("anthropic:claude-x", base_url=url))

    def test_an_address_that_goes_too_far_is_refused(self):
        with pytest.raises(RecipeError, match="where /messages would begin; leave that out"):
            provider.check(rl.Model("anthropic:claude-x", base_url="http://localhost/v1/messages"))

    @pytest.mark.parametrize(
        ("settings", "problem"),
        [
            ({"extra": {"system": "x"}}, r"extra\.system: the system prompt is the column's own field"),
            ({"extra": {"messages": []}}, r"extra\.messages: the messages come from the column's prompt"),
            ({"extra": {"stream": True}}, r"extra\.stream: answers are read whole"),
            ({"extra": {"output_config": "low"}}, r"extra\.output_config: must be a mapping"),
            ({"client": object}, r"client: only openai: models take one"),
        ],
    )
    def test_settings_that_cannot_work_are_refused(self, settings, problem):
        with pytest.raises(RecipeError, match=problem):
            provider.check(rl.Model("anthropic:claude-x", base_url="http://localhost", **settings))

    def test_a_name_is_needed(self):
        with pytest.raises(RecipeError, match="write anthropic:NAME"):
            provider.check(rl.Model("anthropic:", base_url="http://localhost"))
