"""rowloop: a recipe, built into Parquet with the settings it has by default, the journal among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

import rowloop as rl

from .job import NAME, PROMPT, TEMPERATURE, Shape

if TYPE_CHECKING:
    from pathlib import Path

    from .job import Job

COLUMNS: dict[Shape, dict[str, str]] = {
    "column": {"answer": PROMPT.format("{{ number }}")},
    "diamond": {
        "a": "Write a question about topic number {{ number }}. Say what it is about and why anybody would ask.",
        "b": "Write a fact about topic number {{ number }}. Say what it is about and why anybody would know.",
        "c": "Say in one sentence whether this answers the question.\n\n{{ a }}\n\n{{ b }}\n\nTopic: {{ number }}",
    },
}


def run(job: Job, folder: Path) -> int:
    """Build the table."""
    model = rl.Model(f"openai:{NAME}", base_url=job.url, temperature=TEMPERATURE, max_parallel=job.in_flight)
    prompts = COLUMNS[job.shape]
    recipe = rl.Recipe(
        models={"writer": model},
        columns=[
            rl.Seed(pd.DataFrame({"number": job.numbers})),
            *(rl.Text(name, model="writer", prompt=prompt) for name, prompt in prompts.items()),
        ],
        seed=7,
    )
    return recipe.build(folder, rows=job.rows).actual
