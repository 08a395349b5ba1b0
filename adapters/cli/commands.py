"""The command line: `rowloop run`, `rowloop preview` and `rowloop schema`.

Exit status: 0 when the command did what it should (also when rows were dropped, which the report says), 1 when a run
failed, 2 when what was asked for is wrong (nothing was paid for then), 130 after Ctrl-C. Errors are one line on stderr.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from ...engine.core.errors import RecipeError, ResumeError, RowloopError
from ...engine.datasets.result import PartialDatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ... import Recipe
    from ...engine.datasets.result import Result
    from ...engine.runs.settings import RunOptions

_FAILED, _WRONG, _INTERRUPTED, _PIPE_CLOSED = 1, 2, 130, 141
_ROWS = 24
_SAMPLE = 8  # rows that are printed after a run
# What the engine calls its arguments, as the user of the command line knows them
_OPTIONS = {
    "rows": "--rows",
    "path": "--output",
    "row_group_size": "--row-group-size",
    "min_completion": "--min-completion",
    "max_cost": "--max-cost",
    "cache": "--cache",
}

app = App(
    name="rowloop",
    help="Fill tables with asynchronous work, mostly model calls: a recipe in, a dataset out.",
    version=lambda: importlib.metadata.version("rowloop"),
    suppress_keyboard_interrupt=False,
)

Models = Annotated[
    list[str] | None,
    Parameter(
        name="--model",
        negative="",
        help="Another model than the recipe's: ALIAS=PROVIDER:NAME, such as writer=openai:gpt-5-mini. Repeatable.",
    ),
]
BaseUrl = Annotated[
    str | None,
    Parameter(
        help="An OpenAI-compatible endpoint: for the model given with --model, else for all openai: models."
        " The key is read from OPENAI_API_KEY."
    ),
]
Seed = Annotated[int | None, Parameter(help="Another seed for the samplers than the recipe's.")]
Debug = Annotated[bool, Parameter(negative="", help="Show the traceback of an error.")]
Quiet = Annotated[bool, Parameter(negative="", help="Show no progress and no report, only warnings and errors.")]


@app.command
def run(  # noqa: PLR0913 - each is an option of the command
    recipe: Annotated[Path, Parameter(help="The recipe, a YAML file.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The directory that the dataset is written to.")],
    rows: Annotated[
        int | None, Parameter(name=["--rows", "-n"], help="How many rows to make (24, or those that there were to be).")
    ] = None,
    model: Models = None,
    base_url: BaseUrl = None,
    seed: Seed = None,
    row_group_size: Annotated[
        int | None, Parameter(help="Rows worked, written and kept in memory together (1000).")
    ] = None,
    resume: Annotated[
        bool, Parameter(negative="", help="Go on with the dataset that is in the directory, if it is of this recipe.")
    ] = False,
    retry_failed: Annotated[
        bool, Parameter(negative="", help="Go on with it, and work the cells again that failed.")
    ] = False,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace the dataset that is in the directory.")] = False,
    min_completion: Annotated[
        float | None, Parameter(help="Fail when less than this share of the rows, such as 0.95, was completed.")
    ] = None,
    max_cost: Annotated[
        float | None, Parameter(help="Ask for nothing more once the dataset has cost so many US dollars.")
    ] = None,
    cache: Annotated[
        Path | None, Parameter(help="A file that keeps answers: what was asked before is taken from there.")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a dataset from a recipe and print a sample of it."""
    _log(debug=debug, quiet=quiet)
    begun = datetime.now(UTC)
    options: RunOptions = {
        "min_completion": min_completion,
        "max_cost": max_cost,
        "cache": cache,
        "overwrite": overwrite,
        "progress": not quiet,
    }
    if row_group_size is not None:
        options["row_group_size"] = row_group_size
    if resume or retry_failed:
        options["resume"], options["retry_failed"] = "always", retry_failed
    if rows is None:
        rows = _rows_there(output) if resume or retry_failed else _ROWS
    try:
        made = _recipe(recipe, model, base_url, seed).build(output, rows, **options)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(_kept(output, begun)) from error
    if not quiet:
        _report(made, _SAMPLE)


@app.command
def preview(  # noqa: PLR0913 - each is an option of the command
    recipe: Annotated[Path, Parameter(help="The recipe, a YAML file.")],
    /,
    *,
    rows: Annotated[int, Parameter(name=["--rows", "-n"], help="How many rows to make.")] = 5,
    model: Models = None,
    base_url: BaseUrl = None,
    seed: Seed = None,
    debug: Debug = False,
) -> None:
    """Make a few rows in memory and print them."""
    _log(debug=debug, quiet=False)
    _report(_recipe(recipe, model, base_url, seed).preview(rows), rows)


