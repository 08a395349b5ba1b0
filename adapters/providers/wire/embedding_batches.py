"""Embedding batches: texts that are ready at the same time share requests.

Each caller gets an answer or an error of its own: when an endpoint refuses a request because of one of its texts, each
text is sent again alone.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from ....engine.columns.microbatch import MicroBatcher, in_task
from ....engine.core.errors import ModelError
from ...http.standing import DoubtedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ....engine.models.provider import Embed, Embedded, EmbeddingParameters

    Send: TypeAlias = Callable[[list[str]], Awaitable[list[Embedded]]]
    """One request: texts in, as many vectors out. Raises ModelError."""


def embedding(send: Send, parameters: EmbeddingParameters) -> Embed:
    """Return the call of one text: in a request of its own, or in batches if the parameters ask for them."""
    if parameters.batch_size > 1:
        return batched(send, parameters.batch_size)

    async def embed(text: str) -> Embedded:
        return (await send([text]))[0]

    return embed


def batched(send: Send, size: int) -> Embed:
    """Return the call of one text, which shares its request with up to `size` - 1 others."""
    batcher = MicroBatcher(in_task(partial(_outcomes, send)), size=size)

    async def embed(text: str) -> Embedded:
        outcome = await batcher.call(text)
        if isinstance(outcome, ModelError):
            raise outcome.with_traceback(None)
        return outcome

    return embed


async def _outcomes(send: Send, texts: list[str]) -> Sequence[Embedded | ModelError]:
    """Send texts in one request, and each one alone if the request is refused."""
    try:
        return await send(texts)
    except ModelError as error:
        if len(texts) == 1 or not _of_one_text(error):
            return [error for _ in texts]
    return await asyncio.gather(*(_outcome(send, text) for text in texts))


def _of_one_text(error: ModelError) -> bool:
    """Return whether one of the texts may be the reason of an error."""
    return isinstance(error, DoubtedError) or not (error.retryable or error.fatal)


async def _outcome(send: Send, text: str) -> Embedded | ModelError:
    try:
        return (await send([text]))[0]
    except ModelError as error:
        return error
