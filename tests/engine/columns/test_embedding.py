"""Embedding columns from end to end: vectors, their type, their failures, and models without embeddings."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import openai
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

import rowloop as rl
from fake_openai import Behaviour
from rowloop.adapters.providers.openai.http_model import HttpChat, HttpModel
from rowloop.engine.models.provider import Embedder

if TYPE_CHECKING:
    from pathlib import Path

WORDS = [f"word {number}" for number in range(50)]


def recipe(model: rl.Model, **settings: Any) -> rl.Recipe:
    """Embed a sentence about each word."""
    columns = [
        rl.Category("word", values=WORDS),
        rl.Embedding("vector", model="m", text="About {{ word }}", **settings),
    ]
    return rl.Recipe(models={"m": model}, columns=columns, seed=7)


def at(url: str, **settings: Any) -> rl.Model:
    """Take the fast path."""
    return rl.Model("openai:embedder", base_url=url, **settings)


def by_client(url: str) -> rl.Model:
    """Bring a client."""
    return rl.Model("openai:embedder", client=lambda: openai.AsyncOpenAI(base_url=url, api_key="any"))


@pytest.mark.parametrize("way", [at, by_client])
def test_vectors_are_lists_of_32_bit_floats(server, tmp_path: Path, way):
    """One request a cell, in base64; the file has the type, the server's tokens are counted, equal texts are alike."""
    result = recipe(way(server.url)).build(tmp_path / "out", rows=30)
    assert (result.status, result.actual) == ("complete", 30)
    (part,) = (tmp_path / "out/data").glob("*.parquet")
    assert pq.read_schema(part).field("vector").type == pa.list_(pa.float32())
    frame = result.to_pandas()
    assert all(len(vector) == 8 and abs(sum(x * x for x in vector) - 1) < 1e-5 for vector in frame["vector"])
    assert len({tuple(vector) for vector in frame["vector"]}) == frame["word"].nunique()
    (request,) = server.requests()
    assert request.path == "/v1/embeddings"
    assert request.json().keys() == {"model", "input", "encoding_format"}
    assert request.json()["encoding_format"] == "base64"
    counters = server.counters()
    assert (result.usage.requests, result.usage.prompt_tokens) == (counters.requests, counters.prompt_tokens)
    assert result.usage.completion_tokens == 0


def test_numbers_and_base64_are_the_same_vector(server):
    """An endpoint that knows no base64 is asked for numbers by `extra`."""
    plain = recipe(at(server.url, extra={"encoding_format": "float"}), dimensions=16).preview(5).dataset
    packed = recipe(at(server.url), dimensions=16).preview(5).dataset
    assert server.requests()[0].json()["dimensions"] == 16
    for one, other in zip(plain["vector"], packed["vector"], strict=True):
        assert len(one) == 16
        assert list(one) == pytest.approx(list(other), abs=1e-6)


@pytest.mark.parametrize("way", [at, by_client])
def test_cells_that_are_ready_at_once_may_share_a_request(server, way):
    """The vectors are the same, the tokens add up, and the server has far fewer requests."""
    alone = recipe(way(server.url)).preview(60).dataset
    server.reset()
    server.configure(record=1000)
    result = recipe(way(server.url), batch_size=16).preview(60)
    assert [list(vector) for vector in result.dataset["vector"]] == [list(vector) for vector in alone["vector"]]
    asked = [request.json()["input"] for request in server.requests()]
    assert max(len(texts) for texts in asked if isinstance(texts, list)) == 16
    assert len(asked) < 20
    assert (result.usage.requests, result.usage.prompt_tokens) == (60, server.counters().prompt_tokens)


def test_functions_and_templates_read_a_vector_as_a_list_of_floats(server, tmp_path: Path):
    """Of a cell and of a batch, with the numbers that are in the file; only the engine has an array."""
    seen: list[object] = []

    @rl.cell
    def first(vector: list[float]) -> float:
        seen.append(vector)
        return vector[0]

    @rl.batch
    def length(vector: Any) -> list[int]:
        seen.extend(vector)
        return [len(numbers) for numbers in vector]

    vector = rl.Embedding("vector", model="m", text="About {{ word }}")
    columns = [rl.Category("word", values=WORDS), vector, rl.Expression("shown", "{{ vector }}"), first, length]
    made = rl.Recipe(models={"m": at(server.url)}, columns=columns, seed=7)
    frame = made.build(tmp_path / "out", rows=5).to_pandas()
    assert {type(vector) for vector in seen} == {list}
    assert frame["first"].tolist() == [vector[0] for vector in frame["vector"]]
    assert frame["length"].tolist() == [8] * 5
    assert frame["shown"].tolist() == [str(vector.tolist()) for vector in frame["vector"]]


def test_vectors_of_a_halted_run_are_read_from_the_journal(server, tmp_path: Path):
    """What was answered is not asked again, and is in the file bit by bit beside what is new."""
    alone = recipe(at(server.url)).build(tmp_path / "alone", rows=40).to_pandas()
    server.reset()
    server.configure(fault_400=0.3, seed=3)
    budget = rl.ErrorBudget(rate=None)
    recipe(at(server.url)).build(tmp_path / "out", rows=40, error_budget=budget)
    server.configure(Behaviour())
    server.reset()
    result = recipe(at(server.url)).build(tmp_path / "out", rows=40, resume="always", retry_failed=True)
    frame = result.to_pandas()
    assert 0 < server.counters().requests < 40
    assert [vector.tobytes() for vector in frame["vector"]] == [vector.tobytes() for vector in alone["vector"]]


SAID = "{% if word.endswith('9') %}{{ '\\ud800' }}{% else %}{{ word }}{% endif %}"
"""A text that cannot be sent, of one word in ten."""


