"""Models: what users write about one, and what an adapter must be to serve it.

A `Model` is a value. The part of its `spec` before the colon names a provider; the provider checks the model before
anything is paid for, connects on the runtime's loop, and compiles the parameters of a column once, so that a call per
cell carries nothing but its messages.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from ..core.registry import Registry

if TYPE_CHECKING:
    from ...runtime import Runtime
    from .model import Model

Message: TypeAlias = dict[str, Any]
"""One chat message in OpenAI's form: {"role": ..., "content": ...}."""


@dataclass(frozen=True, slots=True)
class ChatParameters:
    """What all the calls of one column have in common. `schema` is a JSON Schema the answer must obey."""

    temperature: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Reply:
    """What a model answered: the text, why it ended, and what it cost in tokens.

    `native`: the endpoint was given the schema as such, and not in words. `requests` were made for it, of which all but
    the last were refused for their form.
    """

    text: str
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning: str | None = None
    request_id: str | None = None
    native: bool = False
    requests: int = 1


def in_words(schema: dict[str, Any]) -> str:
    """Ask in words for an answer that obeys the schema."""
    told = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    return f"Answer with JSON that obeys this JSON Schema, and with nothing else:\n{told}"


Ask: TypeAlias = Callable[[list[Message]], Awaitable[Reply]]
"""One call: messages in, a reply out. Raises ModelError, and nothing else but cancellation."""


class ChatModel(Protocol):
    """A connected model."""

    def chat(self, parameters: ChatParameters) -> Ask:
        """Compile a column's parameters; called once per column and run."""
        ...


@dataclass(frozen=True, slots=True)
class EmbeddingParameters:
    """What all the embeddings of one column have in common.

    `dimensions` is None for as many as the model has. `batch_size` texts at most may share a request.
    """

    dimensions: int | None = None
    batch_size: int = 1
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Embedded:
    """The vector of one text, and what it cost in tokens."""

    vector: list[float]
    prompt_tokens: int = 0


Embed: TypeAlias = Callable[[str], Awaitable[Embedded]]
"""One text in, its vector out. Raises ModelError, and nothing else but cancellation."""


@runtime_checkable
class Embedder(Protocol):
    """A connected model that embeds texts; whether it can chat as well is another matter."""

    def embed(self, parameters: EmbeddingParameters) -> Embed:
        """Compile a column's parameters; called once per column and run."""
        ...


class Provider(Protocol):
    """Where models of one kind come from."""

    def check(self, model: Model) -> None:
        """Look for what is missing (a key, a package); raises RecipeError that says what to do. Does no IO."""
        ...

    async def connect(self, model: Model, runtime: Runtime) -> ChatModel:
        """Connect on the runtime's loop, sharing clients through it.

        Raises ModelError with fatal=True when the endpoint cannot be reached or refuses the key; asks for nothing
        that is paid for.
        """
        ...


providers: Registry[Provider] = Registry("model provider", entry_points="rowloop.models")
