"""Recipe: models and columns, checked as a whole, and the ways to run them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pydantic.dataclasses import is_pydantic_dataclass

from ..runtime.guards import refuse_other_hosts
from . import recipe_file
from .columns.column import ColumnSpec
from .columns.decorators import cell
from .columns.functions import Function
from .columns.seeds import Seed
from .columns.sources.python_values import python_value
from .compiler.compiling import compile_recipe
from .compiler.template_checks import bare_braces
from .core.errors import RecipeError, nearest, printable, shown
from .datasets.directory import path_of
from .models.model import Model
from .models.provider import check_model, unused_by
from .processors.processor import processor_of
from .runs.handle import Run
from .runs.job import Job
from .telemetry.log import escape_records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Unpack

    from .columns.functions import AnyFunction
    from .compiler.compiling import Compiled
    from .datasets.result import Result
    from .models.model import ModelFunction
    from .processors.processor import Processor
    from .runs.settings import RunOptions
    from .runs.updates.plan import Plan

T = TypeVar("T")
_PREVIEWED = 5

escape_records()  # whoever logs has made a recipe first


class Recipe:
    """The models, columns and processors that make a table. Checked at construction: names, templates, needs, circles.

    `models` maps aliases to a Model, or to its spec alone ("openai:gpt-5-mini"). `columns` are in the order of the
    table; the order in which they are worked follows from their needs. `processors` change whole frames: a Processor,
    or a function of a finished row group's DataFrame. With a `seed`, samplers draw the same values in every run.
    """

    def __init__(
        self,
        *,
        models: Mapping[str, Model | str | ModelFunction] | None = None,
        columns: Sequence[ColumnSpec | AnyFunction] = (),
        processors: Sequence[Processor | AnyFunction] = (),
        seed: int | None = None,
    ) -> None:
        """Check everything; raises RecipeError with the path of the first mistake."""
        self._models = _models({} if models is None else models)
        self._columns = [_column(given) for given in _listed("columns", columns)]
        self._processors = [processor_of(given) for given in _listed("processors", processors)]
        self._seed = recipe_file.checked_seed(seed)
        self._compiled: Compiled | None = None
        self._warned: set[str] = set()
        if self._columns:
            self._compile()

    @classmethod
    def from_yaml(cls, source: str | Path) -> Recipe:
        """Read a recipe from a YAML file (a path), or from YAML text of more than one line."""
        return cls.from_dict(recipe_file.read(source))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Read a recipe from plain data in the form of the YAML file."""
        return cls(**recipe_file.parse(data))

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """Return the JSON Schema of a recipe file, for editors."""
        return recipe_file.json_schema()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data. Keys are left out; Python functions are named and cannot be read back."""
        return recipe_file.dump(self._models, self._columns, self._processors, self._seed)

    def to_yaml(self) -> str:
        """Write the recipe as YAML."""
        return recipe_file.to_yaml(self.to_dict())

    @property
    def models(self) -> dict[str, Model]:
        """The models by alias."""
        return dict(self._models)

    @property
    def columns(self) -> list[str]:
        """The names of the table's columns, in order."""
        return [column.name for column in self._compile().columns]

    @property
    def written(self) -> list[str] | None:
        """The names of the columns that processors leave to be written; None if only running them tells."""
        return self._compile().written

    @property
    def awaited(self) -> list[str]:
        """The names of the columns that must come from the previous Workflow stage."""
        return [
            name
            for seed in self._columns
            if isinstance(seed, Seed) and seed.data is None
            for name in seed.columns or ()
        ]

    @property
    def rows(self) -> int | None:
        """How many rows a run makes by default: those of the seed tables, up to the end of the shortest.

        A table that repeats ends with no other. None for a recipe without a seed table.
        """
        tables = self._tables
        ending = [length for length, repeat in tables if not repeat]
        return min(ending) if ending else max((length for length, _ in tables), default=None)

    @property
    def seed(self) -> int | None:
        """The seed of the samplers."""
        return self._seed

    @property
    def fingerprint(self) -> str:
        """A hash of the part of the recipe that decides the table."""
        return self._compile().fingerprint

    def replace_seed(self, data: object) -> Recipe:
        """Return a recipe in which the seed without data has this data, as Seed takes it."""
        columns = [
            replace(column, data=data) if isinstance(column, Seed) and column.data is None else column
            for column in self._columns
        ]
        return Recipe(models=self._models, columns=columns, processors=self._processors, seed=self._seed)

    def replace_model(self, alias: str, **changes: Any) -> Recipe:
        """Return a recipe with changed fields of a model, such as spec="openai:gpt-5-mini"."""
        if alias not in self._models:
            raise RecipeError(f"models.{alias}", f"unknown model; {nearest(str(alias), self._models)}")
        old = self._models[alias]
        fields = {name: getattr(old, name) for name in Model.__dataclass_fields__}
        for name in changes:
            if name not in fields:
                raise RecipeError(f"models.{alias}.{name}", f"unknown field; {nearest(name, fields)}")
        if not {"spec", "base_url"}.isdisjoint(changes):
            fields["price"] = None  # it was another model's price
        changed = Model(**{**fields, **changes})
        # They were another model's as well: a function that stands in for an endpoint has no address.
        left: dict[str, Any] = {
            name: {"headers": {}, "headers_env": {}, "hedge": False}.get(name) for name in unused_by(changed)
        }
        changed = replace(changed, **{name: value for name, value in left.items() if name not in changes})
        models = {**self._models, alias: changed}
        return Recipe(models=models, columns=self._columns, processors=self._processors, seed=self._seed)

    @overload
    def column(self, function: Function | AnyFunction, /) -> Function: ...
    @overload
    def column(self, function: None = None, /, **options: Any) -> Callable[[AnyFunction], Function]: ...
    def column(
        self, function: Function | AnyFunction | None = None, /, **options: Any
    ) -> Function | Callable[[AnyFunction], Function]:
        """Add a Python function as a column: `@recipe.column`, or `@recipe.column(max_parallel=4)`.

        Its parameters name the columns it needs. A function marked with `batch` gets whole columns.
        """
        if function is None:
            return lambda actual: self.column(cell(**options)(actual))
        column = function if isinstance(function, Function) else cell(function)
        self._columns.append(column)
        self._compiled = None
        try:
            self._compile()
        except RecipeError:
            self._columns.pop()
            raise
        return column

    def preview(self, rows: int | None = None, **options: Unpack[RunOptions]) -> Result:
        """Make a few rows in memory: five, or as many as a shorter seed table has.

        `.dataset` is a DataFrame. Blocks, and works wherever `build` does.
        """
        return self._job(None, self._previewed(rows), options).run("preview")

    async def apreview(self, rows: int | None = None, **options: Unpack[RunOptions]) -> Result:
        """Make a few rows in memory, from a coroutine in any event loop; cancelling it cancels the run."""
        refuse_other_hosts("await recipe.apreview(...)", "recipe.preview(...)")
        return await self._job(None, self._previewed(rows), options).submit()

    def build(self, path: str | Path, rows: int | None = None, **options: Unpack[RunOptions]) -> Result:
        """Make a dataset of `rows` rows in the directory `path`, by default one for each row of the seed table.

        Blocks until it is done. Raises RecipeError for more rows than a seed table has, unless it repeats.

        Works in scripts, notebooks and synchronous handlers, in any number of threads at once. Ctrl-C cancels the cells
        in flight, writes the rows that are complete, and then raises KeyboardInterrupt.
        """
        return self._job(path_of(path), rows, options).run("build")

    async def abuild(self, path: str | Path, rows: int | None = None, **options: Unpack[RunOptions]) -> Result:
        """Make a dataset, from a coroutine in any event loop; cancelling it cancels the run."""
        refuse_other_hosts("await recipe.abuild(...)", "recipe.build(...)")
        return await self._job(path_of(path), rows, options).submit()

    def start(self, path: str | Path, rows: int | None = None, **options: Unpack[RunOptions]) -> Run:
        """Start making a dataset and return at once: the Run has the progress, and can be cancelled and awaited.

        The run belongs to nobody who waits for it: only `Run.cancel()` and the end of the process end it early.
        """
        job = self._job(path_of(path), rows, options)
        return Run(job.submit(), job.execution)

    def plan(self, path: str | Path, rows: int | None = None) -> Plan:
        """Return what `build(path, rows, resume="update")` would keep and make, and about what that costs.

        Nothing is paid for and nothing is changed. Raises ResumeError for a dataset that cannot be updated.
        """
        from .runs.job import plan_of  # noqa: PLC0415 - it loads pyarrow

        return plan_of(self._compile(), self._seed, path_of(path), self._checked_rows(rows))

    def _job(self, path: Path | None, rows: int | None, options: RunOptions) -> Job:
        if self.awaited:
            problem = (
                f"{', '.join(self.awaited)} must come from the previous stage of a Workflow, or from data given to"
                " replace_seed(data)"
            )
            raise RecipeError("columns.seed", problem)
        engine: object = options.get("engine")
        sequential = isinstance(engine, str) and engine == "sequential"  # a DataFrame equals nothing
        compiled = self._compile_parts(sequential=True) if sequential else self._compile()
        return Job(compiled, self._seed, path, self._checked_rows(rows), options)

    def _previewed(self, rows: int | None) -> int:
        if rows is not None:
            return rows
        return _PREVIEWED if self.rows is None else min(_PREVIEWED, self.rows)

    def _checked_rows(self, rows: int | None) -> int:
        """Return how many rows a run makes; raises RecipeError for more than a seed table has."""
        rows = self.rows if rows is None else python_value(rows)
        if rows is None:
            raise RecipeError("rows", "this field is needed: the recipe has no seed table whose rows could be counted")
        for length, repeat in self._tables:
            if not repeat and isinstance(rows, int) and rows > length:
                more = "a Seed with repeat=True starts again at the top of its table"
                raise RecipeError("rows", f"is {rows}, and the seed table has {length} rows; {more}")
        return rows

    @property
    def _tables(self) -> list[tuple[int, bool]]:
        """The length of each seed table, and whether it repeats."""
        seeds = [column for column in self._columns if isinstance(column, Seed)]
        return [(seed.length, seed.repeat) for seed in seeds if seed.length is not None]

    def _compile(self) -> Compiled:
        if self._compiled is None:
            self._compiled = self._compile_parts(sequential=False)
            self._warn(self._compiled)
        return self._compiled

    def _warn(self, compiled: Compiled) -> None:
        """Warn once of each mistake that a template can be without."""
        for warning in bare_braces(compiled.columns):
            if warning not in self._warned:
                self._warned.add(warning)
                warnings.warn(printable(warning), UserWarning, stacklevel=4)

    def _compile_parts(self, *, sequential: bool) -> Compiled:
        return compile_recipe(self._models, self._columns, self._processors, self.to_dict(), sequential=sequential)