@app.command
def schema(
    of: Annotated[Literal["recipe", "metadata"], Parameter(help="Of recipe files, or of metadata.json.")] = "recipe",
    /,
    *,
    debug: Debug = False,  # noqa: ARG001 - main reads it
) -> None:
    """Print the JSON Schema of recipe files, for editors, or that of metadata.json."""
    from ... import Recipe  # noqa: PLC0415 - not for --help; the facade knows the adapters
    from ...engine.datasets import metadata  # noqa: PLC0415 - the same

    printed = metadata.json_schema() if of == "metadata" else Recipe.json_schema()
    print(json.dumps(printed, indent=2))  # noqa: T201 - this is the command's output


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command and give its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(given, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        return _fail(f"interrupted; {error or 'nothing was written'}", _INTERRUPTED)
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # so that the interpreter's last flush does not fail as well
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - the last place: what comes here becomes one line and a status
        if "--debug" in given:
            traceback.print_exc()
        return _tell(error, quiet="--quiet" in given)
    return 0


def _tell(error: Exception, *, quiet: bool) -> int:
    """Say what happened, and choose the status."""
    if isinstance(error, CycloptsError):
        return _fail(f"{error} See rowloop --help.", _WRONG)
    if isinstance(error, RecipeError):
        return _fail(str(RecipeError(_OPTIONS.get(error.path, error.path), error.problem)), _WRONG)
    if isinstance(error, ResumeError):
        return _fail(str(error), _WRONG)
    if isinstance(error, PartialDatasetError):
        if not quiet:
            _report(error.result, _SAMPLE)
        made = error.result
        rows = f"{made.actual:,} of {made.target:,} rows were completed"
        why = f"{made.path} has them, and in failures.parquet why"
        return _fail(f"{rows}, fewer than --min-completion asks for; {why}", _FAILED)
    if isinstance(error, RowloopError):
        return _fail(str(error), _FAILED)
    return _fail(f"internal error: {type(error).__name__}: {error} (--debug shows the traceback)", _FAILED)


def _fail(message: str, status: int) -> int:
    message = message.replace("overwrite=True", "--overwrite").replace('resume="always"', "--resume")
    print("rowloop:", " ".join(message.split()), file=sys.stderr)  # noqa: T201 - one line, whatever the message holds
    return status


def _recipe(path: Path, models: list[str] | None, base_url: str | None, seed: int | None) -> Recipe:
    """Read a recipe and change what the options ask for."""
    from ... import Recipe  # noqa: PLC0415 - not for --help; the facade knows the adapters

    recipe = Recipe.from_yaml(path)
    if seed is not None:
        recipe = Recipe.from_dict({**recipe.to_dict(), "seed": seed})
    given = [_model_option(text) for text in models or []]
    for alias, spec in given:
        recipe = recipe.replace_model(alias, spec=spec)
    if base_url is not None:
        one = [alias for alias, _ in given] if len(given) == 1 else []
        aliases = one or [alias for alias, model in recipe.models.items() if model.provider == "openai"]
        if not aliases:
            problem = "the recipe has no openai: model; say which model is there with --model ALIAS=openai:NAME"
            raise RecipeError("--base-url", problem)
        for alias in aliases:
            recipe = recipe.replace_model(alias, base_url=base_url)
    return recipe


def _model_option(text: str) -> tuple[str, str]:
    alias, equals, spec = text.partition("=")
    if not (alias and equals and spec):
        raise RecipeError("--model", f"write ALIAS=PROVIDER:NAME, such as writer=openai:gpt-5-mini, not '{text}'")
    return alias, spec


def _report(result: Result, rows: int) -> None:
    from rich.console import Console  # noqa: PLC0415 - not for --help

    from .summary import print_report  # noqa: PLC0415 - not for --help

    print_report(result, Console(highlight=False), rows)


def _kept(output: Path, begun: datetime) -> str:
    """Say what a run that was interrupted has left in its directory, and how to go on."""
    from ...engine.datasets.reading import read_metadata  # noqa: PLC0415 - not for --help

    told = None
    with contextlib.suppress(ResumeError):
        told = read_metadata(output)
    ended = "" if told is None or told.status != "cancelled" else told.finished_at
    if told is None or not ended or datetime.fromisoformat(ended) < begun:
        return "nothing was written"  # it had not begun: what is there is another run's
    rows, wanted = told.actual_num_records, told.target_num_records
    where = f"{rows:,} of {wanted:,} rows were finished and are in {output / 'data'}" if rows else "no row was finished"
    return f"{where}; the same command with --resume goes on"


def _rows_there(output: Path) -> int:
    """Say how many rows the dataset in a directory is to have, or how many one is made of where there is none."""
    from ...engine.datasets.reading import read_metadata  # noqa: PLC0415 - not for --help

    metadata = read_metadata(output)
    return _ROWS if metadata is None else metadata.target_num_records


def _log(*, debug: bool, quiet: bool) -> None:
    """Let the library's warnings through to stderr, but for its report where something else here says the same."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("rowloop: %(levelname)s: %(message)s"))
    if not debug:
        handler.addFilter(lambda record: not _is_told(record, quiet=quiet))
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, handlers=[handler])


def _is_told(record: logging.LogRecord, *, quiet: bool) -> bool:
    """Tell whether a record holds a report that is printed anyway, or whose error is."""
    from ...engine.telemetry.report import Report  # noqa: PLC0415 - not for --help

    reports = [value for value in record.args if isinstance(value, Report)] if isinstance(record.args, tuple) else []
    return any(not quiet or report.status in {"failed", "cancelled"} for report in reports)
