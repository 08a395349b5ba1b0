"""The commands: `rowloop run`, `rowloop preview`, `rowloop plan` and `rowloop schema`.

To add an option to a command, add a parameter here, its help text in recipe_options.py or run_options.py, and a line to
docs/command-line.md. An option that passes a RunOptions value through has that value's name.

Exit status: 0 when the command succeeded (also when rows were dropped: the report lists them), 1 when the run failed,
2 when the command or the recipe is wrong (no model was called), 3 when the run ended before every row was worked, 130
after Ctrl-C, 143 after SIGTERM. Errors, and how to resume, are one line on stderr.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import inspect
import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from ...engine.core.errors import Option, RecipeError, ResumeError, RowloopError, one_line, printable
from ...engine.datasets.result import PartialDatasetError
from ..displays.auto import auto
from .endings import Terminated, describe_early, describe_interrupted, terminable
from .recipe_options import BaseUrl, Models, RecipeFile, Seed, read_recipe
from .run_options import (
    ROWS,
    Cache,
    Deadline,
    MaxCost,
    MaxTokensTotal,
    Memory,
    MinCompletion,
    OutageAfter,
    Output,
    Overwrite,
    Quiet,
    Resume,
    RetryFailed,
    RowGroupSize,
    Rows,
    Update,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...engine.datasets.result import Result
    from ...engine.runs.settings import RunOptions

_FAILED, _WRONG, _EARLY, _INTERRUPTED, _PIPE_CLOSED, _TERMINATED = 1, 2, 3, 130, 141, 143
_SAMPLE = 8  # rows to print after a run

app = App(
    name="rowloop",
    help="Fill tables with asynchronous work, mostly model calls. A recipe describes the columns of a dataset.",
    version=lambda: importlib.metadata.version("rowloop"),
    version_flags="--version",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=""),
)
app["--version"].help = "Print the version."

Debug = Annotated[bool, Parameter(show_default=False, help="Print the traceback of an error.")]


@app.command
def run(  # noqa: PLR0913 - each is an option of the command
    recipe: RecipeFile,
    /,
    *,
    output: Output,
    rows: Rows = None,
    model: Models = None,
    base_url: BaseUrl = None,
    seed: Seed = None,
    row_group_size: RowGroupSize = None,
    resume: Resume = False,
    update: Update = False,
    retry_failed: RetryFailed = False,
    overwrite: Overwrite = False,
    min_completion: MinCompletion = None,
    max_cost: MaxCost = None,
    max_tokens_total: MaxTokensTotal = None,
    deadline: Deadline = None,
    memory: Memory = None,
    outage_after: OutageAfter = None,
    cache: Cache = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Run a recipe, write the dataset to a directory and print its first rows."""
    _configure_logging(debug=debug, quiet=quiet)
    begun = datetime.now(UTC)
    options: RunOptions = {
        "min_completion": min_completion,
        "max_cost": max_cost,
        "max_tokens_total": max_tokens_total,
        "deadline": deadline,
        "cache": cache,
        "overwrite": overwrite,
        "progress": False if quiet else functools.partial(auto, final_line=False),  # the report is the final line
    }
    if memory is not None:
        options["memory"] = memory
    if outage_after is not None:
        options["outage_after"] = outage_after
    if row_group_size is not None:
        options["row_group_size"] = row_group_size
    if resume or update or retry_failed:
        options["resume"], options["retry_failed"] = "update" if update else "always", retry_failed
    made = read_recipe(recipe, model, base_url, seed)
    rows = _rows(output, rows, made.rows, resumed=not update and (resume or retry_failed), updated=update)
    try:
        result = made.build(output, rows, **options)
    except KeyboardInterrupt as error:
        raise type(error)(describe_interrupted(output, begun)) from error
    if not quiet:
        _print_result(result, _SAMPLE)
    if result.reason is None:
        return 0
    return _print_error(f"ended early: {describe_early(result, output, _write_option)}", _EARLY)


@app.command
def preview(  # noqa: PLR0913 - each is an option of the command
    recipe: RecipeFile,
    /,
    *,
    rows: Annotated[
        int | None,
        Parameter(name=["--rows", "-n"], show_default="5, or all of a shorter seed table", help="Number of rows."),
    ] = None,
    model: Models = None,
    base_url: BaseUrl = None,
    seed: Seed = None,
    debug: Debug = False,
) -> None:
    """Run a recipe for a few rows, print them and write nothing."""
    _configure_logging(debug=debug, quiet=False)
    result = read_recipe(recipe, model, base_url, seed).preview(
        rows, progress=functools.partial(auto, final_line=False)
    )
    _print_result(result, result.target)


