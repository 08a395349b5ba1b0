"""The table in docs/endings.md: each row is a test that ends a run so, in Python and by the command line."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import rowloop as rl
from rowloop.engine.datasets.reading import read_metadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fake_openai import FakeOpenAI

DOCUMENT = Path(__file__).parents[3] / "docs/endings.md"
ASKING = """
models: {{m: {{spec: "openai:fake", base_url: "{url}", api_key_env: KEY, price: {{prompt: 0, completion: 1000000}}}}}}
columns:
  - {{name: n, type: category, values: [0]}}
  - {{name: q, type: text, model: m, prompt: "Ask", on_error: {on_error}}}
processors: [{processors}]
"""
"""One column that asks, at a dollar for each token of an answer."""


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    status: str | None
    reason: str | None
    exception: str | None
    exit_status: int | None
    last_line: str | None

    @classmethod
    def read(cls, cells: Sequence[str]) -> Row:
        """Read the cells after the first; a dash is nothing."""
        texts = [cell.strip("`") for cell in cells[:5]]
        status, reason, exception, exit_status, last_line = (None if text == "-" else text for text in texts)
        return cls(status, reason, exception, None if exit_status is None else int(exit_status), last_line)

    def check(self, path: Path, error: BaseException | None) -> None:
        """Check what a run in this process has left and raised."""
        assert self.exception == (None if error is None else type(error).__name__), error
        self.check_left(path)

    def check_left(self, path: Path) -> None:
        """Check what a run has left in its directory."""
        metadata = read_metadata(path)
        assert (None if metadata is None else metadata.status) == self.status
        if metadata is None:
            return
        assert matches(self.reason, metadata.reason), metadata.reason

    def check_command(self, path: Path, done: subprocess.CompletedProcess[str]) -> None:
        """Check how a command has ended and what it has left; a signal's status is that of a shell."""
        status = done.returncode if done.returncode >= 0 else 128 - done.returncode
        lines = (done.stderr or done.stdout).splitlines()
        assert status == self.exit_status, done.stderr
        assert matches(self.last_line, lines[-1] if lines else None), done.stderr
        self.check_left(path)


def matches(documented: str | None, text: str | None) -> bool:
    """Return whether a text is as it is documented, where ... stands for anything."""
    if documented is None or text is None:
        return documented is text
    return re.fullmatch(re.escape(documented).replace(r"\.\.\.", ".*"), text) is not None


