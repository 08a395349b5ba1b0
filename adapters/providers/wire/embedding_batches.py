"""Batches: texts that are asked for in one turn of the loop, put together into requests of many.

Each caller has an answer or an error of its own: where an endpoint refuses a request for one of its texts, all of them
are asked for alone. A request ends with the last of those who wait for it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from ....engine.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ....engine.models.provider import Embed, Embedded, EmbeddingParameters

    Send: TypeAlias = Callable[[list[str]], Awaitable[list[Embedded]]]
    """One request: texts in, as many vectors out. Raises ModelError."""


def embedding(send: Send, parameters: EmbeddingParameters) -> Embed:
    """Give the call of one text: in a request of its own, or in batches where the parameters say so."""
    if parameters.batch_size > 1:
        return batched(send, parameters.batch_size)

    async def embed(text: str) -> Embedded:
        return (await send([text]))[0]

    return embed


def batched(send: Send, size: int) -> Embed:
    """Give the call of one text, which shares its request with up to `size` - 1 others."""
    batch: _Batch | None = None

    async def embed(text: str) -> Embedded:
        nonlocal batch
        if batch is None or batch.sent or len(batch.texts) == size:
            batch = _Batch(send)
        return await batch.answer(text)

    return embed


class _Batch:
    def __init__(self, send: Send) -> None:
        self.texts: list[str] = []
        self.sent = False
        self._send = send
        self._waiting = 0
        self._request = asyncio.create_task(self._work())  # it begins in the next turn, when all of this one have come

    async def answer(self, text: str) -> Embedded:
        place = len(self.texts)
        self.texts.append(text)
        self._waiting += 1
        try:
            outcome = (await asyncio.shield(self._request))[place]
        finally:
            self._waiting -= 1
            if not self._waiting and not self._request.done():
                self._request.cancel()
                await asyncio.wait([self._request])
        if isinstance(outcome, ModelError):
            raise outcome.with_traceback(None)
        return outcome

    async def _work(self) -> list[Embedded | ModelError]:
        self.sent = True
        texts = self.texts
        try:
            return [*await self._send(texts)]
        except ModelError as error:
            if len(texts) == 1 or error.kind != "bad_request":
                return [error for _ in texts]
        return await asyncio.gather(*map(self._alone, texts))

    async def _alone(self, text: str) -> Embedded | ModelError:
        try:
            return (await self._send([text]))[0]
        except ModelError as error:
            return error
