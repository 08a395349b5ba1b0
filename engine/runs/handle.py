"""Run: the handle of a run under way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ...runtime import Call
    from ..datasets.result import Result
    from ..telemetry.progress import ProgressSnapshot


class Run:
    """A run under way. `result()` waits for it in a thread, `await run` in any event loop."""

    def __init__(self, call: Call[Result], snapshot: Callable[[], ProgressSnapshot], halt: Callable[[], None]) -> None:
        """Take the call that the runtime works on."""
        self._call = call
        self._snapshot = snapshot
        self._halt = halt

    @property
    def progress(self) -> ProgressSnapshot:
        """The run at this moment; may be asked for from any thread."""
        return self._snapshot()

    def cancel(self) -> None:
        """Cancel what is in flight and keep what is whole; the result's status is then "cancelled"."""
        self._halt()

    def done(self) -> bool:
        """Tell whether the run is over."""
        return self._call.done()

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the result; raises what the run raised, and TimeoutError after `timeout` seconds."""
        return self._call.result(timeout)

    def __await__(self) -> Generator[Any, None, Result]:
        """Wait for the result in an event loop; cancelling the wait cancels the run."""
        return self._call.__await__()
