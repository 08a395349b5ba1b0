"""Processes: how a claim names the process that made it, and when that process is known to be gone."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

import msgspec

_PROC = Path("/proc")


class Process(msgspec.Struct, frozen=True):
    """One process of one machine. `boot` and `started` are empty where the system does not show them."""

    host: str
    boot: str
    """The machine's boot, and the namespace of its process numbers: containers of one machine have the same boot."""
    pid: int
    started: str
    """The time of its start, in clock ticks since the boot: numbers of processes are used again."""

    def __str__(self) -> str:
        """Name it in a message."""
        here = "this machine" if self.is_local else self.host
        return f"process {self.pid} on {here}"

    @property
    def is_local(self) -> bool:
        """Whether it is a process of this machine since its present boot."""
        return (self.host, self.boot) == (platform.node(), _boot())

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended: False for a process that runs, and for one that cannot be seen."""
        return self.is_local and not _runs(self.pid, self.started)


def this_process() -> Process:
    """Return the process that calls this; a child after a fork is another one."""
    pid = os.getpid()
    return Process(platform.node(), _boot(), pid, _started(pid))


@functools.cache
def _boot() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    try:
        after_name = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2]
        return after_name.split()[19]  # the 22nd field of all; a name may have spaces in it
    except (OSError, IndexError):
        return ""


def _runs(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return _started(pid) == started and not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Return whether a process has ended and its parent has not asked how: it writes nothing any more."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] in {"Z", "X"}
    except (OSError, IndexError):
        return False
