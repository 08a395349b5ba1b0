"""auto: chooses the display that fits the environment; plain: progress as lines on stderr."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from .notebook import in_kernel, notebook
from .terminal import Style, terminal
from .ticker import Ticker
from .wording import Speed, headline, totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from ...engine.telemetry.progress import ProgressSnapshot

_INTERVAL = 10.0  # seconds between two plain lines


def auto(snapshot: Callable[[], ProgressSnapshot], *, final_line: bool = True) -> AbstractContextManager[object]:
    """Choose a display: notebook() in a kernel, terminal() on a terminal, plain() elsewhere.

    `final_line=False` is for callers that report the end of the run themselves.
    """
    if in_kernel():
        return notebook(snapshot)
    error = sys.stderr
    if error is None or getattr(error, "closed", False):  # pythonw, or a daemon that closed it
        return nullcontext()
    if error.isatty() and os.environ.get("TERM") != "dumb":
        return terminal(snapshot, final_line=final_line)
    return plain(snapshot)


@contextmanager
def plain(snapshot: Callable[[], ProgressSnapshot], interval: float = _INTERVAL) -> Iterator[None]:
    """Write a line to sys.stderr every `interval` seconds; a shorter run writes none."""
    speed = Speed()
    speed.add(snapshot())

    def write() -> None:
        now = snapshot()
        speed.add(now)
        words = Style.printable(", ".join([*headline(now, speed), *totals(now, speed)]))
        print(f"{Style.printable(now.name)}: {words}", file=sys.stderr, flush=True)  # noqa: T201

    with Ticker(write, interval):
        yield
