"""Validators: the protocol of validators at URLs, and their registry.

The engine knows no network. An adapter asks the validator; it is found by the scheme of the URL.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from ..core.registry import Registry


@dataclass(frozen=True, slots=True)
class Verdict:
    """A validator's verdict on a row; the reason may be empty."""

    valid: bool
    reason: str = ""


AskVerdict: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[Verdict]]
"""From one row, as its needed columns, to the verdict. Raises ModelError, and nothing else but cancellation."""


class RemoteValidator(Protocol):
    """An adapter for validators at URLs of one scheme."""

    def connect(self, url: str, api_key_env: str | None) -> AskVerdict:
        """Compile what all requests of one column have in common, on the runtime's loop.

        `api_key_env` names the environment variable that holds the key. Raises RecipeError if something is missing.
        """
        ...


validators: Registry[RemoteValidator] = Registry("scheme of a validator's url", "rowloop.validators")
