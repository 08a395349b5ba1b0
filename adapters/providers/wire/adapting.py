"""Adapting: requests that are put in another way when an endpoint refuses them, and sent again at once.

    by words      the complaint names a field or a form: every column of the model leaves it out from here on
    by trying     until one structured request of a column has been answered, any other refusal makes the weaker forms
                  be tried with the same messages; the first that is answered is the column's form. So does an error of
                  the server (500) that is about schemas, and the fifth one in a row that is about anything

A request that is refused in every form has a fault of its own: it gets the first complaint, and changes nothing.
"""

from __future__ import annotations

import asyncio
import copy
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Self, TypeVar

from ....engine.core.errors import ModelError
from ....engine.models.usage import refused as all_refused
from ....runtime.logs import safe_logger
from .dialect import IN_WORDS, STRICT, is_about_field, is_about_schemas, is_about_system

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from ....engine.models.provider import Ask, ChatParameters, Message, Reply
    from ...http.errors import Failures
    from .dialect import Dialect

logger = safe_logger()

_REFUSALS: Final = frozenset({400, 404, 422, 500, 501})
_STRIKES: Final = 5
"""Errors of the server without a word about schemas that may have to do with the form, if no answer came between."""
_KINDS: Final = frozenset({"bad_request", "not_found", "server"})
_FORM_NAMES: Final = ("the form json_schema, strict", "the form json_schema", "the form json_object", "the prompt")


class Adaptive:
    """Requests of one column that are prepared once, and again whenever the dialect of the endpoint changes."""

    forms: ClassVar[tuple[int, ...]] = (STRICT, IN_WORDS)
    """The forms of structured answers that the API has, from the strongest to the weakest."""

    def __init__(self, parameters: ChatParameters, failures: Failures, dialect: Dialect) -> None:
        """Prepare requests in the endpoint's dialect."""
        self._parameters = parameters
        self._failures = failures
        self._dialect = dialect
        self._least_form = STRICT
        self._form: int | None = None
        self._preparations = 0
        self.accepted = False
        """Whether a request of this preparation has been answered, so that its form is right."""
        self.trying = asyncio.Lock()
        self.failed_trials = 0
        self._strikes = 0
        self._prepare_again()

    @property
    def failures(self) -> Failures:
        """The errors of the model, and its standing."""
        return self._failures

    @property
    def preparation(self) -> int:
        """The number of the current preparation, after a new one if another column has changed the dialect."""
        if self._version != self._dialect.version:
            self._prepare_again()
        return self._preparations

    def accept(self, preparation: int) -> None:
        """Note that a request of this preparation has been answered."""
        self.accepted = preparation == self._preparations
        self._strikes = 0

    def struck(self) -> int:
        """Count an error of the server that may be a passing one; return how many there were since the last answer."""
        self._strikes += 1
        return self._strikes

    def adapts(self, preparation: int, complaint: str, messages: Sequence[Message] = ()) -> bool:
        """Learn from an endpoint's complaint about a request of this preparation; False if that changes nothing."""
        if preparation != self.preparation:
            return True  # another request has received the same complaint
        sent = {name: value for name, value in self._fixed.items() if name not in self._parameters.extra}
        if not (self._learn(sent, complaint) or self._drop_system(messages, complaint)):
            return False
        self._prepare_again()
        return True

    @property
    def form(self) -> int:
        """The form in which a structured answer is asked for; the last one where there is nothing to choose."""
        return self.forms[-1] if self._form is None else self._form

    def weaker(self) -> Iterator[Self]:
        """Yield the same requests in each weaker form."""
        reached = self.form
        for form in self.forms:
            if form > reached:
                other = copy.copy(self)
                other.weaken(form)
                reached = other.form
                yield other

    def weaken(self, form: int) -> None:
        """Ask in this form, or in a weaker one."""
        self._least_form = form
        self._prepare_again()

    def adopt(self, form: int, refused: ModelError) -> None:
        """Ask in this form from here on, which the endpoint has answered."""
        self.weaken(form)
        self.accepted = True
        logger.warning("%s; answers that obey the schema are asked for in %s instead", refused, _FORM_NAMES[form])

    def _prepare_again(self) -> None:
        self._version = self._dialect.version
        self._preparations += 1
        self.accepted = False
        self._fixed: dict[str, Any] = {}
        self._prepare()

    def _prepare(self) -> None:
        """Fill `_fixed` with what all requests have in common."""
        raise NotImplementedError

    def _learn(self, sent: dict[str, Any], complaint: str) -> bool:
        """Change the dialect after a complaint about a request with these fields, none of which the user set."""
        raise NotImplementedError

    def _ask_in(self, form: int, complaint: str) -> None:
        """Ask for structured answers in this form from here on, in all columns."""
        self._dialect.form = form
        self._dialect.version += 1
        way = _FORM_NAMES[form]
        logger.info("%s: answers that obey a schema are asked for in %s: %s", self._failures.label, way, complaint)

    def _drop_temperature(self, sent: dict[str, Any], complaint: str) -> bool:
        if "temperature" not in sent or not is_about_field("temperature", complaint):
            return False
        self._dialect.temperature = False
        self._dialect.version += 1
        logger.warning("%s takes no temperature: temperature=%g is left out", self._failures.label, sent["temperature"])
        return True

    def _drop_stop(self, sent: dict[str, Any], complaint: str) -> bool:
        if "stop" not in sent or not is_about_field("stop", complaint):
            return False
        self._dialect.stop = False
        self._dialect.version += 1
        logger.warning(
            "%s takes no stop: answers are cut here, and the tokens after it are paid for", self._failures.label
        )
        return True

    def _drop_system(self, messages: Sequence[Message], complaint: str) -> bool:
        """Merge the system prompt into the user's message; nothing if there is none, or if it is merged already."""
        if not (self._dialect.system and is_about_system(complaint)):
            return False
        if not any(message["role"] == "system" for message in messages):
            return False
        self._dialect.system = False
        self._dialect.version += 1
        logger.info("%s takes no system prompt: it stands before the user's message", self._failures.label)
        return True


