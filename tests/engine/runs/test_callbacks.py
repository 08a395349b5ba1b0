"""Whatever callbacks raise, a run ends, with that cause; and what logs a run never breaks it."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import rowloop as rl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[3]
ABOUT_ITSELF = [ZeroDivisionError, StopIteration, asyncio.CancelledError, GeneratorExit]
ABOUT_THE_PROCESS = [SystemExit, KeyboardInterrupt]


def raising(error: type[BaseException]) -> Callable[..., Any]:
    """Return a function that raises an error, whatever it is called with."""

    def fail(*_: object) -> Any:
        raise error("in the callback")

    return fail


def on_part(error: type[BaseException]) -> dict[str, Any]:
    """Raise in `on_part`."""
    return {"on_part": raising(error)}


def observer(method: str) -> Callable[[type[BaseException]], dict[str, Any]]:
    """Raise in a method of an observer."""

    def options(error: type[BaseException]) -> dict[str, Any]:
        methods = {"on_event": lambda *_: None, method: raising(error)}
        return {"observers": [type("Broken", (), {name: staticmethod(call) for name, call in methods.items()})()]}

    options.__name__ = method
    return options


def processor(method: str) -> Callable[[type[BaseException]], dict[str, Any]]:
    """Raise in a method of a processor."""

    def options(error: type[BaseException]) -> dict[str, Any]:
        broken = raising(error)
        return {"processors": [type("Broken", (rl.Processor,), {method: lambda _, *rest: broken(*rest)})()]}

    options.__name__ = method
    return options


CALLBACKS = [
    on_part,
    *map(observer, ["on_start", "on_event", "on_failure", "on_command"]),
    *map(processor, ["before_batch", "after_batch", "after_generation"]),
]


def start(path: Path, options: dict[str, Any]) -> rl.Run:
    """Start a run of twelve rows in six parts; the last cell fails."""

    async def value(n: int) -> int:
        if n == 11:
            raise ValueError("the last one")
        return n

    seed = rl.Seed(pd.DataFrame({"n": range(12)}))
    recipe = rl.Recipe(columns=[seed, rl.cell(value)], processors=options.pop("processors", []))
    given: dict[str, Any] = {"progress": False, "row_group_size": 2, **options}
    return recipe.start(path, **given)


@pytest.mark.parametrize("error", ABOUT_ITSELF, ids=lambda error: error.__name__)
@pytest.mark.parametrize("callback", CALLBACKS, ids=lambda callback: callback.__name__)
def test_a_callback_that_fails_ends_the_run_with_an_error_that_has_the_cause(
    tmp_path: Path, callback: Callable[[type[BaseException]], dict[str, Any]], error: type[BaseException]
):
    """A CancelledError or GeneratorExit of a callback is an error like any other: it cancels nobody."""
    run = start(tmp_path / "out", callback(error))
    with pytest.raises(rl.DatasetGenerationError, match=f"{error.__name__}: in the callback") as caught:
        run.result(20)
    assert isinstance(caught.value.__cause__, error)


@pytest.mark.parametrize("error", ABOUT_THE_PROCESS, ids=lambda error: error.__name__)
@pytest.mark.parametrize("callback", CALLBACKS, ids=lambda callback: callback.__name__)
def test_a_callback_that_ends_the_process_ends_the_run_and_reaches_the_caller(
    tmp_path: Path, callback: Callable[[type[BaseException]], dict[str, Any]], error: type[BaseException]
):
    """It is raised as it is, and the directory can be resumed."""
    run = start(tmp_path / "out", callback(error))
    with pytest.raises(error, match="in the callback"):
        run.result(20)
    assert start(tmp_path / "out", {"resume": "if_possible"}).result(20).actual == 11


def display(where: str, error: type[BaseException]) -> Any:
    """Make a display that raises when it is made, when it begins or when it ends, and hides what ends the run."""

    class Broken:
        def __enter__(self) -> None:
            if where == "begins":
                raise error("in the display")

        def __exit__(self, *_: object) -> bool:
            if where == "ends":
                raise error("in the display")
            return True

    def made(_: object) -> Broken:
        if where == "is made":
            raise error("in the display")
        return Broken()

    return made


@pytest.mark.parametrize("error", ABOUT_ITSELF, ids=lambda error: error.__name__)
@pytest.mark.parametrize("where", ["is made", "begins", "ends"])
def test_a_display_that_fails_ends_the_run_with_an_error_that_has_the_cause(
    tmp_path: Path, where: str, error: type[BaseException]
):
    """As any other callback; the rows can be resumed."""
    run = start(tmp_path / "out", {"progress": display(where, error)})
    with pytest.raises(rl.DatasetGenerationError, match=f"{error.__name__}: in the display") as caught:
        run.result(20)
    assert isinstance(caught.value.__cause__, error)
    assert start(tmp_path / "out", {"resume": "if_possible"}).result(20).actual == 11


@pytest.mark.parametrize("where", ["is made", "begins", "ends"])
def test_a_display_that_ends_the_process_ends_the_run(tmp_path: Path, where: str):
    """As any other callback."""
    run = start(tmp_path / "out", {"progress": display(where, SystemExit)})
    with pytest.raises(SystemExit, match="in the display"):
        run.result(20)


@pytest.mark.parametrize("where", ["never", "ends"])
def test_a_display_does_not_change_how_a_run_ends(tmp_path: Path, where: str):
    """Not even one that suppresses the error with which the run ends, or raises another."""
    run = start(tmp_path / "out", {"progress": display(where, ValueError), **on_part(ZeroDivisionError)})
    with pytest.raises(rl.DatasetGenerationError, match="ZeroDivisionError: in the callback"):
        run.result(20)


@pytest.mark.parametrize("error", ABOUT_ITSELF, ids=lambda error: error.__name__)
def test_a_policy_that_fails_ends_the_run_with_an_error_that_has_the_cause(tmp_path: Path, error: type[BaseException]):
    """A function of the user's says how long to wait, and raises."""

    async def value(n: int) -> int:
        raise ConnectionError(n)

    recipe = rl.Recipe(columns=[rl.Seed(pd.DataFrame({"n": range(12)})), rl.cell(value)])
    run = recipe.start(tmp_path / "out", progress=False, retry=rl.RetryPolicy(wait=raising(error)))
    with pytest.raises(rl.DatasetGenerationError, match=f"{error.__name__}: in the callback") as caught:
        run.result(20)
    assert isinstance(caught.value.__cause__, error)


