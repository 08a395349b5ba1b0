"""Adapting, by plain calls: which refusals make another form be tried, and what is adopted."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from rowloop.adapters.http.errors import Failures
from rowloop.adapters.providers.openai.chat import ChatWire
from rowloop.adapters.providers.wire.adapting import adapting
from rowloop.adapters.providers.wire.dialect import Dialect
from rowloop.adapters.providers.wire.messages import stopped, without_system
from rowloop.engine.core.errors import ModelError
from rowloop.engine.models.provider import ChatParameters, Message, Reply

NOTE = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORMS = ["strict", "json_schema", "json_object", "prompt"]


def form_of(body: dict[str, Any]) -> str:
    """Name the form of a request."""
    wanted = body.get("response_format")
    if wanted is None:
        return "prompt"
    return "strict" if wanted.get("json_schema", {}).get("strict") else str(wanted["type"])


class Endpoint:
    """Takes some forms, and refuses prompts that begin with a status."""

    def __init__(self, *taken: str, status: int = 400, says: str = "no", **parameters: Any) -> None:
        """Prepare one column; other forms are refused with this status, in these words."""
        self.asked: list[str] = []
        self.taken = taken
        self.refusal = (status, says)
        self.passing = 0
        self.failures = Failures("openai:m")
        self.wire = ChatWire("m", ChatParameters(**{"schema": NOTE, **parameters}), self.failures, Dialect())
        self.ask = adapting(self.wire, self._send)

    async def _send(self, wire: ChatWire, messages: list[Message]) -> Reply:
        form, prompt = form_of(wire.body(messages)), str(messages[-1]["content"])
        self.asked.append(form)
        await asyncio.sleep(0)
        if self.passing:
            self.passing -= 1
            raise self.refused(500, "Internal error")
        if prompt[:3].isdigit():
            raise self.refused(int(prompt[:3]), "bad row")
        if form not in self.taken:
            raise self.refused(*self.refusal)
        return Reply("{}", prompt_tokens=7)

    def refused(self, status: int, says: str) -> ModelError:
        """Return an error in OpenAI's form."""
        return self.failures.status(status, {}, json.dumps({"error": {"message": says}}).encode())

    def run(self, *prompts: str) -> list[Any]:
        """Ask all prompts at the same time."""

        async def together() -> list[Any]:
            calls = [self.ask([{"role": "user", "content": prompt}]) for prompt in prompts]
            return await asyncio.gather(*calls, return_exceptions=True)

        return asyncio.run(together())


@pytest.mark.parametrize("status", [400, 404, 422, 500, 501])
@pytest.mark.parametrize("says", ["no", "too many states", "Failed to parse grammar", ""])
@pytest.mark.parametrize("taken", FORMS[1:])
def test_a_refused_form_leads_to_the_next_whatever_the_words(status: int, says: str, taken: str):
    """The first that is answered is the column's; a later request is sent in it at once."""
    endpoint = Endpoint(taken, status=status, says=says)
    passing = status >= 500 and says in {"no", ""}
    for _ in range(4 if passing else 0):
        (error,) = endpoint.run("a")
        assert isinstance(error, ModelError)
        assert error.retryable
    (reply,) = endpoint.run("a")
    assert isinstance(reply, Reply)
    tried = [form for form in endpoint.asked if form != "strict"]
    assert tried == FORMS[1 : FORMS.index(taken) + 1]
    assert reply.requests == len(endpoint.asked) - 4 * passing
    assert endpoint.asked.count("strict") == (6 if passing else 1)
    endpoint.asked.clear()
    endpoint.run("b", "c")
    assert endpoint.asked == [taken, taken]


def test_the_refusal_is_shown_when_another_form_is_adopted(caplog: pytest.LogCaptureFixture):
    """With the endpoint's reason."""
    with caplog.at_level(logging.WARNING, "rowloop"):
        Endpoint("prompt", says="too many states").run("a")
    (record,) = caplog.records
    assert record.getMessage() == (
        "openai:m answered 400 Bad Request: too many states;"
        " answers that obey the schema are asked for in the prompt instead"
    )


def test_a_bad_row_changes_nothing():
    """It is refused in every form: its own fault, with the first complaint; the others keep the best form."""
    endpoint = Endpoint("strict")
    bad, good = endpoint.run("400 first of all", "b")
    assert isinstance(bad, ModelError)
    assert "bad row" in str(bad)
    assert isinstance(good, Reply)
    endpoint.asked.clear()
    assert all(isinstance(reply, Reply) for reply in endpoint.run("c", "d"))
    assert endpoint.asked == ["strict", "strict"]


