"""How the server behaves: its settings, and the dice that turn them into the fate of one request."""

from hashlib import blake2b
from itertools import accumulate
from typing import Annotated, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(ge=0)]
Rate = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]

Dialect: TypeAlias = Literal[
    "",
    "openai",
    "azure",
    "gemini",
    "openrouter",
    "groq",
    "mistral",
    "deepseek",
    "together",
    "vllm",
    "llamacpp",
    "ollama",
    "lmstudio",
]


def _says(text: str) -> Meta:
    return Meta(description=text)


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting of the server; each is a keyword of FakeOpenAI, of configure() and a flag of the command line.

    A request meets at most one fault, so the rates must not add up to more than 1.
    """

    latency: Annotated[Seconds, _says("seconds before an answer")] = 0.0
    jitter: Annotated[Seconds, _says("up to so many seconds more, uniformly, drawn like the faults")] = 0.0
    seed: Annotated[int, _says("what faults and jitter are drawn from, with the prompt and its attempt number")] = 0
    api_key: Annotated[str | None, _says("the one key that is let in; 401 for others (default: any, or none)")] = None
    models: Annotated[tuple[str, ...], _says("the models there are; 404 for others (default: any name)")] = ()
    reply: Annotated[str, _says("words | echo | echo:PREFIX | fixed:TEXT | schema:JSON_SCHEMA")] = "words"
    dialect: Annotated[Dialect, _says("the vendor whose refusals and errors it has (default: none)")] = ""
    structured: Annotated[bool, _says("whether response_format is supported; 400 where it is not")] = True
    json_schema: Annotated[bool, _says("whether response_format may be json_schema; 400 where it may not")] = True
    unknown: Annotated[tuple[str, ...], _says("fields of a chat request that are not known: 400 for them")] = ()
    script: Annotated[str, _says("the whole body of answers that meet the fault script")] = ""
    heals: Annotated[bool, _says("requests that hold an answer already meet no fault")] = False
    dimensions: Annotated[Count, _says("length of an embedding where the request does not say")] = 8
    limit: Annotated[Count | None, _says("hidden concurrency limit: 429 above it")] = None
    open_seconds: Annotated[Seconds | None, _says("it is open for so long of each period: 429 otherwise")] = None
    period: Annotated[Annotated[float, Meta(gt=0)], _says("seconds of a period, from the start or change")] = 4.0
    requests_per_minute: Annotated[Count | None, _says("token bucket over requests: 429 when empty")] = None
    tokens_per_minute: Annotated[Count | None, _says("token bucket over prompt and completion tokens")] = None
    ratelimit_headers: Annotated[bool, _says("send x-ratelimit-* for the two buckets")] = False
    retry_after: Annotated[
        float | str | None,
        _says("Retry-After of 429 and 503: seconds; date:SECONDS for the HTTP-date form; other text is sent as it is"),
    ] = 1.0
    trickle_seconds: Annotated[Seconds, _says("how long a trickled body takes")] = 60.0
    price: Annotated[str, _says("dollars per million tokens: PROMPT/COMPLETION, then /CACHED and /CACHE_WRITE")] = ""
    long_prompt: Annotated[Count | None, _says("the tokens of a prompt above which every price is doubled")] = None
    cached: Annotated[Rate, _says("share of each prompt's tokens that a cache had")] = 0.0
    cache_write: Annotated[Rate, _says("share of each prompt's tokens that are written to a cache")] = 0.0
    usage: Annotated[str, _says("openai | deepseek | moonshot | apart | bill | none: the form of usage")] = "openai"
    service_tier: Annotated[str | None, _says("the service tier of answers; flex and priority have prices")] = None
    record: Annotated[Annotated[int, Meta(ge=0)], _says("how many of the last requests are kept to be read")] = 1
    fault_attempts: Annotated[Count | None, _says("only the first so many attempts of a prompt meet faults")] = None
    fault_400: Annotated[Rate, _says("share answered 400, invalid request")] = 0.0
    fault_401: Annotated[Rate, _says("share answered 401, wrong key")] = 0.0
    fault_403: Annotated[Rate, _says("share answered 403, not allowed")] = 0.0
    fault_404: Annotated[Rate, _says("share answered 404, no such model")] = 0.0
    fault_408: Annotated[Rate, _says("share answered 408, request timeout")] = 0.0
    fault_409: Annotated[Rate, _says("share answered 409, conflict")] = 0.0
    fault_413: Annotated[Rate, _says("share answered 413, request too large")] = 0.0
    fault_422: Annotated[Rate, _says("share answered 422, unprocessable")] = 0.0
    fault_425: Annotated[Rate, _says("share answered 425, too early")] = 0.0
    fault_429: Annotated[Rate, _says("share answered 429, whatever the load")] = 0.0
    fault_500: Annotated[Rate, _says("share answered 500, server error")] = 0.0
    fault_502: Annotated[Rate, _says("share answered 502, with a proxy's HTML page")] = 0.0
    fault_503: Annotated[Rate, _says("share answered 503, overloaded")] = 0.0
    fault_529: Annotated[Rate, _says("share answered 529, overloaded, as Anthropic says it")] = 0.0
    fault_cut: Annotated[Rate, _says("share whose body or stream stops midway, and the connection with it")] = 0.0
    fault_disconnect: Annotated[Rate, _says("share whose connection is closed without an answer")] = 0.0
    fault_hang: Annotated[Rate, _says("share never answered")] = 0.0
    slow_times: Annotated[float, _says("how many times as long an answer takes that meets the fault slow")] = 30.0
    fault_slow: Annotated[Rate, _says("share answered after slow_times the latency")] = 0.0
    fault_trickle: Annotated[Rate, _says("share whose body comes in small pieces over trickle_seconds")] = 0.0
    fault_garbage: Annotated[Rate, _says("share answered 200 with a body that is not JSON")] = 0.0
    fault_invalid_json: Annotated[Rate, _says("share whose content is JSON that breaks off")] = 0.0
    fault_length: Annotated[Rate, _says("share cut to half its words, finish_reason length")] = 0.0
    fault_reasoning: Annotated[Rate, _says("share with reasoning_content beside the content")] = 0.0
    fault_overthink: Annotated[Rate, _says("share with reasoning alone, no content, finish_reason length")] = 0.0
    fault_fenced: Annotated[Rate, _says("share whose content is fenced with ```, with prose around it")] = 0.0
    fault_prose: Annotated[Rate, _says("share whose content is prose, whatever was asked for")] = 0.0
    fault_script: Annotated[Rate, _says("share answered 200 with the body of `script`")] = 0.0
    fault_think: Annotated[Rate, _says("share with <think>...</think> in front of the content")] = 0.0

    def __post_init__(self) -> None:
        """Refuse what no request could obey."""
        if (total := sum(rates(self).values())) > 1 + 1e-9:
            raise ValueError(
                f"the fault rates add up to {total:g}: a request meets at most one fault, so 1 is the most"
            )
        if isinstance(self.retry_after, str) and self.retry_after.startswith("date:"):
            float(self.retry_after.removeprefix("date:"))
        kind, colon, _ = self.reply.partition(":")
        if (kind, bool(colon)) not in _REPLIES:
            raise ValueError(
                f"reply={self.reply!r} is none of words, echo, echo:PREFIX, fixed:TEXT, schema:JSON_SCHEMA"
            )


_REPLIES = {("words", False), ("echo", False), ("echo", True), ("fixed", True), ("schema", True)}
_PREFIX = "fault_"


def rates(behaviour: Behaviour) -> dict[str, float]:
    """Map each fault's name ("429", "cut" ...) to its rate."""
    names = (name for name in Behaviour.__struct_fields__ if name.startswith(_PREFIX) and name != "fault_attempts")
    return {name.removeprefix(_PREFIX): getattr(behaviour, name) for name in names}


