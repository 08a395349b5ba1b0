"""What an embedding costs the client, and how many requests: cells alone and in batches, in the same run.

    python benchmarks/embeddings.py [--rows 4000] [--in-flight 64] [--latency 0.05] [--rounds 3] [--dimensions 8 1536]

Each round previews a table of one embedding column against the fake endpoint, a process of its own, once for each
batch size; rounds alternate between sizes, and medians over rounds are given. A ratio is to one request a cell in the
same round. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import rowloop as rl
from fake_openai import FakeOpenAI

SIZES = (1, 16, 64)


def measure(server: FakeOpenAI, rows: int, in_flight: int, batch_size: int) -> dict[str, float]:
    """Make the table once."""
    recipe = rl.Recipe(
        models={"m": rl.Model("openai:embedder", base_url=server.url, max_parallel=in_flight)},
        columns=[
            rl.Category("word", values=[f"word {number}" for number in range(1000)]),
            rl.Embedding("vector", model="m", text="About {{ word }}", batch_size=batch_size),
        ],
        seed=1,
    )
    recipe.preview(1)
    server.reset()
    cpu, wall = time.process_time(), time.perf_counter()
    recipe.preview(rows)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_us_per_cell": cpu / rows * 1e6, "wall_s": wall, "requests": server.counters().requests}


def bench(rows: int, in_flight: int, latency: float, dimensions: int, rounds: int) -> dict[str, dict[str, float]]:
    """Measure every batch size, in turn."""
    taken: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
    with FakeOpenAI(latency=latency, dimensions=dimensions) as server:
        for _ in range(rounds):
            for size in SIZES:
                taken[size].append(measure(server, rows, in_flight, size))
    report = {}
    for size, of_size in taken.items():
        middle = {what: round(median(one[what] for one in of_size), 3) for what in of_size[0]}
        pairs = zip(of_size, taken[1], strict=True)
        middle["cpu_ratio"] = round(
            median(one["cpu_us_per_cell"] / alone["cpu_us_per_cell"] for one, alone in pairs), 2
        )
        report[f"batch_size={size}"] = middle
    return report


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dimensions", type=int, nargs="*", default=[8, 1536])
    given = parser.parse_args()
    measured = {
        f"dimensions={dimensions}": bench(given.rows, given.in_flight, given.latency, dimensions, given.rounds)
        for dimensions in given.dimensions
    }
    print(
        json.dumps({"rows": given.rows, "in_flight": given.in_flight, "latency": given.latency, **measured}, indent=2)
    )


if __name__ == "__main__":
    main()
