"""ChatWire: one column's chat completions as bytes, in OpenAI's form.

All that the calls of a column have in common is encoded once; a call encodes its messages and nothing else. Answers
are decoded straight into the few fields that are read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from ..engine.errors import RecipeError
from ..engine.events import Usage
from ..engine.models import ChatParameters, Message, Reply
from .strict_schema import strict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..engine.models import Model
    from .failures import Failures


class _Part(msgspec.Struct, gc=False):
    text: str = ""


class _Message(msgspec.Struct, gc=False):
    content: str | list[_Part] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(msgspec.Struct, gc=False):
    choices: list[_Choice]
    usage: _Usage | None = None
    id: str | None = None


_NO_USAGE = _Usage()
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Completion).decode
_OURS = {
    "messages": "the messages come from the column's prompt",
    "stream": "answers are read whole; leave it out",
    "n": "one answer is read; leave it out",
}
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]")


def check_extra(model: Model, ours: Mapping[str, str] = _OURS) -> None:
    """Refuse an `extra` that cannot be sent, or that would change what is sent and read here; raises RecipeError.

    `ours` are the fields that are no business of the user's, with the reason why.
    """
    where = f"Model({model.spec!r}).extra"
    for field, why in ours.items():
        if field in model.extra:
            raise RecipeError(f"{where}.{field}", why)
    try:
        _encode(model.extra)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise RecipeError(where, f"this cannot be written as JSON: {error}") from None


class ChatWire:
    """Requests and answers of one column. `parameters.extra` goes into the body last, and so overrides the rest."""

    def __init__(self, name: str, parameters: ChatParameters, failures: Failures, *, is_openai: bool = False) -> None:
        """Encode what does not change. OpenAI's own API takes no `max_tokens` for its newer models."""
        self._failures = failures
        self._fixed: dict[str, Any] = {"model": name}
        if parameters.temperature is not None:
            self._fixed["temperature"] = parameters.temperature
        if parameters.max_tokens is not None:
            self._fixed["max_completion_tokens" if is_openai else "max_tokens"] = parameters.max_tokens
        if parameters.stop:
            self._fixed["stop"] = list(parameters.stop)
        if parameters.schema is not None:
            self._fixed["response_format"] = _response_format(parameters.schema)
        self._fixed |= parameters.extra
        self._prefix = _encode(self._fixed)[:-1] + b',"messages":'

    def encode(self, messages: list[Message]) -> bytes:
        """Return the body of a request."""
        try:
            return self._prefix + _encode(messages) + b"}"
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise self._failures.unsendable(error) from None

    def body(self, messages: list[Message]) -> dict[str, Any]:
        """Return the body of a request for a client that encodes it itself."""
        return {**self._fixed, "messages": messages}

    def decode(self, raw: bytes, request_id: str | None) -> Reply:
        """Return the reply in the body of an answer with status 200, or raise what it says instead of one."""
        try:
            completion = _decode(raw)
            choice = completion.choices[0]
        except msgspec.ValidationError:
            raise self._failures.unreadable(raw, truncated=False) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError) as error:
            truncated = not raw or str(error).startswith("Input data was truncated")
            raise self._failures.unreadable(raw, truncated=truncated) from None
        message, usage, ended = choice.message, completion.usage or _NO_USAGE, choice.finish_reason
        request_id = request_id or completion.id
        prompt_tokens, completion_tokens = usage.prompt_tokens or 0, usage.completion_tokens or 0
        if ended == "content_filter" or (message.refusal and not message.content):
            refusal = self._failures.refused(message.refusal or "its content filter stepped in", request_id)
            refusal.usage = Usage(prompt_tokens, completion_tokens)
            raise refusal
        text = message.content
        if not isinstance(text, str):
            text = "".join([part.text for part in text]) if text else ""
        reasoning = message.reasoning_content or message.reasoning
        if "think>" in text:
            thought, text = split_thinking(text)
            reasoning = reasoning or thought
        return Reply(text, ended, prompt_tokens, completion_tokens, reasoning, request_id)


def split_thinking(text: str) -> tuple[str | None, str]:
    """Return the reasoning that a text opens with, and the text without it.

    The opening tag may be missing, since some chat templates put it into the prompt; so may the closing one, where
    the answer was cut while the model was still thinking.
    """
    before, closing, after = text.partition("</think>")
    head = before.lstrip()
    if head.startswith("<think>"):
        return head.removeprefix("<think>").strip(), after.lstrip()
    if closing and "<think>" not in before:
        return before.strip(), after.lstrip()
    return None, text


def _response_format(schema: dict[str, Any]) -> dict[str, Any]:
    closed = strict(schema)
    named = _NOT_IN_A_NAME.sub("_", str(schema.get("title") or "answer"))[:64]
    asked = {"name": named, "strict": closed is not None, "schema": schema if closed is None else closed}
    return {"type": "json_schema", "json_schema": asked}
