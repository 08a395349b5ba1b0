"""Every error that rowloop raises on purpose.

    RowloopError
      RecipeError (ValueError)          the user's recipe or call is wrong; nothing has been paid for
      DatasetGenerationError            a run failed
        DatasetProcessingError          a processor failed, or changed the row count where it may not
        PartialDatasetError             fewer rows than min_completion; carries the result (datasets/result.py)
        EarlyShutdownError              no row survived; carries the first root cause
      ResumeError                       the directory does not fit the recipe
      ModelError                        an endpoint's error, or the reason why it gave no answer

Each takes facts and makes the sentence itself: what happened, where, and what to do next. An option that a sentence
mentions is an `Option`, because the command line writes it in another way than Python.

Two more stay inside a run, which makes failures of them: CellError and Invalid.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypedDict, Unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .events import Usage

FailureKind: TypeAlias = Literal[
    # Another attempt may succeed.
    "rate_limited",  # the endpoint refuses more requests for now (429); the lane slows down
    "server",  # the endpoint has an error of its own (5xx), or a conflict (409, 425)
    "timeout",  # no complete answer within the time limit, here or at the endpoint (408)
    "connection",  # the endpoint cannot be reached, or closed the connection before it answered
    "truncated",  # the connection broke in the middle of an answer
    "unreadable",  # the answer is not JSON, or not of the expected form
    "empty",  # the answer has no text
    "tool_calls",  # the model calls a tool, or asks to continue, in place of an answer
    # The same request fails again.
    "bad_request",  # the endpoint does not accept this request (400, 422 ...)
    "empty_prompt",  # the prompt, or the text to embed, renders to nothing; nothing is sent
    "too_large",  # the request needs more tokens than a whole minute's budget, ours or the endpoint's
    "refused",  # the model, or a filter in front of it, declines to answer
    "length",  # the answer was cut off at max_tokens
    "invalid_output",  # the answer is complete, but does not obey the schema or the contract
    "function",  # a Python function used as a model raised, or returned something unusable
    # Every request fails; a 403 or 404 after the model's first answer concerns its own request only.
    "auth",  # the key is missing or wrong, or may not use this model (401, 403)
    "quota",  # the account has no credit left (402)
    "not_found",  # the endpoint or the model does not exist (404, 405, a redirect)
]
"""What kind of failure a ModelError reports. Providers of other packages may use a kind of their own."""


_LONGEST: Final = 2000
_CONTAINERS: Final = (list, tuple, dict, set, frozenset)
_SHORT: Final = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxother = 3, 6, 80, 80
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROLS_IN_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a run in the text of an error, with the value that the text suggests, if any.

    As a string it is what users write in Python: `min_completion`, `resume="always"`.
    """

    name: str
    value: str | float | bool | None = None

    def __str__(self) -> str:
        """Write the option as a Python argument."""
        if self.value is None:
            return self.name
        if isinstance(self.value, str):
            return f'{self.name}="{self.value}"'
        return f"{self.name}={self.value if isinstance(self.value, bool) else format(self.value, 'g')}"


class RowloopError(Exception):
    """The root of the tree. A message consists of text and options, and has no control characters but line breaks."""

    def __init__(self, *message: str | Option) -> None:
        """Join the message for users of Python."""
        message = tuple(printable(part) if isinstance(part, str) else part for part in message)
        self._message = message
        super().__init__("".join(map(str, message)))

    def text(self, write: Callable[[Option], str]) -> str:
        """Return the message for other users; `write` writes an option as they know it."""
        return "".join(write(part) if isinstance(part, Option) else part for part in self._message)


class RecipeError(RowloopError, ValueError):
    """The user's recipe or call is wrong; nothing has been paid for.

    `path` leads into the recipe or the call (`columns.answer.prompt`, `rows`). `problem` says what is wrong and how to
    fix it.
    """

    def __init__(self, path: str, *problem: str | Option) -> None:
        """Join the two into one line, whatever names and values they quote."""
        path = shortened(one_line(path))
        parts = [shortened(one_line(part)) if isinstance(part, str) else part for part in problem]
        self.path = path
        self.problem = "".join(map(str, parts))
        super().__init__(*((Option(path), ": ") if path else ()), *parts)


