"""Probe: checks that an endpoint can be reached and accepts the key, before anything is paid for."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from ...engine.core.errors import ModelError
from ...engine.models.sharing import shared_limits
from .addresses import is_loopback

if TYPE_CHECKING:
    from .endpoint import Api, Endpoint
    from .errors import Failures

_SECONDS = 30.0


class Probed(Protocol):
    """A connected model with a request that costs nothing."""

    @property
    def limit_key(self) -> bytes:
        """Identify the endpoint, the key and the model."""
        ...

    async def probe(self) -> tuple[int, bytes]:
        """Return the status and the body of the list of models; raises ModelError if there is no answer."""
        ...


async def probe(chat: Probed, endpoint: Endpoint, api: Api, failures: Failures) -> None:
    """Raise the ModelError that every call would raise.

    An endpoint without a list of models passes, and so does a slow one. One that has answered in a run which lasts may
    have an outage: the run waits for its end as the other does.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            status, body = await chat.probe()
    except TimeoutError:
        return
    except ModelError as error:
        if error.kind != "connection" or shared_limits.in_use(chat.limit_key):
            return
        if error.fatal:
            raise
        problem = f"{error}; {_advice(endpoint)}, or set another address (base_url, --base-url, {api.url_variable})"
        raise failures.fatal(problem, "connection") from None
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        raise failures.status(status, {}, body)
    # Restricted keys of OpenAI may chat, but not list models: 403, with the name of the missing scope.
    if status == HTTPStatus.UNAUTHORIZED or (status == HTTPStatus.FORBIDDEN and b"scope" not in body):
        raise failures.status(status, {}, body)


def _advice(endpoint: Endpoint) -> str:
    proxy = endpoint.proxy
    if proxy is not None:
        return f"check the proxy {proxy.shown} that {proxy.source} names"
    return "start a server there" if is_loopback(endpoint.host) else "check the network"
