"""Executor: what a scheduler asks of whoever works its tasks. One task in, one event out."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..core.events import Done, Execute, Failed, Resized


class Placement(enum.Enum):
    """Where the tasks of a column are worked."""

    ON_THE_SPOT = enum.auto()
    IN_TASK = enum.auto()
    HEDGED = enum.auto()
    """In a task, and in a second one if the first takes long: the first answer is taken."""
    IN_THREAD = enum.auto()


class Executor(Protocol):
    """Works tasks and stores their results. LocalExecutor does it in this process."""

    @property
    def places(self) -> Sequence[Placement]:
        """Where the tasks of each column are worked, in the order of the graph's columns."""
        ...

    def work_now(self, run: Execute, /) -> Done | Failed:
        """Work a task on the spot."""
        ...

    async def work(self, run: Execute, /) -> Done | Resized | Failed:
        """Work a task that is awaited. Raises CancelledError only if the caller was cancelled."""
        ...

    def work_in_thread(self, run: Execute, ended: Callable[[Execute, Any, BaseException | None], None], /) -> None:
        """Work a task in a thread; call `ended` with its value or its error, in the loop's thread."""
        ...

    def outcome(self, run: Execute, value: Any, error: BaseException | None, /) -> Done | Failed:
        """Store the result of a thread. Raises an error that is not the cell's, such as SystemExit."""
        ...
