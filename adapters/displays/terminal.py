"""The live progress display of a terminal, below the lines that are logged or printed during the run."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ...engine.core.errors import one_line
from .screen import screen
from .ticker import Ticker
from .wording import Speed, compact, failed_cells, final, finished, headline, totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...engine.telemetry.progress import ColumnProgress, ProgressSnapshot

_PAUSE = 1 / 8  # seconds between two drawings, at least
_PATIENCE = 0.3  # seconds before the first drawing, so that short runs show nothing
_MOST_COLUMNS = 10
_NAME = 24
_GREEN, _RED, _DIM, _BOLD, _PLAIN = "32", "31", "2", "1", ""

Segment = tuple[str, str]
"""A piece of a line and its style, as the number of a terminal escape sequence (SGR)."""


@contextmanager
def terminal(snapshot: Callable[[], ProgressSnapshot], *, final_line: bool = True) -> Iterator[None]:
    """Show the progress on the terminal behind sys.stderr, below the lines that are logged or printed meanwhile.

    The display appears after 0.3 seconds, and not at all for a run without cells. When the block ends, one line with
    the counts of the run takes its place, unless `final_line` is False.
    """
    speed, style, drawn = Speed(), Style.of_stderr(), False
    try:
        with screen.region() as region:

            def draw() -> None:
                nonlocal drawn
                now = snapshot()
                speed.add(now)
                if now.elapsed >= _PATIENCE and now.cells:
                    columns, lines = screen.size
                    region.show(layout(now, speed, columns, lines, style))
                    drawn = True

            with Ticker(draw, _PAUSE):
                yield
    finally:
        if drawn and final_line:
            with suppress(OSError, ValueError):  # the terminal is gone or its stream is closed
                sys.stderr.write(style.printable(last_line(snapshot())) + "\n")
                sys.stderr.flush()


def last_line(snapshot: ProgressSnapshot) -> str:
    """Return the line that stays when the display ends."""
    return f"{snapshot.name}: {', '.join(final(snapshot))}"


class Style:
    """What a terminal can show: colours or none, line drawing or ASCII."""

    def __init__(self, *, colour: bool = False, drawing: bool = True) -> None:
        """Choose the characters."""
        self._colour = colour
        self.full, self.half, self.empty, self.dot, self.more = "━╸─·…" if drawing else "#>-,~"

    @classmethod
    def of_stderr(cls) -> Style:
        """Choose by the encoding of sys.stderr and the environment variable NO_COLOR."""
        try:
            "━╸─·…".encode(getattr(sys.stderr, "encoding", None) or "ascii")
        except UnicodeEncodeError:
            return cls(colour=not os.environ.get("NO_COLOR"), drawing=False)
        return cls(colour=not os.environ.get("NO_COLOR"))

    def line(self, segments: list[Segment], width: int) -> str:
        """Join the pieces and cut them to `width` cells."""
        from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 - loaded by the first drawing

        written = []
        for text, code in segments:
            fits = text if cell_len(text) <= width else set_cell_size(text, width)
            width -= cell_len(fits)
            written.append(f"\x1b[{code}m{fits}\x1b[0m" if self._colour and code else fits)
        return "".join(written)

    @staticmethod
    def printable(text: str) -> str:
        """Escape control characters, and replace what else is not printable and would break the line."""
        return "".join(letter if letter.isprintable() else "?" for letter in one_line(text))

    def name(self, name: str, width: int) -> str:
        """Cut or pad a name to `width` cells."""
        from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 - loaded by the first drawing

        shown = self.printable(name)
        if cell_len(shown) > width:
            shown = set_cell_size(shown, width - 1).rstrip() + self.more
        return set_cell_size(shown, width)

    def path(self, path: str, width: int) -> str:
        """Cut or pad a path to `width` cells; its end is kept, which tells it from others."""
        from rich.cells import cell_len  # noqa: PLC0415 - loaded by the first drawing

        shown = self.printable(path)
        if cell_len(shown) <= width:
            return self.name(shown, width)
        while shown and cell_len(shown) > width - 1:
            shown = shown[max(1, (cell_len(shown) - width) // 2) :]
        return self.name(self.more + shown, width)

    def bar(self, share: float, width: int) -> list[Segment]:
        """Draw a bar with a resolution of half a cell."""
        halves = int(2 * width * share)
        filled = self.full * (halves // 2) + self.half * (halves % 2)
        return [(filled, _GREEN), (self.empty * (width - len(filled)), _DIM)]


def layout(snapshot: ProgressSnapshot, speed: Speed, width: int, height: int, style: Style) -> list[str]:
    """Return the lines of the display, each narrower than `width` cells: the progress, the columns, the totals."""
    shown = _shown(snapshot.columns, min(_MOST_COLUMNS, height - 6))
    bar = max(8, min(40, width // 4))
    longest = max([len(snapshot.name), *(len(column.name) for column in shown)])
    name = max(min(_NAME, width // 4, longest), min(len("rowloop"), width - 1))
    lines = [_headline(snapshot, headline(snapshot, speed), (name, bar, width - 1), style)]
    lines += [_column(column, (name, bar), style) for column in shown]
    if hidden := len(snapshot.columns) - len(shown):
        complete = sum(finished(column) for column in snapshot.columns)
        lines.append([(f"and {hidden} more columns; {complete} of {len(snapshot.columns)} are finished", _DIM)])
    words = f" {style.dot} ".join(totals(snapshot, speed))
    lines.append([(style.printable(words), _RED if failed_cells(snapshot) else _DIM)])
    return [style.line(segments, width - 1) for segments in lines][: max(1, height - 3)]


def _headline(
    snapshot: ProgressSnapshot, words: list[str], widths: tuple[int, int, int], style: Style
) -> list[Segment]:
    """Lay out the first line for its widths of names, bars and the line: the last words, the time left, must fit.

    Where they do not, the speed gives way first, then the bar, then the rows.
    """
    name, bar, width = widths
    rows, _, left = words
    room = width - name - len(" 100%  ") - 1
    dot = f" {style.dot} "
    choices = [(bar, words), (bar, [rows, left]), (0, [rows, left]), (bar, [left])]
    bar, words = next((c for c in choices if c[0] + len(dot.join(c[1])) <= room), (0, [left]))
    return [
        (style.path(snapshot.name, name) + " ", _BOLD),
        *style.bar(snapshot.share, bar),
        (f" {int(100 * snapshot.share):3}%  " + dot.join(words), _PLAIN),
    ]


def _column(column: ColumnProgress, widths: tuple[int, int], style: Style) -> list[Segment]:
    name, bar = widths
    share = min(1.0, column.worked / column.total) if column.total > 0 else 0.0
    segments = [
        (style.name(column.name, name) + " ", _PLAIN),
        *style.bar(share, bar),
        (f"{compact(column.worked):>6}/{compact(column.total)}", _PLAIN),
    ]
    counts = [(column.running, "running", _DIM), (column.skipped, "skipped", _DIM), (column.failed, "failed", _RED)]
    return segments + [(f"  {compact(count)} {word}", style) for count, word, style in counts if count]


def _shown(columns: tuple[ColumnProgress, ...], most: int) -> list[ColumnProgress]:
    """Choose the columns that fit, in their order; unfinished columns have priority over finished ones."""
    if len(columns) <= most:
        return list(columns)
    most = max(0, most - 1)  # one line is for the number of hidden columns
    ranked = sorted(range(len(columns)), key=lambda i: (finished(columns[i]), i))
    return [columns[i] for i in sorted(ranked[:most])]
