"""What a model call costs the client: CPU per chat completion at 256 in flight, beside bare aiohttp in the same run.

    python benchmarks/calls.py [--calls 4096] [--in-flight 256] [--rounds 5] [--only NAME ...] [--asyncio]

The client is pinned to core 0, the fake endpoint, a process of its own, to core 1. Every variant makes the same calls
on the same event loop (the runtime's: uvloop where it is installed), rounds alternate between variants, and medians
over rounds are given; a ratio is the median of the ratios to bare aiohttp, and to the provider alone, in the same
round. Prints JSON.

    bare        aiohttp and msgspec by hand: encode a body, post it, decode the answer
    ask         rowloop's openai provider alone: what the engine awaits for each cell
    ask_sdk     the same through a client of the user's own, AsyncOpenAI on its aiohttp transport
    sdk         AsyncOpenAI on its aiohttp transport, as its documentation shows it
    build       the whole of rowloop: a recipe with one text column, built into Parquet, journal off
    whole       the same with the journal, as it is by default
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import openai

import rowloop
from contenders import bare
from contenders.job import NAME, PROMPT, TEMPERATURE
from fake_openai import FakeOpenAI
from rowloop.adapters.providers.openai.provider import provider
from rowloop.engine.models.model import Model
from rowloop.engine.models.provider import ChatParameters, Message
from rowloop.runtime.runtime import Runtime, new_loop

Call = Callable[[list[Message]], Awaitable[Any]]
Variant = Callable[[], None]


class Bench:
    """One server, one loop, and the variants that run against them."""

    def __init__(self, url: str, runtime: Runtime, calls: int, in_flight: int) -> None:
        """Take the size of a round."""
        self.url = url
        self.runtime = runtime
        self.calls = calls
        self.in_flight = in_flight
        self.round = 0

    def prompts(self) -> list[str]:
        """Return prompts that no round before has asked."""
        self.round += 1
        first = self.round * self.calls
        return [PROMPT.format(first + number) for number in range(self.calls)]

    def in_workers(self, call: Call) -> None:
        """Make a round of calls from as many tasks as may be in flight."""
        prompts = iter(self.prompts())
        self.runtime.run(_workers(call, prompts, self.in_flight))

    def bare(self) -> Variant:
        """Use aiohttp and msgspec by hand."""
        return partial(self.in_workers, self.runtime.enter(partial(bare.connected, self.url)))

    def ask(self) -> Variant:
        """Use rowloop's provider alone."""
        return self._ask(Model(f"openai:{NAME}", base_url=self.url))

    def ask_sdk(self) -> Variant:
        """Use rowloop's provider on a client of the user's."""
        return self._ask(Model(f"openai:{NAME}", client=self._client))

    def _ask(self, model: Model) -> Variant:
        connected = self.runtime.run(provider.connect(model, self.runtime))
        return partial(self.in_workers, connected.chat(ChatParameters(temperature=TEMPERATURE)))

    def _client(self) -> openai.AsyncOpenAI:
        limits = openai.DEFAULT_CONNECTION_LIMITS
        http = openai.DefaultAioHttpClient(limits=limits)
        return openai.AsyncOpenAI(base_url=self.url, api_key="any", http_client=http, max_retries=0)

    def sdk(self) -> Variant:
        """Use the openai package by hand."""
        create: Any = self.runtime.enter(self._client, key="sdk").chat.completions.create

        async def call(messages: list[Message]) -> object:
            return await create(model=NAME, temperature=TEMPERATURE, messages=messages)

        return partial(self.in_workers, call)

    def build(self) -> Variant:
        """Use all of rowloop but the journal, from a sampler to Parquet."""
        return self._build(journal=False)

    def whole(self) -> Variant:
        """Use all of rowloop."""
        return self._build(journal=True)

    def _build(self, *, journal: bool) -> Variant:
        model = rowloop.Model(f"openai:{NAME}", base_url=self.url, temperature=TEMPERATURE, max_parallel=self.in_flight)

        def run() -> None:
            self.round += 1
            recipe = rowloop.Recipe(
                models={"writer": model},
                columns=[
                    rowloop.Uniform("number", 0, 1e12, decimals=0),
                    rowloop.Text("answer", model="writer", prompt=PROMPT.format("{{ number }}")),
                ],
                seed=self.round,
            )
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out"
                recipe.build(out, rows=self.calls, progress=False, journal=journal, runtime=self.runtime)

        return run


async def _workers(call: Call, prompts: Iterator[str], count: int) -> None:
    async def work() -> None:
        for prompt in prompts:
            await call([{"role": "user", "content": prompt}])

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(work())


def measure(bench: Bench, variants: dict[str, Variant], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Run all variants in turn, `rounds` times after one that is not counted; return seconds per call."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, variant in variants.items():
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            variant()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if number:
                taken[name].append({"cpu": cpu / bench.calls, "wall": wall / bench.calls})
    return taken


def report(taken: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians in microseconds, and ratios to bare aiohttp and to the provider alone."""
    result = {}
    for name, rounds in taken.items():
        result[name] = {
            "cpu_us_per_call": round(median(round_["cpu"] for round_ in rounds) * 1e6, 1),
            "cpu_ratio": _ratio(rounds, taken["bare"], "cpu"),
            "wall_us_per_call": round(median(round_["wall"] for round_ in rounds) * 1e6, 1),
            "wall_ratio": _ratio(rounds, taken["bare"], "wall"),
        }
        if "ask" in taken:
            result[name]["cpu_ratio_to_ask"] = _ratio(rounds, taken["ask"], "cpu")
    return result


def _ratio(rounds: list[dict[str, float]], others: list[dict[str, float]], time: str) -> float:
    return round(median(mine[time] / its[time] for mine, its in zip(rounds, others, strict=True)), 3)


def main() -> None:
    """Measure and print."""
    names = ["bare", "ask", "ask_sdk", "sdk", "build", "whole"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=4096)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    parser.add_argument("--asyncio", action="store_true", help="asyncio's own loop where uvloop is installed")
    options = parser.parse_args()
    two_cores = hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1
    if two_cores:
        os.sched_setaffinity(0, {0})
    new = asyncio.new_event_loop if options.asyncio else new_loop
    with (
        FakeOpenAI(cpu=1 if two_cores else None, latency=options.latency) as server,
        Runtime(loop_factory=new) as runtime,
    ):
        bench = Bench(server.url, runtime, options.calls, options.in_flight)
        made = {name: getattr(bench, name)() for name in names if name in {"bare", *options.only}}
        taken = measure(bench, made, options.rounds)
        result = {
            "benchmark": "calls",
            "calls": options.calls,
            "in_flight": options.in_flight,
            "rounds": options.rounds,
            "server_latency_s": options.latency,
            "loop": type(runtime.loop).__module__,
            "python": platform.python_version(),
            "pinned": two_cores,
            "load_average_before": round(os.getloadavg()[0], 2),
            "variants": report(taken),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
