"""A server that sends the same bytes to every request, on a loop of the test's own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import pytest

    from rowloop.runtime import Runtime

PROXY_PASSWORD = b"proxy-authorization: basic bwu6cgfzcw=="
"""The header that carries the password of `proxied`, in lower case."""


@contextmanager
def canned(runtime: Runtime, answer: bytes, seen: list[bytes] | None = None) -> Iterator[str]:
    """Serve the same bytes to every request, and close; `seen` gets the heads of the requests."""
    with runtime.context(_canned(answer, [] if seen is None else seen)) as url:
        yield url


@contextmanager
def proxied(runtime: Runtime, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Serve canned bytes as the proxy that the environment names, with a password; yield the heads of the requests."""
    seen: list[bytes] = []
    with canned(runtime, answer, seen) as url:
        for scheme in ("http", "https", "all", "no"):
            monkeypatch.delenv(f"{scheme}_proxy", raising=False)
            monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", url.removesuffix("/v1").replace("://", "://me:pass@"))
        yield seen


@asynccontextmanager
async def _canned(answer: bytes, seen: list[bytes]) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                await reader.readexactly(int(line.split(b":")[1]))
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
