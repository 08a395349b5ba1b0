"""Host clients: the shared clients of event loops that are not a runtime's.

A client is bound to the loop on which it is used. Async code of a host loop (a FastAPI handler, `asyncio.run`) gets a
client of that loop, one for equal arguments. A host loop has no place to register what must be closed at its end, with
one exception: `asyncio.run` and web servers close the async generators that have begun on the loop. So an async
generator holds each client, and closes it in its cleanup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .resources import Closing, constructed

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import AsyncGenerator, Callable, Hashable

Held = tuple[Any, "AsyncGenerator[None]"]

_clients: WeakKeyDictionary[AbstractEventLoop, dict[Hashable, Held]] = WeakKeyDictionary()


def host_client(loop: AbstractEventLoop, factory: Callable[[], Any], key: Hashable) -> Any:
    """Return the client of `key` of the loop that runs in this thread; make it if it does not exist yet."""
    clients = _clients.setdefault(loop, {})
    if key not in clients:
        made = constructed(factory)
        holder = _held(made, clients, key)
        _begin(holder)
        clients[key] = made, holder
    return clients[key][0]


async def _held(made: Any, clients: dict[Hashable, Held], key: Hashable) -> AsyncGenerator[None]:
    """Hold a client until the loop closes its async generators."""
    async with Closing(made):
        try:
            yield
        finally:
            clients.pop(key, None)


def _begin(holder: AsyncGenerator[None]) -> None:
    """Run a generator to its first yield, before which it suspends nowhere: the loop takes note of it."""
    try:
        holder.__anext__().__await__().send(None)
    except StopIteration:
        return
