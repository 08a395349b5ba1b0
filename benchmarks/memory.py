"""What a run holds in memory where its values are large: 20,000 rows of 50 KB, built into Parquet with the journal.

    python benchmarks/memory.py [--rows 20000] [--kilobytes 50] [--only NAME ...]

Each measurement is a process of its own, in which a Python function is the model. `peak_mb` is the largest resident
size of the process, `peak_before_mb` what it was before the run: Python, pyarrow.

    model        one text column
    unbounded    the same with memory=None
    functions    three chained `async def` columns, each a third of the size
    small_parts  one text column, row groups of 50 rows
    pyarrow      pyarrow alone writes the same rows, in files of 1,000 rows: the reference of `ratio`

The ceiling is the design's. Prints JSON.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CASES = ("pyarrow", "model", "unbounded", "functions", "small_parts")
CEILING_MB = 500.0
ROWS_PER_FILE = 1000

Measured = dict[str, Any]


def text_of(number: int, size: int) -> str:
    """Return a text that no compression makes much smaller."""
    return base64.b64encode(random.Random(number).randbytes(size * 3 // 4)).decode()  # noqa: S311 - not a secret


# In the child


def run_engine(case: str, rows: int, size: int, folder: Path) -> None:
    """Build the table."""
    import rowloop as rl  # noqa: PLC0415 - the parent process stays small

    async def model(messages: list[dict[str, Any]]) -> str:
        return text_of(int(messages[-1]["content"]), size)

    async def first(number: int) -> str:
        return text_of(number, size // 3)

    async def second(number: int, first: str) -> str:  # noqa: ARG001 - it waits for it
        return text_of(number + rows, size // 3)

    async def third(number: int, second: str) -> str:  # noqa: ARG001 - the same
        return text_of(number + 2 * rows, size // 3)

    columns: list[Any] = [rl.Seed({"number": list(range(rows))})]
    if case == "functions":
        columns += [rl.cell(function) for function in (first, second, third)]
    else:
        columns.append(rl.Text("answer", model="m", prompt="{{ number }}"))
    options: Any = {"memory": None} if case == "unbounded" else {}
    if case == "small_parts":
        options["row_group_size"] = 50
    recipe = rl.Recipe(models={"m": rl.Model(model, max_parallel=256)}, columns=columns, seed=7)
    result = recipe.build(folder / f"{case}-{rows}", progress=False, **options)
    if (result.status, result.actual) != ("complete", rows):
        raise RuntimeError(f"{result.actual} of {rows} rows: {result.failures}")


def run_pyarrow(rows: int, size: int, folder: Path) -> None:
    """Write the same rows."""
    import pyarrow as pa  # noqa: PLC0415 - the parent process stays small
    import pyarrow.parquet as pq  # noqa: PLC0415 - the same

    for start in range(0, rows, ROWS_PER_FILE):
        numbers = range(start, min(rows, start + ROWS_PER_FILE))
        table = pa.table({"number": list(numbers), "answer": [text_of(number, size) for number in numbers]})
        pq.write_table(table, folder / f"{start}.parquet")


def child(case: str, rows: int, size: int) -> None:
    """Measure once and print."""

    def run(rows: int, folder: Path) -> None:
        if case == "pyarrow":
            run_pyarrow(rows, size, folder)
        else:
            run_engine(case, rows, size, folder)

    with tempfile.TemporaryDirectory() as folder:
        run(8, Path(folder))
        before = _peak_mb()
        wall, cpu = time.perf_counter(), time.process_time()
        run(rows, Path(folder))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(json.dumps({"peak_mb": _peak_mb(), "peak_before_mb": before, "wall_s": wall, "cpu_s": cpu}))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# In the parent


def measure(case: str, rows: int, size: int) -> Measured:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--child", case, str(rows), str(size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - it is this file
    measured: Measured = json.loads(done.stdout)
    return {name: round(value, 1) for name, value in measured.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--kilobytes", type=int, default=50)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--child", nargs=3, metavar=("CASE", "ROWS", "SIZE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        case, rows, size = given.child
        child(case, int(rows), int(size))
        return
    load = os.getloadavg()[0]
    found = {case: measure(case, given.rows, given.kilobytes * 1000) for case in CASES if case in given.only}
    for one in found.values():
        if "pyarrow" in found:
            one["ratio"] = round(one["peak_mb"] / found["pyarrow"]["peak_mb"], 2)
    met = {case: one["peak_mb"] <= CEILING_MB for case, one in found.items() if case not in {"pyarrow", "unbounded"}}
    result = {
        "benchmark": "memory",
        "rows": given.rows,
        "kilobytes": given.kilobytes,
        "python": platform.python_version(),
        "load_average_before": round(load, 2),
        "cases": found,
        "ceilings_met": {f"{case}: at most {CEILING_MB:g} MB": is_met for case, is_met in met.items()},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
