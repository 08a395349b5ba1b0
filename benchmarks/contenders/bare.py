"""aiohttp and msgspec by hand: nothing is kept, nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
import msgspec
import tenacity

from rowloop.runtime.runtime import new_loop

from .job import NAME, PROMPT, TEMPERATURE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .job import Job

Call: TypeAlias = Callable[[str], Awaitable[str]]


class _Said(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    message: _Said
    finish_reason: str


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage


def run(job: Job, _folder: Path) -> int:
    """Make the calls from as many tasks as may be in flight, on the loop that rowloop uses; an error ends it."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return len(runner.run(_in_workers(job)))


def run_retrying(job: Job, _folder: Path) -> int:
    """Make the calls under a fixed limit, and those that fail again: after what Retry-After says, or at random.

    Who waits is not in flight. Waits without a Retry-After are what rowloop's are by default.
    """
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return len(runner.run(_retrying(job)))


@asynccontextmanager
async def _connected(job: Job) -> AsyncIterator[Call]:
    encode = msgspec.json.Encoder().encode
    decode = msgspec.json.Decoder(_Completion).decode
    url = f"{job.url}/chat/completions"
    headers = {"Authorization": "Bearer any", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector, raise_for_status=True) as client:

        async def call(prompt: str) -> str:
            body = encode(
                {"model": NAME, "temperature": TEMPERATURE, "messages": [{"role": "user", "content": prompt}]}
            )
            async with client.post(url, data=body) as response:
                return decode(await response.read()).choices[0].message.content

        yield call


def _prompts(job: Job) -> Iterator[str]:
    return (PROMPT.format(job.first + number) for number in range(job.calls))


async def _in_workers(job: Job) -> list[str]:
    prompts, answers = _prompts(job), list[str]()
    async with _connected(job) as call:

        async def work() -> None:
            for prompt in prompts:
                answers.append(await call(prompt))

        async with asyncio.TaskGroup() as group:
            for _ in range(job.most):
                group.create_task(work())
    return answers


async def _retrying(job: Job) -> list[str]:
    permits = asyncio.Semaphore(job.most)
    otherwise = tenacity.wait_random_exponential(multiplier=0.5, max=30)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = (
            error.headers.get("Retry-After")
            if isinstance(error, aiohttp.ClientResponseError) and error.headers
            else None
        )
        return otherwise(state) if asked is None else float(asked)

    async with _connected(job) as call:

        @tenacity.retry(retry=tenacity.retry_if_exception_type((aiohttp.ClientError, msgspec.DecodeError)), wait=wait)
        async def insistent(prompt: str) -> str:
            async with permits:
                return await call(prompt)

        return await asyncio.gather(*map(insistent, _prompts(job)))
