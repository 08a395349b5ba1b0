"""Conversation: the requests of a structured column's cell, the first and those that say what was wrong with an answer.

They are one attempt at the cell: it keeps its place in the lane, and what it cost is told in one sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelError
from ..core.events import Usage
from ..models.provider import in_words
from ..models.usage import Asked
from .schemas import DisobedientError, json_schema_of
from .work import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..models.provider import Message, Reply
    from .prompted import Send
    from .schemas import JsonReader, SchemaLike


@dataclass(slots=True)
class _Cost:
    """What the requests so far have cost."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    requests: int = 0

    def add(self, usage: Usage, requests: int) -> None:
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        self.seconds += usage.seconds
        self.requests += requests

    def asked(self, reasked: int, *, native: bool = False, repaired: bool = False, failed: bool = False) -> Asked:
        """Tell it, and how the answer came to obey."""
        return Asked(
            self.prompt_tokens, self.completion_tokens, self.seconds, self.requests, native, repaired, reasked, failed
        )


class Conversation:
    """How a cell of one column is asked for. `check` raises ModelError for a reply that is no answer at all."""

    def __init__(
        self, send: Send, schema: SchemaLike, reader: JsonReader, reasks: int, check: Callable[[Reply], None]
    ) -> None:
        """Take what all cells have in common; a cell is asked again `reasks` times at most."""
        self._send = send
        self._reader = reader
        self._reasks = reasks
        self._check = check
        self._reminder = in_words(json_schema_of(schema))

    async def hold(self, messages: list[Message]) -> Answer:
        """Ask until the answer obeys; raises ModelError, with what all of the requests have cost."""
        cost, reasked = _Cost(), 0
        while True:
            try:
                reply, seconds = await self._send(messages)
            except ModelError as error:
                if cost.requests:
                    cost.add(error.usage or Usage(), 1)
                    error.usage = cost.asked(reasked)
                raise
            cost.add(Usage(reply.prompt_tokens, reply.completion_tokens, seconds), reply.requests)
            try:
                self._check(reply)
                value, repaired = await self._read(reply.text)
            except DisobedientError as error:
                if reasked == self._reasks:
                    error.usage = cost.asked(reasked, failed=True)
                    raise
                messages = self._told(messages, error)
                reasked += 1
            except ModelError as error:
                error.usage = cost.asked(reasked)
                raise
            else:
                spent = cost.asked(reasked, native=reply.native, repaired=repaired)
                return Answer(value, spent, reply.reasoning)

    async def _read(self, text: str) -> tuple[Any, bool]:
        """Read an answer, and say whether it had to be repaired."""
        try:
            return self._reader.read(text), False
        except DisobedientError as error:
            return await self._reader.repair(error), True

    def _told(self, messages: list[Message], error: DisobedientError) -> list[Message]:
        """Go on with the answer, which must not be empty, and with what is wrong with it."""
        said = [{"role": "assistant", "content": error.answer}] if error.answer.strip() else []
        wrong = f"That answer will not do: {error.problem}. {self._reminder}"
        return [*messages, *said, {"role": "user", "content": wrong}]
