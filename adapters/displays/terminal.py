"""The live progress display of a terminal, below the lines that are logged or printed during the run."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .screen import screen
from .ticker import Ticker
from .wording import Speed, compact, failed_cells, finished, headline, totals

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
def terminal(snapshot: Callable[[], ProgressSnapshot]) -> Iterator[None]:
    """Show the progress on the terminal behind sys.stderr, below the lines that are logged or printed meanwhile.

    The display appears after 0.3 seconds, not at all for a run without cells, and disappears when the block ends.
    """
    speed, style = Speed(), Style.of_stderr()
    with screen.region() as region:

        def draw() -> None:
            now = snapshot()
            speed.add(now)
            if now.elapsed >= _PATIENCE and now.cells:
                columns, lines = screen.size
                region.show(layout(now, speed, columns, lines, style))

        with Ticker(draw, _PAUSE):
            yield


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

    def name(self, name: str, width: int) -> str:
        """Cut or pad a name to `width` cells, and replace control characters, which would break the line."""
        from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 - loaded by the first drawing

        shown = "".join(letter if letter.isprintable() else "?" for letter in name)
        if cell_len(shown) > width:
            shown = set_cell_size(shown, width - 1).rstrip() + self.more
        return set_cell_size(shown, width)

    def bar(self, done: int, total: int, width: int) -> list[Segment]:
        """Draw a bar with a resolution of half a cell."""
        halves = min(2 * width, 2 * width * done // total) if total > 0 else 0
        filled = self.full * (halves // 2) + self.half * (halves % 2)
        return [(filled, _GREEN), (self.empty * (width - len(filled)), _DIM)]


def layout(snapshot: ProgressSnapshot, speed: Speed, width: int, height: int, style: Style) -> list[str]:
    """Return the lines of the display, each narrower than `width` cells: the progress, the columns, the totals."""
    shown = _shown(snapshot.columns, min(_MOST_COLUMNS, height - 6))
    bar = max(8, min(40, width // 4))
    name = max([len("rowloop"), *(min(_NAME, width // 4, len(column.name)) for column in shown)])
    share = 100 * snapshot.cells_over // max(1, snapshot.cells)
    dot = f" {style.dot} "
    lines: list[list[Segment]] = [
        [
            (style.name("rowloop", name) + " ", _BOLD),
            *style.bar(snapshot.cells_over, snapshot.cells, bar),
            (f" {share:3}%  " + dot.join(headline(snapshot, speed)), _PLAIN),
        ]
    ]
    for column in shown:
        count = f"{compact(finished(column)):>6}/{compact(column.total)}"
        lines.append(
            [
                (style.name(column.name, name) + " ", _PLAIN),
                *style.bar(finished(column), column.total, bar),
                (count, _PLAIN),
            ]
        )
        if column.running:
            lines[-1].append((f"  {compact(column.running)} running", _DIM))
        if column.failed:
            lines[-1].append((f"  {compact(column.failed)} failed", _RED))
    if hidden := len(snapshot.columns) - len(shown):
        complete = sum(finished(column) >= column.total for column in snapshot.columns)
        lines.append([(f"and {hidden} more columns; {complete} of {len(snapshot.columns)} are finished", _DIM)])
    words = totals(snapshot)
    lines.append([(dot.join(words), _RED if failed_cells(snapshot) else _DIM)])
    return [style.line(segments, width - 1) for segments in lines][: max(1, height - 3)]


def _shown(columns: tuple[ColumnProgress, ...], most: int) -> list[ColumnProgress]:
    """Choose the columns that fit, in their order; unfinished columns have priority over finished ones."""
    if len(columns) <= most:
        return list(columns)
    most = max(0, most - 1)  # one line is for the number of hidden columns
    ranked = sorted(range(len(columns)), key=lambda i: (finished(columns[i]) >= columns[i].total, i))
    return [columns[i] for i in sorted(ranked[:most])]
