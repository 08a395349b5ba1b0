"""Text: a column of a model's answers, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..core.spec import spec
from ..models.verdict import Judge
from .prompted import Prompted

if TYPE_CHECKING:
    from ..models.model import Model


@spec
class Text(Prompted):
    """A model's answer to a prompt, as text without the white space around it.

    An answer that is cut off at `max_tokens` is an error unless `allow_truncated`; one without text is an error unless
    `allow_empty`, which makes it "".
    """

    allow_empty: bool = Field(default=False, kw_only=True)
    allow_truncated: bool = Field(default=False, kw_only=True)
    type: Literal["text"] = Field(default="text", kw_only=True)

    def arrow_type(self) -> str:
        """Return text."""
        return "string"

    def judge(self, model: Model, max_tokens: int | None) -> Judge:
        """Return the judge of the column's replies."""
        return Judge.of(model, max_tokens, allow_empty=self.allow_empty, allow_truncated=self.allow_truncated)
