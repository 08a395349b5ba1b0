"""Settings: the options of a run, as users write them and as the engine reads them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypedDict

from pydantic import Field, ValidationInfo, field_validator

from ...runtime import Runtime
from ..core.errors import shown
from ..core.policy import ErrorBudget, RetryPolicy
from ..core.spec import spec
from ..datasets.directory import Resume, path_problem
from ..telemetry.observer import METHODS
from ..telemetry.progress import displays

if TYPE_CHECKING:
    from ..datasets.parts import Part
    from ..telemetry.observer import Observer
    from ..telemetry.progress import Display

ROW_GROUP_SIZE: Final = 1000
MEMORY: Final = 256 * 1024**2
MOST_ROWS: Final = 10**12
"""More rows than any run can make: a larger number is a slip."""


class RunOptions(TypedDict, total=False):
    """The options of a run.

    - `row_group_size`: rows worked, written and kept in memory together (1000).
    - `resume`: "always" resumes the dataset in the directory, or raises ResumeError if it does not fit; "if_possible"
      takes the next directory then (path-2, path-3, ...); "never" (the default) refuses a directory with a dataset;
      "update" takes a changed recipe and makes only the cells that this changes (docs/edits.md).
    - `retry_failed`: when it resumes, retry the cells that failed.
    - `overwrite`: replace the dataset in the directory.
    - `journal`: False keeps finished row groups only, and no finished cells of unfinished ones.
    - `min_completion`: the share of rows, in (0, 1], below which PartialDatasetError is raised.
    - `max_cost`, `max_tokens_total`: US dollars and tokens after which no more requests are sent, counted over all runs
      of the dataset; requests in flight are awaited.
    - `deadline`: seconds after which the run ends; what is in flight is cancelled, and it can be resumed.
    - `memory`: bytes that the values of unfinished row groups may take, counted twice because memory is lost between
      them, and the tables made to write them (256 MiB; None for any number). One row group is worked in any case.
    - `outage_after`: seconds that an endpoint may be down before the run ends early (600; None for any number). Until
      then rows wait, and no attempt counts; see docs/outages.md.
    - `cache`: the path of a file that stores answers; an equal request to the same model is answered from it.
    - `retry`: a RetryPolicy: which failures are retried, and when.
    - `error_budget`: an ErrorBudget: how many failures end the run early (half of the last 50 outcomes of a column; 10
      in a run of which nothing has succeeded).
    - `progress`: False for no display, the name of a display ("plain"), or a display of your own.
    - `observers`: objects whose `on_event` is called with every event of the run; see docs/diagnostics.md.
    - `on_part`: a function that is called with each Part once it is committed, in the writer's thread; what it raises
      ends the run.
    - `trace`: keep a TaskTrace of every attempt; by default if the environment has ROWLOOP_TRACE=1.
    - `stall_after`, `slow_request_after`: seconds without progress, or without an answer to a request, after which a
      warning is logged (30; None for none).
    - `engine`: "sequential" works column by column.
    - `runtime`: another event loop than the shared one.
    """

    row_group_size: int
    resume: Resume
    retry_failed: bool
    overwrite: bool
    journal: bool
    min_completion: float | None
    max_cost: float | None
    max_tokens_total: int | None
    deadline: float | None
    memory: int | None
    outage_after: float | None
    cache: str | os.PathLike[str] | None
    retry: RetryPolicy
    error_budget: ErrorBudget
    progress: bool | str | Display | None
    observers: Sequence[Observer]
    on_part: Callable[[Part], object] | None
    trace: bool | None
    stall_after: float | None
    slow_request_after: float | None
    engine: Literal["async", "sequential"]
    runtime: Runtime | None


@spec
class Settings:
    """RunOptions, checked, with every default filled in; and the number of rows."""

    root: ClassVar[str] = ""
    rows: int = Field(ge=1, le=MOST_ROWS, strict=True)
    row_group_size: int | None = Field(default=None, ge=1, strict=True)
    """None: as in the dataset that is resumed, else ROW_GROUP_SIZE."""
    resume: Resume = "never"
    retry_failed: bool = False
    overwrite: bool = False
    journal: bool = True
    min_completion: float | None = Field(default=None, gt=0, le=1)
    max_cost: float | None = Field(default=None, gt=0)
    max_tokens_total: int | None = Field(default=None, ge=1, strict=True)
    deadline: float | None = Field(default=None, gt=0)
    memory: int | None = Field(default=MEMORY, ge=1, strict=True)
    outage_after: float | None = Field(default=600.0, gt=0)
    cache: str | os.PathLike[str] | None = None
    retry: RetryPolicy = Field(default_factory=RetryPolicy)
    error_budget: ErrorBudget = Field(default_factory=ErrorBudget)
    progress: Any = Field(default=None, validate_default=True)
    """A Display, or None for none."""
    observers: Any = ()
    """A sequence of Observer."""
    on_part: Callable[[Any], object] | None = None
    trace: bool | None = Field(default=None, validate_default=True)
    stall_after: float | None = Field(default=30.0, gt=0)
    slow_request_after: float | None = Field(default=30.0, gt=0)
    engine: Literal["async", "sequential"] = "async"
    runtime: Runtime | None = None

    @field_validator("row_group_size", mode="before")
    @classmethod
    def _check_size(cls, size: object) -> object:
        if size is None:
            raise ValueError("takes a whole number, not None")
        return size

    @field_validator("retry_failed")
    @classmethod
    def _check_resume(cls, retry_failed: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic calls it
        if retry_failed and info.data.get("resume") == "never":
            raise ValueError('needs a dataset to resume; add resume="always"')
        return retry_failed

    @field_validator("cache")
    @classmethod
    def _make_absolute(cls, cache: str | os.PathLike[str] | None) -> Path | None:
        """Make the path absolute: the working directory may change while a run writes."""
        if cache is None:
            return None
        problem = path_problem(cache)
        if problem is not None:
            raise ValueError(problem)
        return Path(cache).absolute()

    @field_validator("progress")
    @classmethod
    def _choose_display(cls, progress: object) -> Display | None:
        if progress is None or progress is True:
            return displays.get("auto")
        if progress is False:
            return None
        if isinstance(progress, str):
            return displays.get(progress)
        if not callable(progress):
            raise ValueError(f"takes True, False or a display, not {shown(progress)}")  # noqa: TRY004 - what pydantic expects
        return progress

    @field_validator("observers")
    @classmethod
    def _check_observers(cls, observers: object) -> tuple[Observer, ...]:
        if isinstance(observers, str) or not isinstance(observers, Sequence):
            raise ValueError(f"takes a list of observers, not {shown(observers)}")  # noqa: TRY004 - what pydantic expects
        for observer in observers:
            if not callable(getattr(observer, "on_event", None)):
                raise ValueError(f"takes objects with a method on_event, not {shown(observer)}")  # noqa: TRY004 - the same
            for method in METHODS:
                if inspect.iscoroutinefunction(getattr(observer, method, None)):
                    name = f"{type(observer).__name__}.{method}"
                    raise ValueError(f"{name} is async; the methods of an observer are called and not awaited")
        return tuple(observers)

    @field_validator("trace")
    @classmethod
    def _choose_trace(cls, trace: bool | None) -> bool:  # noqa: FBT001 - pydantic calls it
        if trace is None:
            return os.environ.get("ROWLOOP_TRACE", "").lower() not in {"", "0", "false", "no", "off"}
        return trace
