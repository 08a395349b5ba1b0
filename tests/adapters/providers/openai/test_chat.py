"""Requests and answers as bytes, by plain calls."""

import json

import msgspec
import pytest
from pydantic import BaseModel, Field

from rowloop.adapters.http.errors import Failures
from rowloop.adapters.providers.openai.chat import ChatWire
from rowloop.adapters.providers.openai.strict_schema import strict
from rowloop.adapters.providers.wire.dialect import Dialect
from rowloop.adapters.providers.wire.request import split_thinking
from rowloop.engine.core.errors import ModelError
from rowloop.engine.core.events import Usage
from rowloop.engine.models.provider import ChatParameters

HELLO = [{"role": "user", "content": "hello"}]
FAILURES = Failures("openai:m")


def wire(dialect: Dialect | None = None, **parameters) -> ChatWire:
    """Compile a column."""
    return ChatWire("m", ChatParameters(**parameters), FAILURES, dialect)


def completion(message: dict, **more) -> bytes:
    """Write an answer with one choice."""
    return msgspec.json.encode({"id": "c1", "choices": [{"message": message, "finish_reason": "stop"} | more]})


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"temperature": 0.0, "max_tokens": 5, "stop": ("a", "b"), "extra": {"seed": 1}},
        {"schema": {"type": "string"}},
    ],
)
def test_both_paths_send_the_same(parameters):
    """The bytes of the fast path are the body that the other gives to its client."""
    compiled = wire(**parameters)
    assert json.loads(compiled.encode(HELLO)) == compiled.body(HELLO)


def test_openai_itself_gets_its_newest_name_for_max_tokens():
    """Its newer models refuse max_tokens; other endpoints know no other name."""
    assert "max_completion_tokens" in wire(Dialect(max_tokens="max_completion_tokens"), max_tokens=5).body(HELLO)
    assert "max_tokens" in wire(max_tokens=5).body(HELLO)


def test_a_schema_is_named_by_its_title():
    """The name may hold few kinds of characters."""
    sent = wire(schema={"title": "My note: ä", "type": "string"}).body(HELLO)["response_format"]["json_schema"]
    assert sent["name"] == "My_note___"
    assert sent["strict"]


@pytest.mark.parametrize(
    ("text", "reasoning", "rest"),
    [
        ("<think>\nhm\n</think>\n\nyes", "hm", "yes"),
        ("\n <think>hm</think>yes", "hm", "yes"),
        ("hm\n</think>\nyes", "hm", "yes"),
        ("<think>hm, and then", "hm, and then", ""),
        ("<think></think>yes", "", "yes"),
        ("no tags", None, "no tags"),
        ("the tag <think> and the tag </think>", None, "the tag <think> and the tag </think>"),
        ("I think> therefore", None, "I think> therefore"),
        ("Write </think> at the end. Then answer.", None, "Write </think> at the end. Then answer."),
        ("The tag is:\n`</think>`\nIt closes.", None, "The tag is:\n`</think>`\nIt closes."),
        ("It ends with </think>\n\nand so on", None, "It ends with </think>\n\nand so on"),
        ("In full:\n</think>\nopened by <think>", None, "In full:\n</think>\nopened by <think>"),
        ("one\r\n</think>\r\n\r\nyes", "one", "yes"),
        ("</think>\n\nyes", "", "yes"),
        ("R1</think>yes", "R1", "yes"),
        ("It is 4.</think>\n\nyes", "It is 4.", "yes"),
        ("Wait! Is it 4?\nYes</think> yes", "Wait! Is it 4?\nYes", "yes"),
        ('so it is 4</think>{"a": 4}', "so it is 4", '{"a": 4}'),
        ("它是四。</think>四", "它是四。", "四"),
        ("hm</think>", "hm", ""),
        ("Use `</think>`here", None, "Use `</think>`here"),
        ('Print "</think>" at the end', None, 'Print "</think>" at the end'),
        ("print('done</think>')", None, "print('done</think>')"),
        ("Close it with text</think>, then answer", None, "Close it with text</think>, then answer"),
        ("(as in text</think>)", None, "(as in text</think>)"),
        ("It closes: **</think>** ends it", None, "It closes: **</think>** ends it"),
        ("a</think>b and c</think>d", None, "a</think>b and c</think>d"),
        ("a <b></think>c", None, "a <b></think>c"),
    ],
)
def test_thinking_is_split_off(text, reasoning, rest):
    """With both tags; with the closing one on a line of its own or behind a word; not where a text mentions them."""
    assert split_thinking(text) == (reasoning, rest)


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "yes"}, "yes", None),
        ({"content": None}, "", None),
        ({}, "", None),
        ({"content": []}, "", None),
        ({"content": [{"type": "text", "text": "ye"}, {"type": "text", "text": "s"}]}, "yes", None),
        ({"content": "yes", "reasoning_content": "hm"}, "yes", "hm"),
        ({"content": "yes", "reasoning": "hm"}, "yes", "hm"),
        ({"content": "<think>inner</think>yes", "reasoning_content": "hm"}, "yes", "hm"),
        ({"content": "yes", "tool_calls": [], "refusal": None, "annotations": [{"deep": [{}]}]}, "yes", None),
    ],
)
def test_text_is_found_in_every_form(message, text, reasoning):
    """Endpoints differ in how they write an answer down."""
    reply = wire().decode(completion(message), None)
    assert (reply.text, reply.reasoning, reply.request_id) == (text, reasoning, "c1")


