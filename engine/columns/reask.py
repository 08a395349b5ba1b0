"""Reasking: the requests of one structured cell: the first, and those that show the model its mistake.

They are one attempt at the cell: the cell keeps its permit in the lane, and the usage of all requests is added up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.errors import CellError, ModelError
from ..models.provider import in_words
from ..models.usage import Asked, added_up, usage_of
from .schemas import DisobedientError, json_schema_of
from .work import Answer

if TYPE_CHECKING:
    from ..core.events import Usage
    from ..models.provider import Message
    from .prompted import Send
    from .schemas import JsonReader, SchemaLike


@dataclass(slots=True)
class _Cost:
    """The usage of the requests so far."""

    paid: list[Usage] = field(default_factory=list)
    requests: int = 0

    def add(self, usage: Usage | None) -> None:
        """Add a request, which has no usage if it was refused."""
        self.requests += getattr(usage, "requests", 1)
        if usage is not None:
            self.paid.append(usage)

    def asked(self, reasked: int, *, native: bool = False, repaired: bool = False, failed: bool = False) -> Asked:
        """Return the sum, and how the answer came to obey."""
        prompt_tokens, completion_tokens, seconds, billing = added_up(self.paid)
        return Asked(
            prompt_tokens,
            completion_tokens,
            seconds,
            billing,
            requests=self.requests,
            native=native,
            repaired=repaired,
            reasked=reasked,
            failed=failed,
            each=tuple(self.paid) if len(self.paid) > 1 else (),
            free=all(getattr(usage, "free", False) for usage in self.paid),
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
                    cost.add(error.usage)
                    error.usage = cost.asked(reasked)
                raise
            cost.add(usage_of(reply, seconds))
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
