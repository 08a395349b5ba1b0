"""Log: records of the logger `rowloop` have no control characters, which a terminal would obey."""

from __future__ import annotations

import logging
from typing import TypeVar

from ..core.errors import printable

T = TypeVar("T")


def escape_records() -> None:
    """Escape control characters in the arguments of all records: texts of servers, names, paths."""
    logging.getLogger("rowloop").addFilter(_escape)


def _escape(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(_escaped(argument) for argument in record.args)
    return True


def _escaped(argument: T) -> T | str:
    """Return an argument as it is, for handlers that look at it, unless its text has control characters."""
    text = str(argument)
    shown = printable(text)
    return argument if shown == text else shown
