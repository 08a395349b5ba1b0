"""Dialect: what an endpoint does not accept in requests to a model, remembered for the process.

Endpoints that speak one API support different parts of it, and report that with a status of a refused request. The
request is then put in another way and sent again at once:

    response_format       json_schema with strict, without it, json_object and the prompt, the prompt alone
    output_config         the prompt alone
    max_tokens            max_completion_tokens, and the other way round
    temperature           left out, with a warning: the model uses its own
    stop                  left out; the answer is cut here, with a warning: the tokens behind it are paid for
    the role system       its text stands before the user's first message

What is read in a complaint is in this module; adapting.py puts it to use, and finds forms of structured answers by
trying where the words are not known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ...http.endpoint import Endpoint

STRICT: Final = 0
JSON_SCHEMA: Final = 1
JSON_OBJECT: Final = 2
IN_WORDS: Final = 3
"""The forms in which an answer that obeys a schema is asked for; an endpoint that refuses one is asked in the next."""

MAX_TOKENS: Final = ("max_tokens", "max_completion_tokens")

_FORMAT = re.compile(r"response[ _]?format|json[ _]?(schema|object)|structured[ _]outputs?|guided[ _]", re.IGNORECASE)
_OF_THIS_SCHEMA = re.compile(r"invalid[ _](json[ _])?schema", re.IGNORECASE)
_SCHEMA = re.compile(r"schema|grammar|guided|structured|too many states|regex|outlines|for format", re.IGNORECASE)
_UNKNOWN = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|deprecated|not (allowed|permitted)|only the default|extra input",
    re.IGNORECASE,
)
_SYSTEM = re.compile(
    r"system\W{1,3}(role|message|prompt|instruction)|role\b.{0,30}\bsystem\b|developer instruction|roles must alternate"
    r"|only user(,| and) assistant|\.role\b.{0,40}(should be|invalid)",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Dialect:
    """What one model at one endpoint accepts. `version` grows with every change."""

    form: int = STRICT
    max_tokens: str = MAX_TOKENS[0]
    temperature: bool = True
    stop: bool = True
    system: bool = True
    version: int = 0


_known: dict[tuple[str, str], Dialect] = {}


def dialect_of(endpoint: Endpoint, model: str, max_tokens: str = MAX_TOKENS[0]) -> Dialect:
    """Return the dialect of a model, which begins with this name for the limit of tokens."""
    return _known.setdefault((endpoint.url, model), Dialect(max_tokens=max_tokens))


def forget() -> None:
    """Forget all dialects."""
    _known.clear()


def is_about_format(complaint: str) -> bool:
    """Return whether an endpoint complains about the form in which an answer is asked for."""
    return _FORMAT.search(complaint) is not None


def is_about_this_schema(complaint: str) -> bool:
    """Return whether an endpoint accepts schemas, but not this one."""
    return _OF_THIS_SCHEMA.search(complaint) is not None


def is_about_schemas(complaint: str) -> bool:
    """Return whether an error of a server may be one of its grammars, rather than a passing one."""
    return _SCHEMA.search(complaint) is not None


def is_about_system(complaint: str) -> bool:
    """Return whether a model takes no message of the role `system`."""
    return _SYSTEM.search(complaint) is not None


def is_about_field(name: str, complaint: str) -> bool:
    """Return whether an endpoint complains that a field exists at all, rather than about its value."""
    return re.search(rf"\b{name}\b", complaint) is not None and _UNKNOWN.search(complaint) is not None
