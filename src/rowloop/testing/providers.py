"""check_provider and check_embedder: whether a provider keeps the contract of rowloop.engine.models.Provider."""

from __future__ import annotations

import asyncio
import copy
import inspect
import math
import socket
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from ..engine.core.errors import ModelError, RecipeError
from ..engine.core.events import Billing
from ..engine.core.store import Vector
from ..engine.models.model import Model
from ..engine.models.provider import (
    ChatParameters,
    Embedded,
    Embedder,
    EmbeddingParameters,
    Limits,
    Pricing,
    Reply,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from ..engine.models.provider import Ask, Embed, Message
    from ..runtime import Runtime

SECONDS: Final = 60.0
"""The longest that one step of a check may take."""

_BLOCKED: Final = 1.0
"""Seconds for which a provider may keep the loop from doing anything else."""

_AT_ONCE: Final = 5
_TOKENS: Final = 16
_SCHEMA: Final = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}


def check_provider(provider: Any, model: Model, runtime: Runtime, *, prompt: str = "Say hello.") -> None:
    """Check that a provider and its chat models do what rowloop relies on; raises AssertionError for what they do not.

    `model` is one that the provider can connect to, and that answers `prompt`. It is asked about fifteen times, for 16
    tokens at most.
    """
    _check_statements(provider, model)
    connected = _connected(provider, model, runtime)
    assert callable(getattr(connected, "chat", None)), _unlike(
        "connect()", "a connected model with a method chat(parameters)", connected
    )
    messages: list[Message] = [{"role": "user", "content": prompt}]
    ask = _compiled(connected, ChatParameters(max_tokens=_TOKENS))
    _run(runtime, _answers(ask, messages, model))
    _run(runtime, _answers_at_once(ask, messages))
    _run(runtime, _passes_cancellation_on(partial(ask, messages)))
    _run(runtime, _refuses_properly(ask, [{"role": "user", "content": "\ud800"}], model))
    _run(runtime, _takes_parameters(connected, messages, model))


def check_embedder(provider: Any, model: Model, runtime: Runtime, *, texts: int = 6) -> None:
    """Check that a provider's models embed as rowloop relies on; raises AssertionError for what they do not."""
    _check_statements(provider, model)
    connected = _connected(provider, model, runtime)
    assert isinstance(connected, Embedder), _unlike(
        "connect()", "a connected model with a method embed(parameters)", connected
    )
    alone = connected.embed(EmbeddingParameters())
    together = connected.embed(EmbeddingParameters(batch_size=4))
    for embed in (alone, together):
        assert callable(embed), _unlike("embed(parameters)", "a function of one text", embed)
        _run(runtime, _embeds(embed, texts))
        _run(runtime, _passes_cancellation_on(partial(embed, "a text")))


def _check_statements(provider: Any, model: Model) -> None:
    """Check what a provider states before it connects."""
    for name in ("check", "connect"):
        assert callable(getattr(provider, name, None)), f"the provider has no method {name}(); see docs/providers.md"
    with _no_network("check(model)"):
        checked = provider.check(model)
    assert checked is None, _unlike("check(model)", "nothing; it raises RecipeError for a model it refuses", checked)
    limits = getattr(provider, "limits", None)
    assert limits is None or isinstance(limits, Limits), _unlike("limits", "a rowloop.engine.models.Limits", limits)
    unused: frozenset[str] = getattr(provider, "unused", frozenset())
    fields = Model.__dataclass_fields__
    assert isinstance(unused, frozenset), _unlike("unused", "a frozenset of names of fields", unused)
    assert unused <= fields.keys(), _unlike("unused", "names of fields of rowloop.Model", set(unused - fields.keys()))
    if hasattr(provider, "price"):
        with _no_network("price(model)"):
            price = provider.price(model)
        assert price is None or isinstance(price, Pricing), _unlike("price(model)", "a rowloop.Price or None", price)


def _connected(provider: Any, model: Model, runtime: Runtime) -> Any:
    """Connect twice: the second time, everything can be shared."""
    connected = _run(runtime, _connect(provider, model, runtime))
    names = sorted(runtime.thread.resources.names())
    _run(runtime, _connect(provider, model, runtime))
    again = sorted(runtime.thread.resources.names())
    assert again == names, (
        "connect() opened another resource for the same model; share it, with `await runtime.aenter(factory, key=...)`"
        f" and a key that is the same each time: {names} became {again}"
    )
    secret = None if model.api_key is None else model.api_key.get_secret_value()
    assert secret is None or secret not in repr(connected), "repr() of the connected model shows the key"
    return connected


