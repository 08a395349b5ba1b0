"""Run: the handle of a run that was started in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ...runtime import Call
    from ..datasets.result import Result
    from ..telemetry.progress import ProgressSnapshot


class Run:
    """A run in the background. `result()` waits for it in a thread, `await run` in any event loop."""

    def __init__(self, call: Call[Result], snapshot: Callable[[], ProgressSnapshot], halt: Callable[[], None]) -> None:
        """Take the runtime's call, and functions that take a snapshot of the run and end it."""
        self._call = call
        self._snapshot = snapshot
        self._halt = halt

    @property
    def progress(self) -> ProgressSnapshot:
        """A snapshot of the run; may be read from any thread."""
        return self._snapshot()

    def cancel(self) -> None:
        """Cancel what is in flight and keep complete rows; the result's status is then "cancelled"."""
        self._halt()

    def done(self) -> bool:
        """Return whether the run has ended."""
        return self._call.done()

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the result; raises what the run raised, and TimeoutError after `timeout` seconds."""
        return self._call.result(timeout)

    def __await__(self) -> Generator[Any, None, Result]:
        """Wait for the result in any event loop. The run is not the waiter's: a cancelled wait leaves it running."""
        return self._call.joined().__await__()