def test_missing_usage_counts_nothing():
    """Some endpoints send none, or null."""
    said = msgspec.json.encode({"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": None}})
    reply = wire().decode(said, "r1")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.finish_reason, reply.request_id) == (0, 0, None, "r1")


@pytest.mark.parametrize(
    ("message", "more", "why"),
    [
        ({"content": None, "refusal": "I cannot help with that."}, {}, "I cannot help with that"),
        ({"content": "half"}, {"finish_reason": "content_filter"}, "its content filter stepped in"),
    ],
)
def test_a_refusal_is_an_error_that_was_paid_for(message, more, why):
    """It is not an answer, will not become one, and its tokens count."""
    said = msgspec.json.decode(completion(message, **more)) | {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    with pytest.raises(ModelError, match=rf"openai:m refused: {why} \(request r1\)") as caught:
        wire().decode(msgspec.json.encode(said), "r1")
    assert (caught.value.kind, caught.value.retryable) == ("refused", False)
    assert caught.value.usage == Usage(7, 3)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"", "truncated"),
        (b'{"choices": [{"message": {"content": "a', "truncated"),
        (b"null", "unreadable"),
        (b"[]", "unreadable"),
        (b'"text"', "unreadable"),
        (b"{}", "unreadable"),
        (b'{"choices": []}', "unreadable"),
        (b'{"choices": [{}]}', "unreadable"),
        (b'{"choices": [{"message": {"content": 5}}]}', "unreadable"),
        (b"\xff\xfe\x00", "unreadable"),
        (b'{"choices": [{"message": {"content": "\xff"}}]}', "unreadable"),
        (b'{"x": ' + b"[" * 100_000, "unreadable"),
        (b'data: {"choices": []}\n\n', "unreadable"),
    ],
)
def test_an_answer_without_a_completion_is_an_error(said, kind):
    """Every body with status 200 becomes a reply or a retryable ModelError."""
    with pytest.raises(ModelError) as caught:
        wire().decode(said, None)
    assert (caught.value.kind, caught.value.retryable) == (kind, True)


def test_a_strict_schema_is_closed_all_the_way_down():
    """Objects in definitions, lists and unions too; the schema that was given stays as it was."""

    class Part(BaseModel):
        name: str
        size: int | None = None

    class Whole(BaseModel):
        parts: list[Part]
        main: Part | None = None
        best: Part = Field(description="the best of them")

    given = Whole.model_json_schema()
    before = json.dumps(given)
    closed = strict(given)
    assert json.dumps(given) == before
    assert closed is not None
    assert (closed["additionalProperties"], closed["required"]) == (False, ["parts", "main", "best"])
    part = closed["$defs"]["Part"]
    assert (part["additionalProperties"], part["required"]) == (False, ["name", "size"])
    assert closed["properties"]["best"] == {"$ref": "#/$defs/Part"}
    assert "default" not in part["properties"]["size"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object"},
        {"type": "array", "items": {"type": "object", "properties": {"a": {}}, "additionalProperties": True}},
    ],
)
def test_an_open_schema_is_sent_as_it_is(schema):
    """Objects with free keys have no strict form; the endpoint still gets the schema."""
    assert strict(schema) is None
    sent = wire(schema=schema).body(HELLO)["response_format"]["json_schema"]
    assert (sent["strict"], sent["schema"]) == (False, schema)
