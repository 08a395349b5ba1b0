"""ChatWire: one column's chat completions as bytes, in OpenAI's form.

What all calls of a column have in common is encoded once, and again when the endpoint turns out not to accept some of
it; a call encodes its messages and nothing else. Answers are decoded into the few fields that are used.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from ....engine.models.provider import ChatParameters, Message, Reply, in_words
from ....engine.models.verdict import block_reason, outcome_of
from ..wire import request
from ..wire.adapting import Adaptive
from ..wire.dialect import (
    IN_WORDS,
    JSON_OBJECT,
    JSON_SCHEMA,
    MAX_TOKENS,
    STRICT,
    Dialect,
    is_about_field,
    is_about_format,
    is_about_this_schema,
)
from ..wire.lenient import decoded, name_of, text_of
from ..wire.messages import stopped, with_words, without_system
from ..wire.usage import ChatUsage, failed_usage, measured, readable
from ..wire.verdict import gateway_error, refusal, reported, translated, unreadable
from .strict_schema import strict

if TYPE_CHECKING:
    from ....engine.core.errors import ModelError
    from ....engine.core.events import Usage
    from ...http.errors import Failures


class _Part(msgspec.Struct, gc=False):
    text: str = ""
    thinking: Any = None
    refusal: str | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | list[_Part] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    error: Any = None


class _Completion(msgspec.Struct, gc=False):
    choices: list[_Choice]
    usage: ChatUsage | None = None
    id: str | None = None
    error: Any = None
    service_tier: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Completion).decode
RESERVED = {**request.RESERVED, "n": "one answer is read; leave it out"}
"""The fields of a body that no `extra` may set, and why."""

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]")


class ChatWire(Adaptive):
    """Requests and answers of one column. `parameters.extra` goes into the body last, and so overrides the rest."""

    forms = (STRICT, JSON_SCHEMA, JSON_OBJECT, IN_WORDS)

    def __init__(
        self, name: str, parameters: ChatParameters, failures: Failures, dialect: Dialect | None = None
    ) -> None:
        """Encode what does not change."""
        self._name = name
        self._swapped = False
        super().__init__(parameters, failures, dialect or Dialect())

    def encode(self, messages: list[Message]) -> bytes:
        """Return the body of a request."""
        if self._changes:
            messages = self._changed(messages)
        try:
            return self._prefix + _encode(messages) + b"}"
        except request.NOT_JSON as error:
            raise self._failures.unsendable(error) from None

    def body(self, messages: list[Message]) -> dict[str, Any]:
        """Return the body of a request for a client that encodes it itself."""
        if self._changes:
            messages = self._changed(messages)
        return {**self._fixed, "messages": messages}

    def _changed(self, messages: list[Message]) -> list[Message]:
        """Return the messages in the endpoint's dialect."""
        if not self._dialect.system:
            messages = without_system(messages)
        return messages if self._words is None else with_words(messages, self._words)

    def _learn(self, sent: dict[str, Any], complaint: str) -> bool:
        dialect = self._dialect
        if "response_format" in sent and not self.accepted and is_about_format(complaint):
            return self._weaken(complaint)
        if dialect.max_tokens in sent and is_about_field(dialect.max_tokens, complaint):
            if self._swapped:
                return False  # it accepts neither name
            self._swapped = True
            dialect.max_tokens = MAX_TOKENS[dialect.max_tokens == MAX_TOKENS[0]]
            dialect.version += 1
            return True
        return self._drop_temperature(sent, complaint) or self._drop_stop(sent, complaint)

    def _weaken(self, complaint: str) -> bool:
        """Ask in a weaker form: this column, if the complaint is about its schema, else all columns."""
        form = self._form or STRICT
        if is_about_this_schema(complaint):
            self._least_form = form + 1
        elif form == STRICT and "strict" not in complaint:
            self._ask_in(JSON_OBJECT, complaint)
        else:
            self._ask_in(form + 1, complaint)
        return True

    def _prepare(self) -> None:
        parameters, dialect = self._parameters, self._dialect
        self._fixed["model"] = self._name
        if parameters.temperature is not None and dialect.temperature:
            self._fixed["temperature"] = parameters.temperature
        if parameters.max_tokens is not None:
            self._fixed[dialect.max_tokens] = parameters.max_tokens
        if parameters.stop and dialect.stop:
            self._fixed["stop"] = list(parameters.stop)
        self._stops = () if dialect.stop or "stop" in parameters.extra else parameters.stop
        self._words: str | None = None
        self._native = False
        self._form = None
        if parameters.schema is not None:
            self._ask_for(parameters.schema)
        if "response_format" in parameters.extra:
            self._form = None  # the user's own
        self._changes = self._words is not None or not dialect.system
        self._fixed |= parameters.extra
        self._prefix = _encode(self._fixed)[:-1] + b',"messages":'

    def _ask_for(self, schema: dict[str, Any]) -> None:
        """Ask for an answer that obeys the schema, in the best form that the endpoint accepts."""
        form = max(self._dialect.form, self._least_form)
        closed = strict(schema) if form == STRICT else None
        if form == STRICT and closed is None:
            form = JSON_SCHEMA
        if form == JSON_OBJECT and schema.get("type", "object") != "object":
            form = IN_WORDS
        self._form = form
        self._native = form <= JSON_SCHEMA
        if self._native:
            self._fixed["response_format"] = _response_format(schema, closed)
            return
        if form == JSON_OBJECT:
            self._fixed["response_format"] = {"type": "json_object"}
        self._words = in_words(schema)

    def decode(self, raw: bytes, request_id: str | None) -> Reply:
        """Return the reply in the body of an answer with status 200; raises ModelError for any other content."""
        try:
            completion = decoded(raw, _decode, _mend, _Completion)
        except request.NOT_READABLE as error:
            raise self._failures.undecoded(raw, error) from None
        request_id = request_id or completion.id
        used = measured(completion.usage, completion.service_tier)
        choice = _chosen(completion.choices)
        failed = completion.error or (choice and choice.error)
        if failed and reported(failed):
            raise gateway_error(self._failures, failed, request_id, failed_usage(used))
        if choice is None or choice.message is None:
            raise self._without_answer(raw, request_id, failed_usage(used))
        message, ended = choice.message, choice.finish_reason
        text, refused, thinking = message.content, message.refusal, None
        if not isinstance(text, str):
            text, refused, thinking = _joined(text, refused)
        if self._stops:
            text, ended = stopped(text, ended, self._stops)
        if ended != "stop" or choice.native_finish_reason or refused or not text:
            ended, refused = _judged(choice, text, refused)
            if refused:
                raise refusal(self._failures, refused, request_id, failed_usage(used))
        reasoning = message.reasoning_content or message.reasoning or thinking
        if "think>" in text:
            thought, text = request.split_thinking(text)
            reasoning = reasoning or thought
        prompt_tokens, completion_tokens, billing = used
        return Reply(text, ended, prompt_tokens, completion_tokens, reasoning, request_id, self._native, 1, billing)

    def _without_answer(self, raw: bytes, request_id: str | None, usage: Usage) -> ModelError:
        """Return the error of a body without an answer: the prompt was blocked, or it is something else."""
        body = msgspec.json.decode(raw)
        blocked = block_reason(body.get("promptFeedback") or body.get("prompt_feedback"))
        if blocked is None:
            return unreadable(self._failures, raw, usage)
        return refusal(self._failures, blocked, request_id, usage)


