"""What is read from a request, and the deterministic answer that is written back."""

import re
from base64 import b64encode
from fractions import Fraction
from hashlib import blake2b, shake_128
from random import Random
from struct import pack, unpack
from typing import Any, Literal, NamedTuple, Protocol, Self

import msgspec
from msgspec import UNSET, UnsetType

from .behaviour import Behaviour
from .schemas import conforming

# 64 words: six bits of the prompt's hash choose one.
_TEXT = (
    "amber angle apple arrow badge basin beach berry birch blade bloom brick brook cabin candle canyon cedar chalk "
    "cliff cloud comet coral crane creek daisy delta drift eagle ember fable feather fjord flint forest garden ginger "
    "glacier grove harbor hazel heron inlet island ivory juniper kettle knoll lantern lark lemon maple marble meadow "
    "mirror nectar olive orchid pebble pine quartz river saddle thistle willow"
)
_WORDS = tuple(_TEXT.split())
_CREATED = 1_750_000_000
_REASONING = "Let me think about this step by step."


class Part(msgspec.Struct):
    """A part of a message: text, or an image given by its URL."""

    type: str = "text"
    text: str = ""
    image_url: dict[str, Any] | UnsetType = UNSET


class Message(msgspec.Struct):
    """A message of a chat request."""

    role: str
    content: str | list[Part] | None = None

    def text(self) -> str:
        """Join the text of all parts; images stand as their URLs."""
        if not isinstance(self.content, list):
            return self.content or ""
        return "\n".join(
            p.text if isinstance(p.image_url, UnsetType) else str(p.image_url["url"]) for p in self.content
        )


class JsonSchema(msgspec.Struct):
    """The json_schema of a response format."""

    schema: dict[str, Any]
    name: str = ""


class ResponseFormat(msgspec.Struct):
    """The response_format of a chat request."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(msgspec.Struct):
    """A request for a chat completion, as far as the fake reads it."""

    model: str
    messages: list[Message]
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    response_format: ResponseFormat | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    stop: str | list[str] | None = None

    def refusal(self, behaviour: Behaviour) -> str | None:
        """Say what the endpoint does not take of this request, in OpenAI's words; None for nothing."""
        form = self.response_format
        if form is not None and form.type != "text" and not behaviour.structured:
            return "Unsupported parameter: 'response_format' is not supported with this model."
        if form is not None and form.type == "json_schema" and not behaviour.json_schema:
            return "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."
        name = next((name for name in behaviour.unknown if getattr(self, name) is not None), None)
        if name == "temperature":
            return "Unsupported value: 'temperature' does not support that value. Only the default (1) is supported."
        return name and f"Unsupported parameter: '{name}' is not supported with this model."

    @property
    def goes_on(self) -> bool:
        """Whether it holds an answer already."""
        return any(message.role == "assistant" for message in self.messages)

    def prompt(self) -> str:
        """All messages as one text, whatever JSON they came in."""
        return "\x1e".join([f"{message.role}\x1f{message.text()}" for message in self.messages])

    def last(self) -> str:
        """Return the last message of the user."""
        users = (message for message in reversed(self.messages) if message.role == "user")
        return next(users, self.messages[-1]).text() if self.messages else ""


class EmbeddingRequest(msgspec.Struct):
    """A request for embeddings."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

    def prompt(self) -> str:
        """All inputs as one text."""
        return "embed\x1f" + "\x1e".join(self.inputs())

    def inputs(self) -> list[str]:
        """One text per embedding; lists of tokens are written out."""
        if isinstance(self.input, str):
            return [self.input]
        if self.input and isinstance(self.input[0], int):
            return [str(self.input)]
        return [item if isinstance(item, str) else str(item) for item in self.input]


class Asked(Protocol):
    """A request of any kind."""

    model: str

    def prompt(self) -> str:
        """All that it says as one text."""
        ...


class Prompt(NamedTuple):
    """What tells requests apart: two are alike when their model and their texts are."""

    text: str
    key: bytes

    @classmethod
    def of(cls, request: "Asked") -> Self:
        """Take the prompt out of a request."""
        text = request.prompt()
        named = f"{request.model}\x00{text}".encode("utf-8", "surrogatepass")
        return cls(text, blake2b(named, digest_size=16).digest())


class Usage(msgspec.Struct, omit_defaults=True):
    """Tokens of one answer: about four characters each."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: dict[str, int] | UnsetType = UNSET


class _Said(msgspec.Struct):
    role: str
    content: str
    reasoning_content: str | UnsetType = UNSET


class _Choice(msgspec.Struct):
    index: int
    message: _Said
    finish_reason: str
    logprobs: None = None


class _Completion(msgspec.Struct):
    id: str
    model: str
    choices: list[_Choice]
    usage: Usage
    object: str = "chat.completion"
    created: int = _CREATED


class Reply(NamedTuple):
    """The answer to one request, before it becomes HTTP."""

    body: bytes = b""
    events: list[bytes] | None = None
    """The events of a stream, in place of the body."""
    usage: Usage | None = None
    billed: Fraction = Fraction(0)
    """What the answer costs, in US dollars."""


