"""Displays: which one suits where a run shows itself, and the plainest of them."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from .notebook import in_kernel, notebook
from .terminal import terminal
from .ticker import Ticker
from .wording import Speed, headline, totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from ...engine.telemetry.progress import ProgressSnapshot

_INTERVAL = 10.0  # seconds from one plain line to the next


def auto(snapshot: Callable[[], ProgressSnapshot]) -> AbstractContextManager[object]:
    """Choose the display that suits where this runs: a notebook, a terminal, or neither."""
    if in_kernel():
        return notebook(snapshot)
    error = sys.stderr
    if error is None:  # pythonw, or a daemon that has closed it
        return nullcontext()
    if error.isatty() and os.environ.get("TERM") != "dumb":
        return terminal(snapshot)
    return plain(snapshot)


@contextmanager
def plain(snapshot: Callable[[], ProgressSnapshot], interval: float = _INTERVAL) -> Iterator[None]:
    """Write a line to sys.stderr every `interval` seconds; a run that takes less gets none."""
    pace = Speed()
    pace.see(snapshot())

    def write() -> None:
        now = snapshot()
        pace.see(now)
        print("rowloop: " + ", ".join([*headline(now, pace), *totals(now)]), file=sys.stderr, flush=True)  # noqa: T201

    with Ticker(write, interval):
        yield
