"""Dialect: what an endpoint does not accept in requests to a model, remembered for the process.

Endpoints that speak one API support different parts of it, and report that with status 400. The request is then put
in another way and sent again at once:

    response_format       json_schema, then json_object with the schema in the prompt, then the prompt alone
    output_config         the prompt alone
    max_tokens            max_completion_tokens, and the other way round
    temperature           left out, with a warning: the model uses its own
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
"""The forms in which an answer that obeys a schema is asked for; an endpoint that refuses one is asked in the next."""

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
    """What one model at one endpoint accepts. `version` grows with every change."""

    form: int = JSON_SCHEMA
    max_tokens: str = MAX_TOKENS[0]
    temperature: bool = True
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


def is_about_field(name: str, complaint: str) -> bool:
    """Return whether an endpoint complains that a field exists at all, rather than about its value."""
    return name in complaint and _UNKNOWN.search(complaint) is not None


class Adaptive:
    """Requests of one column that are prepared once, and again whenever the dialect of the endpoint changes."""

    def __init__(self, parameters: ChatParameters, failures: Failures, dialect: Dialect) -> None:
        """Prepare requests in the endpoint's dialect."""
        self._parameters = parameters
        self._failures = failures
        self._dialect = dialect
        self._least_form = JSON_SCHEMA
        self._preparations = 0
        self._prepare_again()

    @property
    def preparation(self) -> int:
        """The number of the current preparation, after a new one if another column has changed the dialect."""
        if self._version != self._dialect.version:
            self._prepare_again()
        return self._preparations

    def adapts(self, preparation: int, complaint: str) -> bool:
        """Learn from an endpoint's complaint about a request of this preparation; False if that changes nothing."""
        if preparation != self.preparation:
            return True  # another request has received the same complaint
        sent = {name: value for name, value in self._fixed.items() if name not in self._parameters.extra}
        if not self._learn(sent, complaint):
            return False
        self._prepare_again()
        return True

    def _prepare_again(self) -> None:
        self._version = self._dialect.version
        self._preparations += 1
        self._fixed: dict[str, Any] = {}
        self._prepare()

    def _prepare(self) -> None:
        """Fill `_fixed` with what all requests have in common."""
        raise NotImplementedError

    def _learn(self, sent: dict[str, Any], complaint: str) -> bool:
        """Change the dialect after a complaint about a request with these fields, none of which the user set."""
        raise NotImplementedError

    def _drop_temperature(self, sent: dict[str, Any], complaint: str) -> bool:
        if "temperature" not in sent or not is_about_field("temperature", complaint):
            return False
        self._dialect.temperature = False
        self._dialect.version += 1
        logger.warning("%s takes no temperature: temperature=%g is left out", self._failures.label, sent["temperature"])
        return True


def adapting(wire: Adaptive, send: Callable[[list[Message]], Awaitable[Reply]]) -> Ask:
    """Return the call that asks again, in another way, after an endpoint's complaint."""

    async def ask(messages: list[Message]) -> Reply:
        preparation = wire.preparation
        try:
            return await send(messages)
        except ModelError as error:
            if error.status not in _REFUSALS or not wire.adapts(preparation, str(error)):
                raise
        reply = await ask(messages)
        reply.requests += 1
        return reply

    return ask
