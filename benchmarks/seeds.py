"""What it costs to start a run of 1,000 rows from a large file, beside pyarrow reading the same file.

    python benchmarks/seeds.py [--rows 10000000] [--rounds 3] [--only NAME ...] [--folder FOLDER]

The table has 20 columns: 8 of integers, 8 of floats, 2 of text that never repeats and 2 of text that does. It is
written first, as parquet with the row groups that pyarrow writes, and a tenth of its rows as csv and jsonl.

    whole      all columns of the parquet file
    one        one column of it
    shuffled   all columns, in shuffled order: 1,000 rows from anywhere in the file
    csv        all columns of the csv file, with types that lose nothing
    jsonl      all columns of the jsonl file, with the types that JSON has

Each measurement is a process of its own: a Recipe with the seed and one template is made and built into Parquet. It
reads the file whole once, for the hash by which a dataset is resumed; `again_seconds` is a second recipe in the same
process. pyarrow reads the file into a table and gives 1,000 rows of it. `peak_mb` is the largest resident size of the
process, `peak_before_mb` what it was after the imports and a run without the file. Ratios are medians of rounds that
alternate. Ceilings are the design's. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

KINDS = ("whole", "one", "shuffled", "csv", "jsonl")
MADE = 1_000
CEILINGS_MB = {"whole": 300.0, "one": 200.0}
GROUP = 1024 * 1024

Measured = dict[str, Any]


def write(folder: Path, rows: int) -> None:
    """Write the files that are not there yet."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - the parent process stays small
    from pyarrow import csv  # noqa: PLC0415 - the same

    if not _file(folder, "whole").exists():
        with pq.ParquetWriter(_file(folder, "whole"), _table(0, 1).schema) as writer:
            for start in range(0, rows, GROUP):
                writer.write_table(_table(start, min(GROUP, rows - start)))
    tenth = _table(0, max(rows // 10, MADE))
    if not _file(folder, "csv").exists():
        csv.write_csv(tenth, _file(folder, "csv"))
    if not _file(folder, "jsonl").exists():
        tenth.to_pandas().to_json(_file(folder, "jsonl"), orient="records", lines=True)


def _table(start: int, rows: int) -> Any:
    import numpy as np  # noqa: PLC0415 - the parent process stays small
    import pyarrow as pa  # noqa: PLC0415 - the same

    rng, numbers = np.random.default_rng(start), np.arange(start, start + rows)
    colours = np.array(["red", "green", "blue"])
    columns: dict[str, Any] = {f"i{k}": rng.integers(0, 2**40, rows) for k in range(8)}
    columns |= {f"f{k}": rng.random(rows) for k in range(8)}
    columns |= {f"s{k}": np.char.add(f"text {k} of row ", numbers.astype(str)) for k in range(2)}
    columns |= {f"c{k}": colours[rng.integers(0, 3, rows)] for k in range(2)}
    return pa.table(columns)


def _file(folder: Path, kind: str) -> Path:
    return folder / f"seed.{kind if kind in {'csv', 'jsonl'} else 'parquet'}"


# In the child


def run_seed(kind: str, folder: Path, out: Path) -> None:
    """Make a recipe and build its dataset."""
    import rowloop as rl  # noqa: PLC0415 - the parent process stays small

    columns = ["i0"] if kind == "one" else None
    order: Any = "shuffled" if kind == "shuffled" else "as_is"
    seed = rl.Seed(_file(folder, kind), columns=columns, order=order)
    recipe = rl.Recipe(columns=[seed, rl.Expression("shown", "{{ i0 }}")], seed=7)
    result = recipe.build(out, MADE, progress=False)
    if (result.status, result.actual) != ("complete", MADE):
        raise RuntimeError(f"{result.actual} of {MADE} rows: {result.failures}")


def run_pyarrow(kind: str, folder: Path, _out: Path) -> None:
    """Read the same columns into a table, and give the rows."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - the parent process stays small
    from pyarrow import csv  # noqa: PLC0415 - the same
    from pyarrow import json as arrow_json  # noqa: PLC0415 - the same

    file = _file(folder, kind)
    if kind == "csv":
        table = csv.read_csv(file)
    elif kind == "jsonl":
        table = arrow_json.read_json(file)
    else:
        table = pq.read_table(file, columns=["i0"] if kind == "one" else None)
    if len(table.slice(0, MADE).to_pylist()) != MADE:
        raise RuntimeError("rows are missing")


def warm_up(way: str) -> None:
    """Import what is used, and run once without the file."""
    import pandas as pd  # noqa: F401, PLC0415 - what a user has imported as well
    import pyarrow.parquet  # noqa: F401, PLC0415 - the same

    if way == "rowloop":
        import rowloop as rl  # noqa: PLC0415 - the parent process stays small

        rl.Recipe(columns=[rl.Seed([{"a": 1}])]).preview(progress=False)


def child(way: str, kind: str, folder: Path) -> None:
    """Measure once and print."""
    run = run_seed if way == "rowloop" else run_pyarrow
    warm_up(way)
    before = _peak_mb()
    with tempfile.TemporaryDirectory() as out:
        wall, cpu = time.perf_counter(), time.process_time()
        run(kind, folder, Path(out) / "first")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak, again = _peak_mb(), time.perf_counter()
        run(kind, folder, Path(out) / "again")
        again = time.perf_counter() - again
    measured = {"seconds": wall, "cpu_seconds": cpu, "again_seconds": again, "peak_mb": peak, "peak_before_mb": before}
    print(json.dumps(measured))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# In the parent


def measure(way: str, kind: str, folder: Path) -> Measured:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--folder", str(folder), "--child", way, kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - it is this file
    measured: Measured = json.loads(done.stdout)
    return measured


def compare(kind: str, folder: Path, rounds: int) -> Measured:
    """Measure both in turn; give the medians and the ratios."""
    pairs = [(measure("rowloop", kind, folder), measure("pyarrow", kind, folder)) for _ in range(rounds)]
    ours, theirs = (_medians([pair[i] for pair in pairs]) for i in (0, 1))
    ratios = {
        f"ratio_of_{name}": round(median(mine[name] / its[name] for mine, its in pairs), 2)
        for name in ("seconds", "cpu_seconds", "peak_mb")
    }
    return {"rowloop": ours, "pyarrow": theirs, **ratios}


def _medians(measured: list[Measured]) -> Measured:
    return {name: round(median(one[name] for one in measured), 2) for name in measured[0]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--folder", type=Path, help="Keep the files here, and use those that are here.")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "KIND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child and options.child[0] == "write":
        write(options.folder, options.rows)
        return
    if options.child:
        way, kind = options.child
        child(way, kind, options.folder)
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        writing = [
            sys.executable,
            __file__,
            "--folder",
            str(folder),
            "--rows",
            str(options.rows),
            "--child",
            "write",
            "",
        ]
        subprocess.run(writing, check=True)  # noqa: S603 - it is this file
        tables = {kind: compare(kind, folder, options.rounds) for kind in KINDS if kind in options.only}
    result = {
        "benchmark": "seeds",
        "rows": options.rows,
        "rounds": options.rounds,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_average_before": round(load, 2),
        "tables": tables,
        "ceilings_met": {
            f"{kind}: at most {ceiling:g} MB": tables[kind]["rowloop"]["peak_mb"] <= ceiling
            for kind, ceiling in CEILINGS_MB.items()
            if kind in tables
        },
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
