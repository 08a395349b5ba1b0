"""The live progress display of a terminal, below whatever is logged or printed meanwhile."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .screen import screen
from .ticker import Ticker
from .wording import Speed, compact, failed, headline, over, totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...engine.telemetry.progress import ColumnProgress, ProgressSnapshot

_PAUSE = 1 / 8  # seconds from one drawing to the next, at least
_PATIENCE = 0.3  # seconds before a run is worth a display
_MOST_COLUMNS = 10
_NAME = 24
_GREEN, _RED, _DIM, _BOLD, _PLAIN = "32", "31", "2", "1", ""

Segment = tuple[str, str]
"""A piece of a line and its style, as the number that a terminal knows it by."""


@contextmanager
def terminal(snapshot: Callable[[], ProgressSnapshot]) -> Iterator[None]:
    """Show a run on the terminal behind sys.stderr, below what is logged or printed meanwhile.

    Nothing is shown in the first moments, nor for a run that has no cells; nothing is left when the block ends.
    """
    pace, style = Speed(), Style.of_stderr()
    with screen.region() as region:

        def draw() -> None:
            now = snapshot()
            pace.see(now)
            if now.elapsed >= _PATIENCE and now.cells:
                columns, lines = screen.size
                region.show(layout(now, pace, columns, lines, style))

        with Ticker(draw, _PAUSE):
            yield


class Style:
    """What a terminal can show: colours or not, line drawing or ASCII."""

    def __init__(self, *, colour: bool = False, drawing: bool = True) -> None:
        """Choose the characters."""
        self._colour = colour
        self.full, self.half, self.empty, self.dot, self.more = "━╸─·…" if drawing else "#>-,~"

    @classmethod
    def of_stderr(cls) -> Style:
        """Ask sys.stderr's encoding, and the environment for NO_COLOR."""
        try:
            "━╸─·…".encode(getattr(sys.stderr, "encoding", None) or "ascii")
        except UnicodeEncodeError:
            return cls(colour=not os.environ.get("NO_COLOR"), drawing=False)
        return cls(colour=not os.environ.get("NO_COLOR"))

    def line(self, segments: list[Segment], width: int) -> str:
        """Join the pieces, cut to `width` cells."""
        from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 - only where a terminal is drawn on

        written = []
        for text, code in segments:
            fits = text if cell_len(text) <= width else set_cell_size(text, width)
            width -= cell_len(fits)
            written.append(f"\x1b[{code}m{fits}\x1b[0m" if self._colour and code else fits)
        return "".join(written)

    def name(self, name: str, width: int) -> str:
        """Cut or fill a name to `width` cells; control characters would break the line."""
        from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 - only where a terminal is drawn on

        shown = "".join(letter if letter.isprintable() else "?" for letter in name)
        if cell_len(shown) > width:
            shown = set_cell_size(shown, width - 1).rstrip() + self.more
        return set_cell_size(shown, width)

    def bar(self, done: int, total: int, width: int) -> list[Segment]:
        """Draw a bar with a resolution of half a cell."""
        halves = min(2 * width, 2 * width * done // total) if total > 0 else 0
        filled = self.full * (halves // 2) + self.half * (halves % 2)
        return [(filled, _GREEN), (self.empty * (width - len(filled)), _DIM)]


def layout(snapshot: ProgressSnapshot, pace: Speed, width: int, height: int, style: Style) -> list[str]:
    """Lay a run out on lines of less than `width` cells: how far it is, its columns, and what it has asked for."""
    shown = _shown(snapshot.columns, min(_MOST_COLUMNS, height - 6))
    bar = max(8, min(40, width // 4))
    name = max([len("rowloop"), *(min(_NAME, width // 4, len(column.name)) for column in shown)])
    share = 100 * snapshot.cells_over // max(1, snapshot.cells)
    dot = f" {style.dot} "
    lines: list[list[Segment]] = [
        [
            (style.name("rowloop", name) + " ", _BOLD),
            *style.bar(snapshot.cells_over, snapshot.cells, bar),
            (f" {share:3}%  " + dot.join(headline(snapshot, pace)), _PLAIN),
        ]
    ]
    for column in shown:
        count = f"{compact(over(column)):>6}/{compact(column.total)}"
        lines.append(
            [
                (style.name(column.name, name) + " ", _PLAIN),
                *style.bar(over(column), column.total, bar),
                (count, _PLAIN),
            ]
        )
        if column.running:
            lines[-1].append((f"  {compact(column.running)} running", _DIM))
        if column.failed:
            lines[-1].append((f"  {compact(column.failed)} failed", _RED))
    if hidden := len(snapshot.columns) - len(shown):
        finished = sum(over(column) >= column.total for column in snapshot.columns)
        lines.append([(f"and {hidden} more columns; {finished} of {len(snapshot.columns)} are finished", _DIM)])
    words = totals(snapshot)
    lines.append([(dot.join(words), _RED if failed(snapshot) else _DIM)])
    return [style.line(segments, width - 1) for segments in lines][: max(1, height - 3)]


def _shown(columns: tuple[ColumnProgress, ...], most: int) -> list[ColumnProgress]:
    """Choose the columns that there is room for: in their order, those with work left before finished ones."""
    if len(columns) <= most:
        return list(columns)
    most = max(0, most - 1)  # one line says how many more there are
    ranked = sorted(range(len(columns)), key=lambda i: (over(columns[i]) >= columns[i].total, i))
    return [columns[i] for i in sorted(ranked[:most])]
