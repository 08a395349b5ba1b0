"""Requests to the Messages API and answers from it as bytes, by plain calls."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, Field

from rowloop.adapters.http.errors import Failures
from rowloop.adapters.http.headers import retry_after
from rowloop.adapters.providers.anthropic.messages import MessagesWire
from rowloop.adapters.providers.anthropic.schema import enforceable
from rowloop.adapters.providers.wire.dialect import Dialect
from rowloop.engine.core.errors import ModelError
from rowloop.engine.core.events import Usage
from rowloop.engine.models.provider import ChatParameters

FAILURES = Failures("anthropic:m", None, "message")


NOTE = {"type": "object", "properties": {"a": {"type": "integer"}}}


def wire(dialect: Dialect | None = None, **parameters: Any) -> MessagesWire:
    """Compile a column."""
    return MessagesWire("m", ChatParameters(**parameters), FAILURES, dialect)


def body(compiled: MessagesWire) -> dict[str, Any]:
    """Give what it sends now."""
    compiled.preparation  # noqa: B018 - it is looked at before each request
    return json.loads(compiled.encode([{"role": "user", "content": "hello"}]))


def test_a_complaint_changes_the_requests_of_all_columns():
    """The output format goes into words and the temperature is left out, in all columns; the effort stays."""
    dialect = Dialect()
    first = wire(dialect, schema=NOTE, temperature=0.5, extra={"output_config": {"effort": "low"}})
    second = wire(dialect, schema=NOTE, temperature=0.5)
    assert body(first)["output_config"]["format"]["type"] == "json_schema"
    assert first.adapts(first.preparation, "answered 400: output_config.format: Extra inputs are not permitted")
    assert body(first)["output_config"] == {"effort": "low"}
    assert '"integer"' in body(first)["system"]
    assert "output_config" not in body(second)
    assert first.adapts(first.preparation, "answered 400: `temperature` is deprecated for this model.")
    assert "temperature" not in {**body(first), **body(second)}
    assert not first.adapts(first.preparation, "answered 400: output_config: Extra inputs are not permitted")
    assert not first.adapts(first.preparation, "answered 400: messages: too long")


def test_a_complaint_about_one_schema_changes_one_column():
    """The others keep the best form."""
    dialect = Dialect()
    first, second = wire(dialect, schema=NOTE), wire(dialect, schema=NOTE)
    assert first.adapts(first.preparation, "answered 400: output_config.format.schema: Schema is too complex.")
    assert "output_config" not in body(first)
    assert "output_config" in body(second)
    assert (first.decode(said(), None).native, second.decode(said(), None).native) == (False, True)


def said(*content: dict[str, Any], stop_reason: str | None = "end_turn", **more: Any) -> bytes:
    """Write an answer."""
    return msgspec.json.encode({"id": "msg_1", "content": content, "stop_reason": stop_reason, **more})


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "pause_turn"),
        (None, None),
    ],
)
def test_reasons_to_stop_are_translated_for_the_engine(stop_reason, finish_reason):
    """A reason without a translation is passed on."""
    assert wire().decode(said(stop_reason=stop_reason), None).finish_reason == finish_reason


@pytest.mark.parametrize(
    ("content", "text", "reasoning"),
    [
        ([{"type": "text", "text": "yes"}], "yes", None),
        ([], "", None),
        ([{"type": "text", "text": "ye"}, {"type": "text", "text": "s", "citations": [{"a": {}}]}], "yes", None),
        ([{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "yes"}], "yes", "hm"),
        ([{"type": "thinking", "thinking": "", "signature": "x"}, {"type": "text", "text": "yes"}], "yes", None),
        ([{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "yes"}], "yes", None),
        ([{"type": "thinking", "thinking": "a"}, {"type": "thinking", "thinking": "b"}], "", "a\n\nb"),
        ([{"type": "tool_use", "id": "t", "name": "n", "input": {}}, {"type": "text", "text": "yes"}], "yes", None),
    ],
)
def test_text_and_thinking_are_found_in_every_block(content, text, reasoning):
    """Blocks of other kinds are passed over."""
    reply = wire().decode(said(*content), None)
    assert (reply.text, reply.reasoning, reply.request_id) == (text, reasoning, "msg_1")


def test_cached_tokens_of_the_prompt_count_as_well():
    """They stand beside input_tokens, not in it; missing numbers count nothing."""
    usage = {"input_tokens": 3, "cache_read_input_tokens": 40, "cache_creation_input_tokens": None, "output_tokens": 5}
    reply = wire().decode(said(usage=usage), "r1")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.request_id) == (43, 5, "r1")
    assert wire().decode(said(), None).prompt_tokens == 0


def test_a_refusal_is_an_error_that_was_paid_for():
    """It is not an answer, and its tokens count."""
    usage = {"input_tokens": 7, "output_tokens": 3}
    with pytest.raises(ModelError, match=r"anthropic:m refused: its safety filter stepped in \(request r1\)") as caught:
        wire().decode(said(stop_reason="refusal", usage=usage), "r1")
    assert (caught.value.kind, caught.value.retryable, caught.value.usage) == ("refused", False, Usage(7, 3))


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"", "truncated"),
        (b'{"content": [{"type": "text", "te', "truncated"),
        (b"null", "unreadable"),
        (b"{}", "unreadable"),
        (b'{"content": "text"}', "unreadable"),
        (b"\xff\xfe\x00", "unreadable"),
        (b'{"x": ' + b"[" * 100_000, "unreadable"),
        (b'event: message_start\ndata: {"type": "message_start"}\n\n', "unreadable"),
        (b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}', "server"),
        (b'{"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down"}}', "rate_limited"),
    ],
)
def test_what_is_no_message_is_an_error(sent, kind):
    """Whatever comes with status 200 ends as a reply or as a ModelError; these may be tried again."""
    with pytest.raises(ModelError) as caught:
        wire().decode(sent, None)
    assert (caught.value.kind, caught.value.retryable) == (kind, True)


@pytest.mark.parametrize(
    ("kind", "status", "verdict", "fatal"),
    [
        ("authentication_error", 400, "auth", True),
        ("billing_error", 400, "quota", True),
        ("invalid_request_error", 400, "bad_request", False),
        ("overloaded_error", 529, "server", False),
        ("request_too_large", 413, "bad_request", False),
    ],
)
def test_the_kind_of_an_error_is_more_precise_than_its_status(kind, status, verdict, fatal):
    """Gateways change the status."""
    told = msgspec.json.encode({"type": "error", "error": {"type": kind, "message": "So."}})
    error = FAILURES.status(status, {"request-id": "req_1"}, told)
    assert (error.kind, error.fatal, error.request_id) == (verdict, fatal, "req_1")


DATE = "Sat, 21 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"requests-remaining": "0", "requests-reset": "2026-11-21T12:00:30Z"}, 30.0),
        (
            {
                "requests-remaining": "0",
                "requests-reset": "2026-11-21T12:00:05Z",
                "input-tokens-remaining": "0",
                "input-tokens-reset": "2026-11-21T12:00:20+00:00",
            },
            20.0,
        ),
        ({"tokens-remaining": "4000", "tokens-reset": "2026-11-21T12:00:30Z"}, None),
        ({"requests-remaining": "0"}, None),
        ({"requests-remaining": "0", "requests-reset": "soon"}, None),
        ({"requests-remaining": "0", "requests-reset": "2026-11-21T12:00:30"}, None),
    ],
)
def test_the_reset_of_a_used_up_budget_is_waited_for(headers, seconds):
    """Without Retry-After, that is; the latest of them, by the endpoint's own clock."""
    told = {f"anthropic-ratelimit-{name}": value for name, value in headers.items()} | {"date": DATE}
    assert retry_after(told) == seconds
    assert retry_after(told | {"retry-after": "2"}) == 2.0


