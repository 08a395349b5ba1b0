"""Bounds: how many requests may be in flight and how many may be sent per minute, as a recipe states it. Pure.

The folder `limits` has the state that obeys them.
"""

from __future__ import annotations

from pydantic import Field

from .spec import spec


@spec
class AdaptiveLimit:
    """A limit on requests in flight that follows what the server takes: it begins at `start` and is at most `most`.

    A burst of 429s multiplies it by `cut`.
    """

    most: int = Field(default=512, ge=1, strict=True)
    start: int = Field(default=16, ge=1, strict=True)
    cut: float = Field(default=0.8, ge=0.5, lt=1)


@spec
class Pace:
    """How many requests per minute, and how many tokens (prompts and answers); None: any number."""

    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)

    def refusal(self, tokens: float) -> str | None:
        """Return why a request of so many tokens can never be sent; None where it can."""
        most = self.tokens_per_minute
        if most is None or tokens <= most:
            return None
        return (
            f"the request takes about {tokens:.0f} tokens, more than tokens_per_minute={most:.0f} allows in all; "
            "shorten the prompt, lower max_tokens or raise tokens_per_minute"
        )
