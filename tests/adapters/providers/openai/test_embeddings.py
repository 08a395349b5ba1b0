"""Requests for embeddings and their answers as bytes, by plain calls."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from rowloop.adapters.http.errors import Failures
from rowloop.adapters.providers.openai.embeddings import EmbeddingWire, shares
from rowloop.engine.core.errors import ModelError
from rowloop.engine.models.provider import EmbeddingParameters

FAILURES = Failures("openai:m", None, "list of embeddings")


def wire(**parameters: Any) -> EmbeddingWire:
    """Compile a column."""
    return EmbeddingWire("m", EmbeddingParameters(**parameters), FAILURES)


def said(*embeddings: object, **more: Any) -> bytes:
    """Write an answer."""
    data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(embeddings)]
    return msgspec.json.encode({"object": "list", "data": data, **more})


@pytest.mark.parametrize(
    ("parameters", "sent"),
    [
        ({}, {"encoding_format": "base64"}),
        ({"dimensions": 256}, {"encoding_format": "base64", "dimensions": 256}),
        ({"extra": {"encoding_format": "float", "user": "u"}}, {"encoding_format": "float", "user": "u"}),
    ],
)
def test_a_request_has_all_parameters(parameters, sent):
    """In base64 unless `extra` sets another encoding; both paths send the same."""
    compiled = wire(**parameters)
    assert json.loads(compiled.encode(["hello"])) == {"model": "m", "input": "hello", **sent}
    assert compiled.body(["hello"]) == json.loads(compiled.encode(["hello"]))
    assert compiled.body(["a", "b"]) == {"model": "m", "input": ["a", "b"], **sent}


@pytest.mark.parametrize("embedding", [[0.5, -1.0, 2.0], base64.b64encode(struct.pack("<3f", 0.5, -1.0, 2.0)).decode()])
def test_a_vector_is_read_in_both_forms(embedding):
    """As base64 of little-endian 32-bit floats, and as numbers."""
    (embedded,) = wire().decode(said(embedding, usage={"prompt_tokens": 7, "total_tokens": 7}), ["hello"])
    assert (embedded.vector, embedded.prompt_tokens) == ([0.5, -1.0, 2.0], 7)


def test_missing_usage_counts_nothing():
    """Some endpoints send none, or null."""
    assert wire().decode(said([1.0]), ["a"])[0].prompt_tokens == 0
    assert wire().decode(said([1.0], usage={"prompt_tokens": None}), ["a"])[0].prompt_tokens == 0


def test_vectors_are_given_to_their_texts_by_their_index():
    """In whatever order they arrive; tokens are divided by the texts' lengths."""
    data = [{"index": 1, "embedding": [1.0]}, {"index": 0, "embedding": [0.0]}]
    both = wire().decode(msgspec.json.encode({"data": data, "usage": {"prompt_tokens": 9}}), ["a" * 10, "b" * 70])
    assert [(one.vector, one.prompt_tokens) for one in both] == [([0.0], 1), ([1.0], 8)]


@given(st.integers(0, 10_000), st.lists(st.integers(0, 1000), min_size=1, max_size=50))
def test_tokens_are_divided_without_a_rest(tokens, letters):
    """Each text has one at least, as far as there are any."""
    divided = shares(tokens, letters)
    assert (len(divided), sum(divided)) == (len(letters), tokens)
    assert min(divided) >= (tokens >= len(letters))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "truncated"),
        (b'{"data": [{"embedding": "AAA', "truncated"),
        (b'{"data": []}', "unreadable"),
        (b"{}", "unreadable"),
        (b"null", "unreadable"),
        (b"\xff\xfe", "unreadable"),
        (said([1.0], [2.0]), "unreadable"),
        (said("not base64!"), "unreadable"),
        (said("AAAA"), "unreadable"),
        (said(["one"]), "unreadable"),
        (said(None), "unreadable"),
        (b'{"x": ' + b"[" * 100_000, "unreadable"),
        (b'{"error": {"message": "Slow down", "code": 429}}', "rate_limited"),
    ],
)
def test_an_answer_without_vectors_is_an_error(body, kind):
    """Whatever comes with status 200 ends as a vector or as a ModelError, and may be tried again."""
    with pytest.raises(ModelError) as caught:
        wire().decode(body, ["hello"])
    assert (caught.value.kind, caught.value.retryable) == (kind, True)


def test_a_text_that_cannot_be_encoded_is_refused():
    """A lone surrogate has no UTF-8 form."""
    with pytest.raises(ModelError, match=r"cannot be sent: .*surrogates"):
        wire().encode(["\ud800"])