def test_images_go_in_the_apis_own_form():
    """Data URLs are taken apart; other addresses stay addresses."""
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "image_url", "image_url": {"url": "https://host.example/a.png"}},
    ]
    sent = json.loads(wire().encode([{"role": "user", "content": content}]))
    assert sent["messages"][0]["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "image", "source": {"type": "url", "url": "https://host.example/a.png"}},
    ]


class Part(BaseModel):
    """A part of a whole."""

    name: str = Field(min_length=1)
    size: int | None = None


class Whole(BaseModel):
    """A model with all that pydantic writes often."""

    parts: list[Part] = Field(min_length=2)
    main: Part | None = None
    made: str = Field(default="", json_schema_extra={"format": "date"})


def test_a_schema_is_closed_and_its_optional_properties_stay_optional():
    """The schema that was given stays as it was."""
    given = Whole.model_json_schema()
    before = json.dumps(given)
    made = enforceable(given)
    assert json.dumps(given) == before
    assert made is not None
    part = made["$defs"]["Part"]
    assert (made["additionalProperties"], part["additionalProperties"]) == (False, False)
    assert (made["required"], part["required"]) == (["parts"], ["name"])
    assert made["properties"]["parts"] == {
        "items": {"$ref": "#/$defs/Part"},
        "title": "Parts",
        "type": "array",
        "description": "(minItems: 2)",
    }
    assert made["properties"]["main"] == {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]}
    assert made["properties"]["made"] == {"title": "Made", "type": "string", "format": "date"}
    assert part["properties"]["name"]["description"] == "(minLength: 1)"


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (
            {"type": "integer", "description": "Stars.", "minimum": 1},
            {"type": "integer", "description": "Stars. (minimum: 1)"},
        ),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"type": ["string", "null"]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        (
            {"type": ["string", "null"], "enum": ["a", None]},
            {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null", "enum": [None]}]},
        ),
        ({"enum": ["a", 1]}, {"enum": ["a", 1]}),
        ({"const": "a", "default": "a"}, {"const": "a"}),
        ({"type": "string", "format": "phone"}, {"type": "string", "description": '(format: "phone")'}),
        (
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
        ),
    ],
)
def test_what_cannot_be_enforced_is_told_instead(given, made):
    """Numbers' ranges, lengths, unknown formats."""
    assert enforceable(given) == made


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "array"},
        {"type": "object", "properties": {"any": {}}},
        {"type": "object", "properties": {"any": True}},
        {"enum": [{"a": 1}]},
        {"$ref": "#/$defs/Gone"},
        {
            "$ref": "#/$defs/Tree",
            "$defs": {"Tree": {"type": "object", "properties": {"of": {"$ref": "#/$defs/Tree"}}}},
        },
    ],
)
def test_what_is_free_or_endless_has_no_such_form(schema):
    """Free keys, free types, references that lead nowhere or back."""
    assert enforceable(schema) is None
