"""A terminal for tests: a child process on a real pty, and what a person would see of it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pexpect
import pyte

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self


class Terminal:
    """Runs a Python program on a pty and shows its screen; leaving the block ends it."""

    def __init__(
        self,
        arguments: list[str],
        columns: int = 100,
        lines: int = 24,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ):
        """Start `python ARGUMENTS` in a window of this size."""
        self.screen = pyte.HistoryScreen(columns, lines, history=100_000, ratio=1e-9)
        self._stream = pyte.ByteStream(self.screen)
        self.child = pexpect.spawn(sys.executable, arguments, dimensions=(lines, columns), echo=False, env=env, cwd=cwd)

    def __enter__(self) -> Self:
        """Give the terminal."""
        return self

    def __exit__(self, *_error: object) -> None:
        """End the program, if it has not ended."""
        self.child.close(force=True)

    def send(self, line: str) -> None:
        """Type a line."""
        self.child.sendline(line)

    def resize(self, columns: int, lines: int) -> None:
        """Drag the window's corner."""
        self.screen.resize(lines, columns)
        self.child.setwinsize(lines, columns)

    def wait_until(self, seen: Callable[[str], bool], limit: float = 20.0) -> str:
        """Read what the program writes until the visible lines satisfy `seen`, and give them."""
        deadline = time.monotonic() + limit
        while not seen(self.visible):
            left = deadline - time.monotonic()
            assert left > 0, f"not seen in {limit} s; the screen is:\n{self.visible}"
            self._read(left)
        return self.visible

    def wait_until_end(self, limit: float = 40.0) -> int:
        """Read until the program has ended, and give its exit status."""
        deadline = time.monotonic() + limit
        while self._read(max(0.0, deadline - time.monotonic())):
            pass
        self.child.wait()
        return int(self.child.exitstatus if self.child.exitstatus is not None else -(self.child.signalstatus or 0))

    @property
    def visible(self) -> str:
        """The lines of the window."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    @property
    def everything(self) -> list[str]:
        """The lines of the window and all that have scrolled out of it."""
        gone = ["".join(line[x].data for x in range(self.screen.columns)) for line in self.screen.history.top]
        return [line.rstrip() for line in (*gone, *self.screen.display)]

    def _read(self, limit: float) -> bool:
        try:
            self._stream.feed(self.child.read_nonblocking(65_536, timeout=limit))
        except pexpect.EOF:
            return False
        except pexpect.TIMEOUT:
            raise AssertionError(f"nothing came for {limit:.1f} s; the screen is:\n{self.visible}") from None
        return True
