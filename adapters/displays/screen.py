"""A region of lines at the bottom of the terminal that stays below everything else that is printed.

Theory of operation. The cursor rests at the first character of the region, not behind its end. "Clear from the cursor
down" then erases the region, also after the terminal was resized and has wrapped the lines differently; and when the
process is killed, the shell's prompt appears where the region was. To print a log line: clear, write the line, draw the
region again, move the cursor back up. The first line of the region is empty, or is the beginning of an unfinished line
of output. Output that bypasses this module (from C code, or from a thread that was inside `write` when the region
opened) lands on that line and damages nothing.

Writers keep their stream objects: while a region exists, `write` is replaced on sys.stdout and sys.stderr themselves.
This covers logging handlers that were created earlier and threads that know nothing of the region. One lock orders all
writes. A writer that waits for the lock while the last region closes then writes to the stream directly, so it cannot
draw a closed region again.

Regions of concurrent runs share one screen, one below the other.
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
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"  # in a window that has become too narrow, a line must not become two
_MOVES = 30  # times per second that a log line may redraw the region; more lines wait for the next drawing


class Region:
    """Some lines at the bottom of the screen."""

    def __init__(self, screen: Screen) -> None:
        """Start with no lines."""
        self._screen = screen
        self.lines: list[str] = []

    def show(self, lines: list[str]) -> None:
        """Replace the lines and draw them; each must be narrower than the terminal."""
        self._screen.draw(self, lines)


class Screen:
    """The terminal behind sys.stderr, and the regions on it."""

    def __init__(self) -> None:
        """Start without streams: the first region takes the sys.stdout and sys.stderr of its time."""
        self._lock = threading.RLock()
        self._regions: list[Region] = []
        self._streams: list[_Stream] = []
        self._process = os.getpid()
        self._descriptor = 2
        self._moved = 0.0
        self._clean = True

    @contextmanager
    def region(self) -> Iterator[Region]:
        """Open a region for a `with` block; it disappears when the block ends."""
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
                self._paint() if self._regions else self._release_streams()

    @property
    def size(self) -> tuple[int, int]:
        """The terminal's current columns and lines."""
        return _size(self._descriptor)

    def draw(self, region: Region, lines: list[str]) -> None:
        """Replace the lines of a region and paint."""
        with self._lock:
            if region in self._regions:
                region.lines = lines
                self._paint()

    def write(self, stream: _Stream, text: str) -> int:
        """Write `text` above the regions, or directly to the stream if there are none."""
        if os.getpid() != self._process:
            return stream.plain(text)  # in a forked child: a thread of the parent may hold the lock
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
        # Reuse the objects of the last time: a writer may still hold one and wait for the lock.
        known = {id(stream.file): stream for stream in self._streams}
        self._streams = [known.get(id(file)) or _Stream(file) for file in (*same, sys.stderr)]
        for stream in self._streams:
            stream.replace_write(self.write)
        self._clean = True

    def _release_streams(self) -> None:
        try:
            if not self._clean:
                self._error.plain(_CLEAR)
                self._error.flush()
            for stream in self._streams:
                rest, stream.rest = stream.rest, ""
                stream.plain(rest)
                stream.flush()
        finally:  # only now: a writer that bypasses the lock must find no region
            for stream in self._streams:
                stream.restore_write()
            self._clean = True


class _Stream:
    """A standard stream whose `write` can be replaced; `rest` is the text after its last newline."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.plain: Callable[[str], int] = file.write
        self.flush: Callable[[], None] = file.flush
        self.rest = ""
        self._own = vars(file)  # the attributes of this object alone: its class and other files keep their write
        self._before = self._own.get("write")

    def replace_write(self, write: Callable[[_Stream, str], int]) -> None:
        self._own["write"] = lambda text: write(self, text)

    def restore_write(self) -> None:
        if self._before is None:
            self._own.pop("write", None)
        else:
            self._own["write"] = self._before


def _size(descriptor: int) -> tuple[int, int]:
    """Return the columns and lines of a terminal; not cached, since the window may be resized."""
    try:
        columns, lines = os.get_terminal_size(descriptor)
    except OSError:
        return _UNKNOWN_SIZE
    return (columns, lines) if columns > 0 and lines > 0 else _UNKNOWN_SIZE


def _device(stream: TextIO) -> int:
    """Return the device number of the terminal behind a stream; 0 if it is not a terminal."""
    try:
        return os.fstat(stream.fileno()).st_rdev if stream.isatty() else 0
    except (OSError, ValueError):
        return 0


screen = Screen()
"""The screen of this process; there is only one."""