async def _connect(provider: Any, model: Model, runtime: Runtime) -> Any:
    connecting = provider.connect(model, runtime)
    assert inspect.isawaitable(connecting), _unlike("connect()", "an awaitable; define it with `async def`", connecting)
    try:
        return await connecting
    except (ModelError, RecipeError) as error:
        raise AssertionError(f"connect() did not reach the model: {error}") from error
    except Exception as error:
        problem = f"connect() raised {type(error).__name__}: {error}; it raises ModelError(..., fatal=True) instead"
        raise AssertionError(problem) from error


def _compiled(connected: Any, parameters: ChatParameters) -> Ask:
    before = copy.deepcopy(parameters)
    ask: Any = connected.chat(parameters)
    assert callable(ask), _unlike("chat(parameters)", "a function of the messages, and must not be `async`", ask)
    assert parameters == before, "chat(parameters) changed its parameters, which other columns share"
    return ask  # type: ignore[no-any-return] # it is callable, and what it returns is checked with each call


async def _answers(ask: Ask, messages: list[Message], model: Model) -> None:
    """Ask once, with a prompt that the model can answer."""
    before = copy.deepcopy(messages)
    try:
        reply = await ask(messages)
    except ModelError as error:
        _check_error(error, model)
        raise AssertionError(f"the model did not answer {messages[0]['content']!r}: {error}") from error
    except Exception as error:
        raise AssertionError(_foreign(error)) from error
    _check_reply(reply)
    assert messages == before, "ask(messages) changed the messages, which a retry sends again"


async def _answers_at_once(ask: Ask, messages: list[Message]) -> None:
    """Ask several times at once, and watch the loop meanwhile."""
    gap = asyncio.create_task(_longest_gap())
    replies = await asyncio.gather(*(ask(copy.deepcopy(messages)) for _ in range(_AT_ONCE)))
    await asyncio.sleep(0)
    gap.cancel()
    blocked = await gap
    assert blocked < _BLOCKED, (
        f"a call blocked the loop for {blocked:.1f} s, and with it all other requests; await, or use a thread:"
        " `await asyncio.to_thread(...)`"
    )
    for reply in replies:
        _check_reply(reply)
    assert len({id(reply) for reply in replies}) == len(replies), "two calls returned the same Reply object; make a new"


async def _longest_gap() -> float:
    """Return the longest time between two turns of the loop, when cancelled."""
    time = asyncio.get_running_loop().time
    longest, last = 0.0, time()
    try:
        while True:
            await asyncio.sleep(0.01)
            longest, last = max(longest, time() - last), time()
    except asyncio.CancelledError:
        return max(longest, time() - last)


async def _passes_cancellation_on(call: Callable[[], Awaitable[object]]) -> None:
    """Cancel a call under way: a run that ends must not wait for it, nor take its answer for a failure."""

    async def begun() -> object:
        return await call()

    task = asyncio.create_task(begun())
    await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done, "a cancelled call did not end within 5 s"
    if not task.cancelled():  # it may have ended before
        error = task.exception()
        assert error is None, f"a cancelled call raised {type(error).__name__}: {error}; pass CancelledError on"


async def _refuses_properly(ask: Ask, messages: list[Message], model: Model) -> None:
    """Send text that has no UTF-8 form: some models can be asked about it, others raise ModelError."""
    try:
        _check_reply(await ask(messages))
    except ModelError as error:
        _check_error(error, model)
    except Exception as error:
        raise AssertionError(_foreign(error)) from error


async def _takes_parameters(connected: Any, messages: list[Message], model: Model) -> None:
    """Use each parameter: it is obeyed, left out with a warning, or refused with a ModelError."""
    each: tuple[dict[str, Any], ...] = ({"temperature": 0.5}, {"stop": ("\n",)}, {"schema": copy.deepcopy(_SCHEMA)})
    for fields in (*each, {name: value for one in each for name, value in one.items()}):
        parameters = ChatParameters(max_tokens=_TOKENS, **fields)
        await _refuses_properly(_compiled(connected, parameters), copy.deepcopy(messages), model)


