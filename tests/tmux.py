"""A real tmux for tests and benchmarks: a program in a window of its own server, its screen, and its scrollback."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

MISSING = None if shutil.which("tmux") else "tmux is not installed"
"""Why there is no tmux; None where it is installed."""

_OPTIONS = "set -g history-limit 100000\nset -g status off\n"
_AFTERWARDS = "sleep"  # takes the place of a program that has ended, so that its window stays
_PAUSE = 0.02  # seconds between two looks


class Tmux:
    """Runs a program from the first row of a tmux window; leaving the block ends the server."""

    def __init__(
        self, arguments: list[str], columns: int = 100, lines: int = 24, env: Mapping[str, str] | None = None
    ) -> None:
        """Start the program in a window of this size."""
        self._folder = tempfile.TemporaryDirectory()
        options = Path(self._folder.name) / "tmux.conf"
        options.write_text(_OPTIONS, encoding="utf-8")
        self._server = ["tmux", "-u", "-L", f"rowloop-{uuid.uuid4().hex}", "-f", str(options)]
        size = ["-x", str(columns), "-y", str(lines)]
        variables = [part for name, value in (env or {}).items() for part in ("-e", f"{name}={value}")]
        self._run("new-session", "-d", *size, *variables, f"{shlex.join(arguments)}; exec {_AFTERWARDS} 600")

    def __enter__(self) -> Self:
        """Give the window."""
        return self

    def __exit__(self, *_error: object) -> None:
        """End the server, and with it the program."""
        self._run("kill-server")
        self._folder.cleanup()

    def send(self, line: str) -> None:
        """Type a line."""
        self._run("send-keys", line, "Enter")

    def capture(self) -> list[str]:
        """Return the lines of the window."""
        return self._lines("capture-pane", "-p")

    def everything(self) -> list[str]:
        """Return the lines of the scrollback and of the window, without the empty ones at the end."""
        lines = self._lines("capture-pane", "-p", "-S", "-")
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def scrollback(self) -> int:
        """How many lines are in the scrollback."""
        return int(self._run("display-message", "-p", "#{history_size}"))

    def wait_until(self, seen: Callable[[str], bool], limit: float = 20.0) -> None:
        """Wait until the lines of the window satisfy `seen`."""
        self._wait(lambda: seen("\n".join(self.capture())), limit)

    def wait_until_end(self, limit: float = 40.0) -> None:
        """Wait until the program has ended."""
        self._wait(lambda: self._run("display-message", "-p", "#{pane_current_command}").strip() == _AFTERWARDS, limit)

    def _wait(self, holds: Callable[[], bool], limit: float) -> None:
        deadline = time.monotonic() + limit
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError("not seen in {} s; the window is:\n{}".format(limit, "\n".join(self.capture())))
            time.sleep(_PAUSE)

    def _lines(self, *command: str) -> list[str]:
        return [line.rstrip() for line in self._run(*command).splitlines()]

    def _run(self, *command: str) -> str:
        done = subprocess.run([*self._server, *command], check=True, capture_output=True, text=True)
        return done.stdout
