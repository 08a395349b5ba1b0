"""Claim files: who works in a dataset's directory, with a heartbeat. They depend on no file locks.

Theory of operation
    The claims of a directory are numbered files, and the highest number is the claim in force. A process takes a
    directory by making the next file, whole and under a name that is not there yet: of many that try, one succeeds. It
    then writes its file anew every `HEARTBEAT` seconds, and in the end writes that the directory is free. No file is
    removed while its number is the highest, so no number is ever used twice.

    Whoever finds a claim may make the next one
        at once       where it says that the directory is free, or its process is known to have ended
        after STALE   seconds, by its own clock, in which the file has not changed: its process may be anywhere
    and else is refused: the claim is live.

    A process that was stopped for long may have lost its claim without knowing. It looks for a higher number at each
    heartbeat and before each file that it writes, and ends its run if there is one.

    Clocks of different machines are never compared.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from ..core.errors import DatasetGenerationError, ResumeError
from .directory import CLAIMS, replace_whole, shown
from .processes import Process, this_process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEARTBEAT: Final = 2.0
"""Seconds between heartbeats."""
STALE: Final = 10.0
"""Seconds without a change after which a claim may be taken over."""
_LOOK: Final = 0.2
"""Seconds between two looks at a claim that may be stale."""

Verdict: TypeAlias = Literal["free", "live", "stale", "unknown"]

_NAME = re.compile(r"(\d{6,})\.json")


class ClaimFile(msgspec.Struct, frozen=True):
    """The contents of a claim: who works which row groups, since when; `beats` counts the heartbeats."""

    token: str
    process: Process
    since: str
    row_groups: tuple[int, int | None] = (0, None)
    """The first one and the one after the last; None: to the end of the dataset."""
    beats: int = 0
    free: bool = False
    """Whether the process has finished here."""
    folder: int = 0
    """The inode of the folder of claims: a copy of it has another one."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A claim as it was found: its number, its bytes, and the claim in them, None where they cannot be read."""

    number: int
    body: bytes
    claim: ClaimFile | None


class Watch:
    """What several looks at the claim in force show. Pure: the time is passed in, of a clock that is not set back."""

    def __init__(self) -> None:
        """Start without a look."""
        self._first: Seen | None = None
        self._since = 0.0

    def look(self, seen: Seen | None, now: float, *, gone: bool) -> Verdict:
        """Judge a look. `gone`: the claim's process is known to have ended."""
        if seen is None or gone or (seen.claim is not None and seen.claim.free):
            return "free"
        if self._first is None:
            self._first, self._since = seen, now
        if seen != self._first:
            return "live"
        return "stale" if now - self._since >= STALE else "unknown"


