"""The two ports: the public one, which can be shut and opened again, and the one for control calls alone.

The second port stays open while the first refuses connections, and its connections are not counted.
"""

import asyncio
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import msgspec
from aiohttp import web

from .behaviour import Behaviour
from .counters import Counters, Recorded
from .ledger import Arrived
from .server import FakeServer

_HOST = "127.0.0.1"
_BACKLOG = 4096
_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _Listener(web.Server):
    """aiohttp's server, which also counts its connections and can cut them all."""

    def __init__(self, handler: _Handler, server: FakeServer) -> None:
        # A server that closes idle connections would add faults nobody asked for: hence the long keepalive_timeout.
        super().__init__(handler, handler_cancellation=True, access_log=None, keepalive_timeout=86_400)
        self._server = server
        self._open: dict[web.RequestHandler, asyncio.Transport] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count the connection."""
        super().connection_made(handler, transport)
        self._open[handler] = transport
        self._server.ledger.counters.connections += 1

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Forget the connection."""
        super().connection_lost(handler, exc)
        self._open.pop(handler, None)

    def abort(self) -> None:
        """Cut every connection."""
        for transport in list(self._open.values()):
            transport.abort()


class Ports:
    """The server on its ports, with its controls."""

    def __init__(self, server: FakeServer) -> None:
        """Take the server; open() starts it."""
        self._server = server
        self._held = ExitStack()
        self._address: tuple[str, int] = (_HOST, 0)
        self._used: set[tuple[str, int]] = set()
        self._listener = _Listener(self._public, server)
        self._public_port: asyncio.Server | None = None
        self._reopening: asyncio.TimerHandle | None = None

    async def open(self, port: int) -> tuple[str, str]:
        """Listen; return the base URL and the URL of the controls."""
        self._reserve(port)
        await self.start()
        loop = asyncio.get_running_loop()
        control = await loop.create_server(
            web.Server(self._control, handler_cancellation=True, access_log=None), _HOST, 0
        )
        host, control_port = control.sockets[0].getsockname()
        return self._url(), f"http://{host}:{control_port}"

    async def renew(self) -> str:
        """Become a server that nobody has talked to: another port, default settings, no counts. Return the base URL."""
        await self.stop()
        self._held.close()
        self._reserve(0)
        self._server.configure(Behaviour())
        self._server.reset()
        await self.start()
        return self._url()

    def _reserve(self, port: int) -> None:
        while (reserved := _bound((_HOST, port))).getsockname() in self._used:
            reserved.close()
        self._held.enter_context(reserved)
        self._address = reserved.getsockname()
        self._used.add(self._address)
        if sys.platform != "linux":
            # Linux alone lets a second socket be bound beside one that does not listen. Held for good, it keeps the
            # port ours while connections are refused, also from clients' own ports (TCP can connect to itself).
            reserved.close()

    def _url(self) -> str:
        return f"http://{_HOST}:{self._address[1]}/v1"

    async def start(self) -> None:
        """Accept connections, if that is not so already."""
        self._forget_reopening()
        if self._public_port is None:
            loop = asyncio.get_running_loop()
            self._public_port = await loop.create_server(self._listener, sock=_bound(self._address), backlog=_BACKLOG)
            self._server.listening = True

    async def stop(self, seconds: float | None = None) -> None:
        """Refuse connections, and cut those there are; for so many seconds, or until start()."""
        self._forget_reopening()
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._reopening = loop.call_later(seconds, lambda: loop.create_task(self.start()))
        if self._public_port is not None:
            self._server.listening = False
            self._public_port.close()
            self._public_port = None
            self._listener.abort()
            await asyncio.sleep(0)

    def _forget_reopening(self) -> None:
        if self._reopening is not None:
            self._reopening.cancel()

    async def _public(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith("/control/"):
            return await self._control(request)
        return await self._server.handle(request)

    async def _control(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await self._carry_out(f"{request.method} {request.path}", request)
        except (ValueError, AttributeError) as error:
            return web.Response(status=400, text=str(error))
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def _carry_out(self, order: str, request: web.BaseRequest) -> object:
        server = self._server
        match order:
            case "GET /control/counters":
                pass
            case "GET /control/requests":
                return [_recorded(request) for request in server.ledger.requests]
            case "GET /control/behaviour":
                return server.behaviour
            case "GET /control/wait":
                await self._wait({name: int(least) for name, least in request.query.items()})
            case "POST /control/configure":
                changes = msgspec.json.decode(await request.read(), type=dict)
                server.configure(msgspec.convert(msgspec.structs.asdict(server.behaviour) | changes, Behaviour))
                return server.behaviour
            case "POST /control/reset":
                server.reset()
            case "POST /control/renew":
                return await self.renew()
            case "POST /control/stop":
                seconds = request.query.get("seconds")
                await self.stop(float(seconds) if seconds else None)
            case "POST /control/start":
                await self.start()
            case _:
                raise ValueError(f"{order}: there is no such control")
        return self._counters()

    async def _wait(self, least: dict[str, int]) -> None:
        while any(getattr(self._server.ledger.counters, name) < number for name, number in least.items()):
            await self._server.changed()

    def _counters(self) -> Counters:
        counters = self._server.ledger.counters
        counters.cpu_seconds = time.process_time()
        return counters


def _recorded(arrived: Arrived) -> Recorded:
    headers = {name.lower(): value for name, value in arrived.headers.items()}
    return Recorded(arrived.method, str(arrived.url), headers, arrived.body, arrived.answered_at)


def _bound(address: tuple[str, int]) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
    return bound