class DatasetGenerationError(RowloopError):
    """A run failed; parts that were committed before stay on disk.

    `stage` is the thing that failed ("column", "write", "processor ..."; "run" for the run as a whole), `column` and
    `row_group` where it did.
    The cause is in `__cause__`.
    """

    def __init__(
        self, *problem: str | Option, stage: str = "run", column: str | None = None, row_group: int | None = None
    ) -> None:
        """Join the facts into one line."""
        self.problem = "".join(map(str, problem))
        self.stage = stage
        self.column = column
        self.row_group = row_group
        where = [] if stage == "run" else [stage if column is None else f"{stage} '{column}'"]
        if row_group is not None:
            where.append(f"row group {row_group}")
        super().__init__(*((", ".join(where), ": ") if where else ()), *problem)


class DatasetProcessingError(DatasetGenerationError):
    """A processor failed, or changed the row count where it may not."""


class EarlyShutdownError(DatasetGenerationError):
    """No row survived; the first root cause is in the message and in `__cause__`."""


class ResumeError(RowloopError):
    """The output directory does not fit the recipe, or cannot be resumed.

    `other`: nothing is wrong with the directory, but its dataset is another one.
    """

    def __init__(self, *problem: str | Option, other: bool = False) -> None:
        """Take the sentence."""
        self.other = other
        super().__init__(*problem)


class AnswerFacts(TypedDict, total=False):
    """The facts about an endpoint's answer that a ModelError has beside the problem."""

    status: int | None
    retry_after: float | None
    request_id: str | None


class ModelError(RowloopError):
    """An endpoint's error, or the reason why it gave no answer.

    `kind` is what went wrong (a FailureKind). `retryable`: the same request may succeed later. `fatal`: every other
    request will fail for the same reason. Of the endpoint's answer, where there is one: `status`, the HTTP status;
    `retry_after`, the seconds that it asks to wait; `request_id`, its name for the request.
    """

    def __init__(
        self, problem: str, *, kind: FailureKind, retryable: bool, fatal: bool = False, **answer: Unpack[AnswerFacts]
    ) -> None:
        """Join the facts into one line."""
        if unknown := answer.keys() - AnswerFacts.__optional_keys__:
            hint = nearest(min(unknown), AnswerFacts.__optional_keys__)
            raise TypeError(f"ModelError has no argument '{min(unknown)}'; {hint}")
        self.kind: FailureKind = kind
        self.retryable = retryable
        self.fatal = fatal
        self.status = answer.get("status")
        self.retry_after = answer.get("retry_after")
        self.request_id = answer.get("request_id")
        self.usage: Usage | None = None
        """The tokens spent on the failed attempt, where the endpoint reports them."""
        suffix = f" (request {self.request_id})" if self.request_id else ""
        super().__init__(f"{problem}{suffix}")


def writable(text: str) -> str:
    """Write lone surrogates as escapes: no file, log or terminal can hold them."""
    return text.encode("utf-8", "backslashreplace").decode()


def shown(value: object, most: int = 80) -> str:
    """Return the beginning of a value's repr, whatever the value is.

    Only the first parts of lists and mappings are shown: a few that are repeated can stand for billions.
    """
    try:
        return (_SHORT.repr(value) if isinstance(value, _CONTAINERS) else repr(value))[:most]
    except Exception:  # noqa: BLE001 - a repr of the user's own, or an integer with more digits than Python writes
        return f"{type(value).__name__} that cannot be shown"


def shortened(text: str) -> str:
    """Leave out the middle of a text that is longer than a message should be, such as a name of a million letters."""
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} ... {text[-half:]}"


def one_line(text: str) -> str:
    """Write line breaks, control characters, also those of bidirectional text, and lone surrogates as escapes."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def printable(text: str) -> str:
    """Write control characters, other than line breaks and tabs, and lone surrogates as escapes.

    Those of bidirectional text are among them: they show the letters after them in another order. Texts of servers,
    names of columns, keys of YAML files and names of models pass through here on their way to a terminal, which would
    obey the escape sequences in them.
    """
    return _CONTROLS_IN_LINES.sub(lambda found: ascii(found[0])[1:-1], text)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: the nearest known one, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"choose from: {', '.join(names)}" if names else "none is defined"


class Invalid(Exception):  # noqa: N818 - the word that the failures table has for it
    """The row is invalid and must be dropped; the message is the reason."""


class CellError(Exception):
    """A failure of this cell alone: an exception of the user's function or template, or an unusable value.

    The cause is in `__cause__`. Any other exception of a cell's work, except ModelError, is an error of the engine and
    ends the run. `usage` is what was paid for the cell, where a model was asked.
    """

    usage: Usage | None = None
