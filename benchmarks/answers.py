"""What a big answer costs the client: CPU per call, for all of rowloop beside bare aiohttp and msgspec in the same run.

    python benchmarks/answers.py [--calls 2048] [--in-flight 256] [--rounds 5] [--only CASE ...]

As calls.py: the client is pinned to core 0, the fake endpoint to core 1, and rounds alternate between variants. A ratio
is the median of the ratios to bare aiohttp in the same round. Prints JSON.

    text_10_kb          answers of 10 KB of text; bare decodes the answer
    structured_40       answers in JSON with 40 fields; bare decodes the answer, and then its JSON
    embedding_1536      vectors of 1,536 numbers in base64; bare decodes the answer, and makes arrays of the bytes

Each of them with a journal (the default) and without one, built into Parquet.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import msgspec
import numpy as np
from calls import Bench, Variant, measure, report

import rowloop
from contenders import bare
from contenders.job import NAME, PROMPT, TEMPERATURE
from fake_openai import FakeOpenAI
from rowloop.runtime.runtime import Runtime, new_loop

Connected = Callable[[str], Any]

_KINDS: tuple[tuple[str, Any], ...] = (
    ("string", "a text of some forty letters, as they often are"),
    ("integer", 1234),
    ("number", 12.75),
    ("boolean", True),
)
FIELDS = {f"field_{number}": _KINDS[number % 4] for number in range(40)}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {name: {"type": kind} for name, (kind, _) in FIELDS.items()},
    "required": list(FIELDS),
    "additionalProperties": False,
}
DIMENSIONS = 1536


class _Vector(msgspec.Struct):
    embedding: bytes


class _Vectors(msgspec.Struct):
    data: list[_Vector]


@asynccontextmanager
async def _embedding(url: str) -> AsyncIterator[Callable[[list[dict[str, str]]], Awaitable[Any]]]:
    """Give what asks for one vector by hand."""
    encode = msgspec.json.Encoder().encode
    decode = msgspec.json.Decoder(_Vectors).decode
    async with bare.posting(f"{url}/embeddings") as post:

        async def call(messages: list[dict[str, str]]) -> Any:
            body = encode({"model": NAME, "input": messages[0]["content"], "encoding_format": "base64"})
            return np.frombuffer(decode(await post(body)).data[0].embedding, "<f4")

        yield call


@asynccontextmanager
async def _structured(url: str) -> AsyncIterator[Callable[[list[dict[str, str]]], Awaitable[Any]]]:
    """Give what asks for one object by hand."""
    async with bare.connected(url) as ask:

        async def call(messages: list[dict[str, str]]) -> Any:
            return msgspec.json.decode(await ask(messages))

        yield call


@dataclass(frozen=True)
class Case:
    """A kind of answer: the column that asks for it, the same by hand, the server's behaviour, and the ceilings."""

    column: rowloop.Text | rowloop.Structured | rowloop.Embedding
    by_hand: Connected
    behaviour: dict[str, Any]
    ceilings: dict[str, float] = field(default_factory=dict)


_PROMPT = PROMPT.format("{{ number }}")
CASES = {
    "text_10_kb": Case(
        rowloop.Text("answer", "m", _PROMPT),
        bare.connected,
        {"reply": "fixed:" + "Ten words make a line, and many lines an answer. " * 209},
        {"journal": 1.7},
    ),
    "structured_40": Case(
        rowloop.Structured("answer", "m", _PROMPT, schema=SCHEMA),
        _structured,
        {"reply": "fixed:" + json.dumps({name: value for name, (_, value) in FIELDS.items()})},
        {"journal": 1.6},
    ),
    "embedding_1536": Case(
        rowloop.Embedding("answer", "m", _PROMPT),
        _embedding,
        {"dimensions": DIMENSIONS},
        {"journal": 2.4, "no_journal": 1.5},
    ),
}


class Answers(Bench):
    """One case's server, and the variants that run against it."""

    def by_hand(self, connected: Connected) -> Variant:
        """Use aiohttp and msgspec alone."""
        return partial(self.in_workers, self.runtime.enter(partial(connected, self.url)))

    def through(self, column: Any, *, journal: bool) -> Variant:
        """Use all of rowloop."""
        model = rowloop.Model(f"openai:{NAME}", base_url=self.url, temperature=TEMPERATURE, max_parallel=self.in_flight)

        def run() -> None:
            self.round += 1
            numbers = rowloop.Uniform("number", 0, 1e12, decimals=0)
            recipe = rowloop.Recipe(models={"m": model}, columns=[numbers, column], seed=self.round)
            with tempfile.TemporaryDirectory() as folder:
                result = recipe.build(
                    Path(folder) / "out", rows=self.calls, progress=False, journal=journal, runtime=self.runtime
                )
                if result.actual != self.calls:
                    raise RuntimeError(f"{result.actual} rows of {self.calls}")

        return run


def bench(case: Case, options: argparse.Namespace, runtime: Runtime, cpu: int | None) -> dict[str, Any]:
    """Measure one case."""
    with FakeOpenAI(cpu=cpu, latency=options.latency, **case.behaviour) as server:
        answers = Answers(server.url, runtime, options.calls, options.in_flight)
        variants = {
            "bare": answers.by_hand(case.by_hand),
            "no_journal": answers.through(case.column, journal=False),
            "journal": answers.through(case.column, journal=True),
        }
        found: dict[str, Any] = report(measure(answers, variants, options.rounds))
    for name, ceiling in case.ceilings.items():
        found[name]["ceiling"] = ceiling
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2048)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    two_cores = hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1
    if two_cores:
        os.sched_setaffinity(0, {0})
    with Runtime(loop_factory=new_loop) as runtime:
        load = round(os.getloadavg()[0], 2)
        found = {name: bench(CASES[name], options, runtime, 1 if two_cores else None) for name in options.only}
        result = {
            "benchmark": "answers",
            "calls": options.calls,
            "in_flight": options.in_flight,
            "rounds": options.rounds,
            "server_latency_s": options.latency,
            "loop": type(runtime.loop).__module__,
            "python": platform.python_version(),
            "pinned": two_cores,
            "load_average_before": load,
            "cases": found,
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
