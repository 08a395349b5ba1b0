"""Text: a column of a model's answers, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..core.spec import spec
from .prompted import Prompted, check_length

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..models.provider import Reply


@spec
class Text(Prompted):
    """A model's answer to a prompt, as text without the white space around it.

    An answer that is cut off at `max_tokens` is an error unless `allow_truncated`.
    """

    allow_truncated: bool = Field(default=False, kw_only=True)
    type: Literal["text"] = Field(default="text", kw_only=True)

    def arrow_type(self) -> str:
        """Return text."""
        return "string"

    def reader(self, max_tokens: int | None) -> Callable[[Reply], str]:
        """Return the function that reads the value from a reply."""

        def read(reply: Reply) -> str:
            if not (self.allow_truncated and reply.text):
                check_length(reply, max_tokens)
            return reply.text.strip()

        return read
