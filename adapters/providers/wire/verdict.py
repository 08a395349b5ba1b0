"""What chat APIs share in reporting that a reply is no answer: refusals and errors that come with status 200.

What a finish reason means is decided in `engine.models.verdict`, for models of every kind. This module finds in a body
what is reported beside the finish reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ....engine.models.verdict import outcome_of

if TYPE_CHECKING:
    from ....engine.core.errors import ModelError
    from ....engine.core.events import Usage
    from ...http.errors import Failures

_NO_ERRORS: Final = (None, "", 0, "0", 200, "200", "ok", "success", "Success", "OK")
"""What gateways write into an error that is none."""


def reported(error: Any) -> bool:
    """Return whether the `error` of a body with status 200 is one: gateways also send `null`, `{}` and code 0."""
    if isinstance(error, dict):
        return any(value not in _NO_ERRORS for value in error.values() if not isinstance(value, (dict, list)))
    return bool(error) and error not in _NO_ERRORS


def gateway_error(failures: Failures, error: Any, request_id: str | None, usage: Usage) -> ModelError:
    """Return the error that a gateway passes on with status 200, with the tokens that were spent nevertheless."""
    made = failures.passed_on(error, request_id)
    return paid(made, usage)


def refusal(failures: Failures, why: str, request_id: str | None, usage: Usage) -> ModelError:
    """Return the error of a model, or of a filter behind it, that does not want to answer."""
    return paid(failures.refused(why, request_id), usage)


def paid(error: ModelError, usage: Usage) -> ModelError:
    """Return the error with the tokens that were spent on it, where they are known."""
    if usage.prompt_tokens or usage.completion_tokens:
        error.usage = usage
    return error


def translated(reason: str | None, native: str | None = None) -> str | None:
    """Return the finish reason in the engine's words where it has one: "stop" and "length".

    `native` is the reason of an endpoint behind a gateway. It counts where the gateway's own says less.
    """
    outcome = outcome_of(reason)
    if native and outcome in {"complete", "unknown"}:
        behind = outcome_of(native)
        if behind not in {"complete", "unknown"}:
            reason, outcome = native, behind
    if outcome == "complete":
        return reason and "stop"
    return "length" if outcome == "cut" else reason
