"""The progress display of a notebook: one output area that is replaced during the run."""

from __future__ import annotations

import html
import importlib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...engine.core.errors import one_line
from .ticker import Ticker
from .wording import Speed, compact, headline, totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...engine.telemetry.progress import ColumnProgress, ProgressSnapshot

_PAUSE = 1 / 2  # seconds between two drawings: each is a message to the browser
_MOST_COLUMNS = 20


def in_kernel() -> bool:
    """Return whether this process is the kernel of a notebook; IPython in a terminal is not."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ in {"ZMQInteractiveShell", "Shell"}  # Jupyter's, and Colab's


@contextmanager
def notebook(snapshot: Callable[[], ProgressSnapshot]) -> Iterator[None]:
    """Show the progress below the notebook cell that started the run; the last state stays."""
    shell: Any = importlib.import_module("IPython.display")
    speed = Speed()
    start = snapshot()
    speed.add(start)
    handle = shell.display(shell.HTML(page(start, speed)), display_id=True)

    def draw() -> None:
        now = snapshot()
        speed.add(now)
        handle.update(shell.HTML(page(now, speed)))

    try:
        with Ticker(draw, _PAUSE):
            yield
    finally:
        draw()


def page(snapshot: ProgressSnapshot, speed: Speed) -> str:
    """Return the progress as HTML without scripts and style sheets."""
    rows = "".join(_row(column) for column in snapshot.columns[:_MOST_COLUMNS])
    hidden = len(snapshot.columns) - _MOST_COLUMNS
    more = f"<tr><td>and {hidden} more columns</td></tr>" if hidden > 0 else ""
    words = " · ".join(headline(snapshot, speed))
    used = " · ".join(totals(snapshot, speed))
    return (
        f"<div><b>{_text(snapshot.name)}</b> {_bar(snapshot.share)} {_text(words)}"
        f"<table>{rows}{more}</table>"
        f"<small>{_text(used)}</small></div>"
    )


def _row(column: ColumnProgress) -> str:
    failures = f"{compact(column.failed)} failed" if column.failed else ""
    cells = (
        _text(column.name),
        _bar(column.worked / column.total if column.total > 0 else 0.0),
        f"{compact(column.worked)}/{compact(column.total)}",
        f"{compact(column.running)} running" if column.running else "",
        f"{compact(column.skipped)} skipped" if column.skipped else "",
        f"<span style='color: crimson'>{failures}</span>" if failures else "",
    )
    return "<tr>" + "".join(f"<td style='text-align: left'>{cell}</td>" for cell in cells) + "</tr>"


def _text(text: str) -> str:
    """Write names of other people, which may have tags and control characters, as text."""
    return html.escape(one_line(text))


def _bar(share: float) -> str:
    return f"<progress value='{share:.4f}' max='1'></progress>"
