"""Showing: a run's display while it is worked; what a display raises ends the run, and it hides no other end."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

from ..core.errors import DatasetGenerationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..telemetry.progress import Display, ProgressSnapshot


@contextlib.contextmanager
def showing(display: Display | None, snapshot: Callable[[], ProgressSnapshot]) -> Iterator[None]:
    """Show a run while the block is open; None shows nothing.

    An error of the run is raised as it is, also where the display suppresses errors or has one of its own.
    """
    if display is None:
        yield
        return
    with _an_error_of_ours():
        shown = display(snapshot)
        shown.__enter__()
    try:
        yield
    except BaseException as error:
        try:
            shown.__exit__(*sys.exc_info())
        except BaseException as second:  # noqa: BLE001 - the first error is raised, with a note on the second
            if second is not error:
                error.add_note(f"the progress display failed too: {type(second).__name__}: {second}")
        raise
    with _an_error_of_ours():
        shown.__exit__(None, None, None)


@contextlib.contextmanager
def _an_error_of_ours() -> Iterator[None]:
    """Keep a cancellation that a display raises from being taken for one of the run."""
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit, StopIteration) as error:
        problem = f"{type(error).__name__}: {error}"
        raise DatasetGenerationError(problem, stage="progress display") from error
