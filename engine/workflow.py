"""Workflow: a chain of recipes. The rows of one stage, filtered, exploded and sampled, are the seed of the next."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from pydantic import Field, field_validator

from ..runtime.guards import refuse_other_hosts
from .core.errors import DatasetGenerationError, RecipeError, RowloopError, nearest, shown
from .core.spec import spec
from .datasets.directory import path_of
from .recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Unpack

    import pandas as pd
    import pyarrow as pa

    from .datasets.result import Result
    from .runs.settings import RunOptions

Filter: TypeAlias = str | Callable[[Any], Any]

logger = logging.getLogger("rowloop")

_NAME = re.compile(r"\w[\w-]*")


@spec
class Stage:
    """One recipe of a workflow, and which of its rows it passes on.

    The recipe takes columns of the previous stage with `Seed(columns=[...])`, a seed without data. `rows` is the number
    of rows to make; a first stage without a seed table needs it, and the others by default make as many as they are
    passed.

    `filter` keeps rows: a condition of pandas' DataFrame.query ("score >= 3"), or a function from the DataFrame to a
    Series of booleans. Then `explode` names a column of lists, and each element becomes a row. Then `sample` draws rows
    without replacement: a number of rows, or a share between 0 and 1. Rows keep their order.
    """

    name: str
    recipe: Recipe
    rows: int | None = Field(default=None, ge=1, strict=True, kw_only=True)
    filter: Filter | None = Field(default=None, kw_only=True)
    explode: str | None = Field(default=None, kw_only=True)
    sample: int | float | None = Field(default=None, gt=0, kw_only=True)

    @field_validator("name")
    @classmethod
    def _is_a_directory(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("takes letters, digits, _ and -, because it names a directory")
        return name

    @field_validator("sample")
    @classmethod
    def _is_a_number_or_a_share(cls, sample: float | None) -> float | None:
        if isinstance(sample, float) and sample > 1:
            raise ValueError("takes a whole number of rows, or a share up to 1.0")
        return sample

    @overload
    def passed_on(self, rows: pa.Table) -> pa.Table: ...
    @overload
    def passed_on(self, rows: pd.DataFrame) -> pd.DataFrame: ...
    def passed_on(self, rows: pa.Table | pd.DataFrame) -> pa.Table | pd.DataFrame:
        """Filter, explode and sample rows of this stage; raises RecipeError for a filter that fails on them.

        In a table, values and types stay as they are.
        """
        import pandas as pd  # noqa: PLC0415 - not at import time

        from .columns.sources.json_text import frame_of  # noqa: PLC0415 - it loads pyarrow
        from .datasets import selection  # noqa: PLC0415 - the same

        if isinstance(rows, pd.DataFrame):
            return frame_of(self.passed_on(selection.table_of(rows)))
        if self.filter is not None:
            rows = selection.filtered(rows, self.filter, f"stages.{self.name}.filter")
        if self.explode is not None:
            rows = selection.exploded(rows, self.explode)
        return rows if self.sample is None else selection.sampled(rows, self.sample, self.recipe.seed)


class Workflow:
    """A chain of recipes. Checked at construction, as far as the columns of the stages are known."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        """Take the stages in order; raises RecipeError for stages that do not fit together."""
        if not isinstance(stages, list | tuple):
            raise RecipeError("stages", f"takes a list of stages, not {shown(stages)}")
        if not stages:
            raise RecipeError("stages", "a workflow needs at least one stage")
        for i, stage in enumerate(stages):
            if not isinstance(stage, Stage):
                raise RecipeError(f"stages.{i}", f"takes a Stage, not {shown(stage)}")
        for i, stage in enumerate(stages):
            if stage.name in [earlier.name for earlier in stages[:i]]:
                raise RecipeError(f"stages.{stage.name}", "two stages have this name")
            _check(stage, stages[i - 1] if i else None)
        self._stages = list(stages)

    def preview(self, rows: int = 5, **options: Unpack[RunOptions]) -> list[Result]:
        """Make a few rows of the first stage and run the other stages on them, in memory; one Result per stage."""
        results: list[Result] = []
        given: pa.Table | None = None
        for stage in self._stages:
            recipe, count = _seeded(stage, given)
            with _named(stage):
                results.append(recipe.preview(min(count, rows) if given is None else count, **options))
            given = stage.passed_on(results[-1].to_arrow())
        return results

    def build(self, path: str | Path, **options: Unpack[RunOptions]) -> list[Result]:
        """Make each stage's dataset in a directory of its own under `path`; one Result per stage, in order.

        A stage that ends early is the last: the next would start from too few rows, and could not be resumed with more.
        A stage that an earlier build has finished, with the same recipe on the same rows, does not run again, and one
        that was cut short is resumed, unless `resume` says otherwise. Raises ResumeError if a directory holds a dataset
        of another recipe, unless `overwrite` is true.
        """
        results: list[Result] = []
        directory = path_of(path)
        for stage, recipe, rows in self._seeded(results):
            with _named(stage):
                results.append(recipe.build(directory / stage.name, rows, **_resuming(options)))
        return results

    async def abuild(self, path: str | Path, **options: Unpack[RunOptions]) -> list[Result]:
        """Do the same as `build`, from a coroutine in any event loop; cancelling it cancels the run."""
        refuse_other_hosts("await workflow.abuild(...)", "workflow.build(...)")
        results: list[Result] = []
        directory = path_of(path)
        for stage, recipe, rows in self._seeded(results):
            with _named(stage):
                results.append(await recipe.abuild(directory / stage.name, rows, **_resuming(options)))
        return results

    def _seeded(self, results: Sequence[Result]) -> Iterator[tuple[Stage, Recipe, int]]:
        """Yield each stage with the recipe and the rows to run; the caller appends each stage's Result to `results`."""
        given: pa.Table | None = None
        for stage in self._stages:
            yield stage, *_seeded(stage, given)
            if (reason := results[-1].reason) is not None:
                logger.warning("stage '%s' ended early, and later stages wait for it: %s", stage.name, reason)
                return
            given = stage.passed_on(results[-1].to_arrow())


