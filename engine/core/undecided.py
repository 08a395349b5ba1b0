"""Undecided tasks: their last attempt has failed, but it does not count if it is of an outage. Pure.

They wait until the circuit of their lane shows which. If nothing is under way that could show it, they have failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .events import Failed, Failure
    from .run_circuit import RunCircuit


class Undecided:
    """The undecided tasks of one lane, each with the attempts that have failed."""

    __slots__ = ("_circuit", "_seen", "tasks")

    def __init__(self, circuit: RunCircuit) -> None:
        """Start with none."""
        self.tasks: list[tuple[Failed, int]] = []
        self._circuit = circuit
        self._seen = 0, 0

    def may_be(self, failure: Failure) -> bool:
        """Return whether a task is undecided that fails so for the last time."""
        return self._circuit.suspects(failure)

    def add(self, event: Failed, attempts: int) -> None:
        """Add a task."""
        self._seen = self._circuit.outages, self._circuit.answers
        self.tasks.append((event, attempts))

    def are_excused(self, *, alone: bool) -> bool | None:
        """Return whether there was an outage; None while that is not known, unless nothing else is under way."""
        outages, answers = self._seen
        if self._circuit.outages > outages:
            return True
        return False if alone or self._circuit.answers > answers else None
