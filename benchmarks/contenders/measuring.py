"""A contender in a process of its own, against the fake endpoint; rounds of several, and what they come to."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from fake_openai import FakeOpenAI

from .job import Job, Shape

Measured: TypeAlias = dict[str, Any]
SECONDS = 600
# The runs report to nobody and fetch nothing.
QUIET = {
    "NEMO_TELEMETRY_ENABLED": "false",
    "TELEMETRY_ENABLED": "false",
    "CURATOR_VIEWER": "false",
    "CURATOR_DISABLE_CACHE": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender in a case: which, with how many requests at once (None: it finds out), and by which Python."""

    contender: str
    in_flight: int | None
    python: Path = Path(sys.executable)


@dataclass(frozen=True)
class Case:
    """What the endpoint is like, what is made, and who makes it. The first entry is the reference of the ratios."""

    rows: int
    behaviour: dict[str, Any]
    entries: dict[str, Entry]
    shape: Shape = "column"
    ideal_s: float | None = None
    """What it takes where nothing but the endpoint costs time."""
    ceilings: dict[str, float] = field(default_factory=dict)
    """The most a contender may take, in times of the reference."""
    ideal_ceilings: dict[str, float] = field(default_factory=dict)
    """The same in times of the ideal."""


class NotMeasuredError(Exception):
    """A contender did not do what it was to do, and why."""


def pin() -> int | None:
    """Pin this process and those that it starts to a core; return another for the server, None if there is none."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    return cores[1] if len(cores) > 1 else None


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Give the last line of what a failed process said that has words in it: the error, also that of a group."""
    lines = (line.strip(" |") for line in reversed(done.stderr.splitlines()))
    return next((line for line in lines if any(map(str.isalpha, line))), f"status {done.returncode}")


def measure(entry: Entry, job: Job, server: FakeOpenAI) -> Measured:
    """Run a contender once; raises NotMeasuredError if it fails, or makes less than it was to make."""
    server.reset()
    with tempfile.TemporaryDirectory() as folder:
        command: list[str | Path] = [
            entry.python,
            Path(__file__).parent,
            entry.contender,
            folder,
            json.dumps(asdict(job)),
        ]
        environment = {**os.environ, **QUIET, "HOME": folder}
        try:
            done = subprocess.run(  # noqa: S603 - one of our own
                command, check=False, capture_output=True, text=True, env=environment, cwd=folder, timeout=SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise NotMeasuredError(f"not done after {SECONDS} s") from error
        if done.returncode:
            raise NotMeasuredError(last_words(done))
        measured: Measured = json.loads(Path(folder, "measured.json").read_text())
    if (made := measured["made"]) != (wanted := job.calls if entry.contender.startswith("bare") else job.rows):
        raise NotMeasuredError(f"{made} of {wanted} were made")
    refused = server.counters().by_status.get(429, 0)
    return {
        "wall_s": measured["wall_s"],
        "cpu_us_per_call": measured["cpu_s"] / job.calls * 1e6,
        "answers_429": refused,
    }


def compare(case: Case, server: FakeOpenAI, rounds: int) -> Measured:
    """Run all contenders of a case in turn, that many times; give medians and ratios, or why there are none.

    All contenders of a round meet the same faults, those of another round others: how long the unluckiest prompt takes
    is much of a run with faults.
    """
    taken: dict[str, list[Measured]] = {name: [] for name in case.entries}
    failed: dict[str, str] = {}
    for number in range(rounds):
        server.configure(**case.behaviour, seed=number + 1)
        for name, entry in case.entries.items():
            if name in failed:
                continue
            try:
                taken[name].append(measure(entry, Job(server.url, case.rows, entry.in_flight, case.shape), server))
            except NotMeasuredError as error:
                failed[name] = str(error)
    return {
        "rows": case.rows,
        "shape": case.shape,
        "endpoint": case.behaviour,
        **({"ideal_s": round(case.ideal_s, 3)} if case.ideal_s else {}),
        "contenders": {
            name: {"not_measured": failed[name]} if name in failed else _summary(case, taken, name)
            for name in case.entries
        },
    }


def compare_all(cases: dict[str, Case], rounds: int) -> Measured:
    """Compare the contenders of each case at a fake endpoint of its own, and hold the results against the ceilings."""
    load = os.getloadavg()[0]
    core = pin()
    results = {}
    for name, case in cases.items():
        with FakeOpenAI(cpu=core) as server:
            results[name] = compare(case, server, rounds)
    return {
        "rounds": rounds,
        "python": platform.python_version(),
        "pinned": core is not None,
        "load_average_before": round(load, 2),
        "cases": results,
        "ceilings_met": {name: verdicts(case, results[name]) for name, case in cases.items()},
    }


def _summary(case: Case, taken: dict[str, list[Measured]], name: str) -> Measured:
    mine, its = taken[name], taken[next(iter(case.entries))]
    in_flight = case.entries[name].in_flight
    middle = {what: round(median(one[what] for one in mine), 3) for what in mine[0]}
    ratios = [one["wall_s"] / other["wall_s"] for one, other in zip(mine, its, strict=False)]
    cpu_ratios = [one["cpu_us_per_call"] / other["cpu_us_per_call"] for one, other in zip(mine, its, strict=False)]
    return {
        "in_flight": "found out" if in_flight is None else in_flight,
        **middle,
        **({"ratio": round(median(ratios), 3), "cpu_ratio": round(median(cpu_ratios), 2)} if ratios else {}),
        **({"ratio_to_ideal": round(middle["wall_s"] / case.ideal_s, 3)} if case.ideal_s else {}),
    }


def verdicts(case: Case, result: Measured) -> dict[str, bool]:
    """Hold a result against the ceilings; what was not measured has not met its own."""
    contenders = result["contenders"]
    reference = next(iter(case.entries))
    return {
        f"{name}: at most {ceiling:g} times {what}": contenders[name].get(key, float("inf")) <= ceiling
        for ceilings, key, what in (
            (case.ceilings, "ratio", reference),
            (case.ideal_ceilings, "ratio_to_ideal", "the ideal"),
        )
        for name, ceiling in ceilings.items()
    }
