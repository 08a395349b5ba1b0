"""A remote validator for tests: a small HTTP server in a process of its own.

A row is valid unless its text holds "bad". The path says how the server behaves:

    /validate       as it should
    /flaky          each row's first request fails: with 500, 429, a cut body or no answer, one after the other
    /firewall       403 for rows whose text holds "bad"
    /slow           each row's first request is never answered
    /html, /wrong   200 with something that is no JSON, or JSON that is no verdict
    /STATUS         always that status; the key that came is in the answer

GET /seen gives what has come since the last GET /reset. GET /capitals?country=... is a lookup, whose first request for
each country is answered with 503.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType


class FakeValidator:
    """A context manager around the server's process."""

    url: str
    """Where the server is, without a path."""

    def __enter__(self) -> Self:
        """Start the process and wait until it listens."""
        self._process = subprocess.Popen(  # its input ends with this process, and then so does it
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self._port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Kill the process."""
        with self._process as process:
            process.kill()

    def seen(self) -> dict[str, Any]:
        """Read the requests (path, row, authorization), the most at once, and the connections made."""
        return self._get("/seen")

    def reset(self) -> None:
        """Forget all that has come."""
        self._get("/reset")

    def _get(self, path: str) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", path)
            found: dict[str, Any] = json.loads(connection.getresponse().read())
            return found
        finally:
            connection.close()


class _Seen:
    def __init__(self) -> None:
        self.requests: list[tuple[str, Any, str | None]] = []
        self.tries: dict[str, int] = {}
        self.now = self.most = self.connections = 0
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    seen = _Seen()
    _inside: _Seen | None = None

    def setup(self) -> None:
        super().setup()
        with self.seen.lock:
            self.seen.connections += 1

    def do_GET(self) -> None:
        if self.path == "/reset":
            type(self).seen = _Seen()
        seen, (path, _, query) = self.seen, self.path.partition("?")
        if path == "/capitals":
            with seen.lock:
                number = seen.tries[query] = seen.tries.get(query, 0) + 1
            self._answer(503 if number == 1 else 200, {"capital": f"the capital of {query.partition('=')[2]}"})
            return
        self._answer(200, {"requests": seen.requests, "most": seen.most, "connections": seen.connections})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        seen = self.seen
        with seen.lock:
            seen.requests.append((self.path, json.loads(body), self.headers["Authorization"]))
            number = seen.tries[body] = seen.tries.get(body, 0) + 1
            kind = len(seen.tries) % 4
            seen.now += 1
            seen.most = max(seen.most, seen.now)
        self._inside = seen
        try:
            self._validate(json.loads(body), kind, first=number == 1)
        finally:
            self._leave()

    def _leave(self) -> None:
        """Count the request out, before its answer: with the answer, the client may send the next one."""
        seen, self._inside = self._inside, None
        if seen is not None:
            with seen.lock:
                seen.now -= 1

    def _validate(self, row: dict[str, Any], kind: int, *, first: bool) -> None:
        path = self.path.partition("?")[0]
        if path == "/html":
            self._send(200, b"<html>Welcome</html>")
        elif path == "/wrong":
            self._answer(200, {"valid": "yes"})
        elif path[1:].isdigit():
            self._answer(int(path[1:]), {"error": {"message": f"not with {self.headers['Authorization']}"}})
        elif path == "/firewall" and "bad" in str(row.get("text")):
            self._answer(403, {"error": {"message": "Request blocked"}})
        elif path == "/slow" and first:
            time.sleep(60)
        elif path == "/flaky" and first:
            self._fail(kind)
        else:
            time.sleep(0.005)
            bad = "bad" in str(row.get("text"))
            self._answer(200, {"valid": False, "reason": f"{row['text']} will not do"} if bad else {"valid": True})

    def _fail(self, kind: int) -> None:
        if kind < 2:
            self._answer((500, 429)[kind], {}, {"Retry-After": "0.01"})
            return
        self._leave()
        if kind == 2:
            self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"valid"')
        self.close_connection = True

    def _answer(self, status: int, what: object, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(what).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._leave()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _main() -> None:
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    _main()
