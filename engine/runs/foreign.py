"""Foreign errors: what an exception of other people's code means for the next attempt, as adapters judge it.

The engine knows no client and no protocol. An adapter that does registers its judge here, as a function or as the
place to load it from when the first error comes.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from ..core.errors import FailureKind


class Judgement(NamedTuple):
    """What an exception means: its kind of failure, and whether another attempt may succeed."""

    kind: FailureKind
    retryable: bool


Judge: TypeAlias = Callable[[BaseException], Judgement | None]
"""Judges an exception; None for one that it does not know."""

_judges: dict[str, Judge | str] = {}


def register_judge(name: str, judge: Judge | str) -> None:
    """Add a judge, or the place of one such as "rowloop.adapters.http.causes:judge"; it replaces one of this name."""
    _judges[name] = judge


def judgement_of(error: BaseException) -> Judgement | None:
    """Return the first judgement of a registered judge, None for an exception that none of them knows."""
    for name, judge in _judges.items():
        if isinstance(judge, str):
            judge = _judges[name] = pkgutil.resolve_name(judge)  # noqa: PLW2901 - the loaded one, from here on
        found = judge(error)
        if found is not None:
            return found
    return None
