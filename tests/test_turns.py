"""Turns between the processes that share the tests: a serial test runs alone, and cannot starve."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, lockf
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from turns import Turns

TESTS = Path(__file__).parent
PROCESS = """
import sys, time
from pathlib import Path
from turns import Turns

turns = Turns(Path(sys.argv[1]))
for alone in sys.stdin.readline().split():
    with turns.turn(alone=alone == "alone"):
        print(time.monotonic_ns(), flush=True)
        if sys.argv[2] == "hold":
            sys.stdin.readline()
        left = time.monotonic_ns()
    print(left, flush=True)
"""

pytestmark = pytest.mark.outside


class Inside(NamedTuple):
    """A turn that has ended."""

    entered: int
    left: int
    alone: bool

    def overlaps(self, other: Inside) -> bool:
        """Whether both were inside at one moment."""
        return self.entered < other.left and other.entered < self.left


def begin(folder: Path, turns: str, *, hold: bool = False) -> subprocess.Popen[str]:
    """Start a process that takes these turns, and holds each until it gets a line."""
    command = [sys.executable, "-c", PROCESS, str(folder), "hold" if hold else "go"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={"PYTHONPATH": str(TESTS)})
    assert process.stdin is not None
    process.stdin.write(turns + "\n")
    process.stdin.flush()
    return process


def line(process: subprocess.Popen[str]) -> int:
    """Read when a process entered or left."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def leave(process: subprocess.Popen[str]) -> int:
    """Let a process go on, and read when it left."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return line(process)


def test_a_serial_turn_overlaps_no_other(tmp_path: Path):
    """Three processes take turns as fast as they can, some of them alone."""
    kinds = ["shared", "shared", "alone"] * 30
    with ExitStack() as stack:
        processes = [stack.enter_context(begin(tmp_path, " ".join(kinds))) for _ in range(3)]
        inside = [Inside(line(it), line(it), kind == "alone") for it in processes for kind in kinds]
    assert not [(a, b) for a in inside for b in inside if a is not b and a.alone and a.overlaps(b)]


def test_shared_turns_overlap_and_none_passes_a_serial_one_that_waits(tmp_path: Path):
    """Two are inside at once; a third waits to be alone, and a fourth that comes later enters after it."""
    Turns(tmp_path)
    with ExitStack() as stack, (tmp_path / "door").open("r+") as door:
        first, second = (stack.enter_context(begin(tmp_path, "shared", hold=True)) for _ in range(2))
        line(first)
        line(second)
        third = stack.enter_context(begin(tmp_path, "alone", hold=True))
        while is_free(door):
            time.sleep(0.001)
        fourth = stack.enter_context(begin(tmp_path, "shared"))
        left = max(leave(first), leave(second))
        assert left < line(third)
        assert leave(third) < line(fourth)


def is_free(door: IO[str]) -> bool:
    """Whether no process stands in the door: who does waits for those inside to leave."""
    try:
        lockf(door, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    lockf(door, LOCK_UN)
    return True


TWO_KINDS = """
import os, time
import pytest

def note(name):
    began = time.monotonic_ns()
    time.sleep(0.01)  # what is inside takes a moment
    with open("turns.txt", "a") as file:
        file.write(f"{began} {time.monotonic_ns()} {name}\\n")

@pytest.mark.parametrize("number", range(8))
def test_shared(number):
    note("shared")

@pytest.mark.serial
@pytest.mark.parametrize("number", range(4))
def test_alone(number):
    note("alone")
"""


def test_the_processes_of_pytest_xdist_take_turns(tmp_path: Path):
    """Two of them run the same tests, and the serial ones run beside nothing."""
    (tmp_path / "test_it.py").write_text(TWO_KINDS)
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    serial: alone\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:looptime_plugin", "-n", "2", "--dist", "each"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(TESTS)}, capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stdout
    lines = (tmp_path / "turns.txt").read_text().split()
    inside = [
        Inside(int(began), int(ended), kind == "alone")
        for began, ended, kind in zip(lines[::3], lines[1::3], lines[2::3], strict=True)
    ]
    assert [turn.alone for turn in inside].count(True) == 8
    assert len(inside) == 24
    assert not [(a, b) for a in inside for b in inside if a is not b and a.alone and a.overlaps(b)]
