"""Observer: the protocol of an object that sees what happens in a run.

An observer has a method `on_event`, which is called with every event. Three more methods are optional, each a protocol
below: `on_start`, `on_failure` and `on_command`. A method that an observer does not have costs the run nothing.

All are called on the event loop of the run, before the event or command takes effect, so they must be quick and must
not block. What they raise ends the run. Users pass observers to a run with `observers=[...]` (see outside.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..core.events import Command, Event, Record
    from ..core.graph import Graph
    from ..core.row_groups import Plan
    from ..core.store import RowGroup


METHODS: Final = ("on_event", "on_start", "on_failure", "on_command")


class Observer(Protocol):
    """An object that sees every event of a run."""

    def on_event(self, event: Event) -> None:
        """Take note of an event: Started, Done, Failed, Committed ... (core/events.py)."""
        ...


class StartObserver(Observer, Protocol):
    """An observer that needs the run's columns, lanes and row numbers, which events refer to by number."""

    def on_start(self, graph: Graph, plan: Plan) -> None:
        """Prepare for a run; called once, before the first event.

        `graph.columns[event.column].name` is the name of an event's column, and `plan.row(event.group, event.row)` the
        run's number of its row.
        """
        ...


class FailureObserver(Observer, Protocol):
    """An observer that sees every failure for good, with the values of its row."""

    def on_failure(self, record: Record, group: RowGroup) -> None:
        """Take note of a task that is not retried; `group.value(column, row)` is a value of its row group."""
        ...


class CommandObserver(Observer, Protocol):
    """An observer that also sees what the run is about to do."""

    def on_command(self, command: Command) -> None:
        """Take note of a command before it is carried out: Admit, Execute, RunAfter, Commit ... (core/events.py)."""
        ...


def methods_of(observers: Iterable[Observer], name: str) -> list[Callable[..., Any]]:
    """Return the methods of this name of all observers that have one."""
    return [method for observer in observers if (method := getattr(observer, name, None)) is not None]
