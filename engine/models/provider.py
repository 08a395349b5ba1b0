"""Provider: the protocols of an adapter that serves models, and the values that pass between it and the engine.

The part of a `Model`'s `spec` before the colon names its provider. The provider checks the model before anything is
paid for, connects on the runtime's loop, and compiles the parameters of a column once, so that a call per cell carries
its messages and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from ..core.errors import RecipeError
from ..core.events import Billing  # noqa: TC001 - the response cache reads the types of a Reply when it decodes
from ..core.registry import Registry

if TYPE_CHECKING:
    from ...runtime import Runtime
    from ..core.events import Usage
    from ..core.store import Vector
    from .model import Model

Message: TypeAlias = dict[str, Any]
"""One chat message, in the form that chat completion APIs share: {"role": ..., "content": ...}."""


@dataclass(frozen=True, slots=True)
class ChatParameters:
    """The parameters that all calls of one column share. `schema` is a JSON Schema that answers must obey."""

    temperature: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Reply:
    """A model's answer: its text, the reason why it ended, and its tokens.

    `finish_reason` is "length" for an answer that was cut off. `native` reports that the endpoint itself enforced the
    schema; otherwise the schema was part of the prompt. `requests` counts the requests behind this reply: all but the
    last were refused for a field or a format that the endpoint does not support. `billing` has what the price depends
    on beside the numbers of tokens.
    """

    text: str
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning: str | None = None
    request_id: str | None = None
    native: bool = False
    requests: int = 1
    billing: Billing | None = None


def in_words(schema: dict[str, Any]) -> str:
    """Return the instruction that asks for an answer in this schema, for prompts."""
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    return f"Answer with JSON that obeys this JSON Schema, and with nothing else:\n{text}"


Ask: TypeAlias = Callable[[list[Message]], Awaitable[Reply]]
"""One call: messages in, a reply out. Raises ModelError or CancelledError, nothing else."""


class ChatModel(Protocol):
    """A connected model."""

    def chat(self, parameters: ChatParameters) -> Ask:
        """Compile a column's parameters; called once per column and run."""
        ...


@dataclass(frozen=True, slots=True)
class EmbeddingParameters:
    """The parameters that all embeddings of one column share.

    `dimensions` is the length of the vectors, None for the model's own. Up to `batch_size` texts share a request.
    """

    dimensions: int | None = None
    batch_size: int = 1
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Embedded:
    """The vector of one text, its tokens, and what their price depends on beside their number.

    A `Vector` is taken as it is; the numbers of a list are rounded to 32 bits.
    """

    vector: list[float] | Vector
    prompt_tokens: int = 0
    billing: Billing | None = None


Embed: TypeAlias = Callable[[str], Awaitable[Embedded]]
"""One text in, its vector out. Raises ModelError or CancelledError, nothing else."""


@runtime_checkable
class Embedder(Protocol):
    """A connected model that embeds texts. It may or may not be a ChatModel as well."""

    def embed(self, parameters: EmbeddingParameters) -> Embed:
        """Compile a column's parameters; called once per column and run."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How many requests may be in flight at a model without a `max_parallel`.

    A remote model starts with `first` requests; the limit then follows what the endpoint accepts, up to `most`. A model
    in this process has no endpoint that could refuse: up to `most` requests from the start, and `first` has no meaning.
    """

    most: int = 512
    first: int = 16
    in_process: bool = False

    def __post_init__(self) -> None:
        """Refuse limits under which no request could ever be sent."""
        for name in ("most", "first"):
            if getattr(self, name) < 1:
                raise ValueError(f"Limits.{name} must be at least 1, not {getattr(self, name)!r}")


class Provider(Protocol):
    """A source of models of one kind.

    Three more members are optional. `limits` states the default limits, and whether the models run in this process
    (`Limited`); without it they are remote, with the defaults of `Limits`. `price` gives the prices of the models
    (`Priced`); without it only a model with a price of its own has one. `unused` names the fields of a Model that a
    recipe must not set (`Selective`); without it, `check` alone refuses fields.
    """

    def check(self, model: Model) -> None:
        """Check for a missing key, package or name; raises RecipeError with advice. Does no IO."""
        ...

    async def connect(self, model: Model, runtime: Runtime) -> ChatModel:
        """Connect on the runtime's loop, sharing clients through the runtime.

        Raises ModelError with fatal=True when the endpoint cannot be reached or refuses the key. Sends no request that
        costs money.
        """
        ...


@runtime_checkable
class Limited(Protocol):
    """A provider that states its own default limits."""

    @property
    def limits(self) -> Limits:
        """The limits of a model without a `max_parallel`."""
        ...


@runtime_checkable
class Pricing(Protocol):
    """What a model costs: a Price, or anything else that computes the cost of a request from its usage."""

    def cost_of(self, usage: Usage) -> float | None:
        """Return the cost of one request in US dollars, None if it is not known. It takes microseconds."""
        ...


@runtime_checkable
class Priced(Protocol):
    """A provider that knows prices."""

    def price(self, model: Model) -> Pricing | None:
        """Return what the requests to this model cost, None if that is not known. Does no IO."""
        ...


@runtime_checkable
class Selective(Protocol):
    """A provider whose models have no use for some fields of `Model`."""

    @property
    def unused(self) -> frozenset[str]:
        """The names of these fields. A recipe that sets one is refused when it is made."""
        ...


IN_PROCESS_UNUSED = frozenset({"base_url", "api_key", "api_key_env", "headers", "headers_env", "client", "hedge"})
"""The fields that describe an endpoint, for providers whose models have none. A second request would only be work twice
over there, and a function may have effects of its own."""

providers: Registry[Provider] = Registry("model provider", entry_points="rowloop.models")


def check_model(model: Model) -> None:
    """Refuse a provider that does not exist, and fields that it does not use; raises RecipeError with the field.

    It reads no environment, and loads the module of the provider, but no client.
    """
    try:
        providers.get(model.provider)
    except RecipeError:
        if isinstance(model.spec, str) and ":" not in model.spec:
            name = model.spec or "gpt-5-mini"
            problem = f"{model.spec!r:.80} names no provider; write PROVIDER:NAME, such as openai:{name:.80}"
            raise RecipeError("spec", problem) from None
        raise
    for name in sorted(unused_by(model)):
        if getattr(model, name) not in (None, {}, False):
            whose = f"models of {model.provider}:" if isinstance(model.spec, str) else "models that are functions"
            raise RecipeError(name, f"{whose} do not use this field; leave it out")


def unused_by(model: Model) -> frozenset[str]:
    """Return the names of the fields that a model's provider does not use."""
    provider = provider_of(model)
    return provider.unused if isinstance(provider, Selective) else frozenset()


def provider_of(model: Model) -> Provider | None:
    """Return the provider of a model; None for one that is not installed here, which a run refuses to ask."""
    try:
        return providers.get(model.provider)
    except RecipeError:
        return None


def limits_of(model: Model) -> Limits:
    """Return the default limits of a model's provider."""
    provider = provider_of(model)
    return provider.limits if isinstance(provider, Limited) else Limits()
