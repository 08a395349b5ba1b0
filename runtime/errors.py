"""What the runtime raises and warns about.

    RuntimeError
      RuntimeClosedError      the runtime was closed, is going away, or its loop thread died
      DeadlockError           the call would have waited for itself
      CallCancelledError      an awaited call was cancelled although the awaiting task was not
    RuntimeWarning
      BlockingCallWarning     a blocking call on a thread whose own event loop stands still meanwhile

A cancelled coroutine reaches a synchronous caller as `asyncio.CancelledError`, and a time-out as the builtin
`TimeoutError`.
"""

from __future__ import annotations


class RuntimeClosedError(RuntimeError):
    """The runtime cannot carry out the call: it was closed, is draining, or its loop thread died (see `__cause__`)."""


class DeadlockError(RuntimeError):
    """The call was refused because its caller would have waited for itself."""


class CallCancelledError(RuntimeError):
    """An awaited call was cancelled, but not by the task that awaits it.

    An ordinary exception on purpose: a bare CancelledError would make a TaskGroup believe that its own task was
    cancelled, and succeed with work missing.
    """


class BlockingCallWarning(RuntimeWarning):
    """A blocking call stops the event loop of the calling thread; raised as an error by a strict runtime."""
