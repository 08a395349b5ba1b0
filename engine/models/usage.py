"""Usage of a reply: its tokens, its seconds and the requests behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.events import Usage

if TYPE_CHECKING:
    from .provider import Reply


class Asked(Usage, frozen=True, gc=False):
    """The usage of an attempt of more than one plain request, and how its answer came to obey a schema."""

    requests: int = 1
    native: bool = False
    repaired: bool = False
    reasked: int = 0
    failed: bool = False


def usage_of(reply: Reply, seconds: float) -> Usage:
    """Return the usage of a reply that took so many seconds."""
    if reply.requests == 1:
        return Usage(reply.prompt_tokens, reply.completion_tokens, seconds)
    return Asked(reply.prompt_tokens, reply.completion_tokens, seconds, requests=reply.requests)
