"""Errors and warnings of the runtime.

    RuntimeError
      RuntimeClosedError      the runtime is closed or closing, or its loop thread died
      DeadlockError           the call would wait for itself
      CallCancelledError      an awaited call was cancelled, but the task that awaits it was not
    RuntimeWarning
      BlockingCallWarning     a blocking call stops the event loop of the calling thread

A synchronous caller gets `asyncio.CancelledError` when the coroutine was cancelled, and the builtin `TimeoutError` when
a time limit ran out.
"""

from __future__ import annotations

import asyncio
import reprlib
from typing import Final

CALLBACK_ERRORS: Final = (Exception, asyncio.CancelledError, GeneratorExit)
"""What a callback of the user's may raise to say that it failed.

A CancelledError or GeneratorExit of a callback is not about the task that calls it, and would be mistaken for that.
SystemExit and KeyboardInterrupt are about the process: they are passed on as they are.
"""


_SHORT: Final = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 6, 200, 200, 200


def shown(value: object) -> str:
    """Return the repr of a value; of a long one the ends, of a list or a mapping the first parts."""
    try:
        return _SHORT.repr(value)
    except Exception:  # noqa: BLE001 - a repr of the user's own, or an integer with more digits than Python writes
        return f"{type(value).__name__} that cannot be shown"


class RuntimeClosedError(RuntimeError):
    """The runtime cannot run the call: it is closed or draining, or its loop thread died (see `__cause__`)."""


class DeadlockError(RuntimeError):
    """The runtime refused a call whose caller would wait for itself."""


class CallCancelledError(RuntimeError):
    """An awaited call was cancelled, but not by the task that awaits it.

    This is an ordinary exception on purpose. On a bare CancelledError a TaskGroup would conclude that its own task was
    cancelled, and would succeed with work missing.
    """


class BlockingCallWarning(RuntimeWarning):
    """A blocking call stops the event loop of the calling thread. A strict runtime raises this as an error."""
