"""A region of lines at the bottom of the terminal that stays below everything else that is printed.

Theory of operation. The cursor rests at the first character of the region, not behind its end. When the process is
killed, the shell's prompt then appears where the region was. A region is redrawn by writing its lines over the old
ones, and a log line makes room for itself: the screen scrolls up where it must, the region is moved down by inserting
lines, and the text fills the gap. The region is therefore on the screen at every moment, whoever looks. Where the rows
that a text fills are not known (it has escape sequences, or the window was resized and wrapped the region), the region
is erased, and drawn again behind the text in the same write.

"Clear from the cursor down" is never sent in the first column: tmux and screen take it, in the first row, for a cleared
screen, and save what was on it in their scrollback.

The first line of the region is empty, or is the beginning of an unfinished line of output. Output that bypasses this
module (from C code, or from a thread that was inside `write` when the region opened) lands on that line and damages
nothing.

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
_CLEAR_LINE = "\x1b[K"
_CLEAR_BELOW = "\x1b[C\x1b[J"  # never from the first column: see above
_CLEAR = f"\r{_CLEAR_LINE}{_CLEAR_BELOW}\r"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"  # in a window that has become too narrow, a line must not become two
_MOVES = 30  # times per second that the beginning of an unfinished line may redraw the region


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
        self._drawn = 0  # lines of the region on the screen
        self._drawn_size = _UNKNOWN_SIZE

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
            had_rest = bool(stream.rest)
            whole, newline, stream.rest = (stream.rest + text).rpartition("\n")
            if newline:
                self._write_above(stream, whole, redraw=had_rest or bool(stream.rest))
            elif time.monotonic() - self._moved >= 1 / _MOVES:
                self._paint()
        return len(text)

    def _write_above(self, stream: _Stream, text: str, *, redraw: bool) -> None:
        """Write whole lines above the region; `redraw` where the first line of the region changes too."""
        size = self.size
        rows = _rows(text, size[0]) if self._drawn and size == self._drawn_size else 0
        if rows and rows + self._drawn <= size[1]:
            room = f"{_down(self._drawn - 1)}{rows * chr(10)}{_up(self._drawn - 1 + rows)}\r\x1b[{rows}L"
            written = f"{room}{text}\n{self._painting(size) if redraw else ''}"
        else:
            written = f"{_CLEAR if self._drawn else ''}{text}\n{self._painting(size)}"
        stream.plain(written)
        stream.flush()

    def _paint(self) -> None:
        painting = self._painting(self.size)
        if painting:
            self._error.plain(painting)
            self._error.flush()

    def _painting(self, size: tuple[int, int]) -> str:
        """Return what draws the region at the cursor, over an earlier drawing."""
        width, height = size
        rests = [stream.rest.rpartition("\r")[2][: width - 1] for stream in self._streams if stream.rest]
        shown = [line for region in self._regions for line in region.lines]
        self._moved = time.monotonic()
        if not (self._drawn or shown or rests):
            return ""
        lines = [*(rests or [""]), *shown][: max(1, height - 1)]
        self._drawn, self._drawn_size = len(lines), size
        drawn = "\n".join(f"{line}{_CLEAR_LINE}" for line in lines)
        return f"\r{_NO_WRAP}{drawn}{_CLEAR_BELOW}{_WRAP}{_up(len(lines) - 1)}\r"

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
        self._drawn = 0

    def _release_streams(self) -> None:
        try:
            if self._drawn:
                self._error.plain(_CLEAR)
                self._error.flush()
            for stream in self._streams:
                rest, stream.rest = stream.rest, ""
                stream.plain(rest)
                stream.flush()
        finally:  # only now: a writer that bypasses the lock must find no region
            for stream in self._streams:
                stream.restore_write()
            self._drawn = 0


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


def _rows(text: str, width: int) -> int:
    """Return how many rows of the terminal lines of text fill; 0 where this is not known."""
    rows = 0
    for line in text.split("\n"):
        if not line.isprintable() or (len(line) >= width // 2 and not line.isascii()):
            return 0  # escape sequences and tabs; or letters that may be two cells wide
        rows += max(1, -(-len(line) // width))
    return rows


def _up(lines: int) -> str:
    return f"\x1b[{lines}A" if lines else ""


def _down(lines: int) -> str:
    return f"\x1b[{lines}B" if lines else ""


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