def _judged(choice: _Choice, text: str, refused: str | None) -> tuple[str | None, str | None]:
    """Return why an unusual answer ended, and why the model refuses, None if it does not."""
    ended, message = translated(choice.finish_reason, choice.native_finish_reason), choice.message
    outcome = outcome_of(ended)
    if outcome == "refused" and not refused:
        own = "" if ended == "content_filter" else f" (finish reason '{ended}')"
        refused = f"its content filter stepped in{own}"
    if not text and outcome == "complete" and message and (message.tool_calls or message.function_call):
        ended = "tool_calls"
    return ended, refused


def _chosen(choices: list[_Choice]) -> _Choice | None:
    """Return the first choice with text, else the first: some gateways split text and tool calls into two."""
    if len(choices) < 2:  # noqa: PLR2004 - nothing to choose from
        return choices[0] if choices else None
    return next((choice for choice in choices if choice.message and choice.message.content), choices[0])


def _mend(body: dict[str, Any]) -> None:
    """Put the fields around the content of a completion into the usual form."""
    body["usage"] = readable(body.get("usage"))
    for name in ("id", "service_tier"):
        body[name] = name_of(body.get(name))
    body["choices"] = choices = body.get("choices") or []
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            for name in ("finish_reason", "native_finish_reason"):
                choice[name] = name_of(choice.get(name))
            if isinstance(choice.get("message"), dict):
                _loosen(choice["message"])


def _loosen(message: dict[str, Any]) -> None:
    """Put what stands around the content of a message into the usual form."""
    for name in ("reasoning_content", "reasoning", "refusal"):
        message[name] = text_of(message.get(name))
    calls = message.get("tool_calls")
    message["tool_calls"] = calls if isinstance(calls, list) else [calls] if calls else None
    if isinstance(message.get("content"), list):
        message["content"] = [_part(part) for part in message["content"]]


def _part(part: Any) -> Any:
    """Return a part of the content in the usual form; text that cannot be found is an error of the answer."""
    if isinstance(part, str):
        return {"text": part}
    if not isinstance(part, dict):
        return part
    return {**part, "text": "" if part.get("text") is None else part["text"], "refusal": text_of(part.get("refusal"))}


def _joined(parts: list[_Part] | None, refused: str | None) -> tuple[str, str | None, str | None]:
    """Return the text of an answer in parts, and its refusal and its thinking, which may be parts as well."""
    if not parts:
        return "", refused, None
    refused = refused or next((part.refusal for part in parts if part.refusal), None)
    return "".join([part.text for part in parts]), refused, text_of([part.thinking for part in parts])


def _response_format(schema: dict[str, Any], closed: dict[str, Any] | None) -> dict[str, Any]:
    named = _NOT_IN_A_NAME.sub("_", str(schema.get("title") or "answer"))[:64]
    wanted = {"name": named, "strict": closed is not None, "schema": schema if closed is None else closed}
    return {"type": "json_schema", "json_schema": wanted}
