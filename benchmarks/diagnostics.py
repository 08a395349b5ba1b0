"""What traces and the progress display cost: CPU time per cell, against the same run without them.

    python benchmarks/diagnostics.py [--rows 20000] [--rounds 7]

A recipe of three chained asynchronous columns that do nothing is worked in memory, so that what is measured is the
engine alone. Each round has every variant once, in another order, on one core; the medians of the process's CPU time
are compared. The display draws on a pseudo terminal that another process reads. Both have to stay below 5 us a cell.
`drawing_share` is the CPU time of the display's thread, all but its last drawing, over the time that the runs took.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import pty
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd

import rowloop as rl
from rowloop.adapters.displays import terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CEILING = 5.0
COLUMNS = 3
ROW_GROUP = 1000


async def first(n: int) -> int:
    """Do nothing."""
    return n


async def second(first: int) -> int:
    """Do nothing."""
    return first


async def third(second: int) -> int:
    """Do nothing."""
    return second


def recipe(rows: int) -> rl.Recipe:
    """Make three columns, each of which needs the one before."""
    seed = rl.Seed(pd.DataFrame({"n": range(rows)}))
    return rl.Recipe(columns=[seed, rl.cell(first), rl.cell(second), rl.cell(third)])


@contextmanager
def on_a_terminal() -> Iterator[None]:
    """Have sys.stderr be a pseudo terminal that another process reads."""
    master, slave = pty.openpty()
    reader = subprocess.Popen(["cat"], stdin=master, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S607
    before, sys.stderr = sys.stderr, os.fdopen(slave, "w")
    try:
        yield
    finally:
        sys.stderr.close()
        sys.stderr = before
        os.close(master)
        reader.terminate()
        reader.wait()


def seconds(run: Callable[[], object]) -> float:
    """Take the CPU time of all threads of this process."""
    gc.collect()
    began = time.process_time()
    run()
    return time.process_time() - began


def measure(rows: int, rounds: int) -> dict[str, Any]:
    """Work every variant once a round, each time in another order."""
    made = recipe(rows)
    drawings: dict[int, float] = {}  # the CPU time of each display's thread when it last looked
    draws = 0

    def counting(snapshot: Callable[[], rl.ProgressSnapshot]) -> Any:
        number = len(drawings)
        drawings[number] = 0.0

        def look() -> rl.ProgressSnapshot:
            nonlocal draws
            draws += 1
            drawings[number] = time.thread_time()
            return snapshot()

        return terminal.terminal(look)

    variants: dict[str, Callable[[], object]] = {
        "bare": lambda: made.preview(rows, row_group_size=ROW_GROUP, trace=False, progress=False),
        "traces": lambda: made.preview(rows, row_group_size=ROW_GROUP, trace=True, progress=False),
        "progress": lambda: made.preview(rows, row_group_size=ROW_GROUP, trace=False, progress=counting),
    }
    lasted = dict.fromkeys(variants, 0.0)
    took: dict[str, list[float]] = {name: [] for name in variants}
    with on_a_terminal():
        for run in variants.values():
            run()
        draws = 0
        drawings.clear()
        names = list(variants)
        for turn in range(rounds):
            for name in names[turn % 3 :] + names[: turn % 3]:
                began = time.perf_counter()
                took[name].append(seconds(variants[name]))
                lasted[name] += time.perf_counter() - began
    cells = rows * COLUMNS
    median = {name: statistics.median(times) for name, times in took.items()}
    measured: dict[str, Any] = {"cells": cells, "rounds": rounds, "drawings": draws}
    measured["us_per_cell"] = {name: round(1e6 * spent / cells, 3) for name, spent in median.items()}
    for name in ("traces", "progress"):
        # pairs of one round saw the same machine; their median is steadier than the difference of medians
        extra = statistics.median(a - b for a, b in zip(took[name], took["bare"], strict=True))
        measured[name] = {
            "cost_us_per_cell": round(1e6 * extra / cells, 3),
            "ratio": round(statistics.median(a / b for a, b in zip(took[name], took["bare"], strict=True)), 4),
            "ceiling": {"below": CEILING, "met": 1e6 * extra / cells < CEILING},
        }
    measured["progress"]["drawing_share"] = round(sum(drawings.values()) / lasted["progress"], 5)
    return measured


def main() -> None:
    """Pin this process to one core, measure, and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    logging.getLogger("rowloop").setLevel(logging.ERROR)
    pinned = hasattr(os, "sched_setaffinity")
    if pinned:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    result = {
        "benchmark": "diagnostics",
        "python": platform.python_version(),
        "pinned": pinned,
        "load_average": round(os.getloadavg()[0], 2),
        **measure(given.rows, given.rounds),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
