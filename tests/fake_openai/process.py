"""FakeOpenAI: the server as a child process, and its controls as methods."""

import sys
from http.client import HTTPConnection
from pathlib import Path
from subprocess import PIPE, Popen
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

import msgspec

from .behaviour import Behaviour
from .counters import Counters, Recorded

_T = TypeVar("_T")
_CONTROL_SECONDS = 10.0


class FakeOpenAI:
    """A context manager around the server's process.

    >>> with FakeOpenAI(latency=0.05, fault_500=0.1, seed=3) as server:
    ...     client = OpenAI(base_url=server.url, api_key="any")

    The methods are synchronous and short. In async code, hand `wait_for` to asyncio.to_thread.
    """

    url: str
    """The base URL, ending in /v1."""
    behaviour: Behaviour

    def __init__(
        self, behaviour: Behaviour | None = None, /, *, port: int = 0, cpu: int | None = None, **settings: Any
    ):
        """Take a Behaviour, or its settings as keywords, or both.

        `port` 0 is any free one. `cpu` pins the server's process to that core.
        """
        self.behaviour = _changed(behaviour or Behaviour(), settings)
        self._port = port
        self._cpu = cpu

    def __enter__(self) -> Self:
        """Start the process and wait until it listens."""
        command = [sys.executable, str(Path(__file__).parent), "--port", str(self._port), "--until-stdin-closes"]
        if self._cpu is not None:
            command += ["--cpu", str(self._cpu)]
        # In a process group of its own: Ctrl-C is for the parent, and the server must outlive the parent's clients.
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, text=True, process_group=0)
        try:
            self.url, self._control = (self._line() for _ in range(2))
            self.configure(self.behaviour)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Kill the process."""
        with self._process as process:
            process.kill()

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def counters(self) -> Counters:
        """Read the counts since the start or the last reset()."""
        return self._call("GET", "counters", Counters)

    def requests(self) -> list[Recorded]:
        """Read the last requests under /v1, oldest first: as many as the setting `record` says (1 by default)."""
        return self._call("GET", "requests", list[Recorded])

    def configure(self, behaviour: Behaviour | None = None, /, **changes: Any) -> None:
        """Change settings, or take over a whole behaviour, from the next request on. Counts and attempts stay."""
        changed = _changed(behaviour or self.behaviour, changes)
        self.behaviour = self._call("POST", "configure", Behaviour, body=msgspec.json.encode(changed))

    def reset(self) -> None:
        """Set all counts to zero and forget prompts, attempts and requests. The behaviour stays."""
        self._call("POST", "reset", Counters)

    def renew(self) -> None:
        """Become a server that nobody has talked to: a new `url`, default settings, no counts, no connections."""
        self.url = self._call("POST", "renew", str)
        self.behaviour = Behaviour()

    def wait_for(self, *, timeout: float = 5.0, **least: int) -> Counters:
        """Wait until every named counter is at least so high; TimeoutError if that takes too long.

        >>> server.wait_for(in_flight=3)
        >>> server.wait_for(client_disconnects=1)
        """
        try:
            return self._call("GET", f"wait?{urlencode(least)}", Counters, timeout=timeout)
        except TimeoutError as error:
            raise TimeoutError(f"not {least} within {timeout:g} s; now {self.counters()}") from error

    def stop(self) -> None:
        """Refuse connections from now on, and cut those there are. Counts go on."""
        self._call("POST", "stop", Counters)

    def start(self) -> None:
        """Listen again, on the same port."""
        self._call("POST", "start", Counters)

    def refuse_for(self, seconds: float) -> None:
        """Stop now and start again after so many seconds; return at once."""
        self._call("POST", f"stop?seconds={seconds}", Counters)

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().split()
        if not line:
            raise RuntimeError(
                f"the server ended with status {self._process.wait()} before it listened; see its error output"
            )
        return line[-1]

    def _call(
        self, method: str, order: str, kind: type[_T], *, body: bytes = b"", timeout: float = _CONTROL_SECONDS
    ) -> _T:
        connection = HTTPConnection(self._control.removeprefix("http://"), timeout=timeout)
        try:
            connection.request(method, f"/control/{order}", body)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(answer.decode())
        return msgspec.json.decode(answer, type=kind)


def _changed(behaviour: Behaviour, changes: dict[str, Any]) -> Behaviour:
    return msgspec.convert(msgspec.structs.asdict(behaviour) | changes, Behaviour)