def test_what_is_called_at_the_end_of_a_run_may_fail(tmp_path: Path):
    """A callback of `add_done_callback` that raises is logged; the others are called, and the result is there."""
    logged: queue.Queue[str] = queue.Queue()

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.ERROR:
                logged.put(record.getMessage())

    handler, logger = Keep(), logging.getLogger("rowloop")
    logger.addHandler(handler)
    try:
        run, called = start(tmp_path / "out", {}), threading.Event()
        run.add_done_callback(raising(SystemExit))
        run.add_done_callback(lambda _: called.set())
        assert run.result(20).actual == 11
        assert called.wait(20)
        assert logged.get(timeout=20) == f"a callback of the run of '{tmp_path / 'out'}' failed"
    finally:
        logger.removeHandler(handler)


def function_of(kind: str, error: type[BaseException]) -> list[Any]:
    """Return a column whose function raises an error in row 3."""

    async def asynchronous(n: int) -> int:
        if n == 3:
            raise error("in the function")
        return n

    def synchronous(n: int) -> int:
        if n == 3:
            raise error("in the function")
        return n

    return [rl.cell(asynchronous if kind == "async" else synchronous, name="value")]


@pytest.mark.parametrize("error", [*ABOUT_ITSELF, *ABOUT_THE_PROCESS], ids=lambda error: error.__name__)
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_function_of_a_column_fails_its_cell_or_ends_the_run(tmp_path: Path, kind: str, error: type[BaseException]):
    """What is about the function costs its row; what is about the process ends the run.

    The GeneratorExit of a coroutine looks the same as that of a coroutine which is being closed: it ends the run too.
    """
    columns = [rl.Seed(pd.DataFrame({"n": range(12)})), *function_of(kind, error)]
    run = rl.Recipe(columns=columns).start(tmp_path / "out", progress=False)
    if error in ABOUT_THE_PROCESS:
        with pytest.raises(error, match="in the function"):
            run.result(20)
    elif error is GeneratorExit and kind == "async":
        with pytest.raises(rl.DatasetGenerationError, match="GeneratorExit: in the function"):
            run.result(20)
    else:
        assert (run.result(20).actual, run.result().dropped) == (11, 1)


@pytest.fixture
def broken_logging() -> Iterator[list[str]]:
    """Add a log handler that raises, and return what it was given."""
    seen: list[str] = []

    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            seen.append(record.getMessage())
            raise SystemExit("in the handler")

    handler, logger = Broken(), logging.getLogger("rowloop")
    logger.addHandler(handler)
    yield seen
    logger.removeHandler(handler)


def test_a_log_handler_that_raises_costs_nothing(
    tmp_path: Path, broken_logging: list[str], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    """The result is returned; warnings in the middle of the run and the report at its end do no harm."""

    class Slow:
        def __init__(self) -> None:
            self.rested = False

        def on_event(self, event: object) -> None:
            if not self.rested and type(event).__name__ == "Done":
                self.rested = True
                _busy(0.11)

    caplog.set_level(logging.INFO, "rowloop")
    result = start(tmp_path / "out", {"observers": [Slow()]}).result(20)
    assert result.actual == 11
    assert any("observer Slow took" in message for message in broken_logging)
    assert any(message.startswith("partial: 11 of 12 rows") for message in broken_logging)
    assert "in the handler" in capsys.readouterr().err


def _busy(seconds: float) -> None:
    """Occupy the thread."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        pass


CLOSE = {
    "stderr before the run": ("sys.stderr.close()", ""),
    "stderr during the run": ("", "sys.stderr.close()"),
    "both before the run": ("sys.stdout.close(); sys.stderr.close()", ""),
    "both during the run": ("", "sys.stdout.close(); sys.stderr.close()"),
    "none at all": ("sys.stdout = sys.stderr = None", ""),
}


@pytest.mark.outside
@pytest.mark.parametrize(("before", "during"), CLOSE.values(), ids=CLOSE)
@pytest.mark.parametrize("progress", ["True", pytest.param("'plain'", marks=pytest.mark.stress)])
def test_closed_streams_cost_nothing(tmp_path: Path, before: str, during: str, progress: str):
    """A run that drops a row logs a warning at its end. The result is returned, and the process ends well."""
    script = f"""
    import sys, os
    import rowloop as rl

    async def value(n: int) -> int:
        if n == 0:
            {during or "pass"}
        if n == 1:
            raise ValueError
        return n

    {before}
    columns = [rl.Seed([{{"n": n}} for n in range(4)]), rl.cell(value)]
    result = rl.Recipe(columns=columns).build("out", progress={progress})
    os._exit(7 if result.actual == 3 else 1)
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, timeout=50, check=False
    )
    assert done.returncode == 7, done.stderr.decode()
