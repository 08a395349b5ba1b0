"""What the engine costs per cell, without HTTP: chained Python functions as columns, built into Parquet.

    python benchmarks/engine.py [--rows 10000 100000 1000000] [--rounds 3] [--only NAME ...]

Each measurement is a process of its own, pinned to one core; it warms up on a few rows first. CPU is that of all its
threads. A cell is one call of a function; the sampler that the first one needs is not counted, but its time is.

    async       three chained `async def` columns
    durable     the same, with the journal and with traces; the others have neither
    threads     three chained `def` columns, which run in threads
    wide        300 `async def` columns that all need the sampler
    deep        50 chained `async def` columns

`ratio_to_bare` is to the same functions in a bare asyncio.TaskGroup with a task per row and a semaphore, which keeps no
state, writes no file and loses everything at the first error: the median of rounds that alternate with it, at the
smallest number of rows. `ratio_to_smallest` is to the smallest number of rows of the same kind, measured before and
after. `peak_mb` is the largest resident size of the process, `peak_before_mb` what it was before the run: Python,
pandas, pyarrow. Ceilings are the design's. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KINDS = ("async", "durable", "threads", "wide", "deep")
COLUMNS = {"async": 3, "durable": 3, "threads": 3, "wide": 300, "deep": 50}
CELLS = 300_000  # of a wide and a deep table
IN_FLIGHT = {"async": 128, "durable": 128, "threads": 16, "wide": 128, "deep": 128}
CEILINGS_US = {"async": 15.0, "durable": 30.0, "threads": 15.0}
CEILING_GROWTH, CEILING_MB = 1.2, 300.0

Measured = dict[str, Any]


async def step(value: float) -> float:
    """Do next to nothing, on the loop."""
    return value + 1.0


def step_in_thread(value: float) -> float:
    """Do next to nothing, in a thread."""
    return value + 1.0


# In the child


def run_engine(kind: str, rows: int, folder: Path) -> int:
    """Build a table and give the number of cells."""
    import rowloop as rl  # noqa: PLC0415 - the parent process stays small

    word = "def" if kind == "threads" else "async def"
    names = [f"c{i}" for i in range(COLUMNS[kind])]
    needs = ["x"] * len(names) if kind == "wide" else ["x", *names[:-1]]
    columns = [_column(word, name, need) for name, need in zip(names, needs, strict=True)]
    recipe = rl.Recipe(columns=[rl.Uniform("x", low=0, high=1), *columns], seed=7)
    durable = kind == "durable"
    result = recipe.build(folder / f"{kind}-{rows}", rows, progress=False, journal=durable, trace=durable)
    if (result.status, result.actual) != ("complete", rows):
        raise RuntimeError(f"{result.actual} of {rows} rows: {result.failures}")
    return rows * len(names)


def _column(word: str, name: str, need: str) -> Any:
    """Write `step` as a column of this name, whose parameter is the column that it needs."""
    from rowloop import cell  # noqa: PLC0415 - the parent process stays small

    scope: dict[str, Any] = {}
    exec(f"{word} {name}({need}: float) -> float:\n    return {need} + 1.0\n", scope)  # noqa: S102 - our own text
    return cell(scope[name])


def run_bare(kind: str, rows: int, _folder: Path) -> int:
    """Do the same calls in a TaskGroup and give the number of cells."""
    from rowloop.runtime.runtime import new_loop  # noqa: PLC0415 - the same loop as the engine's

    call: Callable[[float], Awaitable[float]] = _to_thread if kind == "threads" else step
    with asyncio.Runner(loop_factory=new_loop) as runner:
        table = runner.run(_bare(call, [i / rows for i in range(rows)], kind))
    return sum(map(len, table))


async def _to_thread(value: float) -> float:
    return await asyncio.to_thread(step_in_thread, value)


async def _bare(call: Callable[[float], Awaitable[float]], inputs: list[float], kind: str) -> list[list[float]]:
    table: list[list[float]] = [[] for _ in inputs]
    semaphore = asyncio.Semaphore(IN_FLIGHT[kind])
    columns, wide = COLUMNS[kind], kind == "wide"

    async def row(i: int) -> None:
        value = inputs[i]
        for _ in range(columns):
            async with semaphore:
                done = await call(value)
            table[i].append(done)
            value = inputs[i] if wide else done

    async with asyncio.TaskGroup() as group:
        for i in range(len(inputs)):
            group.create_task(row(i))
    return table


def child(way: str, kind: str, rows: int) -> None:
    """Measure once and print."""
    run = run_engine if way == "engine" else run_bare
    with tempfile.TemporaryDirectory() as folder:
        run(kind, 64, Path(folder))
        gc.collect()
        before = _peak_mb()
        wall, cpu = time.perf_counter(), time.process_time()
        cells = run(kind, rows, Path(folder))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    measured = {"cpu_us_per_cell": cpu / cells * 1e6, "wall_us_per_cell": wall / cells * 1e6}
    print(json.dumps({**measured, "cells": cells, "peak_mb": _peak_mb(), "peak_before_mb": before}))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# In the parent


def measure(way: str, kind: str, rows: int) -> Measured:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--child", way, kind, str(rows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - it is this file
    measured: Measured = json.loads(done.stdout)
    return measured


def compare(kind: str, rows: int, rounds: int) -> tuple[Measured, Measured]:
    """Measure the engine and the bare loop in turn, and give the medians, the engine's with its ratio."""
    pairs = [(measure("engine", kind, rows), measure("bare", kind, rows)) for _ in range(rounds)]
    engine, bare = (_medians([pair[i] for pair in pairs]) for i in (0, 1))
    ratios = [mine["cpu_us_per_cell"] / its["cpu_us_per_cell"] for mine, its in pairs]
    return {**engine, "ratio_to_bare": round(median(ratios), 2)}, bare


