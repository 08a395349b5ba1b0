"""A job: a compiled recipe, a place to write to and the settings of one run, all of it checked before it starts."""

from __future__ import annotations

import os
import secrets
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from pydantic import Field, field_validator

from ..runtime import Runtime, default
from .errors import RecipeError
from .models import providers
from .policy import ErrorBudget, RetryPolicy
from .processors import overriding
from .progress import displays
from .run import Execution
from .spec import spec

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from ..runtime import Call
    from .compiling import Compiled
    from .progress import Display
    from .results import Result
    from .sinks import Part


class RunOptions(TypedDict, total=False):
    """What a run can be told.

    `row_group_size`: rows worked, written and kept in memory as one (1000). `min_completion`: the share of the rows,
    in (0, 1], below which PartialDatasetError is raised. `retry`: a RetryPolicy, for which failures are tried again and
    when. `error_budget`: an ErrorBudget, for when so much has failed that the run is ended early. `progress`: False for
    no display, or one of your own. `overwrite`: replace the dataset that is in the directory. `trace`: keep a TaskTrace
    of every attempt; by default where the environment has ROWLOOP_TRACE=1. `stall_after`, `slow_request_after`: seconds
    without progress, or without an answer to a request, after which there is a warning (30; None for none). `on_part`:
    a function that is called with each Part once it is committed, in the writer's thread; what it raises ends the run.
    `engine`: "sequential" works column by column. `runtime`: another loop than the shared one.
    """

    row_group_size: int
    min_completion: float | None
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
    min_completion: float | None = Field(default=None, gt=0, le=1)
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


class Job:
    """One run that is ready to start."""

    def __init__(self, compiled: Compiled, seed: int | None, path: Path | None, rows: int, options: RunOptions) -> None:
        """Check options, models and directory, in that order; `path=None` keeps the rows in memory.

        Raises RecipeError for what is wrong; nothing has been paid for then.
        """
        if "seed" in options:
            raise RecipeError("seed", "belongs to the recipe: Recipe(..., seed=7)")
        settings = Settings(rows=rows, seed=secrets.randbits(32) if seed is None else seed, **options)
        _check_models(compiled)
        if compiled.resizing:
            _deprecate_resizing(compiled.resizing)
        from . import frames, processing, sinks  # noqa: PLC0415 - they load pyarrow

        if path is None:
            sink: sinks.Sink = sinks.MemorySink(settings.on_part)
        else:
            sinks.prepare_directory(path, overwrite=settings.overwrite)
            sink = sinks.ParquetSink(path, settings.on_part)
        names = [column.name for column in compiled.columns]
        self._tables: processing.Tables = frames.Frames(names, [column.arrow_type() for column in compiled.columns])
        if overriding(compiled.processors, "after_batch"):
            self._tables = processing.ProcessedTables(self._tables, compiled.processors)
        self._runtime = settings.runtime or default()
        self.execution = Execution(compiled, settings, sink)

    def run(self) -> Result:
        """Work and block."""
        return self._runtime.run(self._coroutine())

    def submit(self) -> Call[Result]:
        """Work in the background."""
        return self._runtime.submit(self._coroutine())

    def _coroutine(self) -> Coroutine[Any, Any, Result]:
        return self.execution.run(self._runtime, self._tables)


def directory_of(path: object) -> Path:
    """Take what names a directory; raises RecipeError for what cannot."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise RecipeError("path", f"takes the path of a directory, not {path!r:.80}")
    try:
        if b"\0" in os.fsencode(path):
            raise RecipeError("path", f"{path!r:.80} is no path: it holds the character 0")
    except UnicodeEncodeError:
        raise RecipeError("path", f"{path!r:.80} is no path: it holds half of a character (a lone surrogate)") from None
    return Path(path)


def _check_models(compiled: Compiled) -> None:
    """Have each model's provider look for what is missing."""
    for alias in dict.fromkeys(compiled.model_of.values()):
        model = compiled.models[alias]
        try:
            providers.get(model.provider).check(model)
        except RecipeError as error:
            raise RecipeError(f"models.{alias}", str(error)) from error


def _deprecate_resizing(columns: Sequence[str]) -> None:
    """Warn once a run, at the line of the user's that asked for it."""
    depth, frame = 2, sys._getframe(1)  # noqa: SLF001 - warnings' own skip_file_prefixes is of 3.12
    package = __name__.partition(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        depth, frame = depth + 1, frame.f_back
    message = (
        f"allow_resize ({', '.join(columns)}) has the whole recipe worked column by column;"
        " chain recipes with Workflow, whose stages may filter, explode and sample"
    )
    warnings.warn(message, DeprecationWarning, stacklevel=depth)
