"""Serving: what a run does for other processes at each heartbeat: it shows its progress and carries out commands."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Protocol

from ...runtime.logs import safe_logger
from ..core.errors import DatasetGenerationError, RecipeError
from ..datasets.remote import Cancel, Pause, Resume, SetBudget, SetLimit, take_commands, write_progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..datasets.claim import Place
    from ..datasets.remote import Command
    from ..telemetry.progress import ProgressSnapshot
    from .steering import Steering

logger = safe_logger()


class Served(Protocol):
    """What other processes see and steer of a run: an Execution."""

    steering: Steering

    def snapshot(self) -> ProgressSnapshot:
        """Take a snapshot."""
        ...

    def halt(self) -> None:
        """End the run."""
        ...


@contextlib.contextmanager
def serving(place: Place | None, served: Served) -> Iterator[None]:
    """Serve other processes while the block is open; a preview has no place, and serves nobody.

    Afterwards `show_end` alone writes the progress: a file has one writer at a time.
    """
    if place is None:
        yield
        return
    path = place.path
    with contextlib.suppress(OSError):
        take_commands(path)  # they were for an earlier run

    writing, over = threading.Lock(), threading.Event()

    def show() -> None:
        with writing:
            if not over.is_set():
                now = served.snapshot()
                write_progress(path, now, now.state)

    def obey() -> None:
        for command in [] if over.is_set() else take_commands(path):
            _carry_out(command, served)

    place.heartbeat.call(show)
    place.heartbeat.call(obey)
    try:
        yield
    finally:
        with writing:
            over.set()


def show_end(place: Place | None, snapshot: ProgressSnapshot, status: str) -> None:
    """Write the last progress of a run; what cannot be written, or is another run's to write, is of no importance."""
    if place is not None:
        with contextlib.suppress(OSError, DatasetGenerationError):
            place.check()
            write_progress(place.path, snapshot, status)


def _carry_out(command: Command, served: Served) -> None:
    steering = served.steering
    try:
        match command:
            case Pause():
                steering.pause()
            case Resume():
                steering.resume()
            case Cancel():
                served.halt()
            case SetLimit(model, limit):
                steering.set_limit(model, limit)
            case SetBudget(max_cost, max_tokens_total):
                steering.set_budget(
                    ... if max_cost is None else max_cost, ... if max_tokens_total is None else max_tokens_total
                )
    except RecipeError as error:
        logger.warning("a command of another process was refused: %s", error)
