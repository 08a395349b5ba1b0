"""A background event loop for synchronous code; standard library only.

| file          | what it contains                                                       |
|---------------|------------------------------------------------------------------------|
| runtime.py    | Runtime: run, submit, iterate, context, enter, close                   |
| shared.py     | the default runtime of the process, and the functions that use it      |
| loop.py       | one daemon thread that runs one event loop                             |
| call.py       | the handle of one submitted coroutine                                  |
| waiting.py    | how a thread waits for a call                                          |
| awaiting.py   | how a task of any event loop awaits a call                             |
| hosts.py      | the shared clients of other event loops                                |
| streams.py    | async generators and context managers for synchronous code             |
| generators.py | closes async generators that were dropped or left behind               |
| resources.py  | clients that live as long as the loop and are shared by all calls      |
| guards.py     | refuses calls that would deadlock, warns about calls that block a loop |
| watchdog.py   | reports a blocked loop and the line that blocks it                     |
| workers.py    | the loop's default executor                                            |
| threads.py    | short synchronous functions in threads, many per wake-up of the loop   |
| one_thread.py | a thread that does one piece of work after the other                   |
| draining.py   | ends everything on a loop, in order and in bounded time                |
| lifecycle.py  | what all runtimes do when the process forks or ends                    |
| logs.py       | loggers whose handlers cannot break the work that is logged            |
| errors.py     | errors and warnings                                                    |
| testing.py    | a pytest fixture: a fresh runtime per test                             |
"""

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
