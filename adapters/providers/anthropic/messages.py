"""MessagesWire: one column's requests to Anthropic's Messages API as bytes, and its answers.

What all calls of a column have in common is encoded once, and again when the endpoint turns out not to accept some of
it; a call encodes its messages and nothing else. Answers are decoded into the few fields that are used.

A schema goes into `output_config.format`, which every model since Claude 4.5 supports. The older way, a tool that the
model is forced to use, is refused by the newest ones. A schema that cannot be enforced, or not by this endpoint, goes
into the system prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ....engine.models.provider import ChatParameters, Message, Reply, in_words
from ....engine.models.verdict import outcome_of
from ..wire import request
from ..wire.adapting import Adaptive
from ..wire.dialect import IN_WORDS, STRICT, Dialect
from ..wire.lenient import decoded, name_of, text_of
from ..wire.usage import failed_usage
from ..wire.verdict import gateway_error, refusal, reported, translated, unreadable
from .schema import enforceable
from .usage import MessageUsage, measured, readable

if TYPE_CHECKING:
    from ...http.errors import Failures

MAX_TOKENS = 8192
"""The most tokens of an answer if neither model nor column sets a limit. The API requires one, and reasoning counts;
every model that is still offered accepts this one."""

RESERVED = {**request.RESERVED, "system": "the system prompt is the column's own field"}
"""The fields of a body that no `extra` may set, and why."""


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None


class _Message(msgspec.Struct, gc=False):
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: MessageUsage | None = None
    id: str | None = None
    error: Any = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Message).decode


class MessagesWire(Adaptive):
    """Requests and answers of one column. `parameters.extra` goes into the body last, and so overrides the rest."""

    def __init__(
        self, name: str, parameters: ChatParameters, failures: Failures, dialect: Dialect | None = None
    ) -> None:
        """Encode what does not change."""
        self._name = name
        super().__init__(parameters, failures, dialect or Dialect())

    def _prepare(self) -> None:
        parameters, fixed = self._parameters, self._fixed
        fixed |= {"model": self._name, "max_tokens": parameters.max_tokens or MAX_TOKENS}
        if parameters.temperature is not None and self._dialect.temperature:
            fixed["temperature"] = parameters.temperature
        if parameters.stop:
            fixed["stop_sequences"] = list(parameters.stop)
        fixed |= parameters.extra
        self._instructions: list[str] = []
        self._native = False
        self._form = None
        if parameters.schema is not None:
            self._ask_for(parameters.schema)
        self._prefix = _encode(fixed)[:-1]

    def _ask_for(self, schema: dict[str, Any]) -> None:
        form = max(self._dialect.form, self._least_form)
        enforced = enforceable(schema) if form == STRICT else None
        self._native = enforced is not None
        self._form = IN_WORDS if enforced is None else STRICT
        if enforced is None:
            self._instructions.append(in_words(schema))
        else:
            # The effort stands beside the format, and belongs to the user.
            given = self._fixed.get("output_config", {})
            self._fixed["output_config"] = {"format": {"type": "json_schema", "schema": enforced}, **given}

    def _learn(self, sent: dict[str, Any], complaint: str) -> bool:
        if not self._native or self.accepted or "output_config" not in complaint:
            return self._drop_temperature(sent, complaint)
        if "schema" in complaint:
            self._least_form = IN_WORDS  # it accepts schemas, but not this one
        else:
            self._ask_in(IN_WORDS, complaint)
        return True

    def encode(self, messages: list[Message]) -> bytes:
        """Return the body of a request."""
        system = [_text(message["content"]) for message in messages if message["role"] == "system"]
        talk = [_turn(message) for message in messages if message["role"] != "system"]
        system += self._instructions
        try:
            prompt = b',"system":' + _encode("\n\n".join(system)) if system else b""
            return self._prefix + prompt + b',"messages":' + _encode(talk) + b"}"
        except request.NOT_JSON as error:
            raise self._failures.unsendable(error) from None

    def decode(self, raw: bytes, request_id: str | None) -> Reply:
        """Return the reply in the body of an answer with status 200; raises ModelError for any other content."""
        try:
            message = decoded(raw, _decode, _mend, _Message)
        except request.NOT_READABLE as error:
            raise self._failures.undecoded(raw, error) from None
        used = measured(message.usage)
        request_id = request_id or message.id
        if reported(message.error):
            raise gateway_error(self._failures, message.error, request_id, failed_usage(used))
        if message.content is None:
            raise unreadable(self._failures, raw, failed_usage(used))
        text = "".join([block.text or "" for block in message.content if block.type == "text"])
        ended = translated(message.stop_reason)
        if ended != "stop" and outcome_of(ended) == "refused":
            why = text or "its safety filter stepped in"
            raise refusal(self._failures, why, request_id, failed_usage(used))
        if not text and ended in {"stop", None} and any(block.type == "tool_use" for block in message.content):
            ended = "tool_use"
        reasoning = "\n\n".join([block.thinking for block in message.content if block.thinking]) or None
        if "think>" in text:  # not Anthropic's own models, but others behind the same API
            thought, text = request.split_thinking(text)
            reasoning = reasoning or thought
        prompt_tokens, completion_tokens, billing = used
        return Reply(text, ended, prompt_tokens, completion_tokens, reasoning, request_id, self._native, 1, billing)


def _mend(body: dict[str, Any]) -> None:
    """Put the fields around the content of a message into the usual form."""
    body["usage"] = readable(body.get("usage"))
    for name in ("id", "stop_reason"):
        body[name] = name_of(body.get(name))
    for block in body["content"] if isinstance(body.get("content"), list) else ():
        if isinstance(block, dict) and "thinking" in block:
            block["thinking"] = text_of(block["thinking"])


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def _turn(message: Message) -> Message:
    """Return a message in Anthropic's form, which differs from OpenAI's in what is not text."""
    content = message["content"]
    return message if isinstance(content, str) else {**message, "content": [_block(part) for part in content]}


def _block(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") != "image_url":
        return part
    url = part["image_url"]["url"]
    head, comma, data = url.partition(",")
    if head.startswith("data:") and comma:
        media_type = head.removeprefix("data:").removesuffix(";base64")
        return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
    return {"type": "image", "source": {"type": "url", "url": url}}