async def _embeds(embed: Embed, number: int) -> None:
    """Embed several texts at once."""
    texts = ["a text" * (i + 1) for i in range(number)]
    try:
        vectors = await asyncio.gather(*map(embed, texts))
    except ModelError as error:
        raise AssertionError(f"the model did not embed {number} texts: {error}") from error
    except Exception as error:
        raise AssertionError(_foreign(error)) from error
    for embedded in vectors:
        assert isinstance(embedded, Embedded), _unlike("embed(text)", "a rowloop.engine.models.Embedded", embedded)
        vector = embedded.vector
        is_list = isinstance(vector, list) and all(type(number) in {float, int} for number in vector)
        numbers = is_list or isinstance(vector, Vector)
        assert numbers, _unlike("Embedded.vector", "a list of floats", vector)
        assert vector, "Embedded.vector is empty"
        assert all(map(math.isfinite, vector)), "Embedded.vector has numbers that are not finite"
        _check_count("Embedded.prompt_tokens", embedded.prompt_tokens)
    lengths = {len(embedded.vector) for embedded in vectors}
    assert len(lengths) == 1, f"vectors of one model have different lengths: {sorted(lengths)}"


def _check_reply(reply: object) -> None:
    assert isinstance(reply, Reply), _unlike("a call", "a rowloop.engine.models.Reply", reply)
    assert isinstance(reply.text, str), _unlike("Reply.text", "str", reply.text)
    for name in ("finish_reason", "reasoning", "request_id"):
        value = getattr(reply, name)
        assert value is None or isinstance(value, str), _unlike(f"Reply.{name}", "str or None", value)
    for name in ("prompt_tokens", "completion_tokens", "requests"):
        _check_count(f"Reply.{name}", getattr(reply, name))
    assert isinstance(reply.native, bool), _unlike("Reply.native", "bool", reply.native)
    if reply.billing is not None:
        _check_billing(reply.billing, reply.prompt_tokens, reply.completion_tokens)


def _check_billing(billing: object, prompt_tokens: int, completion_tokens: int) -> None:
    """Check that no part of the tokens is larger than the whole."""
    wanted = "a rowloop.engine.models.Billing or None"
    assert isinstance(billing, Billing), _unlike("Reply.billing", wanted, billing)
    for name in ("cached_tokens", "cache_write_tokens", "cache_write_1h_tokens", "reasoning_tokens", "searches"):
        _check_count(f"Reply.billing.{name}", getattr(billing, name))
    cached = billing.cached_tokens + billing.cache_write_tokens
    assert cached <= prompt_tokens, f"Reply.billing has {cached} cached tokens of {prompt_tokens} in the prompt"
    hour, written = billing.cache_write_1h_tokens, billing.cache_write_tokens
    assert hour <= written, f"Reply.billing has {hour} tokens written for an hour, of {written} written ones"
    thought = billing.reasoning_tokens
    assert thought <= completion_tokens, f"Reply.billing has {thought} tokens of reasoning, of {completion_tokens}"


def _check_count(name: str, value: object) -> None:
    assert type(value) is int, _unlike(name, "int, which counts towards usage and cost", value)
    assert value >= 0, f"{name} is {value}; it is never negative"


def _check_error(error: ModelError, model: Model) -> None:
    secret = None if model.api_key is None else model.api_key.get_secret_value()
    for shown in filter(None, (error, error.__cause__)):
        leaked = secret is not None and secret in f"{shown} {shown!r}"
        assert not leaked, f"the message of a {type(shown).__name__} holds the key"
    assert isinstance(error.kind, str), _unlike("ModelError.kind", "str, if possible a FailureKind", error.kind)
    assert str(error), "a ModelError has no message; state what happened, and what to do"
    assert not (error.fatal and error.retryable), (
        f"a ModelError of kind '{error.kind}' is retryable and fatal; fatal means that every other request fails too"
    )


def _foreign(error: Exception) -> str:
    return (
        f"a call raised {type(error).__name__}: {error}; it must raise rowloop.ModelError, with a kind and retryable,"
        " because any other exception of a model ends the run"
    )


def _unlike(what: str, expected: str, got: object) -> str:
    return f"{what} must be {expected}; it is {type(got).__name__}: {got!r:.80}"


def _run(runtime: Runtime, coroutine: Any) -> Any:
    return runtime.run(coroutine, timeout=SECONDS)


@contextmanager
def _no_network(what: str) -> Iterator[None]:
    """Fail when this thread opens a connection inside the block."""
    caller, real = threading.get_ident(), socket.socket.connect
    opened: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        if threading.get_ident() == caller:
            opened.append(address)
        real(self, address)

    with mock.patch.object(socket.socket, "connect", connect):
        yield
    assert not opened, f"{what} opened a connection to {opened[0]}; it does no IO, connect() is the place for that"
