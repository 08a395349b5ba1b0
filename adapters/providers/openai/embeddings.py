"""EmbeddingWire: one column's embeddings as bytes, in OpenAI's form.

Vectors are requested in base64, which takes a quarter of the bytes and of the time to read them. An endpoint that
answers with numbers anyway is understood as well, and one that refuses the field is asked without it.
"""

from __future__ import annotations

import copy
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from ....engine.core.errors import ModelError
from ....engine.core.events import Billing
from ....engine.core.store import Vector
from ....engine.models.provider import Embedded
from ....runtime.logs import safe_logger
from ..wire.request import NOT_JSON
from ..wire.usage import ChatUsage, bill, readable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ....engine.models.provider import EmbeddingParameters
    from ...http.errors import Failures
    from ..wire.embedding_batches import Send

    SendWith: TypeAlias = "Callable[[EmbeddingWire, list[str]], Awaitable[list[Embedded]]]"
    """One request of a wire."""


class _Item(msgspec.Struct, gc=False):
    embedding: bytes | list[float]
    """Bytes of base64, or numbers."""
    index: int = 0


class _Embeddings(msgspec.Struct, gc=False):
    data: list[_Item]
    usage: Any = None


logger = safe_logger()

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Embeddings).decode
_index = attrgetter("index")


class EmbeddingWire:
    """Requests and answers of one column. `parameters.extra` goes into the body last, and so overrides the rest."""

    def __init__(self, name: str, parameters: EmbeddingParameters, failures: Failures) -> None:
        """Encode what does not change."""
        self._failures = failures
        self.accepted = "encoding_format" in parameters.extra
        """Whether the format of the vectors is right: a request was answered, or the user has set it."""
        self._fixed: dict[str, Any] = {"model": name, "encoding_format": "base64"}
        if parameters.dimensions is not None:
            self._fixed["dimensions"] = parameters.dimensions
        self._fixed |= parameters.extra
        self._prefix = _encode(self._fixed)[:-1] + b',"input":'

    @property
    def formatted(self) -> bool:
        """Whether requests have a format of the vectors."""
        return "encoding_format" in self._fixed

    def in_numbers(self) -> EmbeddingWire:
        """Return the same requests without a format of the vectors."""
        other = copy.copy(self)
        other.drop_format()
        return other

    def drop_format(self) -> None:
        """Ask for no format from here on."""
        self.accepted = True
        self._fixed = {name: value for name, value in self._fixed.items() if name != "encoding_format"}
        self._prefix = _encode(self._fixed)[:-1] + b',"input":'

    def encode(self, texts: list[str]) -> bytes:
        """Return the body of a request."""
        try:
            return self._prefix + _encode(_input(texts)) + b"}"
        except NOT_JSON as error:
            raise self._failures.unsendable(error) from None

    def body(self, texts: list[str]) -> dict[str, Any]:
        """Return the body of a request for a client that encodes it itself."""
        return {**self._fixed, "input": _input(texts)}

    def decode(self, raw: bytes, texts: list[str]) -> list[Embedded]:
        """Return the vectors in the body of an answer with status 200; raises ModelError for any other content."""
        try:
            answer = _decode(raw)
            vectors = [_vector(item.embedding) for item in sorted(answer.data, key=_index)]
        except (msgspec.DecodeError, ValueError, RecursionError) as error:  # half a number raises ValueError
            raise self._failures.undecoded(raw, error) from None
        if len(vectors) != len(texts):
            raise self._failures.unreadable(raw, truncated=False)
        prompt_tokens, billed = _used(answer.usage)
        tokens = shares(prompt_tokens, [len(text) for text in texts])
        return [
            Embedded(vector, of, None if billed is None else Billing(billed=_part(billed, of, prompt_tokens, texts)))
            for vector, of in zip(vectors, tokens, strict=True)
        ]


def _used(usage: Any) -> tuple[int, float | None]:
    """Return the tokens of a request, 0 for an unknown number, and the bill that the endpoint states."""
    used = readable(usage)
    if used is None:
        return 0, None
    # Voyage counts all tokens under the other name.
    return used.get("prompt_tokens") or used.get("total_tokens") or 0, bill(msgspec.convert(used, ChatUsage))


def _part(billed: float, tokens: int, of: int, texts: list[str]) -> float:
    """Return the part of a request's bill for a text of so many tokens."""
    return billed * tokens / of if of else billed / len(texts)


def in_either_format(wire: EmbeddingWire, send: SendWith) -> Send:
    """Return the call that leaves out the format of the vectors if the endpoint has refused it and answers without."""

    async def ask(texts: list[str]) -> list[Embedded]:
        formatted = wire.formatted
        try:
            vectors = await send(wire, texts)
        except ModelError as error:
            known = wire.accepted and wire.formatted == formatted
            if known or not formatted or error.kind != "bad_request":
                raise
            refused = error
        else:
            wire.accepted = True
            return vectors
        try:
            vectors = await send(wire.in_numbers(), texts)
        except ModelError:
            raise refused from None  # the format is not the reason
        if not wire.accepted:
            logger.info("%s; vectors are asked for without encoding_format", refused)
            wire.drop_format()
        return vectors

    return ask


def shares(tokens: int, letters: list[int]) -> list[int]:
    """Divide the tokens of a request among its texts by their lengths; each gets at least one if there are enough."""
    least = 1 if tokens >= len(letters) else 0
    rest, total = tokens - least * len(letters), sum(letters) or 1
    ends = [rest * of // total for of in accumulate(letters)]
    ends[-1] = rest
    return [least + end - begin for begin, end in pairwise([0, *ends])]


def _input(texts: list[str]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else texts


def _vector(embedding: bytes | list[float]) -> Vector:
    return Vector.from_bytes(embedding) if isinstance(embedding, bytes) else Vector.of(embedding)
