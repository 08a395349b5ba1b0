"""The cost of a call, beside bare run_coroutine_threadsafe in the same run on the same core.

Microseconds differ between machines; the ratio must hold everywhere.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks/bridge.py"
SHORT = ("--only", "raw", "--rounds", "5", "--calls", "1000", "--items", "5000")


def ceilings() -> dict[str, dict[str, Any]]:
    """Run the benchmark in its short form; return its comparison with the ceilings."""
    command = [sys.executable, str(BENCHMARK), *SHORT]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=50)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)["ceilings"]
    return found


@pytest.mark.serial
def test_call_costs_no_more_than_run_coroutine_threadsafe_and_scales_better():
    """One caller waits no longer, 64 callers make 1.5 times as many calls, an item costs less than 5 us.

    Other processes disturb a measurement, so it has three tries.
    """
    tries = []
    for _ in range(3):
        tries.append(ceilings())
        if all(ceiling["met"] for ceiling in tries[-1].values()):
            break
    assert all(ceiling["met"] for ceiling in tries[-1].values()), tries
