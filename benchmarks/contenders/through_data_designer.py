"""NeMo DataDesigner: a seed dataset and an LLM text column, written by create()."""

from __future__ import annotations

from typing import TYPE_CHECKING

import data_designer.config as dd  # type: ignore[import-not-found] # it is in an environment of its own
import pandas as pd
from data_designer.interface import DataDesigner  # type: ignore[import-not-found] # the same

from .job import NAME, PROMPT, TEMPERATURE

if TYPE_CHECKING:
    from pathlib import Path

    from .job import Job


def run(job: Job, folder: Path) -> int:
    """Create the dataset, with its settings as they are but for the number of requests at once."""
    parameters = dd.ChatCompletionInferenceParams(temperature=TEMPERATURE, max_parallel_requests=job.most)
    model = dd.ModelConfig(alias="writer", model=NAME, provider="fake", inference_parameters=parameters)
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.with_seed_dataset(dd.DataFrameSeedSource(df=pd.DataFrame({"number": job.numbers})))
    builder.add_column(
        dd.LLMTextColumnConfig(name="answer", model_alias="writer", prompt=PROMPT.format("{{ number }}"))
    )
    provider = dd.ModelProvider(name="fake", endpoint=job.url, api_key="any")
    results = DataDesigner(artifact_path=folder, model_providers=[provider]).create(builder, num_records=job.rows)
    return int(results.load_dataset()["answer"].notna().sum())
