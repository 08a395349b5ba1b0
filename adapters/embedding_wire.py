"""EmbeddingWire: one column's embeddings as bytes, in OpenAI's form.

Vectors are asked for in base64, a quarter of the bytes and of the time to read them; an endpoint that gives them as
numbers all the same is understood as well.
"""

from __future__ import annotations

import sys
from array import array
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import msgspec

from ..engine.models import Embedded

if TYPE_CHECKING:
    from ..engine.models import EmbeddingParameters
    from .failures import Failures


class _Item(msgspec.Struct, gc=False):
    embedding: str | list[float]


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None


class _Embeddings(msgspec.Struct, gc=False):
    data: list[_Item]
    usage: _Usage | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Embeddings).decode


class EmbeddingWire:
    """Requests and answers of one column. `parameters.extra` goes into the body last, and so overrides the rest."""

    def __init__(self, name: str, parameters: EmbeddingParameters, failures: Failures) -> None:
        """Encode what does not change."""
        self._failures = failures
        self._fixed: dict[str, Any] = {"model": name, "encoding_format": "base64"}
        if parameters.dimensions is not None:
            self._fixed["dimensions"] = parameters.dimensions
        self._fixed |= parameters.extra
        self._prefix = _encode(self._fixed)[:-1] + b',"input":'

    def encode(self, text: str) -> bytes:
        """Return the body of a request."""
        try:
            return self._prefix + _encode(text) + b"}"
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise self._failures.unsendable(error) from None

    def body(self, text: str) -> dict[str, Any]:
        """Return the body of a request for a client that encodes it itself."""
        return {**self._fixed, "input": text}

    def decode(self, raw: bytes) -> Embedded:
        """Return what is in the body of an answer with status 200, or raise what it says instead."""
        try:
            answer = _decode(raw)
            vector = _numbers(answer.data[0].embedding)
        except msgspec.DecodeError as error:
            truncated = not raw or str(error).startswith("Input data was truncated")
            raise self._failures.unreadable(raw, truncated=truncated) from None
        except (ValueError, IndexError, RecursionError):  # no base64, half a number, no vector at all
            raise self._failures.unreadable(raw, truncated=False) from None
        return Embedded(vector, (answer.usage and answer.usage.prompt_tokens) or 0)


def _numbers(embedding: str | list[float]) -> list[float]:
    if not isinstance(embedding, str):
        return embedding
    numbers = array("f")
    numbers.frombytes(b64decode(embedding, validate=True))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
