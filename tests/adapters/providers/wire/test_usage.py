"""Usage of chat completions and messages, in every form in which endpoints write it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rowloop.adapters.http.errors import Failures
from rowloop.adapters.providers.anthropic.messages import MessagesWire
from rowloop.adapters.providers.openai.chat import ChatWire
from rowloop.adapters.providers.openai.embeddings import EmbeddingWire
from rowloop.engine.core.errors import ModelError
from rowloop.engine.core.events import UNKNOWN_USAGE, Billing, Usage
from rowloop.engine.models.provider import ChatParameters, EmbeddingParameters, Reply

FAILURES = Failures("m")


def chat(usage: Any, **fields: Any) -> Reply:
    """Decode a chat completion with this usage."""
    choice = {"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    body = {"id": "1", "choices": [choice], "usage": usage, **fields}
    return ChatWire("m", ChatParameters(), FAILURES).decode(msgspec.json.encode(body), None)


def message(usage: Any) -> Reply:
    """Decode a message with this usage."""
    body = {"id": "1", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "usage": usage}
    return MessagesWire("m", ChatParameters(), FAILURES).decode(msgspec.json.encode(body), None)


def tokens(reply: Reply) -> tuple[int, int, Billing | None]:
    """Return what a reply used."""
    return reply.prompt_tokens, reply.completion_tokens, reply.billing


def openai(prompt: int, completion: int, **fields: Any) -> dict[str, Any]:
    """Write a usage as OpenAI does."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **fields}


DETAILS = {"cached_tokens": 80, "cache_write_tokens": 10, "audio_tokens": 0}


@pytest.mark.parametrize(
    ("usage", "used"),
    [
        (openai(100, 20), (100, 20, None)),
        (openai(100, 20, prompt_tokens_details=None, completion_tokens_details=None), (100, 20, None)),
        (openai(100, 20, prompt_tokens_details={"cached_tokens": 0}), (100, 20, None)),
        (openai(100, 20, prompt_tokens_details=DETAILS), (100, 20, Billing(80, 10))),
        (openai(100, 20, completion_tokens_details={"reasoning_tokens": 5}), (100, 20, Billing(reasoning_tokens=5))),
        (openai(100, 20, prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36), (100, 20, Billing(64))),
        (openai(100, 20, cached_tokens=64), (100, 20, Billing(64))),
        (openai(100, 20, prompt_tokens_details={"cached_tokens": 900}), (1000, 20, Billing(900))),
        (
            {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 150, "prompt_tokens_details": DETAILS},
            (100, 50, Billing(80, 10, reasoning_tokens=30)),
        ),
        (
            {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 170, "cached_tokens": 50},
            (150, 20, Billing(50)),
        ),
        (
            openai(100, 20, completion_tokens_details={"reasoning_tokens": 300}) | {"total_tokens": 420},
            (100, 320, Billing(reasoning_tokens=300)),
        ),
        ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 150}, (100, 50, Billing(reasoning_tokens=30))),
        ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 0}, (100, 20, None)),
        (openai(100, 20, cost=0.5), (100, 20, Billing(billed=0.5))),
        (openai(100, 20, cost=0), (100, 20, Billing(billed=0.0))),
        (
            openai(100, 20, cost=0.5, is_byok=False, cost_details={"upstream_inference_cost": 0.4}),
            (100, 20, Billing(billed=0.5)),
        ),
        (
            openai(100, 20, cost=0.5, is_byok=True, cost_details={"upstream_inference_cost": 9.5}),
            (100, 20, Billing(billed=10.0)),
        ),
        (openai(100, 20, cost=0.5, is_byok=True, cost_details=None), (100, 20, None)),
        (openai(100, 20, cost={"input_tokens_cost": 0.1, "total_cost": 0.3}), (100, 20, Billing(billed=0.3))),
        (openai(100, 20, estimated_cost=0.25), (100, 20, Billing(billed=0.25))),
        ({"cost": 0.5}, (0, 0, Billing(billed=0.5))),
        (openai(100, 20, cost="0.5"), (100, 20, None)),
        (openai(100, 20, cost=-1), (100, 20, None)),
        (openai(100, 20, cost=True), (100, 20, None)),
        (None, (0, 0, None)),
        ({"prompt_tokens": 100}, (0, 0, None)),
        ({"completion_tokens": 20}, (0, 20, None)),
    ],
)
def test_usage_of_chat_completions(usage: Any, used: tuple[int, int, Billing | None]):
    """Cached tokens are part of the prompt and reasoning is part of the completion, wherever they are counted."""
    assert tokens(chat(usage)) == used


@pytest.mark.parametrize(
    ("usage", "used"),
    [
        (
            {"prompt_tokens": "100", "completion_tokens": 20.0, "prompt_tokens_details": DETAILS},
            (100, 20, Billing(80, 10)),
        ),
        (openai(100, 20, prompt_tokens_details={"cached_tokens": "80"}), (100, 20, Billing(80))),
        (openai(100, 20, prompt_tokens_details=[]), (100, 20, None)),
        (openai(100, 20, prompt_tokens_details={"cached_tokens": -1}), (0, 0, None)),
        (openai(100, 20, completion_tokens_details={"reasoning_tokens": "many"}), (0, 0, None)),
        (openai(100, 20, cached_tokens="none"), (0, 0, None)),
        (openai(100, 20, cached_tokens=1.0, cost=0.5), (100, 20, Billing(1, billed=0.5))),
        ("free", (0, 0, None)),
    ],
)
def test_unusual_usage_is_read_or_unknown(usage: Any, used: tuple[int, int, Billing | None]):
    """A number of cached tokens that cannot be read would give a wrong cost."""
    assert tokens(chat(usage)) == used


