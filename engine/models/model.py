"""Model: a user's description of a model, with its endpoint, limits and price."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import pydantic
from pydantic import BeforeValidator, Field, SecretStr
from pydantic.json_schema import SkipJsonSchema

from ..core.errors import shown
from ..core.spec import spec
from .secrets import public, public_address, searchable, secrets_in, secrets_in_address, secrets_in_headers

if TYPE_CHECKING:
    from ..core.events import Billing, Usage

ModelFunction: TypeAlias = Callable[..., Any]


FUNCTIONS: Final = "python"
"""The name under which the provider of models that are Python functions is registered."""


def _checked_timeout(given: object) -> object:
    """Refuse what is neither a time nor "auto", in one line instead of pydantic's one per type."""
    if given == "auto" or (isinstance(given, int | float) and given is not True and 0 < given < math.inf):
        return given
    raise ValueError(f'must be a number of seconds above 0, or "auto", not {shown(given)}')


Timeout: TypeAlias = Annotated[Annotated[float, Field(gt=0)] | Literal["auto"], BeforeValidator(_checked_timeout)]

_MILLION: Final = 1_000_000


_Dollars: TypeAlias = Annotated[float, Field(ge=0, strict=True)]


@spec
class Price:
    """US dollars per million tokens of prompts and of completions.

    Some tokens of a prompt have a price of their own: `cached` those that were read from the endpoint's cache,
    `cache_write` those that were written to it, and `cache_write_1h` those that it keeps for an hour. Without one, they
    cost what the others of the prompt do, and those kept for an hour what the other written ones do. `reasoning` is the
    price of reasoning tokens, which otherwise cost what the others of the completion do.
    """

    prompt: float = Field(ge=0, strict=True)
    completion: float = Field(ge=0, strict=True)
    cached: _Dollars | None = Field(default=None, kw_only=True)
    cache_write: _Dollars | None = Field(default=None, kw_only=True)
    cache_write_1h: _Dollars | None = Field(default=None, kw_only=True)
    reasoning: _Dollars | None = Field(default=None, kw_only=True)

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the cost of these tokens in US dollars, none of them cached."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / _MILLION

    def cost_of(self, usage: Usage) -> float | None:
        """Return the cost of a request in US dollars.

        Where the endpoint reports no tokens, it is the bill that the endpoint states, None for none.
        """
        billing = usage.billing
        if not usage.prompt_tokens:
            return None if billing is None else billing.billed
        cost = self.of(usage.prompt_tokens, usage.completion_tokens)
        return cost if billing is None else max(0.0, cost + self._differences(billing) / _MILLION)

    def _differences(self, billing: Billing) -> float:
        """Return by how much the tokens with a price of their own cost more than others, times a million."""
        more = 0.0
        if self.cached is not None:
            more += billing.cached_tokens * (self.cached - self.prompt)
        if billing.cache_write_tokens:
            written = self.prompt if self.cache_write is None else self.cache_write
            for_an_hour = written if self.cache_write_1h is None else self.cache_write_1h
            more += billing.cache_write_tokens * (written - self.prompt)
            more += billing.cache_write_1h_tokens * (for_an_hour - written)
        if self.reasoning is not None:
            more += billing.reasoning_tokens * (self.reasoning - self.completion)
        return more


