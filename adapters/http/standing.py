"""Standing: whether an endpoint has answered any request of a model yet, and what an ambiguous refusal means for it.

A 403 or 404 may be about every request (the key, the address) or about one prompt (a filter, a firewall). Once a
request has been answered, it is about the one. Before that, it waits for the requests that are in flight beside it: the
first answer shows that key and address are right, and the run ends only if none of them is answered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from ...engine.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from ...engine.core.errors import AnswerFacts, FailureKind

_T = TypeVar("_T")
_A = TypeVar("_A")


class DoubtedError(ModelError):
    """A refusal that is fatal unless another request is answered; `alone` is what it is then."""

    def __init__(self, problem: str, alone: ModelError, *, kind: FailureKind, **answer: Unpack[AnswerFacts]) -> None:
        """Take both readings."""
        super().__init__(problem, kind=kind, retryable=False, fatal=True, **answer)
        self.alone = alone


class Standing:
    """What is known of one model at one endpoint."""

    __slots__ = ("_in_flight", "_waiting", "answered")

    def __init__(self) -> None:
        """Begin with no answer."""
        self.answered = False
        self._in_flight = 0
        self._waiting: list[asyncio.Future[None]] = []

    def around(self, send: Callable[[_A], Awaitable[_T]]) -> Callable[[_A], Coroutine[Any, Any, _T]]:
        """Return the same call, which judges ambiguous refusals."""

        async def sent(request: _A) -> _T:
            return await (send(request) if self.answered else self.first(send, request))

        return sent

    async def first(self, send: Callable[[_A], Awaitable[_T]], request: _A) -> _T:
        """Send one of the requests before the first answer."""
        self._in_flight += 1
        try:
            answer = await send(request)
        except DoubtedError as error:
            doubted = error
        else:
            self.note_answer()
            return answer
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._wake()
        if self._in_flight and not self.answered:
            await self._news()
        raise doubted.alone if self.answered else doubted

    def note_answer(self) -> None:
        """Note that a request has been answered: key and address are right."""
        self.answered = True
        self._wake()

    async def _news(self) -> None:
        """Wait until a request is answered, or none is in flight."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
