"""Observer: who takes notice of what happens in a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ..core.events import (
        Command,
        Event,
        Record,
    )
    from ..core.store import RowGroup


class Observer(Protocol):
    """Someone who folds over the events and the failures of a run."""

    def saw(self, event: Event) -> None:
        """Take notice of what happened. Raising ends the run."""
        ...

    def recorded(self, record: Record, group: RowGroup) -> None:
        """Take notice of a task that failed for good; `group` has the row's values."""
        ...


@runtime_checkable
class CommandObserver(Observer, Protocol):
    """An observer that also wants to know what is to be done. A run without one pays nothing for it."""

    def told(self, command: Command) -> None:
        """Take notice of a command that is about to be carried out. Raising ends the run."""
        ...