@app.command
def plan(  # noqa: PLR0913 - each is an option of the command
    recipe: RecipeFile,
    /,
    *,
    output: Output,
    rows: Rows = None,
    model: Models = None,
    base_url: BaseUrl = None,
    seed: Seed = None,
    json_: Annotated[bool, Parameter(name="--json", show_default=False, help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Print what `run --update` would keep and make, and about what that costs; nothing is paid for."""
    _configure_logging(debug=debug, quiet=False)
    made = read_recipe(recipe, model, base_url, seed)
    found = made.plan(output, _rows(output, rows, made.rows, updated=True))
    print(json.dumps(found.to_dict(), indent=2) if json_ else printable(str(found)))  # noqa: T201 - the command's output


@app.command
def schema(
    of: Annotated[
        Literal["recipe", "metadata"],
        Parameter(help="recipe: the schema of recipe files, for editors; metadata: the schema of metadata.json."),
    ] = "recipe",
    /,
    *,
    debug: Debug = False,  # noqa: ARG001 - main reads it
) -> None:
    """Print the JSON Schema of recipe files or of metadata.json."""
    from ... import Recipe  # noqa: PLC0415 - not for --help; the facade knows the adapters
    from ...engine.datasets import metadata  # noqa: PLC0415 - the same

    printed = metadata.json_schema() if of == "metadata" else Recipe.json_schema()
    print(json.dumps(printed, indent=2))  # noqa: T201 - this is the command's output


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with terminable():
            status = app(given, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except Terminated as error:
        return _print_error(f"terminated; {error.left or 'nothing was written'}", _TERMINATED)
    except KeyboardInterrupt as error:
        return _print_error(f"interrupted; {error or 'nothing was written'}", _INTERRUPTED)
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # so that the interpreter's last flush does not fail as well
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - the outermost frame: every error becomes one line and a status
        if "--debug" in given:
            traceback.print_exc()
        return _report_error(error, quiet="--quiet" in given)
    return status if isinstance(status, int) else 0


def _report_error(error: Exception, *, quiet: bool) -> int:
    """Print an error in one line and return the exit status."""
    if isinstance(error, CycloptsError):
        return _print_error(f"{error} See rowloop --help.", _WRONG)
    if isinstance(error, PartialDatasetError) and not quiet:
        _print_result(error.result, _SAMPLE)
    if isinstance(error, RowloopError):
        status = _WRONG if isinstance(error, RecipeError | ResumeError) else _FAILED
        return _print_error(error.text(_write_option), status)
    problem = f"{type(error).__name__}: {error}"
    return _print_error(f"internal error: {problem} (run with --debug to see the traceback)", _FAILED)


def _write_option(option: Option) -> str:
    """Write an option of the engine as on the command line; one that the command does not have as in Python."""
    from ...engine.runs.settings import RunOptions  # noqa: PLC0415 - not for --help

    if option.name in {"rows", "path"}:
        name = {"rows": "--rows", "path": "--output"}[option.name]
    elif option.name in RunOptions.__annotations__ and option.name in inspect.signature(run).parameters:
        name = f"--{option.name.replace('_', '-')}"
    else:
        return str(option)
    is_flag = option.value is None or option.value is True or isinstance(option.value, str)
    return name if is_flag else f"{name} {option.value:g}"


def _print_error(message: str, status: int) -> int:
    print("rowloop:", one_line(" ".join(message.split())), file=sys.stderr)  # noqa: T201 - one line, also for a longer message
    return status


def _print_result(result: Result, rows: int) -> None:
    from rich.console import Console  # noqa: PLC0415 - not for --help

    from .summary import print_report  # noqa: PLC0415 - not for --help

    print_report(result, Console(highlight=False), rows)


def _rows(
    output: Path, rows: int | None, of_seed: int | None, *, resumed: bool = False, updated: bool = False
) -> int | None:
    """Return the rows to make: as given, else of a resumed dataset, else of the seed table."""
    if rows is None and (resumed or (updated and of_seed is None)):
        rows = _rows_of_dataset(output)
    return ROWS if rows is None and of_seed is None else rows


def _rows_of_dataset(output: Path) -> int | None:
    """Return the number of rows requested for the dataset in a directory, None where there is none."""
    from ...engine.datasets.reading import read_metadata  # noqa: PLC0415 - not for --help

    metadata = read_metadata(output)
    return None if metadata is None else metadata.target_num_records


def _configure_logging(*, debug: bool, quiet: bool) -> None:
    """Print the library's warnings on stderr, except for reports that the command prints anyway."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("rowloop: %(levelname)s: %(message)s"))
    if not debug:
        handler.addFilter(lambda record: _filter_report(record, quiet=quiet))
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, handlers=[handler])


def _filter_report(record: logging.LogRecord, *, quiet: bool) -> bool:
    """Drop a report that the command prints, or whose error it prints; leave out hints for Python from the others."""
    from ...engine.telemetry.report import Report  # noqa: PLC0415 - not for --help

    reports = [value for value in record.args if isinstance(value, Report)] if isinstance(record.args, tuple) else []
    if any(not quiet or report.status in {"failed", "cancelled"} for report in reports):
        return False
    if reports:
        record.msg, record.args = "%s", (reports[0],)
    return True
