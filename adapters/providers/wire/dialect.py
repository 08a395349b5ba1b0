"""Dialect: what an endpoint was found not to take in requests to a model, remembered for the process.

Endpoints that speak one API differ in what they know of it, and say so with status 400. Then the request is put in
other words and asked again at once:

    response_format       json_schema, then json_object with the schema in the prompt, then the prompt alone
    output_config         the prompt alone
    max_tokens            max_completion_tokens, and the other way round
    temperature           left out, with a warning: the model has its own
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ....engine.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ....engine.models.provider import Ask, ChatParameters, Message, Reply
    from ...http.endpoint import Endpoint
    from ...http.errors import Failures

logger = logging.getLogger("rowloop")

JSON_SCHEMA: Final = 0
JSON_OBJECT: Final = 1
IN_WORDS: Final = 2
"""How an answer that obeys a schema is asked for; an endpoint that refuses one of these is asked in the next."""

MAX_TOKENS: Final = ("max_tokens", "max_completion_tokens")

_REFUSALS = frozenset({400, 422, 501})
_FORMAT = re.compile(r"response[ _]?format|json[ _]?(schema|object)|structured[ _]outputs?|guided[ _]", re.IGNORECASE)
_OF_THIS_SCHEMA = re.compile(r"invalid[ _](json[ _])?schema", re.IGNORECASE)
_UNKNOWN = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|deprecated|not (allowed|permitted)|only the default|extra input",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Dialect:
    """What is known of one model at one endpoint. `version` changes whenever something is learnt."""

    form: int = JSON_SCHEMA
    max_tokens: str = MAX_TOKENS[0]
    temperature: bool = True
    version: int = 0


_known: dict[tuple[str, str], Dialect] = {}


def dialect_of(endpoint: Endpoint, model: str) -> Dialect:
    """Give what is known of a model. OpenAI's own API takes no `max_tokens` for its newer models."""
    return _known.setdefault((endpoint.url, model), Dialect(max_tokens=MAX_TOKENS[endpoint.is_openai]))


def forget() -> None:
    """Know nothing any more."""
    _known.clear()


def is_about_format(said: str) -> bool:
    """Tell whether an endpoint complains of the form in which an answer is asked for."""
    return _FORMAT.search(said) is not None


def is_about_this_schema(said: str) -> bool:
    """Tell whether it takes schemas, but not this one."""
    return _OF_THIS_SCHEMA.search(said) is not None


def is_about_field(name: str, said: str) -> bool:
    """Tell whether an endpoint complains that there is a field at all, rather than of its value."""
    return name in said and _UNKNOWN.search(said) is not None


class Adaptive:
    """Requests of one column that are put together once, and again whenever something is learnt of the endpoint."""

    def __init__(self, parameters: ChatParameters, failures: Failures, dialect: Dialect) -> None:
        """Put them together as the endpoint is known to take them."""
        self._parameters = parameters
        self._failures = failures
        self._dialect = dialect
        self._least_form = JSON_SCHEMA
        self._times = 0
        self._again()

    @property
    def spoken(self) -> int:
        """A number that is another one once requests are put together in another way."""
        if self._version != self._dialect.version:
            self._again()  # another column has learnt something
        return self._times

    def adapts(self, spoken: int, said: str) -> bool:
        """Learn from what an endpoint said to a request put together `spoken` way; False if nothing is learnt."""
        if spoken != self.spoken:
            return True  # another request has been told the same
        sent = {name: value for name, value in self._fixed.items() if name not in self._parameters.extra}
        if not self._learns(sent, said):
            return False
        self._again()
        return True

    def _again(self) -> None:
        self._version = self._dialect.version
        self._times += 1
        self._fixed: dict[str, Any] = {}
        self._put_together()

    def _put_together(self) -> None:
        """Fill `_fixed` with what all requests have in common."""
        raise NotImplementedError

    def _learns(self, sent: dict[str, Any], said: str) -> bool:
        """Learn from what was said to a request with these fields, which are ours to change."""
        raise NotImplementedError

    def _knows_no_temperature(self, sent: dict[str, Any], said: str) -> bool:
        if "temperature" not in sent or not is_about_field("temperature", said):
            return False
        self._dialect.temperature = False
        self._dialect.version += 1
        logger.warning("%s takes no temperature: temperature=%g is left out", self._failures.label, sent["temperature"])
        return True


def adapting(wire: Adaptive, send: Callable[[list[Message]], Awaitable[Reply]]) -> Ask:
    """Give the call that asks again, in other words, what the endpoint did not take."""

    async def ask(messages: list[Message]) -> Reply:
        spoken = wire.spoken
        try:
            return await send(messages)
        except ModelError as error:
            if error.status not in _REFUSALS or not wire.adapts(spoken, str(error)):
                raise
        reply = await ask(messages)
        reply.requests += 1
        return reply

    return ask
