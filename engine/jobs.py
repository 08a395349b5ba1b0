"""A job: a compiled recipe, a place to write to and the settings of one run, all of it checked before it starts."""

from __future__ import annotations

import os
import secrets
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from pydantic import Field

from ..runtime import Runtime, default
from .errors import RecipeError
from .models import providers
from .processors import overriding
from .progress import displays
from .run import Execution, Settings
from .spec import spec

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from ..runtime import Call
    from .progress import Display
    from .results import Result
    from .run import Compiled


class RunOptions(TypedDict, total=False):
    """What a run can be told.

    `row_group_size`: rows worked, written and kept in memory as one (1000). `min_completion`: the share of the rows,
    in (0, 1], below which PartialDatasetError is raised. `progress`: False for no display, or one of your own.
    `overwrite`: replace the dataset that is in the directory. `trace`: keep a TaskTrace of every attempt; by default
    where the environment has ROWLOOP_TRACE=1. `stall_after`, `slow_request_after`: seconds without progress, or without
    an answer to a request, after which there is a warning (30; None for none). `runtime`: another loop than the shared
    one. `engine`: "sequential" works column by column.
    """

    row_group_size: int
    min_completion: float | None
    progress: bool | Display | None
    overwrite: bool
    trace: bool | None
    stall_after: float | None
    slow_request_after: float | None
    runtime: Runtime | None
    engine: Literal["async", "sequential"]


@spec
class _Checked:
    """RunOptions, validated."""

    root: ClassVar[str] = ""
    rows: int = Field(ge=1, strict=True)
    row_group_size: int = Field(default=1000, ge=1, strict=True)
    min_completion: float | None = Field(default=None, gt=0, le=1)
    progress: Any = None
    overwrite: bool = False
    trace: bool | None = None
    stall_after: float | None = Field(default=30.0, gt=0)
    slow_request_after: float | None = Field(default=30.0, gt=0)
    runtime: Runtime | None = None
    engine: Literal["async", "sequential"] = "async"


class Job:
    """One run that is ready to start."""

    def __init__(
        self, compiled: Compiled, seed: int | None, path: str | Path | None, rows: int, options: RunOptions
    ) -> None:
        """Check options, models and directory, in that order; `path=None` keeps the rows in memory.

        Raises RecipeError for what is wrong; nothing has been paid for then.
        """
        checked = _Checked(rows=rows, **options)
        _check_models(compiled)
        if compiled.resizing:
            _deprecate_resizing(compiled.resizing)
        from . import frames, processing, sinks  # noqa: PLC0415 - they load pyarrow

        if path is None:
            self._sink: sinks.Sink = sinks.MemorySink()
        else:
            sinks.prepare_directory(Path(path), overwrite=checked.overwrite)
            self._sink = sinks.ParquetSink(Path(path))
        settings = Settings(
            rows=rows,
            seed=secrets.randbits(32) if seed is None else seed,
            row_group_size=checked.row_group_size,
            min_completion=checked.min_completion,
            display=_display(checked.progress),
            trace=_traced() if checked.trace is None else checked.trace,
            stall_after=checked.stall_after,
            slow_request_after=checked.slow_request_after,
        )
        names = [column.name for column in compiled.columns]
        self._tables: processing.Tables = frames.Frames(names, [column.arrow_type() for column in compiled.columns])
        if overriding(compiled.processors, "after_batch"):
            self._tables = processing.ProcessedTables(self._tables, compiled.processors)
        self._runtime = checked.runtime or default()
        self.execution = Execution(compiled, settings, self._sink)

    def run(self) -> Result:
        """Work and block."""
        return self._runtime.run(self._coroutine())

    def submit(self) -> Call[Result]:
        """Work in the background."""
        return self._runtime.submit(self._coroutine())

    def _coroutine(self) -> Coroutine[Any, Any, Result]:
        return self.execution.run(self._runtime, self._tables)


def _check_models(compiled: Compiled) -> None:
    """Have each model's provider look for what is missing."""
    for alias in dict.fromkeys(compiled.model_of.values()):
        model = compiled.models[alias]
        try:
            providers.get(model.provider).check(model)
        except RecipeError as error:
            raise RecipeError(f"models.{alias}", str(error)) from error


def _traced() -> bool:
    return os.environ.get("ROWLOOP_TRACE", "").lower() not in {"", "0", "false", "no", "off"}


def _deprecate_resizing(columns: Sequence[str]) -> None:
    """Warn once a run, at the line of the user's that asked for it."""
    depth, frame = 1, sys._getframe(1)  # noqa: SLF001 - warnings' own skip_file_prefixes is of 3.12
    package = __name__.partition(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        depth, frame = depth + 1, frame.f_back
    message = (
        f"allow_resize ({', '.join(columns)}) has the whole recipe worked column by column;"
        " chain recipes with Workflow, whose stages may filter, explode and sample"
    )
    warnings.warn(message, DeprecationWarning, stacklevel=depth)


def _display(progress: object) -> Display | None:
    if progress is None or progress is True:
        return displays.get("auto")
    if progress is False:
        return None
    if not callable(progress):
        raise RecipeError("progress", f"takes True, False or a display, not {progress!r:.80}")
    return progress
