"""Anthropic's Messages API: what is read from a request to /v1/messages, what of it is refused, and the answer."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from .answers import ChatRequest, JsonSchema, Message, Prompt, Reply, ResponseFormat, spoken
from .behaviour import Behaviour

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_STOPPED = {"stop": "end_turn", "length": "max_tokens"}
_UNSUPPORTED = {"minimum", "maximum", "minLength", "maxLength", "maxItems", "oneOf", "patternProperties"}

_encode = msgspec.json.Encoder().encode


class OutputConfig(msgspec.Struct):
    """The output_config of a request."""

    format: dict[str, Any] | None = None
    effort: str | None = None


class MessagesRequest(msgspec.Struct):
    """A request for a message, as far as the fake reads it; max_tokens is required, as it is there."""

    model: str
    max_tokens: int
    messages: list[Message]
    system: str = ""
    stream: bool = False
    temperature: float | None = None
    stop_sequences: list[str] = []
    output_config: OutputConfig | None = None

    def prompt(self) -> str:
        """All that the model is told as one text."""
        return self.chat().prompt()

    def chat(self) -> ChatRequest:
        """Give the same request in OpenAI's form."""
        asked = self.output_config.format if self.output_config else None
        wanted = ResponseFormat("json_schema", JsonSchema(asked["schema"])) if asked else None
        system = [Message("system", self.system)] if self.system else []
        return ChatRequest(self.model, [*system, *self.messages], response_format=wanted)

    @property
    def goes_on(self) -> bool:
        """Whether it holds an answer already."""
        return any(message.role == "assistant" for message in self.messages)

    def refusal(self, behaviour: Behaviour) -> str | None:
        """Say what the endpoint does not take of this request; None for nothing."""
        if self.output_config is not None and not (behaviour.structured and behaviour.json_schema):
            return "output_config: Extra inputs are not permitted"
        if self.temperature is not None and "temperature" in behaviour.unknown:
            return "`temperature` is deprecated for this model."
        return None

    def fault(self, headers: Mapping[str, str]) -> str:
        """Say why the API would answer 400; nothing where it would not."""
        if "anthropic-version" not in headers:
            return "anthropic-version: header is required"
        for index, message in enumerate(self.messages):
            if message.role not in {"user", "assistant"}:
                return f"messages.{index}.role: Input should be 'user' or 'assistant'"
        if self.max_tokens < 1:
            return "max_tokens: Input should be greater than or equal to 1"
        if not 0 <= (self.temperature or 0) <= 1:
            return "temperature: range: 0..1"
        if any(not text.strip() for text in self.stop_sequences):
            return "stop_sequences: each stop sequence must contain non-whitespace"
        asked = self.output_config.format if self.output_config else None
        return next(_unenforceable(asked["schema"]), "") if asked else ""


def _unenforceable(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _unenforceable(item)
    elif isinstance(schema, dict):
        for key in _UNSUPPORTED & schema.keys():
            yield f"output_config.format.schema: For '{schema.get('type')}' type, property '{key}' is not supported"
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            yield "output_config.format.schema: For 'object' type, 'additionalProperties' must be set to false"
        for key, value in schema.items():
            yield from _unenforceable(list(value.values()) if key in {"properties", "$defs"} else value)


def answer(request: MessagesRequest, prompt: Prompt, reply: str, fault: str) -> Reply:
    """Answer a request; `fault` may be one that changes what is said."""
    said = spoken(request.chat(), prompt, reply, fault)
    thought = [] if not said.reasoning else [{"type": "thinking", "thinking": said.reasoning, "signature": "c2ln"}]
    body = {
        "id": f"msg_{prompt.key.hex()}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [*thought, {"type": "text", "text": said.text}],
        "stop_reason": _STOPPED[said.finish],
        "stop_sequence": None,
        "usage": {"input_tokens": said.usage.prompt_tokens, "output_tokens": said.usage.completion_tokens},
    }
    return Reply(_encode(body), usage=said.usage)


def error(status: int, body: bytes) -> bytes:
    """Put an error into the form it has there; pages stay as they are."""
    if not body.startswith(b"{"):
        return body
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return _encode({"type": "error", "error": {"type": kind, "message": msgspec.json.decode(body)["error"]["message"]}})
