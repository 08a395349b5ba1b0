"""Models: what users write about one, and what an adapter must be to serve it.

A `Model` is a value. The part of its `spec` before the colon names a provider; the provider checks the model before
anything is paid for, connects on the runtime's loop, and compiles the parameters of a column once, so that a call per
cell carries nothing but its messages.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import BeforeValidator, Field, SecretStr
from pydantic.json_schema import SkipJsonSchema

from ..core.registry import Registry
from ..core.spec import spec
from .prices import Price

if TYPE_CHECKING:
    from ...runtime import Runtime

Message: TypeAlias = dict[str, Any]
"""One chat message in OpenAI's form: {"role": ..., "content": ...}."""

ModelFunction: TypeAlias = Callable[..., Any]


_IN_PROCESS = frozenset({"python", "local"})

MOST_IN_PROCESS = 32
"""Requests in flight at a model in this process, where nothing is said."""


def _checked_timeout(given: object) -> object:
    """Say in one line what neither of the two types would."""
    if given == "auto" or (isinstance(given, int | float) and given is not True and 0 < given < math.inf):
        return given
    raise ValueError(f'must be a number of seconds above 0, or "auto", not {given!r:.80}')


Timeout: TypeAlias = Annotated[Annotated[float, Field(gt=0)] | Literal["auto"], BeforeValidator(_checked_timeout)]


@spec
class Model:
    """A model and how to call it.

    `spec` is "provider:name" (`openai:gpt-5-mini`, `anthropic:claude-haiku-5-5`, `local:gemma-3-270m`) or a Python
    callable that takes the prompt and returns text. `base_url` points at any endpoint that speaks the provider's API
    (default: OPENAI_BASE_URL or ANTHROPIC_BASE_URL, else the provider's own). The key is read from the environment
    variable `api_key_env` (default: the provider's, OPENAI_API_KEY or ANTHROPIC_API_KEY) or given as `api_key`, which
    is held as a secret and written nowhere. `max_parallel` is the most requests in flight at once for this provider
    and model (None: 512, or 32 for models in this process). How many really are follows what the endpoint takes: it
    begins at `max_parallel`, or low where that is None, and falls when it answers 429. `requests_per_minute` and
    `tokens_per_minute` (prompts and answers together) are never exceeded. `timeout` is the total time of one attempt
    in seconds; "auto" is 600 until 50 of a column's answers are in, then ten times their 99th percentile, but not
    under 30. `extra` goes into the request body as it is. `price` is what its tokens cost, and goes before what is
    known of its maker's. `client` is for what an address and a key cannot say: a function that makes a client of
    the provider's own kind (`lambda: AsyncAzureOpenAI(...)`), called once on the loop that the client is then used
    on.
    """

    spec: str | ModelFunction
    base_url: str | None = Field(default=None, kw_only=True)
    api_key: SecretStr | None = Field(default=None, kw_only=True, exclude=True, repr=False)
    api_key_env: str | None = Field(default=None, kw_only=True)
    max_parallel: int | None = Field(default=None, ge=1, kw_only=True)
    requests_per_minute: float | None = Field(default=None, gt=0, kw_only=True)
    tokens_per_minute: float | None = Field(default=None, gt=0, kw_only=True)
    temperature: float | None = Field(default=None, ge=0, kw_only=True)
    max_tokens: int | None = Field(default=None, ge=1, kw_only=True)
    timeout: Timeout = Field(default="auto", kw_only=True)
    extra: dict[str, Any] = Field(default_factory=dict, kw_only=True)
    price: Price | None = Field(default=None, kw_only=True)
    client: SkipJsonSchema[Callable[[], Any] | None] = Field(default=None, kw_only=True, exclude=True, repr=False)

    @property
    def provider(self) -> str:
        """The part of the spec before the colon; "python" for a callable."""
        return self.spec.partition(":")[0] if isinstance(self.spec, str) else "python"

    @property
    def name(self) -> str:
        """The part of the spec after the colon; the function's own name for a callable."""
        if isinstance(self.spec, str):
            return self.spec.partition(":")[2]
        return getattr(self.spec, "__name__", type(self.spec).__name__)

    @property
    def remote(self) -> bool:
        """Whether it is asked over a network, at an endpoint that may refuse."""
        return self.provider not in _IN_PROCESS

    @property
    def lane(self) -> str:
        """The name of the lane that it shares with all aliases of the same model at the same endpoint."""
        return f"{self.provider}:{self.name}" + (f" at {self.base_url}" if self.base_url else "")


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
