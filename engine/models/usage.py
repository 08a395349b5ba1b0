"""Usage of a reply: its tokens, its seconds and the requests behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.events import Billing, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .provider import Reply


class Asked(Usage, frozen=True, gc=False):
    """The usage of an attempt of more than one plain request, and how its answer came to obey a schema.

    `each` has the usage of every paid request, where there are several: prices may depend on the length of one prompt.
    `free`: nothing is paid, as it is an answer from the response cache, or as all requests were refused.
    """

    requests: int = 1
    native: bool = False
    repaired: bool = False
    reasked: int = 0
    failed: bool = False
    each: tuple[Usage, ...] = ()
    free: bool = False


def usage_of(reply: Reply, seconds: float) -> Usage:
    """Return the usage of a reply that took so many seconds."""
    if reply.requests == 1:
        return Usage(reply.prompt_tokens, reply.completion_tokens, seconds, reply.billing)
    free = not reply.requests
    return Asked(
        reply.prompt_tokens, reply.completion_tokens, seconds, reply.billing, requests=reply.requests, free=free
    )


def refused(requests: int) -> Asked:
    """Return the usage of an attempt of several requests that were all refused, so that nothing is paid."""
    return Asked(requests=requests, free=True)


def added_up(requests: Sequence[Usage]) -> tuple[int, int, float, Billing | None]:
    """Add up prompt tokens, completion tokens, seconds and billing of the requests of one attempt."""
    if len(requests) == 1:
        (one,) = requests
        return one.prompt_tokens, one.completion_tokens, one.seconds, one.billing
    billings = [one.billing for one in requests if one.billing is not None]
    return (
        sum(one.prompt_tokens for one in requests),
        sum(one.completion_tokens for one in requests),
        sum(one.seconds for one in requests),
        Billing(
            cached_tokens=sum(billing.cached_tokens for billing in billings),
            cache_write_tokens=sum(billing.cache_write_tokens for billing in billings),
            cache_write_1h_tokens=sum(billing.cache_write_1h_tokens for billing in billings),
            reasoning_tokens=sum(billing.reasoning_tokens for billing in billings),
            searches=sum(billing.searches for billing in billings),
        ),
    )