def _medians(measured: list[Measured]) -> Measured:
    return {name: round(median(one[name] for one in measured), 2) for name in measured[0]}


def ladder(kind: str, sizes: list[int], rounds: int) -> dict[str, Measured]:
    """Measure one kind at each number of rows, the larger ones between two measurements of the smallest."""
    smallest, bare = compare(kind, sizes[0], rounds)
    table = {f"{sizes[0]} rows": smallest, f"{sizes[0]} rows, bare": bare}
    for rows in sizes[1:]:
        triples = [[measure("engine", kind, size) for size in (sizes[0], rows, sizes[0])] for _ in range(rounds)]
        growth = [
            large["cpu_us_per_cell"] / mean([before["cpu_us_per_cell"], after["cpu_us_per_cell"]])
            for before, large, after in triples
        ]
        large = _medians([triple[1] for triple in triples])
        table[f"{rows} rows"] = {**large, "ratio_to_smallest": round(median(growth), 3)}
    return table


def verdicts(tables: dict[str, dict[str, Measured]]) -> dict[str, bool]:
    """Hold the measurements against the ceilings, as far as they were made."""
    found = {}
    for kind, ceiling in CEILINGS_US.items():
        rows = [one for name, one in tables.get(kind, {}).items() if "bare" not in name]
        if rows:
            found[f"{kind}: at most {ceiling:g} us per cell"] = all(one["cpu_us_per_cell"] <= ceiling for one in rows)
            found[f"{kind}: at most {CEILING_GROWTH - 1:.0%} more per cell in larger tables"] = all(
                one.get("ratio_to_smallest", 1.0) <= CEILING_GROWTH for one in rows
            )
            if kind != "durable":  # its traces are in memory
                found[f"{kind}: at most {CEILING_MB:g} MB"] = all(one["peak_mb"] <= CEILING_MB for one in rows)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--child", nargs=3, metavar=("WAY", "KIND", "ROWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, kind, rows = options.child
        child(way, kind, int(rows))
        return
    pinned = hasattr(os, "sched_setaffinity")
    if pinned:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    load = os.getloadavg()[0]
    sizes = {kind: sorted(options.rows) if COLUMNS[kind] == 3 else [CELLS // COLUMNS[kind]] for kind in KINDS}  # noqa: PLR2004 - the ladders
    tables = {kind: ladder(kind, sizes[kind], options.rounds) for kind in KINDS if kind in options.only}
    result = {
        "benchmark": "engine",
        "rounds": options.rounds,
        "python": platform.python_version(),
        "pinned": pinned,
        "load_average_before": round(load, 2),
        "tables": tables,
        "ceilings_met": verdicts(tables),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
