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

Call: TypeAlias = Callable[[list[dict[str, str]]], Awaitable[str]]


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
async def posting(endpoint: str) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """Give what posts a body and returns that of the answer."""
    headers = {"Authorization": "Bearer any", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector, raise_for_status=True) as client:

        async def post(body: bytes) -> bytes:
            async with client.post(endpoint, data=body) as response:
                return await response.read()

        yield post


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Call]:
    """Give what encodes messages, posts them and decodes the answer."""
    encode = msgspec.json.Encoder().encode
    decode = msgspec.json.Decoder(_Completion).decode
    async with posting(f"{url}/chat/completions") as post:

        async def call(messages: list[dict[str, str]]) -> str:
            body = encode({"model": NAME, "temperature": TEMPERATURE, "messages": messages})
            return decode(await post(body)).choices[0].message.content

        yield call


def _conversations(job: Job) -> Iterator[list[dict[str, str]]]:
    for number in range(job.first, job.first + job.calls):
        yield [{"role": "user", "content": PROMPT.format(number)}]


async def _in_workers(job: Job) -> list[str]:
    conversations, answers = _conversations(job), list[str]()
    async with connected(job.url) as call:

        async def work() -> None:
            for messages in conversations:
                answers.append(await call(messages))

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

    async with connected(job.url) as call:

        @tenacity.retry(retry=tenacity.retry_if_exception_type((aiohttp.ClientError, msgspec.DecodeError)), wait=wait)
        async def insistent(messages: list[dict[str, str]]) -> str:
            async with permits:
                return await call(messages)

        return await asyncio.gather(*map(insistent, _conversations(job)))
