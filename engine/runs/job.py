"""Job: one run, checked before it starts. Gives each part of the run what it needs of the compiled recipe."""

from __future__ import annotations

import contextlib
import functools
import secrets
import warnings
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from ...runtime import default
from ...runtime.guards import call_site, written
from ..core.errors import RecipeError
from ..core.row_groups import Plan
from ..datasets.past import Past
from ..models.prices import price_of
from ..models.provider import providers
from ..processors.processor import overriding
from .bookkeeping import Output
from .execution import Execution
from .facts import ColumnFacts, RecipeFacts
from .settings import ROW_GROUP_SIZE, Settings
from .workload import Workload

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping, Sequence
    from pathlib import Path

    from ...runtime import Call
    from ..compiler.compiling import Compiled
    from ..datasets.claim import Claim
    from ..datasets.journal_records import Facts
    from ..datasets.result import Result
    from ..datasets.tables import Tables
    from ..models.model import Model
    from .settings import RunOptions
    from .updates.plan import Plan as UpdatePlan


class Job:
    """One run that is ready to start."""

    def __init__(self, compiled: Compiled, seed: int | None, path: Path | None, rows: int, options: RunOptions) -> None:
        """Check options, models and directory; `path=None` keeps the rows in memory.

        Raises RecipeError for a mistake and ResumeError for a directory that does not fit, before anything is paid for.
        A run that resumes checks its models only if there is work left.
        """
        if "seed" in options:
            raise RecipeError("seed", "belongs to the recipe: Recipe(..., seed=7)")
        settings = Settings(rows=rows, **options)
        if settings.resume == "never":
            _check_models(_models_called(compiled))
        if compiled.resizing:
            _deprecate_resizing(compiled.resizing)
        self._runtime = settings.runtime or default()
        self._tables = _tables_of(compiled)
        seed = secrets.randbits(32) if seed is None else seed
        if path is None:
            self.execution = _preview(compiled, settings, seed)
        else:
            self.execution = _build(compiled, settings, seed, path)

    def run(self, door: str) -> Result:
        """Work and block, for a method of Recipe."""
        with self._closed_on_error(), written(f"recipe.{door}(...)", f"await recipe.a{door}(...)"):
            return self._runtime.run(self._coroutine(), finish_at_exit=True)

    def submit(self) -> Call[Result]:
        """Work in the background."""
        with self._closed_on_error():
            return self._runtime.submit(self._coroutine(), finish_at_exit=True)

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """Release the directory if the run does not begin."""
        try:
            yield
        except BaseException:
            self.execution.close_unless_begun()
            raise

    def _coroutine(self) -> Coroutine[Any, Any, Result]:
        coroutine, path = self.execution.run(self._runtime, self._tables), self.execution.path
        assert isinstance(coroutine, CoroutineType)  # noqa: S101 - an async def returns one
        coroutine.__qualname__ = "the preview" if path is None else f"the run of '{path}'"  # messages name it
        return coroutine


def _preview(compiled: Compiled, settings: Settings, seed: int) -> Execution:
    from ..datasets.sinks import MemorySink  # noqa: PLC0415 - it loads pyarrow

    if settings.resume != "never":
        raise RecipeError("resume", "a preview writes nothing that could be resumed; use build")
    plan = Plan(settings.rows, settings.row_group_size or ROW_GROUP_SIZE, memory=settings.memory)
    return _execution(compiled, settings, seed, plan, Output(MemorySink(settings.on_part), Past()))


def _build(compiled: Compiled, settings: Settings, seed: int, path: Path) -> Execution:
    from .resuming import Wanted, claim_directory  # noqa: PLC0415 - it loads pyarrow and sqlite3

    facts = _new_facts(compiled, seed, settings.rows, settings.row_group_size)
    wanted = Wanted(facts, compiled.written, compiled.graph, compiled.kept, compiled.restorable, compiled.columns)
    claim = claim_directory(path, wanted, settings)
    try:
        plan = Plan(settings.rows, claim.facts.row_group_size, earlier=claim.past.earlier, memory=settings.memory)
        if settings.resume != "never" and plan.left:
            _check_models(_models_called(compiled))
        return _execution(compiled, settings, claim.facts.seed, plan, _output(compiled, settings, claim))
    except BaseException:
        claim.place.close()
        raise


