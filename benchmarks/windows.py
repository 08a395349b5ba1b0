"""How long a run takes where the endpoint refuses everything for most of the time: beside a plain loop with back-off.

    python benchmarks/windows.py [--rounds 1] [--only CASE ...] [--rows 1000]

The endpoint takes any number of requests for a part of each period and answers 429 for the rest of it. The reference is
bare aiohttp with up to 64 requests in flight, in which each row waits at random after a 429, up to 30 s, as tenacity
does it, or for as long as Retry-After asks. rowloop is used as its users use it: a journal, Parquet, max_parallel=64.

    short           1 s of every 4 s is open, answers take 0.25 s, no Retry-After
    long_answers    the same with answers that take 1.5 s, longer than the endpoint is open
    minutes         3 s of every 20 s are open, answers take 0.5 s, no Retry-After
    retry_after     1 s of every 4 s is open, answers take 0.25 s, Retry-After: 1
    quota           600 requests a minute that flow in steadily, answers take 0.25 s, no Retry-After

Each measurement is a process of its own, which warms up on a few rows first. Times are wall times, and `refused` counts
429s. A ratio is the median of the ratios to the plain loop in the same round. Ceiling: 1.1 times the plain loop, except
with Retry-After, where that loop asks once a second for each row. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from contenders.measuring import Case, Entry, compare_all

ENTRIES = {"plain_loop": Entry("bare_retrying", 64), "rowloop": Entry("rowloop", 64)}
SHORT = Case(
    rows=1000,
    behaviour={"latency": 0.25, "open_seconds": 1.0, "period": 4.0, "retry_after": None},
    entries=ENTRIES,
    ceilings={"rowloop": 1.1},
)
CASES = {
    "short": SHORT,
    "long_answers": replace(SHORT, behaviour={**SHORT.behaviour, "latency": 1.5}),
    "minutes": replace(SHORT, behaviour={**SHORT.behaviour, "latency": 0.5, "open_seconds": 3.0, "period": 20.0}),
    "retry_after": replace(SHORT, behaviour={**SHORT.behaviour, "retry_after": 1.0}, ceilings={}),
    "quota": replace(SHORT, behaviour={"latency": 0.25, "requests_per_minute": 600, "retry_after": None}),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=SHORT.rows)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    cases = {name: replace(case, rows=options.rows) for name, case in CASES.items() if name in options.only}
    print(json.dumps({"benchmark": "windows", **compare_all(cases, options.rounds)}, indent=2))


if __name__ == "__main__":
    main()
