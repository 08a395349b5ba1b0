"""What a call of async code from sync code costs, beside the bridges that people use instead, in one run.

    python benchmarks/bridge.py [--calls 2000] [--items 20000] [--rounds 9] [--only NAME ...]

The process is pinned to one core. Every caller calls a coroutine that does nothing, over and over: from the main
thread, and from 1, 8 and 64 other threads. Rounds alternate between the bridges; medians over rounds are given, and a
ratio is the median of the ratios to the reference in the same round. `median_ratio` is better the smaller,
`rate_ratio` the larger it is. Prints JSON. The ceilings are those of the design, on asyncio's loop.

    raw              asyncio.run_coroutine_threadsafe(coro, loop).result(), on asyncio's loop: the reference
    rowloop          Runtime.run(coro), on asyncio's loop
    raw_uvloop       the reference on uvloop's loop
    rowloop_uvloop   Runtime.run(coro) on uvloop's loop, which is what users get who have it installed
    anyio            BlockingPortal.call(function)
    asgiref          async_to_sync(function)()
    synchronicity    Synchronizer().create_blocking(function)()

The second table is about items that come out of an async generator, one at a time: through Runtime.iterate() with
some numbers of items prefetched, and, as the reference, by one run_coroutine_threadsafe(anext(generator)) for each.
The ceiling is held against CPU time: on one core that is what it takes when nothing else runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import platform
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import version
from statistics import median, quantiles
from typing import Any

from rowloop.runtime import Runtime

Caller = Callable[[], object]
MAIN = "main thread"
CALLERS = {MAIN: 0, "1 thread": 1, "8 threads": 8, "64 threads": 64}
PREFETCH = (1, 8, 64)
REFERENCE = "raw"
CEILINGS = {"median_ratio": 1.0, "rate_ratio": 1.5, "cpu_us_per_item": 5.0}
VERSIONS = ("anyio", "asgiref", "synchronicity", "uvloop")


async def nothing() -> None:
    """Do nothing."""


async def numbers(count: int) -> AsyncIterator[int]:
    """Yield that many numbers without waiting for anything."""
    for number in range(count):
        yield number


@contextmanager
def background_loop(new: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[asyncio.AbstractEventLoop]:
    """Run a loop in a thread, as everybody writes it."""
    loop = new()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def raw(new: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[Caller]:
    """Call by run_coroutine_threadsafe alone."""
    with background_loop(new) as loop:
        yield lambda: asyncio.run_coroutine_threadsafe(nothing(), loop).result()


@contextmanager
def rowloop(new: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[Caller]:
    """Call by Runtime.run."""
    with Runtime("bench", loop_factory=new) as runtime:
        yield lambda: runtime.run(nothing())


@contextmanager
def anyio_portal() -> Iterator[Caller]:
    """Call by anyio's portal."""
    with import_module("anyio.from_thread").start_blocking_portal() as portal:
        yield lambda: portal.call(nothing)


@contextmanager
def asgiref_sync() -> Iterator[Caller]:
    """Call by asgiref, which runs a loop for each call."""
    yield import_module("asgiref.sync").async_to_sync(nothing)


@contextmanager
def synchronicity_blocking() -> Iterator[Caller]:
    """Call by synchronicity."""
    yield import_module("synchronicity").Synchronizer().create_blocking(nothing, "nothing_blocking", __name__)


BRIDGES: dict[str, Callable[[], contextlib.AbstractContextManager[Caller]]] = {
    REFERENCE: partial(raw, asyncio.new_event_loop),
    "rowloop": partial(rowloop, asyncio.new_event_loop),
    "raw_uvloop": lambda: raw(import_module("uvloop").new_event_loop),
    "rowloop_uvloop": lambda: rowloop(import_module("uvloop").new_event_loop),
    "anyio": anyio_portal,
    "asgiref": asgiref_sync,
    "synchronicity": synchronicity_blocking,
}


def timed(call: Caller, count: int) -> list[int]:
    """Call that often; return the nanoseconds that each call took."""
    clock, taken = time.perf_counter_ns, []
    for _ in range(count):
        at = clock()
        call()
        taken.append(clock() - at)
    return taken