_encode = msgspec.json.Encoder().encode


class Spoken(NamedTuple):
    """What is said, whatever API it is written in."""

    text: str
    finish: str
    reasoning: str | None
    usage: Usage


def spoken(request: ChatRequest, prompt: Prompt, reply: str, fault: str) -> Spoken:
    """Say something; `fault` may be one that changes it."""
    text, finish = _until(request.stop, content(request, prompt.key, reply)), "stop"
    match fault:
        case "invalid_json":
            text = text.rstrip("}]") if text.startswith(("{", "[")) else f'{{"answer": "{text}'
        case "length":
            text, finish = text[: len(text) // 2], "length"
        case "overthink":
            text, finish = "", "length"
        case "fenced":
            text = f"Sure! Here it is:\n```json\n{text}\n```\nI hope that helps [1]."
        case "prose":
            text = words(prompt.key)
        case "think":
            text = f"<think>\n{_REASONING}\n</think>\n\n{text}"
    reasoning = _REASONING if fault in {"reasoning", "overthink"} else None
    return Spoken(text, finish, reasoning, count_usage(prompt.text, text, reasoning or UNSET))


def chat(request: ChatRequest, prompt: Prompt, reply: str, fault: str) -> Reply:
    """Answer a chat request."""
    said = spoken(request, prompt, reply, fault)
    message = _Said("assistant", said.text, said.reasoning or UNSET)
    choice = _Choice(0, message, said.finish)
    completion = _Completion(f"chatcmpl-{prompt.key.hex()}", request.model, [choice], said.usage)
    if not request.stream:
        return Reply(_encode(completion), usage=said.usage)
    with_usage = bool((request.stream_options or {}).get("include_usage"))
    return Reply(events=_events(completion, with_usage=with_usage), usage=said.usage)


def content(request: ChatRequest, key: bytes, reply: str) -> str:
    """Say what the reply setting says; response_format goes before words and echo."""
    kind, _, rest = reply.partition(":")
    if kind == "fixed":
        return rest
    if kind == "schema":
        return _json_text(msgspec.json.decode(rest), key)
    wanted = request.response_format
    if wanted is not None and wanted.json_schema is not None:
        return _json_text(wanted.json_schema.schema, key)
    if wanted is not None and wanted.type == "json_object":
        return _encode({"answer": words(key)}).decode()
    return rest + request.last() if kind == "echo" else words(key)


def _until(stop: str | list[str] | None, text: str) -> str:
    """Cut a text at the first of the stops."""
    for end in [stop] if isinstance(stop, str) else stop or ():
        text = text.partition(end)[0]
    return text


def words(key: bytes) -> str:
    """Write a sentence of eight to twelve words."""
    return " ".join([_WORDS[byte & 63] for byte in key[: 8 + key[15] % 5]]).capitalize() + "."


def embeddings(request: EmbeddingRequest, dimensions: int) -> Reply:
    """Answer with one unit vector per input."""
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(text, request, request.dimensions or dimensions)}
        for index, text in enumerate(request.inputs())
    ]
    usage = count_usage("".join(request.inputs()), "", UNSET)
    body = {"object": "list", "model": request.model, "data": data, "usage": usage}
    return Reply(_encode(body), usage=usage)


def count_usage(prompt: str, text: str, reasoning: str | UnsetType) -> Usage:
    """Count a token for every four characters."""
    thought = 0 if isinstance(reasoning, UnsetType) else -(-len(reasoning) // 4)
    asked, said = -(-len(prompt) // 4), -(-len(text) // 4) + thought
    return Usage(asked, said, asked + said, {"reasoning_tokens": thought} if thought else UNSET)


def _json_text(schema: dict[str, Any], key: bytes) -> str:
    return _encode(conforming(schema, Random(key))).decode()  # noqa: S311 - repeatable, not secret


def _vector(text: str, request: EmbeddingRequest, dimensions: int) -> list[float] | str:
    seed = f"{request.model}\x00{text}".encode("utf-8", "surrogatepass")
    raw = unpack(f"<{dimensions}i", shake_128(seed).digest(4 * dimensions))
    norm = sum(number * number for number in raw) ** 0.5
    vector = [number / norm for number in raw]
    return vector if request.encoding_format == "float" else b64encode(pack(f"<{dimensions}f", *vector)).decode()


def _events(completion: _Completion, *, with_usage: bool) -> list[bytes]:
    head = {
        "id": completion.id,
        "object": "chat.completion.chunk",
        "created": completion.created,
        "model": completion.model,
    }
    choice = completion.choices[0]

    def event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        return _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})

    events = [event({"role": "assistant", "content": ""})]
    if not isinstance(choice.message.reasoning_content, UnsetType):
        events.append(event({"reasoning_content": choice.message.reasoning_content}))
    events += [event({"content": piece}) for piece in re.findall(r"\S+\s*|\s+", choice.message.content)]
    events.append(event({}, choice.finish_reason))
    if with_usage:
        events.append(_event({**head, "choices": [], "usage": completion.usage}))
    return [*events, b"data: [DONE]\n\n"]


def _event(data: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % _encode(data)
