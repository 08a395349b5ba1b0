"""Showing: a run's display while it is worked; what a display raises is logged and costs no result."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from ...runtime.logs import safe_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..telemetry.progress import Display, ProgressSnapshot

logger = safe_logger()


@contextlib.contextmanager
def showing(display: Display | None, snapshot: Callable[[], ProgressSnapshot]) -> Iterator[None]:
    """Show a run while the block is open, unless `display` is None or fails.

    How the run ends is not the display's to change: it cannot replace or suppress an error either.
    """
    with contextlib.ExitStack() as stack:
        if display is not None:
            with _logged():
                shown = display(snapshot)
                shown.__enter__()
                stack.callback(lambda: _close(shown))
        yield


def _close(shown: contextlib.AbstractContextManager[object]) -> None:
    with _logged():
        shown.__exit__(*sys.exc_info())


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """Log what a display raises, unless it is about the process."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is not about the run
        logger.warning("the progress display failed: %s: %s", type(error).__name__, error)