@pytest.mark.parametrize("prompts", [["400", "b", "c"], ["a", "400", "c"]])
def test_a_bad_row_does_not_keep_others_from_finding_the_form(prompts: list[str]):
    """Whichever comes first."""
    found = Endpoint("json_object").run(*prompts)
    assert [type(reply) for reply in found] == [ModelError if prompt == "400" else Reply for prompt in prompts]


def test_once_answered_a_refusal_is_about_its_row():
    """No further form is tried, whatever the words."""
    endpoint = Endpoint("strict")
    endpoint.run("a")
    endpoint.asked.clear()
    endpoint.taken, endpoint.refusal = (), (400, "response_format is not supported")
    (error,) = endpoint.run("b")
    assert isinstance(error, ModelError)
    assert endpoint.asked == ["strict"]


def test_an_error_of_the_server_that_passes_weakens_nothing():
    """It is an error like others, and the run retries."""
    endpoint = Endpoint(*FORMS)
    endpoint.passing = 4
    found = endpoint.run(*"abcdef")
    assert [type(reply) for reply in found] == [ModelError] * 4 + [Reply] * 2
    assert set(endpoint.asked) == {"strict"}


@pytest.mark.parametrize("passing", [5, 6, 7])
def test_a_server_that_comes_back_during_a_trial_weakens_nothing(passing: int):
    """The present form is tried once more before a weaker one is adopted; the tokens of both answers are counted."""
    endpoint = Endpoint(*FORMS)
    endpoint.passing = passing
    for _ in range(4):
        endpoint.run("a")
    endpoint.asked.clear()
    (reply,) = endpoint.run("a")
    assert isinstance(reply, Reply)
    assert endpoint.asked[-1] == "strict"
    assert (reply.prompt_tokens, reply.requests) == (14, len(endpoint.asked))
    endpoint.asked.clear()
    endpoint.run("b")
    assert endpoint.asked == ["strict"]


def test_a_server_that_is_down_is_tried_by_one_request():
    """The others that failed meanwhile get their error, and are retried by the run; every request is counted."""
    endpoint = Endpoint(status=500)
    found = endpoint.run(*"abcdefgh")
    assert all(isinstance(error, ModelError) and error.retryable for error in found)
    assert len(endpoint.asked) == 8 + 3
    assert sum(getattr(error.usage, "requests", 1) for error in found) == len(endpoint.asked)


def test_first_requests_find_the_form_together():
    """One tries; the others wait for what it finds."""
    endpoint = Endpoint("json_object")
    assert all(isinstance(reply, Reply) for reply in endpoint.run(*"abcdefgh"))
    assert [endpoint.asked.count(form) for form in FORMS] == [8, 1, 8, 0]


@pytest.mark.parametrize("status", [401, 402, 429])
def test_other_failures_end_a_trial(status: int):
    """They have nothing to do with the form, and the next attempt tries again."""
    endpoint = Endpoint()

    async def send(wire: ChatWire, messages: list[Message]) -> Reply:
        raise endpoint.refused(status if form_of(wire.body(messages)) == "json_schema" else 400, "no")

    with pytest.raises(ModelError) as caught:
        asyncio.run(adapting(endpoint.wire, send)([{"role": "user", "content": "a"}]))  # type: ignore[arg-type]
    assert caught.value.status == status
    assert getattr(caught.value.usage, "requests", 1) == 2
    assert form_of(endpoint.wire.body([])) == "strict"


@pytest.mark.parametrize("taken", FORMS[1:])
def test_a_field_that_is_refused_during_a_trial_is_left_out(taken: str):
    """An endpoint complains about one thing at a time, and about the form first."""
    endpoint = Endpoint(temperature=0.5, max_tokens=5, stop=("X",))

    async def send(wire: ChatWire, messages: list[Message]) -> Reply:
        body = wire.body(messages)
        endpoint.asked.append(form_of(body))
        if form_of(body) != taken:
            raise endpoint.refused(400, "no" if form_of(body) == "strict" else "response_format: unknown type")
        for name in ("temperature", "max_tokens", "stop"):
            if name in body:
                raise endpoint.refused(400, f"Unsupported parameter: '{name}' is not supported with this model.")
        return Reply("{}")

    ask = adapting(endpoint.wire, send)
    reply = asyncio.run(ask([{"role": "user", "content": "a"}]))  # type: ignore[arg-type]
    assert reply.requests == len(endpoint.asked)
    before = len(endpoint.asked)
    assert asyncio.run(ask([{"role": "user", "content": "b"}])).requests == 1  # type: ignore[arg-type]
    assert endpoint.asked[before:] == [taken]
    assert endpoint.wire.body([]).keys() - {"response_format"} == {"model", "max_completion_tokens", "messages"}