_Wire = TypeVar("_Wire", bound=Adaptive)


def adapting(wire: _Wire, send: Callable[[_Wire, list[Message]], Awaitable[Reply]]) -> Ask:
    """Return the call that asks again, in another way, after an endpoint's complaint."""
    standing = wire.failures.standing

    async def ask(messages: list[Message]) -> Reply:
        preparation = wire.preparation
        try:
            if standing.answered:
                reply = await send(wire, messages)
            else:
                reply = await standing.first(partial(send, wire), messages)
        except ModelError as error:
            if error.status not in _REFUSALS or error.kind not in _KINDS:
                raise
            refused = error
        else:
            if not wire.accepted:
                wire.accept(preparation)
            return reply
        if not wire.adapts(preparation, str(refused), messages):
            tried = await _tried(wire, send, messages, (preparation, refused))
            if tried is not None:
                return tried
        reply = await ask(messages)
        reply.requests += 1
        return reply

    return ask


async def _tried(
    wire: _Wire,
    send: Callable[[_Wire, list[Message]], Awaitable[Reply]],
    messages: list[Message],
    refusal: tuple[int, ModelError],
) -> Reply | None:
    """Return the reply to a request in another form, None if a form has been found meanwhile; raises the refusal."""
    preparation, refused = refusal
    if wire.form == wire.forms[-1]:
        raise refused
    failed = wire.failed_trials
    passing = refused.retryable and not is_about_schemas(str(refused))
    if passing and wire.struck() < _STRIKES:
        raise refused
    async with wire.trying:
        if preparation != wire.preparation:
            return None
        if refused.retryable and wire.failed_trials != failed:
            raise refused  # another trial has shown that the server is down, whatever the form
        trial = _Trial(wire, send, messages)
        reply = await trial.run(refused, passing=passing)
        if reply is not None:
            return reply
        wire.failed_trials += 1
    if trial.requests > 1:
        refused.usage = all_refused(trial.requests)
    raise refused


class _Trial(Generic[_Wire]):
    """One request, sent in the weaker forms until one is answered."""

    def __init__(
        self, wire: _Wire, send: Callable[[_Wire, list[Message]], Awaitable[Reply]], messages: list[Message]
    ) -> None:
        """Count from the request that was refused."""
        self._wire = wire
        self._send = send
        self._messages = messages
        self.requests = 1

    async def run(self, refused: ModelError, *, passing: bool) -> Reply | None:
        """Return the first answer, None if there is none in any form; raises an error that is no refusal.

        `passing`: it may be a passing error of the server. Then the present form is sent once more after a weaker one
        is answered: it may be right, and the server be up again.
        """
        for other in self._wire.weaker():
            if self._wire.accepted:
                return None  # the form is right: the request has a fault of its own
            reply = await self._answer(other)
            if reply is None:
                continue
            again = await self._in_same_form(reply) if passing else None
            if again is None:
                self._wire.adopt(other.form, refused)
                reply.requests = self.requests
            return again or reply
        return None

    async def _in_same_form(self, weaker: Reply) -> Reply | None:
        """Return the answer in the present form, with the tokens of the one in a weaker form as well."""
        preparation = self._wire.preparation
        reply = await self._answer(self._wire)
        if reply is not None:
            self._wire.accept(preparation)
            reply.prompt_tokens += weaker.prompt_tokens
            reply.completion_tokens += weaker.completion_tokens
        return reply

    async def _answer(self, wire: _Wire) -> Reply | None:
        """Return the answer to a request, None if it is refused; a field that it may not have is left out."""
        self.requests += 1
        preparation = wire.preparation
        try:
            reply = await self._send(wire, self._messages)
        except ModelError as error:
            if error.status not in _REFUSALS:
                error.usage = error.usage or all_refused(self.requests)
                raise
            if wire is not self._wire and wire.adapts(preparation, str(error), self._messages):
                return await self._answer(wire)
            return None
        self._wire.failures.standing.note_answer()
        reply.requests = self.requests
        return reply
