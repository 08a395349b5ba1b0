"""Progress displays in a real tmux: ours, rich's and tqdm's, and a panel like Bespoke Curator's.

    python benchmarks/displays.py

Each display shows the same run of three columns from the first row of a window of 100 x 24 cells.

- scrollback: lines in tmux's scrollback after a run of 5 s in which nothing else is printed.
- present: the share of 200 captures with the whole display while three libraries log at INFO, 20 lines a second each,
  through a handler of logging that was made before the display, as in a program that configures logging first; "own
  handler": through what rich and tqdm have for log lines beside their bars.
- lines: of the lines that were logged, the share that is whole in the window and the scrollback.
- cpu: CPU milliseconds of the process per second of the quiet run, less those of a process without a display.

Curator draws on rich.live: a panel of two `Progress` with four refreshes a second, which disappears at the end. The
panel here is built in the same way from rich; Curator itself is not installed for this.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import platform
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from rowloop.adapters.displays.terminal import terminal
from rowloop.engine.telemetry.progress import ColumnProgress, ProgressSnapshot
from tmux import MISSING, Tmux

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

NAMES = [f"column_{i}" for i in range(3)]
TOTAL, RATE = 100_000, 50  # cells of a column, and cells a second
LINE = "HTTP Request: POST /v1/embeddings 200 OK, number"
QUIET = 5.0  # seconds


class Run:
    """A run of three columns whose cells end at a steady rate."""

    def __init__(self) -> None:
        """Begin now."""
        self._begun = time.monotonic()

    @property
    def done(self) -> int:
        """Cells of a column that have ended."""
        return int((time.monotonic() - self._begun) * RATE)

    def snapshot(self) -> ProgressSnapshot:
        """Return what rowloop's display shows."""
        columns = tuple(ColumnProgress(name, TOTAL, self.done, 0, 0, 8) for name in NAMES)
        seconds = time.monotonic() - self._begun
        return ProgressSnapshot(TOTAL, 0, 0, 1, 0, columns, 8, 0, 0, self.done, 9000, 3000, seconds)


@contextmanager
def through_nothing(_run: Run) -> Iterator[logging.Handler]:
    """Show nothing."""
    yield logging.StreamHandler()


@contextmanager
def through_rowloop(run: Run) -> Iterator[logging.Handler]:
    """Show the run with rowloop; it has no handler of its own."""
    handler = logging.StreamHandler()
    with terminal(run.snapshot):
        yield handler


@contextmanager
def through_rich(run: Run) -> Iterator[logging.Handler]:
    """Show a rich.progress.Progress with a task for each column; rich's own handler is on its console."""
    from rich.console import Console  # noqa: PLC0415 - only in the process that shows it
    from rich.logging import RichHandler  # noqa: PLC0415 - the same
    from rich.progress import Progress  # noqa: PLC0415 - the same

    console = Console(stderr=True)
    with Progress(console=console) as progress:
        tasks = [progress.add_task(name, total=TOTAL) for name in NAMES]
        with updates(lambda: [progress.update(task, completed=run.done) for task in tasks], 8):
            yield RichHandler(console=console, show_path=False, show_time=False, show_level=False)


@contextmanager
def through_tqdm(run: Run) -> Iterator[logging.Handler]:
    """Show a tqdm bar for each column; tqdm's own handler writes with tqdm.write."""
    import tqdm  # noqa: PLC0415 - only in the process that shows it

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tqdm.tqdm.write(self.format(record), file=sys.stderr)

    bars = [tqdm.tqdm(desc=name, total=TOTAL, position=i) for i, name in enumerate(NAMES)]
    with updates(lambda: [bar.update(run.done - bar.n) for bar in bars], 8):
        yield Handler()
    for bar in bars:
        bar.close()


@contextmanager
def through_panel(run: Run) -> Iterator[logging.Handler]:
    """Show a panel of rich.live like Curator's: a bar above lines of text."""
    from rich.console import Console, Group  # noqa: PLC0415 - only in the process that shows it
    from rich.live import Live  # noqa: PLC0415 - the same
    from rich.logging import RichHandler  # noqa: PLC0415 - the same
    from rich.panel import Panel  # noqa: PLC0415 - the same
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415 - the same

    console = Console(stderr=True)
    bar = Progress(BarColumn(bar_width=None), TextColumn("{task.percentage:>3.0f}%"), TimeRemainingColumn())
    text = Progress(TextColumn("{task.description}"))
    task, lines = bar.add_task("", total=TOTAL), text.add_task("", total=None)

    def update() -> None:
        bar.update(task, completed=run.done)
        text.update(lines, description="\n".join(f"{name} {run.done}/{TOTAL}" for name in NAMES))

    update()
    live = Live(Panel(Group(bar, text)), console=console, refresh_per_second=4, transient=True)
    with live, updates(update, 8):
        yield RichHandler(console=console, show_path=False, show_time=False, show_level=False)


