"""Logs: loggers whose handlers cannot break the work that is logged.

A handler or a filter of the user's may raise, and so does any handler whose stream is closed: logging's own treatment
of errors writes to stderr and fails there too. A record is never worth a run, so the error is shown, if it can be, and
goes no further.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

_USERS_FRAME = 2
"""The stack level, as logging counts it, of the caller of a method of the logger."""


class SafeLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that raises nothing."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a record; print what a handler raises to stderr."""
        kwargs.setdefault("stacklevel", _USERS_FRAME)
        try:
            super().log(level, msg, *args, **kwargs)
        except BaseException:  # noqa: BLE001 - also SystemExit: on the loop's thread it would end the work, not the process
            _show()


def safe_logger(name: str = "rowloop") -> SafeLogger:
    """Return the safe logger of this name."""
    return SafeLogger(logging.getLogger(name), {})


def _show() -> None:
    """Print the current exception, as logging does, unless logging.raiseExceptions is off."""
    if logging.raiseExceptions and sys.stderr is not None:
        try:
            traceback.print_exc()
        except (OSError, ValueError):
            return  # stderr is closed: nothing can be shown