def _models(given: Mapping[str, Model | str | ModelFunction]) -> dict[str, Model]:
    """Return models as they are, and make a Model of each bare spec."""
    if not isinstance(given, Mapping):
        raise RecipeError("models", f"takes a mapping from a name to a model, not {shown(given)}")
    models = {}
    for alias, model in given.items():
        if not isinstance(alias, str):
            raise RecipeError("models", f"a model's name is text, not {shown(alias)}")
        if not isinstance(model, Model | str) and not callable(model):
            raise RecipeError(f"models.{alias}", f'takes a Model, "provider:name" or a function, not {shown(model)}')
        models[alias] = model if isinstance(model, Model) else Model(model)
        _check_model(alias, models[alias])
    return models


def _check_model(alias: str, model: Model) -> None:
    try:
        check_model(model)
    except RecipeError as error:
        path = ".".join(filter(None, (f"models.{alias}", error.path)))
        raise RecipeError(path, error.problem) from error.__cause__


def _listed(field: str, given: Iterable[T]) -> list[T]:
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise RecipeError(field, f"takes a list, not {shown(given)}")
    return list(given)


def _column(given: object) -> ColumnSpec:
    """Return a column as it is, and make a column of a bare function."""
    if inspect.isroutine(given):
        return cell(given)
    if not isinstance(given, ColumnSpec):
        raise RecipeError("columns", f"{shown(given)} is not a column; use Category, Text, ... or a function")
    if not is_pydantic_dataclass(type(given)):
        raise RecipeError("columns", f"the class {type(given).__name__} of {shown(given)} needs @spec above it")
    return given
