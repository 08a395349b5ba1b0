"""Usage: what a reply has cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.events import Usage

if TYPE_CHECKING:
    from .provider import Reply


class Asked(Usage, frozen=True, gc=False):
    """What an attempt cost that was more than one plain request, and how its answer came to obey a schema."""

    requests: int = 1
    native: bool = False
    repaired: bool = False
    reasked: int = 0
    failed: bool = False


def usage_of(reply: Reply, seconds: float) -> Usage:
    """Tell what a reply has cost."""
    if reply.requests == 1:
        return Usage(reply.prompt_tokens, reply.completion_tokens, seconds)
    return Asked(reply.prompt_tokens, reply.completion_tokens, seconds, requests=reply.requests)
