"""What can stand between rowloop and an endpoint: a proxy of SOCKS, and TLS. Each is a process of its own.

Both forward connections to one target, whatever address was asked for, so that names such as model.example can be used.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class Forwarding:
    """A context manager around the process that forwards to the host and port of `target`."""

    port: int

    def __init__(self, target: str, **settings: str) -> None:
        """Take the address of the target."""
        self._settings = {"target": urlsplit(target).netloc, **settings}

    def __enter__(self) -> Self:
        """Start the process and wait until it listens."""
        command = [sys.executable, __file__, json.dumps(self._settings)]
        pipe = subprocess.PIPE  # its input ends with this process, and then so does it
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, process_group=0)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Kill the process."""
        with self._process as process:
            process.kill()

    def seen(self) -> list[dict[str, Any]]:
        """End the process, and return what each connection asked for."""
        said, _ = self._process.communicate()
        return [json.loads(line) for line in said.splitlines()]


class SocksProxy(Forwarding):
    """A proxy of SOCKS 4, 4a and 5. With a `user` and `password`, it lets nobody else through (5 only)."""

    def __init__(self, target: str, user: str = "", password: str = "") -> None:
        """Take the only account."""
        super().__init__(target, kind="socks", user=user, password=password)


class TlsFront(Forwarding):
    """TLS in front of a server without it. `certificate` is the path of a PEM file with the key and the chain."""

    def __init__(self, target: str, certificate: Path) -> None:
        """Take the certificate."""
        super().__init__(target, kind="tls", certificate=str(certificate))

    @property
    def url(self) -> str:
        """The base URL, ending in /v1."""
        return f"https://127.0.0.1:{self.port}/v1"


# The process


async def _text(reader: asyncio.StreamReader) -> str:
    return (await reader.readexactly((await reader.readexactly(1))[0])).decode()


async def _socks5(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, account: tuple[str, str]) -> Any:
    await reader.readexactly((await reader.readexactly(1))[0])
    asked: dict[str, Any] = {"version": 5}
    if any(account):
        writer.write(b"\x05\x02")
        await reader.readexactly(1)
        given = await _text(reader), await _text(reader)
        writer.write(b"\x01\x00" if given == account else b"\x01\x01")
        if given != account:
            return None
        asked["user"] = given[0]
    else:
        writer.write(b"\x05\x00")
    _, _, _, kind = await reader.readexactly(4)
    asked["host"] = await _text(reader) if kind == 3 else ".".join(map(str, await reader.readexactly(4)))
    asked["port"] = int.from_bytes(await reader.readexactly(2))
    writer.write(b"\x05\x00\x00\x01" + bytes(6))
    return asked


async def _socks4(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
    _, high, low, *address = await reader.readexactly(7)
    asked: dict[str, Any] = {"version": 4, "port": high * 256 + low, "host": ".".join(map(str, address))}
    asked["user"] = (await reader.readuntil(b"\0"))[:-1].decode()
    if address[:3] == [0, 0, 0]:
        asked["host"] = (await reader.readuntil(b"\0"))[:-1].decode()
    writer.write(b"\x00\x5a" + bytes(6))
    return asked


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while some := await reader.read(65536):
        writer.write(some)
    writer.close()


async def _serve(settings: dict[str, str]) -> None:
    host, _, port = settings["target"].partition(":")
    account = settings.get("user", ""), settings.get("password", "")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked: Any = {}
        if settings["kind"] == "socks":
            version = await reader.readexactly(1)
            asked = await (_socks5(reader, writer, account) if version == b"\5" else _socks4(reader, writer))
        if asked is None:
            writer.close()
            return
        print(json.dumps(asked), flush=True)  # noqa: T201 - the parent reads it
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer), return_exceptions=True)

    context = None
    if settings["kind"] == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings["certificate"])
    server = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - the same
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