def test_a_refused_text_does_not_fail_the_others_of_its_request(server):
    """A refused request is split into one per cell; a retryable one is retried for each cell."""
    columns = [
        rl.Category("word", values=WORDS),
        rl.Embedding("v", model="m", text=SAID, batch_size=16),
    ]
    result = rl.Recipe(models={"m": at(server.url)}, columns=columns, seed=7).preview(
        60, error_budget=rl.ErrorBudget(rate=None)
    )
    assert not any(word.endswith("9") for word in result.dataset["word"])
    assert set(result.failures["error"]) == {"ModelError(bad_request)"}
    assert len(result.dataset) + len(result.failures) == 60
    server.configure(fault_500=0.5, fault_cut=0.2, fault_attempts=1)
    another = at(
        server.url, api_key=SecretStr("another")
    )  # of an endpoint that has answered, so many 5xx are an outage
    assert len(recipe(another, batch_size=8).preview(40).dataset) == 40


def test_failures_are_those_of_any_model_column(server):
    """Transient ones are retried, others drop their row with the reason; the key is in none."""
    server.configure(fault_429=0.3, fault_500=0.2, fault_cut=0.1, retry_after=0.01, fault_attempts=1)
    result = recipe(at(server.url, api_key=SecretStr("sk-secret"))).preview(40)
    assert (result.status, len(result.dataset)) == ("complete", 40)
    server.configure(Behaviour(fault_400=0.2, seed=3))
    result = recipe(at(server.url, api_key=SecretStr("sk-secret"))).preview(40)
    assert result.status == "partial"
    assert set(result.failures["error"]) == {"ModelError(bad_request)"}
    assert not result.failures["message"].str.contains("sk-secret").any()


def test_a_vector_of_another_length_than_requested_is_a_failure():
    """Models that have no `dimensions` ignore it, and their vectors would not fit the column."""
    with pytest.raises(rl.EarlyShutdownError, match="the vector has 2 numbers, not 3; leave `dimensions` out"):
        recipe(rl.Model(lambda text: [len(text), 1.0]), dimensions=3).preview(2)


class Array:
    """An array, like those of numpy and others."""

    def tolist(self) -> list[float]:
        """Give the numbers."""
        return [1.0, 2.0]


async def later(text: str) -> list[float]:
    """Embed on the loop."""
    await asyncio.sleep(0)
    return [float(len(text)), 2.0]


@pytest.mark.parametrize("function", [lambda _: [1, 2.0], lambda _: (1.0, 2), lambda _: Array(), later])
def test_functions_return_vectors_too(function):
    """Lists, tuples and arrays of numbers become 32-bit floats in the table."""
    result = recipe(rl.Model(function)).preview(3)
    assert [list(vector)[1] for vector in result.dataset["vector"]] == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("12", "returned str; for embeddings a function returns a list of numbers"),
        (None, "returned NoneType; for embeddings"),
        (["a"], "returned list; for embeddings"),
        ([], "the vector is empty"),
        ([1.0, math.nan], "the vector has numbers that are not finite"),
    ],
)
def test_a_value_that_is_not_a_vector_is_an_error(value, problem):
    """The message shows the value."""
    with pytest.raises(rl.EarlyShutdownError, match=problem):
        recipe(rl.Model(lambda _: value)).preview(1)


def test_a_model_without_embeddings_is_refused_before_any_request(server):
    """The message names the column, and the models that have embeddings."""
    model = rl.Model("anthropic:claude-x", base_url=server.url, api_key=SecretStr("k"))
    with pytest.raises(
        rl.RecipeError, match=r"columns\.vector\.model: anthropic:claude-x .*has no embeddings; use an openai: model"
    ):
        recipe(model).preview(1)
    assert server.counters().requests == 0


def test_a_model_in_this_process_has_no_embeddings():
    """It is loaded to write, and would have to be loaded in another way to embed."""
    assert not issubclass(HttpChat, Embedder)
    assert issubclass(HttpModel, Embedder)


def test_mistakes_are_refused_with_their_path():
    """An unknown model, a broken template, a size of 0."""
    with pytest.raises(rl.RecipeError, match=r"columns\.v\.model: unknown model 'n'; did you mean 'm'|choose from: m"):
        rl.Recipe(models={"m": rl.Model(later)}, columns=[rl.Embedding("v", model="n", text="x")])
    with pytest.raises(rl.RecipeError, match=r"Embedding\('v'\): text is not a template"):
        rl.Embedding("v", model="m", text="{{ word")
    with pytest.raises(rl.RecipeError, match=r"Embedding\('v'\)\.dimensions: Input should be greater than"):
        rl.Embedding("v", model="m", text="x", dimensions=0)


def test_it_goes_to_yaml_and_back(server):
    """As the type `embedding`, and runs from the file."""
    made = recipe(at(server.url), dimensions=4)
    read = rl.Recipe.from_yaml(made.to_yaml())
    assert read.to_dict() == made.to_dict()
    assert read.to_dict()["columns"][1] == {
        "name": "vector", "type": "embedding", "model": "m", "text": "About {{ word }}", "dimensions": 4
    }  # fmt: skip
    assert len(read.preview(2).dataset) == 2


def test_a_resumed_run_asks_for_no_vector_again(server, tmp_path: Path):
    """Whatever the batch size, which does not decide the vectors."""
    recipe(at(server.url)).build(tmp_path / "out", rows=10)
    server.reset()
    server.configure(record=20)
    result = recipe(at(server.url), batch_size=4).build(tmp_path / "out", rows=20, resume="always")
    texts = [request.json()["input"] for request in server.requests()]
    assert sum(len(text) if isinstance(text, list) else 1 for text in texts) == 10
    assert result.actual == 20
