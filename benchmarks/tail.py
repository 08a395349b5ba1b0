"""What a tail of slow and hung requests costs a run, with and without `Model(hedge=True)`.

    python benchmarks/tail.py [--rows 2000] [--latency 0.05] [--rounds 3]

The fake endpoint is a process of its own; its answers take `latency` seconds. Cases:

    even      all answers take the same time
    slow      1 % of the answers take 30 times as long
    hung      0.5 % of the requests are never answered, with the default time limit

Each is run plain and hedged, in turn. Prints JSON: seconds of the run (medians over rounds), the ratio to `even` of the
same round and kind, and the requests per row that the endpoint counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import rowloop
from fake_openai import FakeOpenAI

CASES: dict[str, dict[str, float]] = {"even": {}, "slow": {"fault_slow": 0.01}, "hung": {"fault_hang": 0.005}}


def run(server: FakeOpenAI, rows: int, *, hedge: bool, seed: int) -> tuple[float, float]:
    """Build a table; return its seconds and the requests per row."""
    before = server.counters().requests
    recipe = rowloop.Recipe(
        models={"writer": rowloop.Model("openai:m", base_url=server.url, max_parallel=64, hedge=hedge)},
        columns=[
            rowloop.Uniform("number", 0, 1e12, decimals=0),
            rowloop.Text("answer", model="writer", prompt="Number {{ number }}."),
        ],
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        result = recipe.build(Path(folder) / "out", rows=rows, progress=False)
    if result.status != "complete":
        raise SystemExit(f"the run is {result.status}")
    return result.elapsed, (server.counters().requests - before) / rows


def main() -> None:
    """Run all cases in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    taken: dict[str, list[tuple[float, float, float]]] = {}
    with FakeOpenAI() as server:
        for number in range(options.rounds):
            for kind in ("plain", "hedged"):
                even = 0.0
                for case, faults in CASES.items():
                    rates: dict[str, Any] = {"fault_slow": 0.0, "fault_hang": 0.0, **faults}
                    server.configure(latency=options.latency, seed=number, **rates)
                    seed = 1000 * number + 10 * len(taken) + len(case)
                    seconds, requests = run(server, options.rows, hedge=kind == "hedged", seed=seed)
                    even = seconds if case == "even" else even
                    taken.setdefault(f"{case}, {kind}", []).append((seconds, seconds / even, requests))
    names = ("seconds", "ratio_to_even", "requests_per_row")
    medians = {
        case: {name: round(median(values), 3) for name, values in zip(names, zip(*rounds, strict=True), strict=True)}
        for case, rounds in taken.items()
    }
    print(json.dumps({"rows": options.rows, "latency": options.latency, "cases": medians}, indent=2))


if __name__ == "__main__":
    main()