def table() -> dict[str, Row]:
    """Read the table, by its first column."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]
    return {first: Row.read(rest) for first, *rest in cells}


ROWS = table()
TESTED: list[str] = []


def about(name: str) -> pytest.MarkDecorator:
    """Give a test the row that it is about."""
    TESTED.append(name)
    return pytest.mark.parametrize("row", [ROWS[name]], ids=[name])


class Endings:
    """Runs of one recipe, each in a directory of its own: in this process, and by the command line in another."""

    def __init__(self, folder: Path, server: FakeOpenAI) -> None:
        self.folder = folder
        self.server = server
        self.python, self.command = folder / "python", folder / "command"
        self.write()

    def write(self, on_error: str = "drop", processors: str = "") -> None:
        """Write the recipe."""
        text = ASKING.format(url=self.server.url, on_error=on_error, processors=processors)
        (self.folder / "recipe.yaml").write_text(text)

    def build(self, rows: int = 100, **options: Any) -> BaseException | None:
        """Build in this process; return what it raises."""
        recipe = rl.Recipe.from_yaml(self.folder / "recipe.yaml")
        given: dict[str, Any] = {"progress": False, "row_group_size": 10, **options}
        try:
            recipe.build(self.python, rows, **given)
        except BaseException as error:  # noqa: BLE001 - some endings are no Exception
            return error
        return None

    def start(self, *options: object, rows: int = 100, **more: Any) -> subprocess.Popen[str]:
        """Start the command."""
        size = [] if "--row-group-size" in options else ["--row-group-size", 10]
        given = ["run", "recipe.yaml", "-o", self.command, "-n", rows, *size, *options]
        return self.python_process("-m", "rowloop.adapters.cli", *given, **more)

    def python_process(self, *arguments: object, **more: Any) -> subprocess.Popen[str]:
        """Start Python."""
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder,
            env=os.environ | {"KEY": "any"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def run(self, *options: object, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return ended(self.start(*options, **more))

    def resumed(self, path: Path, rows: int = 100, **options: Any) -> rl.Result:
        """Resume in this process."""
        recipe = rl.Recipe.from_yaml(self.folder / "recipe.yaml")
        return recipe.build(path, rows, progress=False, resume="always", **options)


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a process."""
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def endings(tmp_path: Path, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> Endings:
    """Give a recipe that asks the server."""
    monkeypatch.setenv("KEY", "any")
    return Endings(tmp_path, server)


pytestmark = pytest.mark.outside


@about("every row is made")
def test_every_row_is_made(endings: Endings, row: Row):
    """The end of most runs."""
    row.check(endings.python, endings.build())
    row.check_command(endings.command, endings.run())
    asked = endings.server.counters().requests
    assert endings.resumed(endings.python).actual == 100
    assert endings.server.counters().requests == asked == 200


@about("every row is worked, cells failed and are null")
def test_cells_are_null(endings: Endings, row: Row):
    """The row stays, the failures are in the result."""
    endings.write(on_error='"null"')
    endings.server.configure(fault_400=0.2)
    row.check(endings.python, endings.build())
    row.check_command(endings.command, endings.run())
    endings.server.configure(fault_400=0.0)
    assert len(endings.resumed(endings.python).failures) > 0
    assert len(endings.resumed(endings.python, retry_failed=True).failures) == 0


@about("every row is worked, rows were dropped")
def test_rows_were_dropped(endings: Endings, row: Row):
    """The report lists the failures; the command has succeeded."""
    endings.server.configure(fault_400=0.2)
    row.check(endings.python, endings.build())
    row.check_command(endings.command, endings.run())
    endings.server.configure(fault_400=0.0)
    assert endings.resumed(endings.command).status == "partial"
    assert endings.resumed(endings.command, retry_failed=True).status == "complete"


@about("fewer rows than `min_completion`")
def test_fewer_rows_than_min_completion(endings: Endings, row: Row):
    """The error carries the result."""
    endings.server.configure(fault_400=0.2)
    error = endings.build(min_completion=0.99)
    row.check(endings.python, error)
    assert isinstance(error, rl.PartialDatasetError)
    assert 0 < error.result.actual < 99
    row.check_command(endings.command, endings.run("--min-completion", 0.99))
    endings.server.configure(fault_400=0.0)
    assert endings.resumed(endings.python, retry_failed=True, min_completion=0.99).status == "complete"


@about("the error budget is spent")
def test_the_error_budget_is_spent(endings: Endings, row: Row):
    """Too many of the latest cells failed, and some rows are complete."""
    endings.server.configure(fault_400=0.7)
    row.check(endings.python, endings.build(300))
    row.check_command(endings.command, endings.run(rows=300))
    endings.server.configure(fault_400=0.0)
    result = endings.resumed(endings.python, 300)
    assert (result.status, result.actual + result.dropped) == ("partial", 300)
    assert endings.resumed(endings.python, 300, retry_failed=True).status == "complete"


@about("nothing succeeds")
def test_nothing_succeeds(endings: Endings, row: Row):
    """No row is left, so there is no result."""
    endings.server.configure(fault_400=1.0)
    error = endings.build(1000)
    row.check(endings.python, error)
    assert isinstance(error, rl.EarlyShutdownError)
    assert isinstance(error.__cause__, rl.ModelError)
    row.check_command(endings.command, endings.run(rows=1000))
    assert endings.server.counters().requests < 600
    endings.server.configure(fault_400=0.0)
    assert endings.resumed(endings.python, 1000, retry_failed=True).status == "complete"


@about("`max_cost` is spent")
def test_max_cost_is_spent(endings: Endings, row: Row):
    """At a dollar for each token; an equal budget asks nothing more."""
    endings.server.configure(latency=0.01)
    row.check(endings.python, endings.build(300, max_cost=500))
    row.check_command(endings.command, endings.run("--max-cost", 500, rows=300))
    asked = endings.server.counters().requests
    assert endings.resumed(endings.python, 300, max_cost=500).status == "partial"
    assert endings.server.counters().requests == asked
    assert endings.resumed(endings.python, 300, max_cost=10**6).status == "complete"


@about("`max_tokens_total` is spent")
def test_max_tokens_total_is_spent(endings: Endings, row: Row):
    """Of prompts and answers."""
    endings.server.configure(latency=0.01)
    row.check(endings.python, endings.build(300, max_tokens_total=500))
    row.check_command(endings.command, endings.run("--max-tokens-total", 500, rows=300))
    asked = endings.server.counters().requests
    assert endings.resumed(endings.python, 300, max_tokens_total=500).status == "partial"
    assert endings.server.counters().requests == asked
    assert endings.resumed(endings.python, 300, max_tokens_total=10**6).status == "complete"


@pytest.mark.serial
@about("`deadline` is over")
def test_the_deadline_is_over(endings: Endings, row: Row):
    """Some rows are answered at once, the others never."""
    endings.server.configure(fault_hang=0.2)
    row.check(endings.python, endings.build(deadline=1, row_group_size=1))
    row.check_command(endings.command, endings.run("--deadline", 1, "--row-group-size", 1))
    endings.server.configure(fault_hang=0.0)
    assert endings.resumed(endings.command).status == "complete"


@pytest.mark.serial
@about("an endpoint is down for `outage_after`")
def test_an_endpoint_is_down_for_too_long(endings: Endings, row: Row):
    """The server stops while it answers; no row is dropped, so a plain resume makes the rest."""
    server = endings.server
    server.configure(latency=0.3)

    def stop() -> None:
        server.wait_for(answered=20, timeout=30)
        server.stop()

    stopping = threading.Thread(target=stop)
    stopping.start()
    row.check(endings.python, endings.build(outage_after=1, row_group_size=1))
    stopping.join()
    server.start()
    server.reset()
    process = endings.start("--outage-after", 1, "--row-group-size", 1)
    stop()
    row.check_command(endings.command, ended(process))
    server.start()
    assert endings.resumed(endings.command).status == "complete"


@about("Ctrl-C")
def test_ctrl_c(endings: Endings, row: Row):
    """In a script, KeyboardInterrupt ends it as it ends any other; the command says how to resume."""
    endings.server.configure(latency=30)
    script = "import rowloop as rl; rl.Recipe.from_yaml('recipe.yaml').build('python', 100, progress=False)"
    process = endings.python_process("-c", script)
    endings.server.wait_for(in_flight=1, timeout=30)
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (-signal.SIGINT, row.exception)
    row.check_left(endings.python)
    endings.server.wait_for(client_disconnects=1)
    process = endings.start()
    endings.server.wait_for(in_flight=1, timeout=30)
    process.send_signal(signal.SIGINT)
    row.check_command(endings.command, ended(process))
    endings.server.configure(latency=0)
    assert endings.resumed(endings.command).status == "complete"


SECOND = """
import asyncio, sys
from rowloop import Recipe
from rowloop.adapters.cli.commands import main

class Stubborn:
    def chat(self, parameters):
        async def ask(*_):
            print("asking", flush=True)
            try:
                await asyncio.Event().wait()
            finally:
                print("cleaning", flush=True)
                await asyncio.sleep(60)
        return ask

async def connect(self, model, runtime):
    return Stubborn()

from rowloop.engine.models.provider import providers
type(providers.get("openai")).connect = connect
sys.exit(main(sys.argv[1:]))
"""
"""The command with a model that takes a minute to clean up."""


@about("a second Ctrl-C, before the first has ended the run")
def test_a_second_ctrl_c(endings: Endings, row: Row):
    """It does not wait for what refuses to end."""
    process = endings.python_process("-c", SECOND, "run", "recipe.yaml", "-o", endings.command, "-n", 1)
    assert process.stdout is not None
    assert process.stdout.readline() == "asking\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGINT)
    done = ended(process)
    line = next(line for line in done.stderr.splitlines() if line.startswith("rowloop: interrupted"))
    row.check_command(endings.command, subprocess.CompletedProcess(done.args, done.returncode, "", line))
    assert endings.resumed(endings.command, 1).status == "complete"


@about("SIGTERM")
def test_sigterm(endings: Endings, row: Row):
    """The same as Ctrl-C, in the command."""
    endings.server.configure(latency=30)
    process = endings.start()
    endings.server.wait_for(in_flight=1, timeout=30)
    process.send_signal(signal.SIGTERM)
    row.check_command(endings.command, ended(process))
    endings.server.configure(latency=0)
    assert endings.resumed(endings.command).status == "complete"


@about("`Run.cancel()`")
def test_run_cancel(endings: Endings, row: Row):
    """The result has the rows that are complete."""
    endings.server.configure(latency=30)
    run = rl.Recipe.from_yaml(endings.folder / "recipe.yaml").start(endings.python, 100, progress=False)
    endings.server.wait_for(in_flight=1, timeout=30)
    run.cancel()
    result = run.result(20)
    assert (result.status, result.reason) == (row.status, row.reason)
    row.check(endings.python, None)
    endings.server.configure(latency=0)
    assert endings.resumed(endings.python).status == "complete"


@about("the task that awaits `abuild` is cancelled")
def test_await_abuild_is_cancelled(endings: Endings, row: Row):
    """Whoever awaits abuild owns the run."""
    endings.server.configure(latency=30)

    async def main() -> None:
        recipe = rl.Recipe.from_yaml(endings.folder / "recipe.yaml")
        task = asyncio.ensure_future(recipe.abuild(endings.python, 100, progress=False))
        await asyncio.to_thread(endings.server.wait_for, in_flight=1, timeout=30)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError) as caught:
        asyncio.run(main())
    row.check(endings.python, caught.value)
    endings.server.configure(latency=0)
    assert endings.resumed(endings.python).status == "complete"


