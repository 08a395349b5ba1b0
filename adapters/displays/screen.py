"""A region of lines that stays below whatever is written to the terminal.

Theory of operation. The cursor rests at the first character of the region, not behind it. Erasing is then "clear from
here down", which stays right when the terminal was resized and its lines were wrapped anew, and when the process is
killed the shell's prompt comes where the region was. To write a log line: clear, write the line, paint the region
again, move the cursor back up. The first line of the region is empty, or the start of a line that is still being
written: what reaches the terminal without our knowledge (from C, or from a thread that was inside `write` when we took
it over) lands there and mars nothing.

Writers keep whatever stream object they hold: `write` is replaced on sys.stdout and sys.stderr themselves for as long
as a region exists, so that handlers made long before and threads that know nothing of us are covered alike. One lock
orders all of it. A writer that waited for the lock while the region was closed finds it closed, and writes plainly:
nothing can bring a closed region back.

Regions of several runs at once share one screen, one below the other.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_UNKNOWN_SIZE = (80, 24)
_CLEAR = "\r\x1b[J"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"  # a line that a resized window is too narrow for must stay one line
_MOVES = 30  # times per second that a log line may move the region; above that it waits for its next drawing


class Region:
    """Some lines at the bottom of the screen."""

    def __init__(self, screen: Screen) -> None:
        """Start with no lines."""
        self._screen = screen
        self.lines: list[str] = []

    def show(self, lines: list[str]) -> None:
        """Draw these lines instead; each must fit the terminal's width."""
        self._screen.draw(self, lines)


class Screen:
    """The terminal behind sys.stderr while there are regions on it."""

    def __init__(self) -> None:
        """Know no stream yet: the first region takes what sys.stdout and sys.stderr are at that time."""
        self._lock = threading.RLock()
        self._regions: list[Region] = []
        self._streams: list[_Stream] = []
        self._process = os.getpid()
        self._descriptor = 2
        self._moved = 0.0
        self._clean = True

    @contextmanager
    def region(self) -> Iterator[Region]:
        """Have a region for the length of the block; when it is left, no trace remains."""
        region = Region(self)
        with self._lock:
            if not self._regions:
                self._take_streams()
            self._regions.append(region)
        try:
            yield region
        finally:
            with self._lock, suppress(OSError, ValueError):
                self._regions.remove(region)
                self._paint() if self._regions else self._give_streams_back()

    @property
    def size(self) -> tuple[int, int]:
        """The terminal's columns and lines at this moment."""
        return _size(self._descriptor)

    def draw(self, region: Region, lines: list[str]) -> None:
        """Give a region other lines and paint."""
        with self._lock:
            if region in self._regions:
                region.lines = lines
                self._paint()

    def write(self, stream: _Stream, text: str) -> int:
        """Write `text` above the regions, or plainly when there are none (any more)."""
        if os.getpid() != self._process:
            return stream.plain(text)  # a forked child: the lock may be held by a thread that it does not have
        with self._lock:
            if not self._regions:
                return stream.plain(text)
            whole, newline, stream.rest = (stream.rest + text).rpartition("\n")
            if newline:
                prefix = "" if self._clean else _CLEAR
                self._clean = True
                stream.plain(f"{prefix}{whole}\n")
                stream.flush()
            now = time.monotonic()
            if now - self._moved >= 1 / _MOVES:
                self._moved = now
                self._paint()
        return len(text)

    def _paint(self) -> None:
        width, height = self.size
        rests = [stream.rest.rpartition("\r")[2][: width - 1] for stream in self._streams if stream.rest]
        shown = [line for region in self._regions for line in region.lines]
        if self._clean and not shown and not rests:
            return
        lines = [*(rests or [""]), *shown][: max(1, height - 1)]
        back = f"\x1b[{len(lines) - 1}A\r" if len(lines) > 1 else "\r"
        self._error.plain(f"{_CLEAR}{_NO_WRAP}{chr(10).join(lines)}{_WRAP}{back}")
        self._error.flush()
        self._clean = False

    @property
    def _error(self) -> _Stream:
        return self._streams[-1]

    def _take_streams(self) -> None:
        self._process = os.getpid()
        self._descriptor = sys.stderr.fileno()
        device = _device(sys.stderr)
        same = [sys.stdout] if sys.stdout is not sys.stderr and device and _device(sys.stdout) == device else []
        # The same objects as the last time, where they are: a writer may still wait for the lock with one of them.
        known = {id(stream.file): stream for stream in self._streams}
        self._streams = [known.get(id(file)) or _Stream(file) for file in (*same, sys.stderr)]
        for stream in self._streams:
            stream.take(self.write)
        self._clean = True

    def _give_streams_back(self) -> None:
        try:
            if not self._clean:
                self._error.plain(_CLEAR)
                self._error.flush()
            for stream in self._streams:
                rest, stream.rest = stream.rest, ""
                stream.plain(rest)
                stream.flush()
        finally:  # and not before: who writes without the lock must find no region
            for stream in self._streams:
                stream.give_back()
            self._clean = True


class _Stream:
    """One of the standard streams, whose `write` can be replaced; `rest` is what came after its last newline."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.plain: Callable[[str], int] = file.write
        self.flush: Callable[[], None] = file.flush
        self.rest = ""
        self._own = vars(file)  # the attributes of this one object: its class and other files keep their write
        self._before = self._own.get("write")

    def take(self, write: Callable[[_Stream, str], int]) -> None:
        self._own["write"] = lambda text: write(self, text)

    def give_back(self) -> None:
        if self._before is None:
            self._own.pop("write", None)
        else:
            self._own["write"] = self._before


def _size(descriptor: int) -> tuple[int, int]:
    """Ask a terminal for its columns and lines, each time anew since it may have been resized."""
    try:
        columns, lines = os.get_terminal_size(descriptor)
    except OSError:
        return _UNKNOWN_SIZE
    return (columns, lines) if columns > 0 and lines > 0 else _UNKNOWN_SIZE


def _device(stream: TextIO) -> int:
    """Identify the terminal behind a stream; 0 when it is none."""
    try:
        return os.fstat(stream.fileno()).st_rdev if stream.isatty() else 0
    except (OSError, ValueError):
        return 0


screen = Screen()
"""The one screen of this process."""