class Held:
    """A directory's claim that this process has made. `sure`: whoever had the directory before has ended."""

    def __init__(self, directory: Path, number: int, *, sure: bool) -> None:
        """Take the number; nothing is written yet."""
        self.directory = directory
        self.number = number
        self.sure = sure
        self._claim = ClaimFile(
            token=secrets.token_hex(8),
            process=this_process(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            folder=(directory / CLAIMS).stat().st_ino,
        )

    def make(self) -> bool:
        """Write the claim, and return whether no other process was faster; raises OSError."""
        made = _write_new(_file(self.directory, self.number), msgspec.json.encode(self._claim))
        if made:
            for number in _numbers(self.directory):
                if number < self.number:
                    _file(self.directory, number).unlink(missing_ok=True)
        return made

    def beat(self) -> None:
        """Show that this process works; raises DatasetGenerationError if another one has taken over, and OSError."""
        self.check()
        self._rewrite(msgspec.structs.replace(self._claim, beats=self._claim.beats + 1))

    def check(self) -> None:
        """Raise DatasetGenerationError if another process has taken over."""
        if self._is_lost():
            problem = f"another run has taken over '{self.directory}', as this one gave no sign for {STALE:.0f} s"
            raise DatasetGenerationError(problem, stage="claim")

    def release(self) -> None:
        """Say that the directory is free; what cannot be written is found to be stale."""
        with contextlib.suppress(OSError):
            if not self._is_lost():
                self._rewrite(msgspec.structs.replace(self._claim, free=True))

    def _is_lost(self) -> bool:
        return any(number > self.number for number in _numbers(self.directory))

    def _rewrite(self, claim: ClaimFile) -> None:
        replace_whole(_file(self.directory, self.number), msgspec.json.encode(claim))
        self._claim = claim


def take(
    directory: Path,
    on_wait: Callable[[str], object],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Held:
    """Claim a directory, with a wait for a claim that may be stale; raises ResumeError if another run has it.

    `on_wait` is called once before a wait, with a sentence for the user. Raises OSError where nothing can be written.
    """
    watch, waits = Watch(), False
    while True:
        seen = _latest(directory)
        gone = seen is not None and seen.claim is not None and _is_gone(directory, seen.claim)
        verdict = "live" if seen is not None and not gone and _is_fresh(directory, seen) else None
        verdict = verdict or watch.look(seen, clock(), gone=gone)
        if verdict == "live":
            raise ResumeError(f"'{shown(directory)}' is in use by another run ({_who(seen)})")
        if verdict == "unknown":
            if not waits:
                waits = True
                on_wait(
                    f"'{shown(directory)}' is claimed by {_who(seen)}; waiting up to {STALE:.0f} s for a sign of it"
                )
            sleep(_LOOK)
            continue
        held = Held(directory, 1 if seen is None else seen.number + 1, sure=verdict == "free")
        if held.make():
            return held
        watch = Watch()  # another process was faster: its claim is looked at


def _is_gone(directory: Path, claim: ClaimFile) -> bool:
    """Return whether a claim is that of a process that has ended, or was copied with its directory on this machine."""
    copied = claim.process.is_local and claim.folder != (directory / CLAIMS).stat().st_ino
    return copied or claim.process.is_gone


def _is_fresh(directory: Path, seen: Seen) -> bool:
    """Return whether a process of this machine has just written its claim; the clock of the file is then our own."""
    if seen.claim is None or seen.claim.free or not seen.claim.process.is_local:
        return False
    with contextlib.suppress(OSError):
        return abs(time.time() - _file(directory, seen.number).stat().st_mtime) < 2 * HEARTBEAT
    return False


def _who(seen: Seen | None) -> str:
    if seen is None or seen.claim is None:
        return "an unknown process"
    return f"{seen.claim.process}, since {seen.claim.since}"


# Files


def _file(directory: Path, number: int) -> Path:
    return directory / CLAIMS / f"{number:06d}.json"


def _numbers(directory: Path) -> list[int]:
    names = (_NAME.fullmatch(name) for name in os.listdir(directory / CLAIMS))  # noqa: PTH208 - the names are enough
    return sorted(int(name[1]) for name in names if name is not None)


def _latest(directory: Path) -> Seen | None:
    """Return the claim in force; None where nobody has ever claimed the directory."""
    while numbers := _numbers(directory):
        try:
            body = _file(directory, numbers[-1]).read_bytes()
        except FileNotFoundError:
            continue  # replaced by a higher number meanwhile
        try:
            return Seen(numbers[-1], body, msgspec.json.decode(body, type=ClaimFile))
        except msgspec.MsgspecError:
            return Seen(numbers[-1], body, None)
    return None


def _write_new(file: Path, body: bytes) -> bool:
    """Make a file that appears whole, and return whether it was not there; raises OSError."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(body)
        try:
            os.link(temporary, file)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            return _create(file, body)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _create(file: Path, body: bytes) -> bool:
    """Make a file under a new name, which a kill may leave empty; it is then stale, and taken over."""
    try:
        with file.open("xb") as new:
            new.write(body)
    except FileExistsError:
        return False
    return True