@about('a cell fails whose column has `on_error="raise"`')
def test_on_error_raise(endings: Endings, row: Row):
    """The first failure ends the run."""
    endings.write(on_error="raise")
    endings.server.configure(fault_400=0.2)
    row.check(endings.python, endings.build())
    row.check_command(endings.command, endings.run())
    endings.server.configure(fault_400=0.0)
    assert endings.resumed(endings.command).status == "complete"


@about("the endpoint refuses the key when the run connects")
def test_the_key_is_refused_at_the_start(endings: Endings, row: Row):
    """Nothing is written that would have to be resumed."""
    endings.server.configure(api_key="another")
    row.check(endings.python, endings.build())
    row.check_command(endings.command, endings.run())
    endings.server.configure(api_key="any")
    assert endings.resumed(endings.command).status == "complete"


@about("the endpoint refuses the key of a request")
def test_the_key_of_a_request_is_refused(endings: Endings, row: Row):
    """Every other request would be refused as well."""
    endings.server.configure(fault_401=1.0)
    row.check(endings.python, endings.build())
    row.check_command(endings.command, endings.run())
    endings.server.configure(fault_401=0.0)
    assert endings.resumed(endings.command).status == "complete"


@about("a processor raises")
def test_a_processor_raises(endings: Endings, row: Row):
    """A template of a processor divides by zero."""
    endings.write(processors='{type: schema_transform, template: {x: "{{ 1 // n }} {{ q }}"}}')
    row.check(endings.python, endings.build(10))
    row.check_command(endings.command, endings.run(rows=10))
    asked = endings.server.counters().requests
    with pytest.raises(rl.DatasetProcessingError):
        endings.resumed(endings.python, 10)
    assert endings.server.counters().requests == asked == 20


