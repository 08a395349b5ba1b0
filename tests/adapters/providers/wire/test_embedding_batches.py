"""Embedding batches: which texts share a request, whose error is whose, and when a request ends; without HTTP."""

from __future__ import annotations

import asyncio

import pytest

from rowloop.adapters.http.errors import Failures
from rowloop.adapters.providers.wire.embedding_batches import batched
from rowloop.engine.core.errors import ModelError
from rowloop.engine.models.provider import Embedded


class Endpoint:
    """Answers with the length of each text, when it may."""

    def __init__(self) -> None:
        """Answer at once."""
        self.asked: list[list[str]] = []
        self.cancelled = 0
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, texts: list[str]) -> list[Embedded]:
        """Take one request."""
        self.asked.append(list(texts))
        self.arrived.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        for kind in ("bad_request", "rate_limited"):
            if kind in texts:
                raise ModelError(kind, kind=kind, retryable=kind == "rate_limited")
        return [Embedded([float(len(text))], 1) for text in texts]


def test_texts_of_one_turn_share_requests_of_a_size():
    """Those of a later turn have another; each gets its own vector."""

    async def run() -> None:
        endpoint = Endpoint()
        embed = batched(endpoint.send, 3)
        answers = await asyncio.gather(*(embed("x" * length) for length in range(1, 8)))
        assert [answer.vector for answer in answers] == [[float(length)] for length in range(1, 8)]
        assert [len(texts) for texts in endpoint.asked] == [3, 3, 1]
        await embed("alone")
        assert endpoint.asked[3:] == [["alone"]]

    asyncio.run(run())


def test_a_refused_request_is_split():
    """Only the refused text has the error."""

    async def run() -> None:
        endpoint = Endpoint()
        embed = batched(endpoint.send, 8)
        texts = ["a", "bad_request", "b"]
        answers = await asyncio.gather(*map(embed, texts), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Embedded, ModelError, Embedded]
        assert endpoint.asked == [texts, ["a"], ["bad_request"], ["b"]]

    asyncio.run(run())


def test_an_ambiguous_refusal_of_the_first_request_is_split():
    """The other texts show that key and address are right, so that it is about one text."""

    async def run() -> None:
        failures = Failures("openai:m")

        async def send(texts: list[str]) -> list[Embedded]:
            if "forbidden" in texts:
                raise failures.status(403, {}, b"no")
            return [Embedded([1.0], 1) for _ in texts]

        embed = batched(failures.standing.around(send), 8)
        answers = await asyncio.gather(*map(embed, ["a", "forbidden", "b"]), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Embedded, ModelError, Embedded]
        assert [getattr(answer, "kind", None) for answer in answers] == [None, "refused", None]

    asyncio.run(run())


def test_a_retryable_error_reaches_every_caller():
    """The request is not repeated here: the tracker retries."""

    async def run() -> None:
        endpoint = Endpoint()
        embed = batched(endpoint.send, 8)
        answers = await asyncio.gather(*map(embed, ["a", "rate_limited"]), return_exceptions=True)
        assert [str(answer) for answer in answers] == ["rate_limited"] * 2
        assert len(endpoint.asked) == 1

    asyncio.run(run())


def test_a_request_ends_with_its_last_caller():
    """A caller that is cancelled does not end it for the others; the last one waits until it has ended."""

    async def run() -> None:
        endpoint = Endpoint()
        endpoint.open.clear()
        embed = batched(endpoint.send, 8)
        first, second, third = (asyncio.ensure_future(embed(text)) for text in "abc")
        await endpoint.arrived.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert endpoint.cancelled == 0
        second.cancel()
        third.cancel()
        for task in (second, third):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert endpoint.cancelled == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}
        endpoint.open.set()
        assert (await embed("d")).vector == [1.0]

    asyncio.run(run())


def test_a_slip_in_our_own_code_reaches_every_caller():
    """Every caller gets an exception that is not a ModelError."""

    async def run() -> None:
        async def broken(_texts: list[str]) -> list[Embedded]:
            raise LookupError("a slip")

        embed = batched(broken, 8)
        answers = await asyncio.gather(embed("a"), embed("b"), return_exceptions=True)
        assert [type(answer) for answer in answers] == [LookupError] * 2

    asyncio.run(run())
