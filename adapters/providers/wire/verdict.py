"""What chat APIs share in reporting that a reply is no answer: refusals and errors that come with status 200.

What a finish reason means is decided in `engine.models.verdict`, for models of every kind. This module finds in a body
what is reported beside the finish reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ....engine.core.events import UNKNOWN_USAGE
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
    """Return the error that a gateway passes on with status 200, with the tokens that were spent nevertheless.

    Without any it costs nothing, as an answer with the error's own status would.
    """
    made = failures.passed_on(error, request_id)
    if usage != UNKNOWN_USAGE:
        made.usage = usage
    return made


def refusal(failures: Failures, why: str, request_id: str | None, usage: Usage) -> ModelError:
    """Return the error of a model, or of a filter behind it, that does not want to answer. It is paid for."""
    made = failures.refused(why, request_id)
    made.usage = usage
    return made


def unreadable(failures: Failures, body: bytes, usage: Usage) -> ModelError:
    """Return the error of a body that holds no answer, but may hold what was used nevertheless."""
    made = failures.unreadable(body, truncated=False)
    if made.usage is not None or usage != UNKNOWN_USAGE:
        made.usage = usage
    return made


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