@about("`on_part` raises")
def test_on_part_raises(endings: Endings, row: Row):
    """The part was committed before it was called."""

    def on_part(part: object) -> None:
        raise ZeroDivisionError(part)

    row.check(endings.python, endings.build(on_part=on_part))
    metadata = read_metadata(endings.python)
    assert metadata is not None
    assert metadata.actual_num_records > 0
    assert endings.resumed(endings.python).status == "complete"


FULL = 150_000
"""The bytes that a file may have in the process whose disk is full."""


@about("the disk is full")
def test_the_disk_is_full(endings: Endings, row: Row):
    """The operating system refuses to write more to a file; afterwards there is room again."""
    (endings.folder / "recipe.yaml").write_text("seed: 1\ncolumns: [{name: x, type: uniform, low: 0, high: 1}]")
    script = (
        "import sys, rowloop as rl; rl.Recipe.from_yaml('recipe.yaml').build('python', 40_000, row_group_size=40_000)"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, FULL))

    done = ended(endings.python_process("-c", script, preexec_fn=limit))
    assert f"{row.exception}: write, row group 0: cannot write" in done.stderr.splitlines()[-1]
    row.check_left(endings.python)
    options = ["-n", 40_000, "--row-group-size", 40_000, "-o", endings.command]
    process = endings.python_process("-m", "rowloop.adapters.cli", "run", "recipe.yaml", *options, preexec_fn=limit)
    row.check_command(endings.command, ended(process))
    assert endings.resumed(endings.command, 40_000).status == "complete"


