"""Remote: what other processes read of a run in its directory, and the commands that they leave there.

The run writes progress.json, and carries out what is in control/, at each heartbeat. A command is a file of its own,
which appears whole; the run removes it before it acts on it, so that it is carried out once at most.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import msgspec

from ...runtime.logs import safe_logger
from .directory import HIDDEN, replace_whole

if TYPE_CHECKING:
    from pathlib import Path

    from ..telemetry.progress import ProgressSnapshot

logger = safe_logger()

PROGRESS = f"{HIDDEN}/progress.json"
CONTROL = f"{HIDDEN}/control"


class Pause(msgspec.Struct, frozen=True, tag="pause", forbid_unknown_fields=True):
    """Start nothing new; what is in flight ends."""


class Resume(msgspec.Struct, frozen=True, tag="resume", forbid_unknown_fields=True):
    """Go on after a pause."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel", forbid_unknown_fields=True):
    """Cancel what is in flight and keep complete rows."""


class SetLimit(msgspec.Struct, frozen=True, tag="set_limit", forbid_unknown_fields=True):
    """Change the most requests in flight of a model."""

    model: str
    limit: int


class SetBudget(msgspec.Struct, frozen=True, tag="set_budget", forbid_unknown_fields=True):
    """Change the caps that are given: US dollars, and tokens."""

    max_cost: float | None = None
    max_tokens_total: int | None = None


Command: TypeAlias = Pause | Resume | Cancel | SetLimit | SetBudget


class Progress(msgspec.Struct, frozen=True):
    """The contents of progress.json: the status and the latest snapshot, whose fields are ProgressSnapshot's.

    `written_at` is in seconds since 1970, by the clock of the run's machine.
    """

    file: ClassVar[str] = PROGRESS
    status: str
    written_at: float
    snapshot: dict[str, Any]


def write_progress(directory: Path, snapshot: ProgressSnapshot, status: str) -> None:
    """Write progress.json; raises OSError. It appears whole, and need not survive a power cut."""
    body = msgspec.json.encode(Progress(status, time.time(), asdict(snapshot)))
    replace_whole(directory / PROGRESS, body)


def read_progress(directory: Path) -> Progress | None:
    """Read progress.json; None where there is none that can be read."""
    try:
        return msgspec.json.decode((directory / PROGRESS).read_bytes(), type=Progress)
    except (OSError, msgspec.MsgspecError):
        return None


def post(directory: Path, command: Command) -> None:
    """Leave a command for the run in a directory; raises OSError."""
    (directory / CONTROL).mkdir(exist_ok=True)
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.json"
    replace_whole(directory / CONTROL / name, msgspec.json.encode(command))


def take_commands(directory: Path) -> list[Command]:
    """Remove the commands in a directory and return them, in the order in which they were left; raises OSError."""
    commands: list[Command] = []
    for file in _files(directory / CONTROL):
        body = file.read_bytes()
        file.unlink()
        try:
            commands.append(msgspec.json.decode(body, type=Command))
        except msgspec.MsgspecError as error:
            logger.warning("'%s' is no command of rowloop: %s", file, error)
    return commands


def _files(folder: Path) -> list[Path]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - at each heartbeat, and mostly there are none
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(names) if name.endswith(".json")]