def measure_calls(call: Caller, threads: int, calls: int) -> dict[str, float]:
    """Have that many threads (none: this one) share the calls; return median and p99 in microseconds, and calls/s."""
    each = max(calls // max(threads, 1), 1)
    taken: list[int] = []
    if threads == 0:
        at = time.perf_counter()
        taken = timed(call, each)
    else:
        gate = threading.Barrier(threads + 1)

        def work() -> None:
            call()  # what a thread pays once is not counted
            gate.wait()
            taken.extend(timed(call, each))

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        gate.wait()
        at = time.perf_counter()
        for worker in workers:
            worker.join()
    wall = time.perf_counter() - at
    return {
        "median_us": median(taken) / 1e3,
        "p99_us": quantiles(taken, n=100)[98] / 1e3,
        "calls_per_s": len(taken) / wall,
    }


def measure_items(runtime: Runtime, prefetch: int | None, count: int) -> dict[str, float]:
    """Read that many items through iterate(), or, without prefetch, by one call each; return microseconds per item."""
    source = numbers(count)
    at, cpu = time.perf_counter(), time.process_time()
    if prefetch is None:
        for _ in range(count):
            asyncio.run_coroutine_threadsafe(anext(source), runtime.loop).result()  # type: ignore[arg-type] # awaitable
    else:
        for _ in runtime.iterate(source, prefetch):
            pass
    cpu, wall = time.process_time() - cpu, time.perf_counter() - at
    return {"us_per_item": wall / count * 1e6, "cpu_us_per_item": cpu / count * 1e6}


Measurement = Callable[[], dict[str, float]]


def interleave(measurements: dict[str, Measurement], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Take every measurement in turn, `rounds` times after one that is not counted."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in measurements}
    for number in range(rounds + 1):
        for name, measurement in measurements.items():
            gc.collect()
            result = measurement()
            if number:
                taken[name].append(result)
    return taken


def middle(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the rounds."""
    return {what: round(median(round_[what] for round_ in rounds), 2) for what in rounds[0]}


def ratio(mine: list[dict[str, float]], its: list[dict[str, float]], what: str) -> float:
    """Return the median of the ratios to the reference in the same round."""
    return round(median(one[what] / other[what] for one, other in zip(mine, its, strict=True)), 3)


def bench_calls(names: list[str], calls: int, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Measure calls, from each number of callers, over each bridge."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        bridges = {name: stack.enter_context(BRIDGES[name]()) for name in BRIDGES if name in names}
        for callers, threads in CALLERS.items():
            taken = interleave(
                {name: partial(measure_calls, call, threads, calls) for name, call in bridges.items()}, rounds
            )
            table[callers] = {
                name: middle(mine)
                | {
                    "median_ratio": ratio(mine, taken[REFERENCE], "median_us"),
                    "rate_ratio": ratio(mine, taken[REFERENCE], "calls_per_s"),
                }
                for name, mine in taken.items()
            }
    return table


def bench_items(items: int, rounds: int) -> dict[str, dict[str, float]]:
    """Measure items, for each number prefetched, beside one call per item."""
    with Runtime("bench", loop_factory=asyncio.new_event_loop) as runtime:
        measurements: dict[str, Measurement] = {"raw_anext": partial(measure_items, runtime, None, items // 10)}
        for prefetch in PREFETCH:
            measurements[f"prefetch_{prefetch}"] = partial(measure_items, runtime, prefetch, items)
        taken = interleave(measurements, rounds)
    return {
        name: middle(mine) | {"ratio": ratio(mine, taken["raw_anext"], "us_per_item")} for name, mine in taken.items()
    }


def verdicts(calls: dict[str, dict[str, dict[str, float]]], items: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Hold the figures against the ceilings."""
    one, many = calls["1 thread"]["rowloop"], calls["64 threads"]["rowloop"]
    us_per_item = items[f"prefetch_{PREFETCH[-1]}"]["cpu_us_per_item"]
    return {
        "median_ratio_1_thread": {
            "is": one["median_ratio"],
            "at_most": CEILINGS["median_ratio"],
            "met": one["median_ratio"] <= CEILINGS["median_ratio"],
        },
        "rate_ratio_64_threads": {
            "is": many["rate_ratio"],
            "at_least": CEILINGS["rate_ratio"],
            "met": many["rate_ratio"] >= CEILINGS["rate_ratio"],
        },
        "cpu_us_per_item_prefetch_64": {
            "is": us_per_item,
            "below": CEILINGS["cpu_us_per_item"],
            "met": us_per_item < CEILINGS["cpu_us_per_item"],
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", choices=list(BRIDGES), default=list(BRIDGES))
    options = parser.parse_args()
    pinned = hasattr(os, "sched_setaffinity")
    if pinned:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    calls = bench_calls([REFERENCE, "rowloop", *options.only], options.calls, options.rounds)
    items = bench_items(options.items, options.rounds)
    result = {
        "benchmark": "bridge",
        "calls": options.calls,
        "items": options.items,
        "rounds": options.rounds,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS if any(name in bridge for bridge in options.only)},
        "pinned": pinned,
        "load_average": round(os.getloadavg()[0], 2),
        "bridges": calls,
        "iterate": items,
        "ceilings": verdicts(calls, items),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
