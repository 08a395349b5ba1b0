"""Slices: how long the workers of a run may occupy the loop before they let others run."""

from __future__ import annotations

import asyncio
import time
import types
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

T = TypeVar("T")

_SECONDS: Final = 0.005


class Slices:
    """The time slices of one run: all workers share one, and the next begins with the loop's next turn."""

    def __init__(self) -> None:
        """Begin with a slice that is over."""
        self.until = 0.0
        """The end of the current slice, by time.monotonic()."""
        self.cancelling = False
        """Whether the run is being cancelled: a worker that yields must then still report its task as cancelled."""
        self.waited = False
        """Whether the work that was awaited last has let the loop run others, so that its worker need not yield."""
        self._yielding = False

    @types.coroutine
    def watch(self, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Await the work of a task, and note in `waited` whether it has really waited.

        The first step is made by hand, because only that shows whether there is a second one.
        """
        error: BaseException | None = None
        while True:
            try:
                waits_for = work.send(None) if error is None else work.throw(error)
            except StopIteration as ended:
                self.waited = error is not None
                result: T = ended.value
                return result
            try:
                yield waits_for
                break
            except BaseException as raised:  # noqa: BLE001 - the work gets it
                error = raised
        result = yield from work
        self.waited = True
        return result

    async def yield_loop(self) -> None:
        """Let others run; to be called by a worker when the slice is over."""
        if not self._yielding:
            self._yielding = True
            asyncio.get_running_loop().call_soon(self._begin)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if not self.cancelling:
                raise

    def _begin(self) -> None:
        self._yielding = False
        self.until = time.monotonic() + _SECONDS
