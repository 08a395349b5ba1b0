"""Verdict: whether a reply is a complete answer, decided in one place for every model.

Endpoints name the reason why an answer ended in many ways. `outcome_of` reduces their names to a few outcomes, and
`Judge` raises the ModelError of each reply that must not become a value:

    complete        a value, unless there is no text: kind "empty"
    cut             kind "length"
    refused         kind "refused"
    tools           kind "tool_calls": the model asks for a tool's result in place of an answer
    broken          kind "server": the endpoint stopped generating

docs/answers.md lists the names by vendor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from ...runtime.logs import safe_logger
from ..core.errors import ModelError
from .usage import usage_of

if TYPE_CHECKING:
    from .model import Model
    from .provider import Reply

logger = safe_logger()

Outcome: TypeAlias = Literal["complete", "cut", "refused", "tools", "broken", "unknown"]

_NAMES: Final[dict[Outcome, str]] = {
    "complete": "stop end_turn stop_sequence eos eos_token complete completed done finish finished end",
    "cut": """
        length max_tokens max_output_tokens max_length model_length token_limit error_limit
        model_context_window_exceeded
        """,
    "refused": """
        content_filter content_filtered refusal refused safety recitation language blocklist prohibited_content spii
        image_safety image_prohibited_content image_recitation guardrail_intervened error_toxic model_armor sensitive
        """,
    "tools": """
        tool_calls tool_call tool_use function_call pause_turn malformed_function_call malformed_tool_use
        malformed_model_output unexpected_tool_call too_many_tool_calls compaction
        """,
    "broken": """
        error abort aborted cancelled canceled timeout time_limit load unload insufficient_system_resource
        network_error malformed_response missing_thought_signature repetition user_cancel not_finished other
        image_other no_image
        """,
}

FINISH_REASONS: Final[dict[str | None, Outcome]] = {
    None: "complete",
    "": "complete",
    **{name: outcome for outcome, names in _NAMES.items() for name in names.split()},
}
"""The outcome of every finish reason that is known, in lower case. A missing reason counts as complete."""

_warned: set[tuple[str, str]] = set()


def outcome_of(reason: str | None) -> Outcome:
    """Return what a finish reason means, whichever vendor's name it has."""
    known = FINISH_REASONS.get(reason)
    return known or FINISH_REASONS.get(_plain(reason or ""), "unknown")


def block_reason(feedback: Any) -> str | None:
    """Return why a filter has blocked a prompt, from the feedback that Gemini sends in place of an answer."""
    if not isinstance(feedback, dict):
        return None
    reason = feedback.get("blockReason") or feedback.get("block_reason")
    message = feedback.get("blockReasonMessage") or feedback.get("block_reason_message")
    return f"it blocked the prompt ({': '.join(str(part) for part in (reason, message) if part)})" if reason else None


def forget_warnings() -> None:
    """Warn again about unknown finish reasons."""
    _warned.clear()


def _plain(reason: str) -> str:
    """Return a name in lower case and without the name of its type: `FinishReason.MAX_TOKENS` is `max_tokens`."""
    bare = reason.rpartition(".")[2].strip().lower().replace("-", "_").replace(" ", "_")
    return bare.removeprefix("finish_reason_")


@dataclass(frozen=True, slots=True)
class Judge:
    """Decides for one column which replies of its model are answers.

    `allow_empty` accepts an answer without text, `allow_truncated` one that was cut off; `max_tokens` is its limit, for
    the message.
    """

    model: str
    max_tokens: int | None = None
    allow_empty: bool = False
    allow_truncated: bool = False

    @classmethod
    def of(
        cls, model: Model, max_tokens: int | None, *, allow_empty: bool = False, allow_truncated: bool = False
    ) -> Judge:
        """Judge the replies of this model."""
        return cls(f"{model.provider}:{model.name}", max_tokens, allow_empty, allow_truncated)

    def __call__(self, reply: Reply, seconds: float) -> None:
        """Raise the ModelError of a reply that is no answer, with the tokens and seconds spent on it."""
        error = self.problem(reply)
        if error is not None:
            error.usage = usage_of(reply, seconds)
            raise error

    def accepts(self, reply: Reply) -> bool:
        """Return whether a reply is an answer."""
        return self.problem(reply) is None

    def problem(self, reply: Reply) -> ModelError | None:
        """Return the error of a reply that is no answer."""
        reason = reply.finish_reason
        outcome = FINISH_REASONS.get(reason) or outcome_of(reason)
        empty = not reply.text or reply.text.isspace()
        if outcome == "complete":
            return self._empty(reply) if empty and not self.allow_empty else None
        if outcome == "cut":
            accepted = self.allow_truncated and (self.allow_empty or not empty)
            return None if accepted else cut_off(reply, self.max_tokens)
        if outcome == "unknown":
            self._warn(str(reason))
            return self._empty(reply) if empty and not self.allow_empty else None
        return self._unfinished(reply, outcome)

    def _empty(self, reply: Reply) -> ModelError:
        thought = ": it has reasoning and no text" if reply.reasoning else ""
        return self._error(reply, f"{self.model} gave an empty answer{thought}", kind="empty", retryable=True)

    def _unfinished(self, reply: Reply, outcome: Outcome) -> ModelError:
        reason = reply.finish_reason
        if outcome == "refused":
            why = " ".join(reply.text.split())[:300] or f"its finish reason is '{reason}'"
            return self._error(reply, f"{self.model} refused: {why}", kind="refused", retryable=False)
        if outcome == "tools":
            problem = f"{self.model} called a tool in place of an answer (finish reason '{reason}')"
            return self._error(reply, problem, kind="tool_calls", retryable=True)
        problem = f"{self.model} stopped before its answer was complete (finish reason '{reason}')"
        return self._error(reply, problem, kind="server", retryable=True)

    @staticmethod
    def _error(
        reply: Reply, problem: str, *, kind: Literal["empty", "refused", "tool_calls", "server"], retryable: bool
    ) -> ModelError:
        return ModelError(problem, kind=kind, retryable=retryable, request_id=reply.request_id)

    def _warn(self, reason: str) -> None:
        """Warn about an unknown finish reason, once per model and process."""
        if (self.model, reason) not in _warned:
            _warned.add((self.model, reason))
            problem = "%s ended an answer with the unknown finish reason '%.80s'; the answer is taken for complete"
            logger.warning(problem, self.model, reason)


def cut_off(reply: Reply, max_tokens: int | None) -> ModelError:
    """Return the error of an answer that was cut off."""
    limit = "the model's limit" if max_tokens is None else f"max_tokens={max_tokens}"
    problem = f"the answer was cut off at {limit}"
    if not reply.text.strip():
        problem = f"there is no answer: the model's reasoning used up {limit}"
    return ModelError(f"{problem}; raise max_tokens", kind="length", retryable=False)
