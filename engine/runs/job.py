"""A job: a compiled recipe, a place to write to and the settings of one run, all of it checked before it starts."""

from __future__ import annotations

import contextlib
import os
import secrets
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime import default
from ...runtime.guards import call_site
from ..core.errors import RecipeError
from ..core.row_groups import Earlier
from ..models.provider import providers
from ..processors.processor import overriding
from .execution import Execution
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from ...runtime import Call
    from ..compiler.compiling import Compiled
    from ..datasets.result import Result
    from ..datasets.tables import Tables
    from .settings import RunOptions


class Job:
    """One run that is ready to start."""

    def __init__(self, compiled: Compiled, seed: int | None, path: Path | None, rows: int, options: RunOptions) -> None:
        """Check options, models and directory; `path=None` keeps the rows in memory.

        Raises RecipeError for what is wrong, ResumeError for a directory that does not fit; nothing has been paid for
        then. Models are looked at once it is known that there is something to ask them.
        """
        if "seed" in options:
            raise RecipeError("seed", "belongs to the recipe: Recipe(..., seed=7)")
        settings = Settings(rows=rows, seed=secrets.randbits(32) if seed is None else seed, **options)
        if settings.resume == "never":
            _check_models(compiled)
        if compiled.resizing:
            _deprecate_resizing(compiled.resizing)
        from ..datasets import sinks, tables  # noqa: PLC0415 - they load pyarrow and sqlite3
        from ..datasets.journal_writer import Journaling  # noqa: PLC0415 - the same
        from ..processors import applying  # noqa: PLC0415 - the same
        from . import resuming  # noqa: PLC0415 - the same

        names = [column.name for column in compiled.columns]
        self._tables: Tables = tables.Frames(names, [column.arrow_type() for column in compiled.columns])
        if overriding(compiled.processors, "after_batch"):
            self._tables = applying.ProcessedTables(self._tables, compiled.processors)
        self._runtime = settings.runtime or default()
        if path is None:
            if settings.resume != "never":
                raise RecipeError("resume", "a preview keeps nothing that another could go on with; use build")
            self.execution = Execution(compiled, settings, sinks.MemorySink(settings.on_part), Earlier())
            return
        place = resuming.claim(path, compiled, settings, row_group_size=options.get("row_group_size"))
        try:
            if settings.resume != "never" and place.left:
                _check_models(compiled)
            there: RunOptions = {**options, "row_group_size": place.facts.row_group_size}
            settings = Settings(rows=rows, seed=place.facts.seed, **there)
            kept = (compiled.kept, compiled.rewriting) if settings.journal else ()
            sink = sinks.ParquetSink(place, settings.on_part, Journaling(place, *kept))
            self.execution = Execution(compiled, settings, sink, place.earlier)
        except BaseException:
            place.journal.close()
            raise

    def run(self) -> Result:
        """Work and block."""
        with self._claimed():
            return self._runtime.run(self._coroutine())

    def submit(self) -> Call[Result]:
        """Work in the background."""
        with self._claimed():
            return self._runtime.submit(self._coroutine())

    @contextlib.contextmanager
    def _claimed(self) -> Iterator[None]:
        """Let go of the directory when there is no run after all."""
        try:
            yield
        except BaseException:
            self.execution.close_unless_begun()
            raise

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
    _, _, depth = call_site()
    message = (
        f"allow_resize ({', '.join(columns)}) has the whole recipe worked column by column;"
        " chain recipes with Workflow, whose stages may filter, explode and sample"
    )
    warnings.warn(message, DeprecationWarning, stacklevel=depth)
