"""Bespoke Curator: an LLM with a prompt for each row; its answers, a Hugging Face dataset, written to Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bespokelabs import curator  # type: ignore[import-not-found] # it is in an environment of its own

from .job import NAME, PROMPT, TEMPERATURE

if TYPE_CHECKING:
    from pathlib import Path

    from .job import Job


class Reviewer(curator.LLM):  # type: ignore[misc] # what it is derived from is not known here
    """Asks for a review."""

    def prompt(self, row: dict[str, Any]) -> str:
        """Say what is asked for a row."""
        return PROMPT.format(row["number"])

    def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
        """Say what becomes of the answer."""
        return {"number": row["number"], "answer": response}


def run(job: Job, folder: Path) -> int:
    """Ask, with limits per minute that are out of the way."""
    reviewer = Reviewer(
        model_name=NAME,
        backend="openai",
        generation_params={"temperature": TEMPERATURE},
        backend_params={
            "base_url": job.url,
            "api_key": "any",
            "max_concurrent_requests": job.most,
            "max_requests_per_minute": 1_000_000,
            "max_tokens_per_minute": 1_000_000_000,
        },
    )
    answers = reviewer([{"number": number} for number in job.numbers], working_dir=str(folder)).dataset
    answers.to_parquet(folder / "answers.parquet")
    return sum(answer is not None for answer in answers["answer"])