@contextmanager
def updates(update: Callable[[], object], per_second: float) -> Iterator[None]:
    """Call `update` at intervals in a thread."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(1 / per_second):
            update()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


DISPLAYS: dict[str, Callable[[Run], AbstractContextManager[logging.Handler]]] = {
    "rowloop": through_rowloop,
    "rich": through_rich,
    "rich, own handler": through_rich,
    "tqdm": through_tqdm,
    "tqdm, own handler": through_tqdm,
    "panel like curator's": through_panel,
    "panel like curator's, own handler": through_panel,
    "none": through_nothing,
}


def show(name: str, log_rate: float, seconds: float, report: str) -> None:
    """Show a display for some seconds, while three loggers log; write the CPU time and the number of logged lines."""
    handler: logging.Handler = logging.StreamHandler()
    over = threading.Event()
    counts: dict[str, int] = dict.fromkeys(("httpx", "openai", "third"), 0)

    def log(library: str) -> None:
        while not over.wait(1 / log_rate):
            logging.getLogger(library).info("%s %s %d", library, LINE, counts[library])
            counts[library] += 1

    with DISPLAYS[name](Run()) as own:
        if name.endswith("own handler"):
            handler = own
        logging.basicConfig(format="%(message)s", level=logging.INFO, handlers=[handler])
        threads = [threading.Thread(target=log, args=(library,)) for library in counts] if log_rate else []
        time.sleep(1.0)  # imports and the first drawing are not what is measured
        begun = time.process_time()
        for thread in threads:
            thread.start()
        over.wait(seconds)
        used = time.process_time() - begun
        over.set()
        for thread in threads:
            thread.join()
    Path(report).write_text(json.dumps({"cpu": used / seconds, "logged": sum(counts.values())}), encoding="utf-8")


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Run a display in tmux: in a quiet run, then while libraries log."""
    report = folder / "report.json"
    with window(name, 0, QUIET, report) as tmux:
        tmux.wait_until_end()
        scrollback = tmux.scrollback
    cpu = json.loads(report.read_text(encoding="utf-8"))["cpu"]
    if name == "none":
        return {"cpu": cpu}
    with window(name, 20, 3 * QUIET, report) as tmux:
        tmux.wait_until(lambda text: "number 1" in text)
        captures = [(time.sleep(0.05), tmux.capture())[1] for _ in range(200)]
        tmux.wait_until_end()
        everything = tmux.everything()
    logged = json.loads(report.read_text(encoding="utf-8"))["logged"]
    kept = sum(f"{LINE} " in line and line.strip().split(" ")[-1].isdigit() for line in everything)
    return {
        "scrollback": scrollback,
        "present": sum(is_whole(lines) for lines in captures) / len(captures),
        "lines": kept / logged,
        "cpu": cpu,
    }


def window(name: str, log_rate: float, seconds: float, report: Path) -> Tmux:
    """Start this script in tmux, in the process that shows the display."""
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    show_it = ["--show", name, "--log-rate", str(log_rate), "--seconds", str(seconds), "--report", str(report)]
    return Tmux([sys.executable, str(Path(__file__).resolve()), *show_it], env=environment)


def is_whole(lines: list[str]) -> bool:
    """Return whether each column is in a capture, once and in order."""
    found = [name for line, name in itertools.product(lines, NAMES) if name in line]
    return found == NAMES


def main() -> None:
    """Measure all displays and print JSON."""
    from tempfile import TemporaryDirectory  # noqa: PLC0415 - not in the process that shows a display

    if MISSING is not None:
        print(json.dumps({"skipped": MISSING}))
        return
    with TemporaryDirectory() as folder:
        measured = {name: measure(name, Path(folder)) for name in DISPLAYS}
    without = measured.pop("none")["cpu"]
    reference = measured["rich"]["cpu"] - without
    for values in measured.values():
        own = values.pop("cpu") - without
        values["cpu ms per second"] = round(1000 * own, 2)
        values["times rich"] = round(own / reference, 2)
    machine = {"python": platform.python_version(), "load": os.getloadavg()}
    print(json.dumps({"machine": machine, "displays": measured}, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--show", choices=DISPLAYS)
    parser.add_argument("--log-rate", type=float, default=0)
    parser.add_argument("--seconds", type=float, default=QUIET)
    parser.add_argument("--report", default=os.devnull)
    given = parser.parse_args()
    if given.show:
        show(given.show, given.log_rate, given.seconds, given.report)
    else:
        main()