class Throw(NamedTuple):
    """What one request meets."""

    fault: str
    """The fault's name; empty for none."""
    wait: float
    """Seconds until the answer."""


class Dice:
    """The faults and waits of one behaviour.

    A throw depends on the seed, the prompt and the number of the attempt at that prompt, and on nothing else: runs
    repeat whatever the order in which requests arrive.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        """Lay the faults that can occur end to end on the line from 0 to 1."""
        occurring = {name: rate for name, rate in rates(behaviour).items() if rate}
        self._bounds = list(zip(accumulate(occurring.values()), occurring, strict=True))
        self._attempts = behaviour.fault_attempts
        self._latency = behaviour.latency
        self._jitter = behaviour.jitter
        self._seed = behaviour.seed
        self._slow = behaviour.slow_times

    def throw(self, prompt: bytes, attempt: int) -> Throw:
        """Draw for the given attempt (counted from 1) at a prompt."""
        if not (self._bounds or self._jitter):
            return Throw("", self._latency)
        digest = blake2b(b"%d %d " % (self._seed, attempt) + prompt, digest_size=16).digest()
        wait = self._latency + self._jitter * _share(digest[8:])
        if self._attempts is not None and attempt > self._attempts:
            return Throw("", wait)
        point = _share(digest[:8])
        fault = next((name for bound, name in self._bounds if point < bound), "")
        return Throw(fault, self._slow * wait if fault == "slow" else wait)


def _share(eight_bytes: bytes) -> float:
    return int.from_bytes(eight_bytes) / 2**64