def test_the_service_tier_is_the_answers():
    """Not what was asked for. It may have any form, and costs no answer."""
    plain = openai(100, 20)
    assert chat(plain, service_tier="flex").billing == Billing(terms=(("service_tier", "flex"),))
    assert chat(plain, service_tier=None).billing is None
    assert chat(plain, service_tier={"name": "flex"}).billing is None
    cached = chat(openai(100, 20, prompt_tokens_details=DETAILS), service_tier="default").billing
    assert cached == Billing(80, 10, terms=(("service_tier", "default"),))


@pytest.mark.parametrize(
    ("usage", "used"),
    [
        ({"input_tokens": 100, "output_tokens": 20}, (100, 20, None)),
        (
            {"input_tokens": 3, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 17, "output_tokens": 20},
            (100, 20, Billing(80, 17)),
        ),
        (
            {
                "input_tokens": 3,
                "cache_creation_input_tokens": 97,
                "output_tokens": 20,
                "cache_creation": {"ephemeral_5m_input_tokens": 57, "ephemeral_1h_input_tokens": 40},
            },
            (100, 20, Billing(0, 97, 40)),
        ),
        (
            {"input_tokens": 100, "output_tokens": 20, "output_tokens_details": {"thinking_tokens": 15}},
            (100, 20, Billing(reasoning_tokens=15)),
        ),
        (
            {"input_tokens": 100, "output_tokens": 20, "server_tool_use": {"web_search_requests": 2}},
            (100, 20, Billing(searches=2)),
        ),
        (
            {
                "input_tokens": 100,
                "output_tokens": 20,
                "service_tier": "standard",
                "speed": "fast",
                "inference_geo": "us",
            },
            (100, 20, Billing(terms=(("service_tier", "standard"), ("speed", "fast"), ("inference_geo", "us")))),
        ),
        ({"input_tokens": "100", "output_tokens": 20, "speed": 1}, (100, 20, Billing(terms=(("speed", "1"),)))),
        (
            {"input_tokens": 100, "output_tokens": 20, "cache_creation": {"ephemeral_1h_input_tokens": "x"}},
            (0, 0, None),
        ),
        ({"input_tokens": 100, "output_tokens": 20, "cache_creation": 5}, (100, 20, None)),
        (None, (0, 0, None)),
    ],
)
def test_usage_of_messages(usage: Any, used: tuple[int, int, Billing | None]):
    """Anthropic counts what was read from a cache and what was written to one beside the other tokens."""
    assert tokens(message(usage)) == used


@pytest.mark.parametrize(
    ("usage", "first", "second"),
    [
        ({"prompt_tokens": 8, "total_tokens": 8}, (2, None), (6, None)),
        ({"total_tokens": 8}, (2, None), (6, None)),
        ({"prompt_tokens": 8, "cost": 0.5}, (2, Billing(billed=0.125)), (6, Billing(billed=0.375))),
        ({"cost": 0.4}, (0, Billing(billed=0.2)), (0, Billing(billed=0.2))),
        ({"prompt_tokens": "eight"}, (0, None), (0, None)),
        (None, (0, None), (0, None)),
    ],
)
def test_usage_of_embeddings(usage: Any, first: Any, second: Any):
    """The texts of a request share its tokens by their lengths, and its bill by their tokens."""
    body = {"data": [{"embedding": [1.0], "index": 0}, {"embedding": [2.0], "index": 1}], "usage": usage}
    wire = EmbeddingWire("m", EmbeddingParameters(), FAILURES)
    found = wire.decode(msgspec.json.encode(body), ["a", "abcde"])
    assert [(one.prompt_tokens, one.billing) for one in found] == [first, second]


@pytest.mark.parametrize("body", [{"choices": []}, {"choices": [{"finish_reason": "stop"}]}])
def test_an_answer_without_a_message_has_the_usage_that_it_states(body: dict[str, Any]):
    """It is paid for. Without a usage it is unknown what is; an error that is passed on without one costs nothing."""
    wire = ChatWire("m", ChatParameters(), FAILURES)

    def usage_in(**fields: Any) -> Usage | None:
        with pytest.raises(ModelError) as caught:
            wire.decode(msgspec.json.encode({**body, **fields}), None)
        return caught.value.usage

    assert usage_in(usage=openai(100, 20, cached_tokens=64)) == Usage(100, 20, 0.0, Billing(64))
    assert usage_in() == UNKNOWN_USAGE
    assert usage_in(error={"message": "no", "code": 500}) is None
    assert usage_in(error={"message": "no", "code": 500}, usage=openai(100, 0)) == Usage(100, 0)


def test_a_refusal_is_paid_for():
    """With the usage that it states, else it is unknown what is."""
    choice = {"message": {"role": "assistant", "content": None, "refusal": "No."}, "finish_reason": "stop"}
    for usage, used in ((openai(100, 20), Usage(100, 20)), (None, UNKNOWN_USAGE)):
        body = msgspec.json.encode({"choices": [choice], "usage": usage})
        with pytest.raises(ModelError, match="refused") as caught:
            ChatWire("m", ChatParameters(), FAILURES).decode(body, None)
        assert caught.value.usage == used
