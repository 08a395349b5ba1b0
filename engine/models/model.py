"""Model: what a user writes about one, where it is asked and what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, SecretStr
from pydantic.json_schema import SkipJsonSchema

from ..core.spec import spec

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

_MILLION: Final = 1_000_000


@spec
class Price:
    """US dollars per million tokens: of prompts, and of completions, which what a model thinks is part of."""

    prompt: float = Field(ge=0, strict=True)
    completion: float = Field(ge=0, strict=True)

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Give what so many tokens cost, in US dollars."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / _MILLION


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