@spec
class Model:
    """A model and how to call it.

    `spec` is "provider:name" (`openai:gpt-5-mini`, `anthropic:claude-haiku-5-5`, `local:gemma-3-270m`) or a Python
    callable that takes the prompt and returns text. `ollama:`, `vllm:`, `lmstudio:`, `llamacpp:`, `openrouter:`,
    `groq:`, `together:`, `mistral:`, `deepseek:`, `gemini:` and `azure:` are `openai:` with the address and the key
    variable of that endpoint (docs/endpoints.md).

    - `base_url`: any endpoint that speaks the provider's API. Default: the environment variable OPENAI_BASE_URL or
      ANTHROPIC_BASE_URL, else the provider's own endpoint.
    - `api_key_env`: the environment variable that holds the key. Default: OPENAI_API_KEY or ANTHROPIC_API_KEY.
    - `api_key`: the key itself. It is kept as a secret and never written anywhere.
    - `headers`: headers of every request, by name. Their values are kept as secrets, as `api_key` is.
    - `headers_env`: headers whose values are in environment variables: `{"X-Api-Key": "MY_KEY"}`.
    - `max_parallel`: the most requests in flight at once at this model. None is the provider's default: 512 for an
      endpoint, 32 in this process. The actual number follows what the endpoint accepts: it starts at `max_parallel`, or
      at 16 if that is None, and falls when the endpoint answers 429.
    - `requests_per_minute`, `tokens_per_minute` (prompts and answers together): never exceeded.
    - `timeout`: the total time of one attempt in seconds. "auto" is 600 until a column has 50 answers, then ten times
      their 99th percentile, but at least 15, and more where a few answers are far slower (docs/diagnostics.md).
    - `hedge`: send a second request for a cell that takes longer than twice the 95th percentile, for at most 3 % of the
      requests; the first answer is taken, and both requests are paid (docs/diagnostics.md).
    - `extra`: fields that go into the request body unchanged.
    - `price`: the cost of the model's tokens; it overrides the list price at the endpoint, and the bill that it states.
    - `client`: a function that makes a client of the provider's own kind (`lambda: AsyncAzureOpenAI(...)`), for what an
      address and a key cannot express. It is called once, on the loop that uses the client.
    """

    spec: str | ModelFunction
    base_url: str | None = Field(default=None, kw_only=True)
    api_key: SecretStr | None = Field(default=None, kw_only=True, exclude=True, repr=False)
    api_key_env: str | None = Field(default=None, kw_only=True)
    headers: SkipJsonSchema[dict[str, SecretStr]] = Field(default_factory=dict, kw_only=True, exclude=True, repr=False)
    headers_env: dict[str, str] = Field(default_factory=dict, kw_only=True)
    max_parallel: int | None = Field(default=None, ge=1, kw_only=True)
    requests_per_minute: float | None = Field(default=None, gt=0, kw_only=True)
    tokens_per_minute: float | None = Field(default=None, gt=0, kw_only=True)
    temperature: float | None = Field(default=None, ge=0, kw_only=True)
    max_tokens: int | None = Field(default=None, ge=1, kw_only=True)
    timeout: Timeout = Field(default="auto", kw_only=True)
    hedge: bool = Field(default=False, kw_only=True, strict=True)
    extra: dict[str, Any] = Field(default_factory=dict, kw_only=True)
    price: Price | None = Field(default=None, kw_only=True)
    client: SkipJsonSchema[Callable[[], Any] | None] = Field(default=None, kw_only=True, exclude=True, repr=False)

    @property
    def provider(self) -> str:
        """The part of the spec before the colon; "python" for a callable."""
        return self.spec.partition(":")[0] if isinstance(self.spec, str) else FUNCTIONS

    @property
    def name(self) -> str:
        """The part of the spec after the colon; the function's own name for a callable."""
        if isinstance(self.spec, str):
            return self.spec.partition(":")[2]
        return getattr(self.spec, "__name__", type(self.spec).__name__)

    @property
    def lane(self) -> str:
        """The name of the lane that all aliases of the same model at the same endpoint share."""
        return f"{self.provider}:{self.name}" + (f" at {public_address(self.base_url)}" if self.base_url else "")

    @property
    def secrets(self) -> list[str]:
        """Every key in this description; those that environment variables hold are not among them."""
        found = [] if self.api_key is None else [self.api_key.get_secret_value()]
        found += secrets_in_headers({name: value.get_secret_value() for name, value in self.headers.items()})
        found += [] if self.base_url is None else secrets_in_address(self.base_url)
        return searchable([*found, *secrets_in(self.extra)])

    def __repr__(self) -> str:
        """Show every field that holds no secret, and address and extra without theirs."""
        fields = [(field.name, getattr(self, field.name)) for field in dataclasses.fields(self) if field.repr]
        return f"Model({', '.join(f'{name}={_public(name, value)!r}' for name, value in fields)})"

    def describe(self) -> str | dict[str, Any]:
        """Return plain data for a recipe file: no keys, but the variables from which headers are read instead."""
        plain: dict[str, Any] = pydantic.TypeAdapter(Model).dump_python(
            self, mode="json", exclude_defaults=True, exclude={"spec"}
        )
        plain = {name: _public(name, value) for name, value in plain.items()}
        if self.headers:
            variables = {name: re.sub(r"\W", "_", name).upper() for name in self.headers}
            plain["headers_env"] = {**variables, **self.headers_env}
        spec_text = self.spec if isinstance(self.spec, str) else f"python:{self.name}"
        return {"spec": spec_text, **plain} if plain else spec_text


def _public(name: str, value: Any) -> Any:
    if name == "base_url" and value is not None:
        return public_address(value)
    return public(value) if name == "extra" else value
