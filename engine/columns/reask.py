"""Reasking: the requests of one structured cell: the first, and those that show the model its mistake.

They are one attempt at the cell: the cell keeps its permit in the lane, and the usage of all requests is added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import CellError, ModelError
from ..core.events import Usage
from ..models.provider import in_words
from ..models.usage import Asked
from .schemas import DisobedientError, json_schema_of
from .work import Answer

if TYPE_CHECKING:
    from ..models.provider import Message
    from .prompted import Send
    from .schemas import JsonReader, SchemaLike


@dataclass(slots=True)
class _Cost:
    """The usage of the requests so far."""

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
        """Return the sum, and how the answer came to obey."""
        return Asked(
            self.prompt_tokens, self.completion_tokens, self.seconds, self.requests, native, repaired, reasked, failed
        )


class Conversation:
    """The requests for one cell of a column. `send` raises ModelError for a reply that is no complete answer."""

    def __init__(self, send: Send, schema: SchemaLike, reader: JsonReader, reasks: int) -> None:
        """Take what all cells have in common; a cell is asked for again at most `reasks` times."""
        self._send = send
        self._reader = reader
        self._reasks = reasks
        self._reminder = in_words(json_schema_of(schema))

    async def hold(self, messages: list[Message]) -> Answer:
        """Ask until the answer obeys; raises ModelError, with the usage of all requests."""
        cost, reasked = _Cost(), 0
        while True:
            try:
                reply, seconds = await self._send(messages)
            except ModelError as error:
                if cost.requests:
                    spent = error.usage or Usage()
                    cost.add(spent, spent.requests if isinstance(spent, Asked) else 1)
                    error.usage = cost.asked(reasked)
                raise
            cost.add(Usage(reply.prompt_tokens, reply.completion_tokens, seconds), reply.requests)
            try:
                value, repaired = await self._read(reply.text)
            except DisobedientError as error:
                if reasked == self._reasks:
                    error.usage = cost.asked(reasked, failed=True)
                    raise
                messages = self._corrected(messages, error)
                reasked += 1
            except CellError as error:
                error.usage = cost.asked(reasked, failed=True)
                raise
            else:
                spent = cost.asked(reasked, native=reply.native, repaired=repaired)
                return Answer(value, spent, reply.reasoning)

    async def _read(self, text: str) -> tuple[Any, bool]:
        """Read an answer, and return whether it had to be repaired."""
        try:
            return self._reader.read(text), False
        except DisobedientError as error:
            return await self._reader.repair(error), True

    def _corrected(self, messages: list[Message], error: DisobedientError) -> list[Message]:
        """Add the answer and a message that says what is wrong with it; an empty answer never gets here."""
        answer = {"role": "assistant", "content": error.answer}
        wrong = f"That answer will not do: {error.problem}. {self._reminder}"
        return [*messages, answer, {"role": "user", "content": wrong}]
