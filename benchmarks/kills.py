"""How many answers a kill -9 loses: answered by the endpoint before it, and in no journal and no part after it.

    python benchmarks/kills.py [--kills 10] [--in-flight 256] [--latency 0.25]

Each round starts a run in a process of its own against the fake endpoint, kills it when about so many requests have
been answered as fit into a second, and counts what the directory has. `lost` is what a resume asks again. The reference
of `ratio` is what is answered in 25 ms, the time in which an answer has to be in the journal. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fake_openai import FakeOpenAI

SECONDS, MOST_LOST = 0.025, 40


def child(url: str, folder: str, in_flight: int) -> None:
    """Run until killed."""
    import rowloop as rl  # noqa: PLC0415 - the parent process stays small

    recipe = rl.Recipe(
        models={"m": rl.Model("openai:m", base_url=url, max_parallel=in_flight)},
        columns=[rl.Seed({"n": list(range(100_000))}), rl.Text("text", model="m", prompt="row {{ n }}")],
        seed=1,
    )
    recipe.build(folder, progress=False)


def kept(folder: Path) -> int:
    """Count the answers in the journal and in the parts."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - after the victims

    from rowloop.engine.datasets.journal import Journal  # noqa: PLC0415 - the same

    parts = {int(file.stem[5:]): pq.read_metadata(file).num_rows for file in folder.glob("data/part-*.parquet")}
    journal = Journal(folder / ".rowloop/journal.sqlite")
    try:
        begun = journal.begun() - parts.keys()
        return sum(parts.values()) + sum(len(journal.recall(group).values) for group in begun)
    finally:
        journal.close()


def measure(server: FakeOpenAI, in_flight: int, latency: float, luck: random.Random) -> dict[str, float]:
    """Kill one run."""
    server.reset()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", server.url, f"{folder}/out", str(in_flight)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as victim:  # noqa: S603 - it is this file
            server.wait_for(answered=int(in_flight / latency * luck.uniform(0.5, 1.5)), timeout=60)
            victim.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            victim.wait()
        answered = [one.answered_at for one in server.requests() if one.answered_at is not None]
        before = [moment for moment in answered if moment < killed]
        lost = len(before) - kept(Path(folder, "out"))
    in_time = sum(moment > killed - SECONDS for moment in before)
    return {"answered": len(before), "lost": lost, "answered_in_25_ms": in_time}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--latency", type=float, default=0.25)
    parser.add_argument("--jitter", type=float, default=0.4)
    parser.add_argument("--child", nargs=3, metavar=("URL", "FOLDER", "IN_FLIGHT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        url, folder, in_flight = given.child
        child(url, folder, int(in_flight))
        return
    load, luck = os.getloadavg()[0], random.Random(1)  # noqa: S311 - repeatable, not secret
    with FakeOpenAI(
        latency=given.latency, jitter=given.latency * given.jitter, record=1_000_000, reply="echo", seed=1
    ) as server:
        taken = [measure(server, given.in_flight, given.latency, luck) for _ in range(given.kills)]
    lost = [one["lost"] for one in taken]
    result = {
        "benchmark": "kills",
        "kills": given.kills,
        "in_flight": given.in_flight,
        "latency": given.latency,
        "python": platform.python_version(),
        "load_average_before": round(load, 2),
        "lost_median": median(lost),
        "lost_most": max(lost),
        "answered_in_25_ms": median(one["answered_in_25_ms"] for one in taken),
        "ratio": round(median(one["lost"] / max(1, one["answered_in_25_ms"]) for one in taken), 2),
        "ceilings_met": {f"at most {MOST_LOST} answers lost": max(lost) <= MOST_LOST},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