def test_a_plain_request_has_no_form_to_try():
    """A refusal of a text column is its error, with nothing about schemas in its usage."""
    endpoint = Endpoint(schema=None)
    (error,) = endpoint.run("400")
    assert isinstance(error, ModelError)
    assert error.usage is None
    assert endpoint.asked == ["prompt"]


def test_a_form_of_the_users_own_is_not_changed():
    """A response_format in `extra` is an order."""
    endpoint = Endpoint("prompt", extra={"response_format": {"type": "json_object"}})
    (error,) = endpoint.run("a")
    assert isinstance(error, ModelError)
    assert endpoint.asked == ["json_object"]


def test_a_bad_sample_is_retried_in_the_same_form():
    """Groq's json_validate_failed is no refusal of the form."""
    endpoint = Endpoint()
    sample = b'{"error": {"message": "Failed to generate JSON", "code": "json_validate_failed"}}'

    async def send(wire: ChatWire, messages: list[Message]) -> Reply:
        endpoint.asked.append(form_of(wire.body(messages)))
        raise endpoint.failures.status(400, {}, sample)

    with pytest.raises(ModelError) as caught:
        asyncio.run(adapting(endpoint.wire, send)([{"role": "user", "content": "a"}]))  # type: ignore[arg-type]
    assert (caught.value.kind, caught.value.retryable, endpoint.asked) == ("unreadable", True, ["strict"])


@pytest.mark.parametrize(
    "says",
    [
        "System role not supported",
        "Developer instruction is not enabled for models/gemma-3-27b-it",
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "Only user and assistant roles are supported!",
        "Jinja Exception: System role not supported",
    ],
)
def test_a_refused_system_prompt_goes_to_the_user(says: str):
    """In all columns, and only where there is one."""
    dialect = Dialect()
    wire = ChatWire("m", ChatParameters(), Failures("openai:m"), dialect)
    user = {"role": "user", "content": "hello"}
    talk = [{"role": "system", "content": "Be brief."}, user]
    assert not wire.adapts(wire.preparation, says, [user])
    assert wire.adapts(wire.preparation, says, talk)
    assert wire.body(talk)["messages"] == [{"role": "user", "content": "Be brief.\n\nhello"}]
    assert not wire.adapts(wire.preparation, says, talk)
    assert ChatWire("m", ChatParameters(), Failures("openai:m"), dialect).body(talk) == wire.body(talk)


def test_a_system_prompt_stands_before_parts_and_without_a_user():
    """Pictures keep their place behind it."""
    picture = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
    system = {"role": "system", "content": "Be brief."}
    assert without_system([system, {"role": "user", "content": [picture]}]) == [
        {"role": "user", "content": [{"type": "text", "text": "Be brief."}, picture]}
    ]
    assert without_system([system]) == [{"role": "user", "content": "Be brief."}]
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert without_system(talk) is talk


@pytest.mark.parametrize(
    "says",
    [
        "Unsupported parameter: 'stop' is not supported with this model.",
        "Argument not supported on this model: stop",
        "stop: Extra inputs are not permitted",
    ],
)
def test_a_refused_stop_is_applied_here(says: str, caplog: pytest.LogCaptureFixture):
    """With a warning, because the tokens behind it are paid for; one in `extra` is an order."""
    wire = ChatWire("m", ChatParameters(stop=("END", "\n")), Failures("openai:m"), Dialect())
    with caplog.at_level(logging.WARNING, "rowloop"):
        assert wire.adapts(wire.preparation, says)
    assert "takes no stop" in caplog.text
    assert "stop" not in wire.body([])
    answer = {"choices": [{"message": {"content": "One END two\nthree"}, "finish_reason": "length"}]}
    reply = wire.decode(json.dumps(answer).encode(), None)
    assert (reply.text, reply.finish_reason) == ("One ", "stop")
    ordered = ChatWire("m", ChatParameters(stop=("END",), extra={"stop": ["X"]}), Failures("openai:m"), Dialect())
    assert not ordered.adapts(ordered.preparation, says)


def test_an_answer_without_the_stop_is_whole():
    """And keeps its finish reason."""
    assert stopped("One two", "length", ("END", "")) == ("One two", "length")
    assert stopped("a X b Y", None, ("Y", "X")) == ("a ", "stop")
