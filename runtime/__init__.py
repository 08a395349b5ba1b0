"""A background event loop for synchronous code; standard library only."""

from .call import Call
from .errors import BlockingCallWarning, CallCancelledError, DeadlockError, RuntimeClosedError
from .runtime import Runtime
from .shared import client, default, run_sync

__all__ = [
    "BlockingCallWarning",
    "Call",
    "CallCancelledError",
    "DeadlockError",
    "Runtime",
    "RuntimeClosedError",
    "client",
    "default",
    "run_sync",
]