@contextlib.contextmanager
def _named(stage: Stage) -> Iterator[None]:
    """Add the stage's name to errors."""
    try:
        yield
    except RowloopError as error:
        error.add_note(f"in stage '{stage.name}' of the workflow")
        raise


def _check(stage: Stage, before: Stage | None) -> None:
    path = f"stages.{stage.name}"
    written = stage.recipe.written
    if stage.explode is not None and written is not None and stage.explode not in written:
        raise RecipeError(f"{path}.explode", f"unknown column '{stage.explode}'; {nearest(stage.explode, written)}")
    wanted = stage.recipe.awaited
    if before is None:
        if stage.rows is None and stage.recipe.rows is None:
            raise RecipeError(f"{path}.rows", "the first stage needs a number of rows, or a seed table")
        if wanted:
            raise RecipeError(f"{path}.recipe", f"needs {', '.join(wanted)} of a previous stage, and is the first")
        return
    if not wanted:
        raise RecipeError(f"{path}.recipe", "uses no column of the previous stage; add a Seed(columns=[...])")
    there = before.recipe.written or wanted
    for name in wanted:
        if name not in there:
            problem = f"stage '{before.name}' has no column '{name}'; {nearest(name, there)}"
            raise RecipeError(f"{path}.recipe.columns.seed", problem)


def _resuming(options: RunOptions) -> RunOptions:
    """Resume the stages' datasets, unless the options say otherwise."""
    return {"resume": "always", **options}


def _seeded(stage: Stage, given: pa.Table | None) -> tuple[Recipe, int]:
    """Return the recipe with the rows passed to it as its seed, and the number of rows to make."""
    if given is None:
        return stage.recipe, stage.rows or stage.recipe.rows or 1
    if not given.num_rows:
        raise DatasetGenerationError("the previous stage passed no rows on", stage=f"stage '{stage.name}'")
    return stage.recipe.replace_seed(given), stage.rows or given.num_rows
