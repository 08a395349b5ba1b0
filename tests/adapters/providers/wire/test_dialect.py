"""Dialects, by plain calls: what an endpoint's complaint means, and what is sent then."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from rowloop.adapters.http.endpoint import Endpoint
from rowloop.adapters.http.errors import Failures
from rowloop.adapters.providers.openai.chat import ChatWire
from rowloop.adapters.providers.openai.endpoint import dialect_for
from rowloop.adapters.providers.wire.adapting import adapting
from rowloop.adapters.providers.wire.dialect import IN_WORDS, JSON_OBJECT, Dialect, dialect_of, forget
from rowloop.engine.core.errors import ModelError
from rowloop.engine.models.provider import ChatParameters, Reply

HELLO = [{"role": "user", "content": "hello"}]
NOTE = {"type": "object", "properties": {"a": {"type": "integer"}}}


def wire(dialect: Dialect, **parameters: Any) -> ChatWire:
    """Compile a column."""
    return ChatWire("m", ChatParameters(**parameters), Failures("openai:m"), dialect)


@pytest.mark.parametrize(
    "said",
    [
        "'response_format' of type 'json_schema' is not supported with this model.",
        "This response_format type is unavailable now",
        "This model does not support response format `json_schema`. See supported models",
        "Unsupported parameter: 'response_format'",
        "json_schema is not supported by this backend",
        "structured outputs are not enabled for this deployment",
        "body.response_format.type: Input should be 'text' or 'json_object'",
    ],
)
def test_every_complaint_about_schemas_leads_to_the_next_form(said: str):
    """In all columns; after the last form, a complaint changes nothing."""
    dialect = Dialect()
    first, second = wire(dialect, schema=NOTE), wire(dialect, schema=NOTE)
    assert first.body(HELLO)["response_format"]["type"] == "json_schema"
    assert first.adapts(first.preparation, said)
    assert first.body(HELLO)["response_format"] == {"type": "json_object"}
    assert second.preparation == 2
    assert second.body(HELLO) == first.body(HELLO)
    assert first.adapts(first.preparation, said)
    assert "response_format" not in first.body(HELLO)
    assert '"integer"' in first.body(HELLO)["messages"][0]["content"]
    assert not first.adapts(first.preparation, said)


@pytest.mark.parametrize(
    "said", ["Your request could not be understood.", "context length exceeded", "temperature must be at most 2", ""]
)
def test_other_complaints_change_nothing(said: str):
    """They are errors of the cell."""
    spoken = wire(Dialect(), schema=NOTE, temperature=3.0, max_tokens=5)
    assert not spoken.adapts(spoken.preparation, said)


def test_a_request_of_an_older_preparation_is_sent_again():
    """Its complaint is known already."""
    spoken = wire(Dialect(), schema=NOTE)
    before = spoken.preparation
    said = "response_format is not supported"
    assert spoken.adapts(before, said)
    assert spoken.adapts(before, said)
    assert spoken.body(HELLO)["response_format"] == {"type": "json_object"}


def test_a_complaint_about_one_schema_does_not_change_the_dialect():
    """Only this column asks in another form."""
    dialect = Dialect()
    first, second = wire(dialect, schema=NOTE), wire(dialect, schema=NOTE)
    said = "Invalid schema for response_format 'answer': In context=(), ..."
    assert first.adapts(first.preparation, said)
    assert first.body(HELLO)["response_format"]["json_schema"] == {"name": "answer", "strict": False, "schema": NOTE}
    assert first.adapts(first.preparation, said)
    assert first.body(HELLO)["response_format"] == {"type": "json_object"}
    assert second.body(HELLO)["response_format"]["type"] == "json_schema"
    assert second.preparation == 1


def test_an_answer_that_is_no_object_is_not_requested_as_one():
    """A list is requested in words alone."""
    body = wire(Dialect(form=JSON_OBJECT), schema={"type": "array"}).body(HELLO)
    assert "response_format" not in body
    assert body["messages"][0]["content"].endswith('{"type":"array"}')


def test_fields_of_extra_are_never_changed():
    """The user set them, and gets the error."""
    extra = {"response_format": {"type": "text"}, "temperature": 1, "max_tokens": 7}
    spoken = wire(Dialect(), schema=NOTE, temperature=0.5, max_tokens=5, extra=extra)
    for said in ("response_format is not supported", "temperature is not supported", "max_tokens is not supported"):
        assert not spoken.adapts(spoken.preparation, said)


@pytest.mark.parametrize(
    ("there", "said", "then"),
    [
        (
            "max_tokens",
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
            "max_completion_tokens",
        ),
        ("max_completion_tokens", "Unrecognized request argument supplied: max_completion_tokens", "max_tokens"),
        ("max_completion_tokens", "max_completion_tokens: Extra inputs are not permitted", "max_tokens"),
    ],
)
def test_the_limit_of_tokens_has_two_names(there: str, said: str, then: str):
    """An endpoint accepts one or the other; if neither, it is an error."""
    dialect = Dialect(max_tokens=there)
    spoken = wire(dialect, max_tokens=5)
    assert spoken.adapts(spoken.preparation, said)
    assert spoken.body(HELLO) == {"model": "m", then: 5, "messages": HELLO}
    assert wire(dialect, max_tokens=6).body(HELLO)[then] == 6
    assert not spoken.adapts(spoken.preparation, f"{then} is not supported")


def test_a_limit_that_is_too_high_is_an_error():
    """The endpoint supports the field, but not its value."""
    spoken = wire(Dialect(), max_tokens=100_000)
    said = "max_tokens is too large: 100000. This model supports at most 4096 completion tokens"
    assert not spoken.adapts(spoken.preparation, said)


def test_a_refused_temperature_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture):
    """A single warning, because the answers differ from what the user wants."""
    spoken = wire(Dialect(), temperature=0.5)
    before = spoken.preparation
    said = "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) is supported."
    with caplog.at_level(logging.WARNING, "rowloop"):
        assert spoken.adapts(before, said)
        assert spoken.adapts(before, said)
    assert [record.getMessage() for record in caplog.records] == [
        "openai:m takes no temperature: temperature=0.5 is left out"
    ]
    assert spoken.body(HELLO) == {"model": "m", "messages": HELLO}


def test_words_go_to_the_first_message_of_the_user():
    """Not to the system's, which some models ignore; they follow pictures."""
    spoken = wire(Dialect(form=IN_WORDS), schema=NOTE)
    parts = [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}]
    messages = [
        {"role": "system", "content": "Brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "Hm."},
        {"role": "user", "content": "Again."},
    ]
    sent = spoken.body(messages)["messages"]
    assert [sent[0], sent[2], sent[3]] == [messages[0], messages[2], messages[3]]
    assert sent[1]["content"][:2] == parts
    assert '"integer"' in sent[1]["content"][2]["text"]
    assert len(parts) == 2
    assert spoken.body([])["messages"][0]["role"] == "user"


def test_a_dialect_belongs_to_one_model_at_one_endpoint():
    """OpenAI's own starts with max_completion_tokens."""
    forget()
    here, there = Endpoint("http://localhost:1/v1"), Endpoint("https://api.openai.com/v1", "k")
    assert dialect_of(here, "m") is dialect_of(Endpoint("http://localhost:1/v1", "another key"), "m")
    assert dialect_of(here, "m") is not dialect_of(here, "n")
    assert (dialect_for(here, "m").max_tokens, dialect_for(there, "m").max_tokens) == (
        "max_tokens",
        "max_completion_tokens",
    )
    forget()


@pytest.mark.parametrize("status", [None, 401, 429, 500])
def test_only_a_refused_request_changes_the_dialect(status: int | None):
    """Other failures are passed on, whatever their message."""
    spoken = wire(Dialect(), schema=NOTE)

    async def send(_wire: ChatWire, _messages: list[dict[str, Any]]) -> Reply:
        raise ModelError("response_format is not supported", kind="server", retryable=True, status=status)

    with pytest.raises(ModelError, match="response_format"):
        asyncio.run(adapting(spoken, send)(HELLO))  # type: ignore[arg-type]


def test_a_reply_counts_its_requests():
    """Refused requests cost nothing, but they are counted."""
    spoken = wire(Dialect(), schema=NOTE, max_tokens=5)
    said = ["response_format is not supported", "max_tokens is not supported"]

    async def send(_wire: ChatWire, _messages: list[dict[str, Any]]) -> Reply:
        if said:
            raise ModelError(said.pop(), kind="bad_request", retryable=False, status=400)
        return Reply("{}")

    assert asyncio.run(adapting(spoken, send)(HELLO)).requests == 3  # type: ignore[arg-type]
