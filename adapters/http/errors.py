"""Failures: the ModelErrors of one endpoint, each with its meaning and one line that explains it.

    a status of 4xx or 5xx      by the status, and by the endpoint's own error code
    no answer, or half of one   by the exception at the root
    an answer without content   it cannot be read, or is something else

A failure states whether a retry may succeed; the tracker alone retries.
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Unpack

from ...engine.core.errors import ModelError
from ...engine.core.events import UNKNOWN_USAGE
from .bodies import Complaint, complaint_in, complaint_of, decoded, plain
from .causes import (
    CLOSED,
    NEVER_SENT,
    RATE,
    REQUEST,
    TRUNCATED,
    UNREADABLE,
    Cause,
    Meaning,
    cause_of,
    root_of,
)
from .certificates import certificate_error, reason_of
from .chains import names_of
from .headers import request_id, retry_after
from .masks import Mask
from .standing import DoubtedError, Standing
from .words import meaning_of, wait_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...engine.core.errors import AnswerFacts, FailureKind

_SHOWN = 300
_READ = 10 * _SHOWN
_MOVED_CLASS = 3
_STATUS = re.compile(r"[45]\d\d")
_ERRNO = re.compile(r"\[Errno -?\d+\] ")
_QUOTED = re.compile(r" when reading: .*", re.DOTALL)  # aiohttp quotes the header that is too long


@dataclass(frozen=True, slots=True)
class Failures:
    """Makes the errors of one connected model or validator.

    `label` names it in messages; `secret` and `secrets` appear in none of them. `expected` is what an answer should
    be. `advice` overrides the advice that messages give to users of models, by kind. `standing` decides which refusals
    are about every request.
    """

    label: str
    secret: str | None = field(default=None, repr=False)
    expected: str = "chat completion"
    advice: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    standing: Standing = field(default_factory=Standing, repr=False, compare=False)
    _mask: Mask = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare to cover the keys."""
        object.__setattr__(self, "_mask", Mask((*self.secrets, self.secret or "")))

    def status(self, status: int, headers: Mapping[str, str], body: bytes) -> ModelError:
        """Return the error of an answer with this status."""
        complaint = complaint_of(body)
        problem = f"{self.label} answered {status} {_phrase(status)}".rstrip()
        if status // 100 == _MOVED_CLASS:
            location = headers.get("location", "another address")
            complaint = complaint._replace(message=f"it has moved to {location}")
        meaning = meaning_of(status, complaint)
        wait = retry_after(headers)
        if status == HTTPStatus.PAYMENT_REQUIRED and wait is not None:
            meaning = RATE  # money that requests in flight hold back, and give back
        if wait is None and meaning is RATE:
            wait = wait_in(complaint)
        return self._answered(
            problem, complaint, meaning, status=status, retry_after=wait, request_id=request_id(headers)
        )

    def transport(self, error: BaseException) -> ModelError:
        """Return the error of a request without an answer, or with a part of one."""
        root = root_of(error)
        cause = cause_of(root) or _other(root)
        made = self._error(f"{self.label} {cause.text}", _detail(root), cause.meaning)
        if cause not in NEVER_SENT and not isinstance(certificate_error(root), ssl.SSLCertVerificationError):
            made.usage = UNKNOWN_USAGE
        return made

    def undecoded(self, body: bytes, error: Exception) -> ModelError:
        """Return the error of a body with status 200 that cannot be decoded: it breaks off, or is something else."""
        return self.unreadable(body, truncated=not body or str(error).startswith("Input data was truncated"))

    def unreadable(self, body: bytes, *, truncated: bool) -> ModelError:
        """Return the error of a body with status 200 that is not the expected answer."""
        content = decoded(body)
        if isinstance(content, dict) and (content.get("error") or content.get("object") == "error"):
            return self.passed_on(content.get("error") or content, None)
        if truncated:
            made = self._error(f"{self.label} broke off its answer after {len(body)} bytes", "", TRUNCATED)
        else:
            problem = f"{self.label} answered with something that is no {self.expected}"
            made = self._error(problem, plain(body), UNREADABLE)
        made.usage = UNKNOWN_USAGE
        return made

    def passed_on(self, error: Any, request_id: str | None) -> ModelError:
        """Return an error that a gateway passes on, with status 200, from the endpoint behind it."""
        complaint = complaint_in(error)
        status = int(complaint.code) if _STATUS.fullmatch(complaint.code) else None
        meaning = meaning_of(status or 500, complaint)
        problem = f"{self.label} answered with an error"
        return self._answered(problem, complaint, meaning, status=status, request_id=request_id)

    def _answered(
        self, problem: str, complaint: Complaint, meaning: Meaning, **answer: Unpack[AnswerFacts]
    ) -> ModelError:
        """Return the error of a refusal, which may be about every request or about this one alone."""
        if meaning.alone is None:
            return self._error(problem, complaint.message, meaning, **answer)
        alone = self._error(problem, complaint.message, Meaning(meaning.alone), **answer)
        if self.standing.answered:
            return alone
        text = self._text(problem, complaint.message, meaning)
        return DoubtedError(text, alone, kind=meaning.kind, **answer)

    def refused(self, why: str, request_id: str | None) -> ModelError:
        """Return the error of a model, or of a filter behind it, that does not want to answer."""
        return self._error(f"{self.label} refused", why, Meaning("refused"), request_id=request_id)

    def unsendable(self, error: Exception) -> ModelError:
        """Return the error of a message that cannot be written as JSON."""
        return self._error(f"a message to {self.label} cannot be sent", str(error), REQUEST)

    def fatal(self, problem: str, kind: FailureKind) -> ModelError:
        """Return an error because of which no request will succeed."""
        return self._error(problem, "", Meaning(kind, fatal=True))

    def _text(self, problem: str, detail: str, meaning: Meaning) -> str:
        text = ": ".join(filter(None, (problem, self.clean(detail))))
        advice = self.advice.get(meaning.kind, meaning.advice) if meaning.advice else ""
        return "; ".join(filter(None, (text, advice)))

    def _error(self, problem: str, detail: str, meaning: Meaning, **answer: Unpack[AnswerFacts]) -> ModelError:
        text = self._text(problem, detail, meaning)
        return ModelError(text, kind=meaning.kind, retryable=meaning.retryable, fatal=meaning.fatal, **answer)

    def clean(self, text: str) -> str:
        """Return another party's text on one short line, without the keys, which some endpoints echo."""
        if not text:
            return ""
        text = text[:_READ]
        if "[Errno" in text:
            text = _ERRNO.sub("", text)
        text = self._mask.cover(" ".join(text.split()).rstrip("."))
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _other(root: BaseException) -> Cause:
    """Return the cause of a request that failed for what no client reports as a failed connection."""
    if isinstance(root, OSError):
        return CLOSED
    return Cause(f"could not be asked: {type(root).__name__}", Meaning("connection"))


def _detail(root: BaseException) -> str:
    """Return the message of an exception. Those of aiohttp quote others, which put it better."""
    inner: Any = certificate_error(root)
    if "aiohttp.ClientConnectorError" in names_of(root):
        inner = getattr(inner, "os_error", inner)
        if isinstance(inner, ssl.SSLError) or not inner.errno or inner.errno < 0:
            return reason_of(inner)
        return os.strerror(inner.errno)
    if isinstance(inner, ssl.SSLError):
        return reason_of(inner)
    message = getattr(root.__cause__, "message", None)
    said = message if isinstance(message, str) else str(root) or type(root).__name__
    return _QUOTED.sub("", said)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