@about("`kill -9`, a crash, a power cut")
def test_kill_9(endings: Endings, row: Row):
    """The next start is refused without resume, and resumes with it."""
    endings.server.configure(latency=30)
    process = endings.start()
    endings.server.wait_for(in_flight=1, timeout=30)
    process.kill()
    row.check_command(endings.command, ended(process))
    endings.server.configure(latency=0)
    next_one = endings.run()
    assert next_one.returncode == 2
    assert "--resume" in next_one.stderr
    assert endings.resumed(endings.command).status == "complete"


LEAVING = """
import asyncio, threading
import rowloop as rl

begun = threading.Event()

async def answer(n: int) -> int:
    begun.set()
    await asyncio.sleep(3600)
    return n

recipe = rl.Recipe(columns=[rl.Seed({"n": range(9)}), rl.cell(answer)])
run = recipe.start("python", progress=False)
begun.wait()
"""


@about("the process of a run in the background exits")
def test_the_process_exits(endings: Endings, row: Row):
    """A script's last line does not wait for the run."""
    done = ended(endings.python_process("-c", LEAVING))
    assert done.returncode == 0
    row.check_left(endings.python)


@about("another run works in the directory")
def test_another_run_works_in_the_directory(endings: Endings, row: Row):
    """The second is refused, the first one continues."""
    endings.server.configure(latency=30)
    first = endings.start()
    endings.server.wait_for(in_flight=1, timeout=30)
    row.check_command(endings.command, endings.run("--resume"))
    with pytest.raises(rl.ResumeError) as caught:
        endings.resumed(endings.command)
    row.check(endings.command, caught.value)
    first.send_signal(signal.SIGINT)
    ended(first)
    endings.server.configure(latency=0)
    assert endings.resumed(endings.command).status == "complete"


def test_the_rows_of_the_table_are_those_that_are_tested():
    """No row without a test, no test without a row, none twice."""
    assert sorted(TESTED) == sorted(ROWS)
    assert len(set(TESTED)) == len(TESTED)