def plan_of(compiled: Compiled, seed: int | None, path: Path, rows: int) -> UpdatePlan:
    """Plan an update of the dataset in a directory."""
    from .updates.plan import planned  # noqa: PLC0415 - it loads pyarrow and sqlite3

    rows = Settings(rows=rows).rows
    return planned(path, _new_facts(compiled, secrets.randbits(32) if seed is None else seed, rows), compiled.columns)


def _new_facts(compiled: Compiled, seed: int, rows: int, row_group_size: int | None = None) -> Facts:
    """Return the facts of a dataset that begins."""
    from ..datasets.journal_records import Facts  # noqa: PLC0415 - not for a preview

    return Facts(
        identity=compiled.identity,
        seed=seed,
        row_group_size=row_group_size or ROW_GROUP_SIZE,
        engine=compiled.engine,
        targets=[rows],
        fingerprint=compiled.fingerprint,
        dataset=secrets.token_hex(8),
        definitions=list(compiled.definitions),
    )


def _output(compiled: Compiled, settings: Settings, claim: Claim) -> Output:
    from ..datasets.journal_writer import JournalWriter  # noqa: PLC0415 - it loads sqlite3
    from ..datasets.parquet_sink import ParquetSink  # noqa: PLC0415 - it loads pyarrow

    kept = (compiled.kept, compiled.rewriting) if settings.journal else ()
    journal = JournalWriter(claim.place.journal, *kept)
    claim.place.heartbeat.on_lost(journal.fail)
    return Output(ParquetSink(claim, journal, settings.on_part), claim.past, journal, claim.place)


def _execution(compiled: Compiled, settings: Settings, seed: int, plan: Plan, output: Output) -> Execution:
    return Execution(_workload_of(compiled), _facts_of(compiled, seed), settings, output, plan)


# What each part of a run needs of the compiled recipe


def _tables_of(compiled: Compiled) -> Tables:
    from ..datasets.tables import Frames  # noqa: PLC0415 - it loads pyarrow
    from ..processors.applying import ProcessedTables  # noqa: PLC0415 - it loads pandas

    names = [column.name for column in compiled.columns]
    tables = Frames(names, [column.arrow_type() for column in compiled.columns])
    if overriding(compiled.processors, "after_batch"):
        return ProcessedTables(tables, compiled.processors)
    return tables


def _workload_of(compiled: Compiled) -> Workload:
    from ..processors import applying  # noqa: PLC0415 - it loads pandas

    before = after = None
    if compiled.before_batch is not None:
        resize = compiled.engine == "sequential"
        before = functools.partial(applying.rewriting, compiled.before_batch, resize=resize)
    processors = overriding(compiled.processors, "after_generation")
    if processors:
        after = applying.changing(processors)
    return Workload(compiled.graph, compiled.columns, _models_called(compiled), before, after)


def _facts_of(compiled: Compiled, seed: int) -> RecipeFacts:
    aliases = [compiled.model_of.get(i) for i in range(len(compiled.columns))]
    prices = {alias: price_of(model) for alias, model in _models_called(compiled).items()}
    columns = [
        ColumnFacts(
            name=column.name,
            type=column.type,
            model=alias,
            price=None if alias is None else prices[alias],
            structured=column.obeys_schema,
        )
        for column, alias in zip(compiled.columns, aliases, strict=True)
    ]
    return RecipeFacts(compiled.engine, seed, compiled.fingerprint, compiled.description, columns)


def _models_called(compiled: Compiled) -> dict[str, Model]:
    """Return the models that columns call, by alias."""
    return {alias: compiled.models[alias] for alias in compiled.model_of.values()}


def _check_models(models: Mapping[str, Model]) -> None:
    """Let each model's provider check that nothing is missing."""
    for alias, model in models.items():
        try:
            providers.get(model.provider).check(model)
        except RecipeError as error:
            raise RecipeError(f"models.{alias}", str(error)) from error


def _deprecate_resizing(columns: Sequence[str]) -> None:
    """Warn once per run, at the user's line."""
    _, _, depth = call_site()
    message = (
        f"allow_resize ({', '.join(columns)}) makes the whole recipe run column by column; chain recipes with Workflow"
        " instead, whose stages can filter, explode and sample"
    )
    warnings.warn(message, DeprecationWarning, stacklevel=depth)
