"""Run: the handle of a run that was started in the background. It belongs to nobody who waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ...runtime.guards import refuse_other_hosts, written
from ...runtime.logs import safe_logger
from ..datasets.result import PartialDatasetError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator
    from pathlib import Path

    from ...runtime import Call
    from ..datasets.result import Result
    from ..telemetry.progress import ProgressSnapshot
    from .execution import Execution
    from .steering import Cap, Tokens

logger = safe_logger()

RunStatus: TypeAlias = Literal["running", "paused", "complete", "partial", "cancelled", "failed"]


class Run:
    """A run in the background. `result()` waits for it in a thread, `await run` in any event loop.

    Every method may be called from any thread, also when the run has ended. Only `cancel()` and the end of the process
    end it early.
    """

    def __init__(self, call: Call[Result], execution: Execution) -> None:
        """Take the runtime's call, and what it executes."""
        self._call = call
        self._execution = execution
        self._reported = False

    def __repr__(self) -> str:
        """Name the run and its status."""
        return f"<Run {self.id} of '{self.path}': {self.status}>"

    @property
    def id(self) -> str:
        """A name for the run that no other has."""
        return self._execution.id

    @property
    def path(self) -> Path | None:
        """The directory of the dataset."""
        return self._execution.path

    @property
    def status(self) -> RunStatus:
        """Whether the run is running or paused; when it has ended, how: as its result or its error says."""
        if not self.done():
            return "paused" if self.progress.state == "paused" else "running"
        error = self._call.exception()
        if error is None:
            return self._call.result().status
        if isinstance(error, PartialDatasetError):
            return error.result.status
        return "cancelled" if isinstance(error, asyncio.CancelledError) else "failed"

    @property
    def progress(self) -> ProgressSnapshot:
        """A snapshot of the run."""
        return self._execution.snapshot()

    # Waiting

    def done(self) -> bool:
        """Return whether the run has ended."""
        return self._call.done()

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the result; raises what the run raised, and TimeoutError after `timeout` seconds."""
        with self._waiting("run.result()"):
            return self._call.result(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, whatever it is; return False after `timeout` seconds without it."""
        with self._waiting("run.wait()"), contextlib.suppress(TimeoutError):
            self._call.exception(timeout)
        return self.done()

    def __await__(self) -> Generator[Any, None, Result]:
        """Wait for the result in any event loop; cancelling the wait leaves the run working."""
        return self._call.joined().__await__()

    async def changes(self, every: float = 0.5) -> AsyncIterator[ProgressSnapshot]:
        """Yield a snapshot at once, whenever one differs after `every` seconds, and at the end of the run."""
        refuse_other_hosts("run.changes()", "run.wait(seconds)")
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def end() -> None:
            if not ended.done():
                ended.set_result(None)

        def notify() -> None:
            with contextlib.suppress(RuntimeError):  # that loop is closed: nobody reads any more
                loop.call_soon_threadsafe(end)

        self._call.when_done(notify)
        try:
            last: ProgressSnapshot | None = None
            while True:
                over, now = self.done(), self.progress
                if last is None or replace(now, elapsed=last.elapsed) != last:
                    last = now
                    yield now
                if over:
                    return
                await asyncio.wait([ended], timeout=every)
        finally:
            self._call.forget(notify)

    def add_done_callback(self, callback: Callable[[Run], object]) -> None:
        """Call a function with this run once it has ended, or now if it has, in a thread of its own.

        It may block, and sees the caller's context variables. What it raises is logged.
        """
        context = contextvars.copy_context()

        def call() -> None:
            try:
                context.run(callback, self)
            except BaseException:
                logger.exception("a callback of the run of '%s' failed", self.path)

        self._call.when_done(lambda: threading.Thread(target=call, name="rowloop-callback").start())

    # Steering

    def cancel(self) -> None:
        """Cancel what is in flight and keep complete rows; the result's status is then "cancelled"."""
        self._execution.halt()

    def pause(self) -> None:
        """Start nothing new. Requests in flight end and are paid for, finished row groups are written."""
        self._execution.steering.pause()

    def resume(self) -> None:
        """End a pause."""
        self._execution.steering.resume()

    def set_limit(self, model: str, limit: int) -> None:
        """Change how many requests to a model may be in flight, as `max_parallel`, by the model's name in the recipe.

        A limit that follows the endpoint (`max_parallel=None`) still does so, below the new one. Models of one name at
        one endpoint share their limit. Raises RecipeError for an unknown model or a limit below 1.
        """
        self._execution.steering.set_limit(model, limit)

    def set_budget(self, max_cost: Cap = ..., max_tokens_total: Tokens = ...) -> None:
        """Change the caps on US dollars and tokens, over all runs of the dataset; None for no cap.

        A spent budget that is raised while requests are in flight, or while the run is paused, costs no row. Raises
        RecipeError where a price is missing.
        """
        self._execution.steering.set_budget(max_cost, max_tokens_total)

    @contextlib.contextmanager
    def _waiting(self, form: str) -> Iterator[None]:
        """Say once that the run goes on when an interrupt ends the wait, with the calls of the block's `form`."""
        try:
            with written(form, "await run"):
                yield
        except KeyboardInterrupt:
            if not (self._reported or self.done()):
                self._reported = True
                message = (
                    "the run of '%s' continues in the background, and spends: run.cancel() ends it, run.result() waits"
                    " for it again; it ends with the process"
                )
                logger.warning(message, self.path)
            raise
