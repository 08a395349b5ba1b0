"""The script that people write today: AsyncOpenAI, a semaphore, tenacity and pandas."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pandas as pd
from openai import AsyncOpenAI, DefaultAioHttpClient
from tenacity import retry, stop_after_attempt, wait_random_exponential

from .job import NAME, PROMPT, TEMPERATURE

if TYPE_CHECKING:
    from pathlib import Path

    from .job import Job


def run_httpx(job: Job, folder: Path) -> int:
    """Use the client as it comes."""
    frame = asyncio.run(_fill(job, AsyncOpenAI(base_url=job.url, api_key="any")))
    return _write(frame, folder)


def run_aiohttp(job: Job, folder: Path) -> int:
    """Use the client on its aiohttp transport."""

    async def main() -> pd.DataFrame:
        return await _fill(job, AsyncOpenAI(base_url=job.url, api_key="any", http_client=DefaultAioHttpClient()))

    return _write(asyncio.run(main()), folder)


async def _fill(job: Job, client: AsyncOpenAI) -> pd.DataFrame:
    frame = pd.DataFrame({"number": job.numbers})
    semaphore = asyncio.Semaphore(job.most)

    @retry(wait=wait_random_exponential(min=1, max=60), stop=stop_after_attempt(6))
    async def ask(number: int) -> str | None:
        async with semaphore:
            completion = await client.chat.completions.create(
                model=NAME, temperature=TEMPERATURE, messages=[{"role": "user", "content": PROMPT.format(number)}]
            )
        return completion.choices[0].message.content

    async with client:
        frame["answer"] = await asyncio.gather(*map(ask, frame["number"]))
    return frame


def _write(frame: pd.DataFrame, folder: Path) -> int:
    folder.mkdir()
    frame.to_parquet(folder / "answers.parquet")
    return int(frame["answer"].notna().sum())
