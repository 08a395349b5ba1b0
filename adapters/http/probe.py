"""The probe: whether an endpoint is there and takes the key, asked before anything is paid for."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from ...engine.core.errors import ModelError
from .endpoint import is_loopback

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .errors import Failures

_SECONDS = 30.0


class Probed(Protocol):
    """What can be asked something that costs nothing."""

    async def probe(self) -> tuple[int, bytes]:
        """Give the status and the body of the list of models; raises ModelError where there is no answer."""
        ...


async def probe(chat: Probed, endpoint: Endpoint, failures: Failures) -> None:
    """Raise what would make every call fail. An endpoint that has no list of models, or is slow to give it, is fine."""
    try:
        async with asyncio.timeout(_SECONDS):
            status, body = await chat.probe()
    except TimeoutError:
        return
    except ModelError as error:
        if error.kind != "connection":
            return
        advice = "start a server there" if is_loopback(endpoint.host) else "check the network"
        problem = f"{error}; {advice}, or set another address (base_url, --base-url, {endpoint.api.url_variable})"
        raise failures.fatal(problem, "connection") from None
    # Restricted keys of OpenAI may chat, but not list models: 403, naming the scope that is missing.
    if status == HTTPStatus.UNAUTHORIZED or (status == HTTPStatus.FORBIDDEN and b"scope" not in body):
        raise failures.status(status, {}, body)
