"""Run one contender, once: `python benchmarks/contenders NAME FOLDER JOB`, the job as JSON.

A few rows come first, which are not measured: what is imported late, or compiled, is so by then. Writes what it
measured into FOLDER/measured.json, for contenders use standard output themselves.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

# Started by its path, a folder is no package: its parent is what makes it one, and its own modules are not top-level.
sys.path[0] = str(Path(__file__).parent.parent)

from contenders.job import Job  # noqa: E402 - the path comes first

FUNCTIONS = {
    "bare": ("bare", "run"),
    "bare_retrying": ("bare", "run_retrying"),
    "by_hand_httpx": ("by_hand", "run_httpx"),
    "by_hand_aiohttp": ("by_hand", "run_aiohttp"),
    "rowloop": ("through_rowloop", "run"),
    "data_designer": ("through_data_designer", "run"),
    "curator": ("through_curator", "run"),
}
WARM_ROWS = 16


def main() -> None:
    """Run and write."""
    name, folder, job = sys.argv[1], Path(sys.argv[2]), Job(**json.loads(sys.argv[3]))
    module, function = FUNCTIONS[name]
    run = getattr(import_module(f"contenders.{module}"), function)
    run(replace(job, rows=WARM_ROWS, first=job.first + job.calls), folder / "warm")
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    made = run(job, folder / "out")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    (folder / "measured.json").write_text(json.dumps({"made": made, "wall_s": wall, "cpu_s": cpu}))


if __name__ == "__main__":
    main()
