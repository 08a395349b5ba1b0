"""How long a run takes where the endpoint is what is slow: beside bare aiohttp, and the script that people write today.

    python benchmarks/pipeline.py [--rounds 3] [--only CASE ...]

Each measurement is a process of its own, pinned to one core, which warms up on a few rows first; the fake endpoint is
pinned to the other. Times are wall times from the first line of the script to the last, files closed, and medians over
rounds in which the contenders take turns; a ratio is the median of the ratios to the first contender in the same round.
The contenders are the files in contenders/. Ceilings are the design's. Prints JSON.

    latency         2,000 rows, one text column, 0.25 s, 256 requests in flight
    diamond         1,000 rows, a and b need a topic, c needs a and b, 0.1 s, 128 in flight; bare makes 3,000 calls
                    which need nothing
    hidden_limit    2,000 rows, 0.25 s, up to 256 in flight, and the endpoint answers 429 above 64; bare knows it
    faults          2,000 rows, 0.05 s, 64 in flight, 5 % each of 429 (Retry-After: 1) and 500, 2 % cut bodies; the
                    reference is bare aiohttp under a fixed limit of 64, with plain retries

`rowloop_unlimited` is rowloop with no `max_parallel`: it finds out how many requests the endpoint takes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from contenders.measuring import Case, Entry, compare_all

CASES = {
    "latency": Case(
        rows=2000,
        behaviour={"latency": 0.25},
        entries={
            "bare": Entry("bare", 256),
            "rowloop": Entry("rowloop", 256),
            "rowloop_unlimited": Entry("rowloop", None),
            "by_hand_httpx": Entry("by_hand_httpx", 256),
            "by_hand_aiohttp": Entry("by_hand_aiohttp", 256),
        },
        ideal_s=2000 * 0.25 / 256,
        ceilings={"rowloop": 1.10},
    ),
    "diamond": Case(
        rows=1000,
        shape="diamond",
        behaviour={"latency": 0.1},
        entries={"bare": Entry("bare", 128), "rowloop": Entry("rowloop", 128)},
        ideal_s=3000 * 0.1 / 128,
        ceilings={"rowloop": 1.15},
    ),
    "hidden_limit": Case(
        rows=2000,
        behaviour={"latency": 0.25, "limit": 64},
        entries={
            "bare": Entry("bare", 64),
            "rowloop": Entry("rowloop", 256),
            "rowloop_unlimited": Entry("rowloop", None),
            "by_hand_aiohttp": Entry("by_hand_aiohttp", 256),
        },
        ideal_s=2000 * 0.25 / 64,
        ideal_ceilings={"rowloop": 1.3, "rowloop_unlimited": 1.3},
    ),
    "faults": Case(
        rows=2000,
        behaviour={"latency": 0.05, "fault_429": 0.05, "fault_500": 0.05, "fault_cut": 0.02, "retry_after": 1.0},
        entries={
            "bare_retrying": Entry("bare_retrying", 64),
            "rowloop": Entry("rowloop", 64),
            "rowloop_unlimited": Entry("rowloop", None),
            "by_hand_aiohttp": Entry("by_hand_aiohttp", 64),
        },
        ceilings={"rowloop": 1.5, "rowloop_unlimited": 1.5},
    ),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    cases = {name: case for name, case in CASES.items() if name in options.only}
    print(json.dumps({"benchmark": "pipeline", **compare_all(cases, options.rounds)}, indent=2))


if __name__ == "__main__":
    main()
