"""Settings: what a run has and a recipe has not, and how users write it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from pydantic import Field, ValidationInfo, field_validator

from ...runtime import Runtime
from ..core.policy import ErrorBudget, RetryPolicy
from ..core.spec import spec
from ..datasets.directory import Resume
from ..telemetry.progress import displays

if TYPE_CHECKING:
    from ..datasets.parts import Part
    from ..telemetry.progress import Display


class RunOptions(TypedDict, total=False):
    """What a run can be told.

    `row_group_size`: rows worked, written and kept in memory as one (1000). `resume`: "always" goes on with the
    dataset that is in the directory, or raises ResumeError where it is another one; "if_possible" takes the next
    directory then (path-2, path-3, ...). `retry_failed`: when it goes on, work the cells again that failed.
    `journal`: False keeps no finished cells, only finished row groups. `min_completion`: the share of the rows, in
    (0, 1], below which PartialDatasetError is raised. `max_cost`, `max_tokens_total`: US dollars and tokens after
    which nothing more is asked for, counting all runs of the dataset; what is in flight is awaited. `cache`: the
    path of a file that keeps answers; what is asked for in the same words, of the same model, is taken from there.
    `retry`: a RetryPolicy, for which failures are tried again and when. `error_budget`: an ErrorBudget, for when so
    much has failed that the run is ended early. `progress`: False for no display, or one of your own. `overwrite`:
    replace the dataset that is in the directory. `trace`: keep a TaskTrace of every attempt; by default where the
    environment has ROWLOOP_TRACE=1. `stall_after`, `slow_request_after`: seconds without progress, or without an
    answer to a request, after which there is a warning (30; None for none). `on_part`: a function that is called
    with each Part once it is committed, in the writer's thread; what it raises ends the run. `engine`: "sequential"
    works column by column. `runtime`: another loop than the shared one.
    """

    row_group_size: int
    resume: Resume
    retry_failed: bool
    journal: bool
    min_completion: float | None
    max_cost: float | None
    max_tokens_total: int | None
    cache: str | os.PathLike[str] | None
    retry: RetryPolicy
    error_budget: ErrorBudget
    progress: bool | Display | None
    overwrite: bool
    trace: bool | None
    stall_after: float | None
    slow_request_after: float | None
    on_part: Callable[[Part], object] | None
    engine: Literal["async", "sequential"]
    runtime: Runtime | None


@spec
class Settings:
    """What a run has and a recipe has not: RunOptions, checked, and with what they stand for where they are None."""

    root: ClassVar[str] = ""
    seed: int
    rows: int = Field(ge=1, strict=True)
    row_group_size: int = Field(default=1000, ge=1, strict=True)
    resume: Resume = "never"
    retry_failed: bool = False
    journal: bool = True
    min_completion: float | None = Field(default=None, gt=0, le=1)
    max_cost: float | None = Field(default=None, gt=0)
    max_tokens_total: int | None = Field(default=None, ge=1, strict=True)
    cache: str | os.PathLike[str] | None = None
    retry: RetryPolicy = Field(default_factory=RetryPolicy)
    error_budget: ErrorBudget = Field(default_factory=ErrorBudget)
    progress: Any = Field(default=None, validate_default=True)
    """A Display, or None for none."""
    overwrite: bool = False
    trace: bool | None = Field(default=None, validate_default=True)
    stall_after: float | None = Field(default=30.0, gt=0)
    slow_request_after: float | None = Field(default=30.0, gt=0)
    on_part: Callable[[Any], object] | None = None
    engine: Literal["async", "sequential"] = "async"
    runtime: Runtime | None = None

    @field_validator("retry_failed")
    @classmethod
    def _goes_on_with_something(cls, retry_failed: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic calls it
        if retry_failed and info.data.get("resume") == "never":
            raise ValueError('takes a dataset that is there already; say resume="always" as well')
        return retry_failed

    @field_validator("progress")
    @classmethod
    def _displayed(cls, progress: object) -> Display | None:
        if progress is None or progress is True:
            return displays.get("auto")
        if progress is False:
            return None
        if not callable(progress):
            raise ValueError(f"takes True, False or a display, not {progress!r:.80}")  # noqa: TRY004 - what pydantic expects
        return progress

    @field_validator("trace")
    @classmethod
    def _traced(cls, trace: bool | None) -> bool:  # noqa: FBT001 - pydantic calls it
        if trace is None:
            return os.environ.get("ROWLOOP_TRACE", "").lower() not in {"", "0", "false", "no", "off"}
        return trace
