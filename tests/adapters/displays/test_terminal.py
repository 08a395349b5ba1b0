"""The displays of a terminal: what they show, and that they leave nothing behind."""

from __future__ import annotations

import dataclasses
import io
import re
import sys
import textwrap
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from emulator import Terminal
from rowloop.adapters.displays import auto as displays_module
from rowloop.adapters.displays.auto import auto, plain
from rowloop.adapters.displays.notebook import notebook
from rowloop.adapters.displays.terminal import Style, last_line, layout, terminal
from rowloop.adapters.displays.ticker import Ticker
from rowloop.adapters.displays.wording import (
    Speed,
    compact,
    duration,
    final,
    finished_rows,
    headline,
    per_second,
    totals,
)
from rowloop.engine.runs.settings import Settings
from rowloop.engine.telemetry.progress import ColumnProgress, ProgressSnapshot


def snapshot(done: int = 40, target: int = 100, columns: int = 3, **facts: Any) -> ProgressSnapshot:
    """Make a snapshot of a run in which every column has finished `done` cells."""
    given_columns = tuple(
        ColumnProgress(f"column_{i}", target, done, 0, 0, min(8, target - done)) for i in range(columns)
    )
    usual = ProgressSnapshot(
        target=target,
        committed=0,
        dropped=0,
        row_groups=1,
        row_groups_committed=0,
        columns=given_columns,
        running=8,
        waiting_to_retry=0,
        retries=0,
        requests=120,
        prompt_tokens=9000,
        completion_tokens=3000,
        elapsed=2.0,
    )
    return dataclasses.replace(usual, **facts)


def test_a_rate_limit_that_lasts_is_shown_with_its_model_and_duration():
    """A model that is rate limited for 65 s is named; one that is for 1 s is not."""
    words = totals(snapshot(rate_limited={"openai:gpt-5 at http://x/v1": 65.0, "openai:other": 1.0}))
    assert words[-1] == "openai:gpt-5 rate limited for 1:05"
    assert "openai:other" not in " ".join(words)


def test_a_pause_is_shown_in_place_of_the_time_left():
    """It has no end that could be estimated; a run that ends early says that it does."""
    assert headline(snapshot(state="paused"), Speed())[-1] == "paused"
    assert headline(snapshot(state="paused", ending="cancelled"), Speed())[-1] == "ends early: cancelled"
    assert "down" not in " ".join(final(snapshot(down={"openai:gpt-5": 65.0})))


def test_an_outage_is_shown_with_its_model_and_duration():
    """A model whose endpoint is down for 65 s is named."""
    words = totals(snapshot(down={"openai:gpt-5 at http://x/v1": 65.0}))
    assert words[-1] == "openai:gpt-5 down for 1:05, rows wait"


def test_a_cost_is_shown_as_far_as_it_is_known():
    """Where the cost of some requests is unknown, that of the others is not hidden."""
    assert "$0.1500" in totals(snapshot(cost=0.15, known_cost=0.15))
    assert "$0.1500 + unpriced" in totals(snapshot(known_cost=0.15))
    assert "$" not in " ".join(totals(snapshot()))


PROGRAM = """
import asyncio, logging, os, sys, threading, time
from rowloop.adapters.displays import terminal as displays
from rowloop.adapters.displays.screen import screen
from rowloop.engine.telemetry.progress import ColumnProgress, ProgressSnapshot

logging.basicConfig(format="%(message)s", level=logging.INFO)  # its handler takes sys.stderr before the display does
log = logging.getLogger()
drawn = threading.Event()

def snapshot(done=40, columns=3):
    drawn.set()
    cells = tuple(ColumnProgress(f"column_{i}", 100, done, 1, 0, 8) for i in range(columns))
    return ProgressSnapshot(100, 0, 0, 1, 0, cells, 8, 0, 0, 120, 9000, 3000, 2.0)
"""


FINAL = "rowloop: 41/100 rows in 2.0s, 120 requests, 12.0k tokens, 3 failed"
"""The line that stays of the program's run."""


def program(body: str) -> list[str]:
    """Return the arguments that run a program for a display."""
    return ["-c", PROGRAM + textwrap.dedent(body)]


@pytest.mark.outside
def test_log_lines_of_any_thread_appear_above_the_display():
    """Lines from earlier handlers, prints and other threads stay whole, in order, above the display."""
    body = """
    with displays.terminal(snapshot):
        for line in sys.stdin:
            threading.Thread(target=log.info, args=("logged " + line.strip(),)).start()
            print("printed", end=" ")
            print(line.strip())
    """
    with Terminal(program(body)) as window:
        window.wait_until(lambda text: "40%" in text or "41%" in text)
        window.send("first")
        window.wait_until(lambda text: "logged first" in text and "printed first" in text)
        window.send("second")
        text = window.wait_until(
            lambda text: "logged second" in text and "printed second" in text and "column_2" in text
        )
        lines = text.splitlines()
        headline = next(i for i, line in enumerate(lines) if line.startswith("rowloop"))
        assert sorted(filter(None, lines[:headline])) == [
            "logged first",
            "logged second",
            "printed first",
            "printed second",
        ]
        assert [line.split()[0] for line in lines[headline:-1]] == ["rowloop", "column_0", "column_1", "column_2"]
        window.child.sendeof()
        assert window.wait_until_end() == 0
        assert [line for line in window.everything if "rowloop" in line or "column" in line] == [FINAL]


LOGGING_THROUGH = """
    import pandas as pd
    import rowloop as rl

    displays._PAUSE, displays._PATIENCE = 0.0005, 0.0
    meet = threading.Barrier(9)

    def chatter(name):
        for turn in range(TURNS):
            meet.wait()
            log.info("thread %s turn %s before", name, turn)
            log.info("thread %s turn %s after", name, turn)

    threads = [threading.Thread(target=chatter, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()

    def wait_for_drawing(take):
        def look():
            drawn.set()
            return take()
        return displays.terminal(look)

    async def last(n: int) -> int:
        if n == 3:
            while not drawn.is_set():
                await asyncio.sleep(0.0005)
            meet.wait()
        return n

    recipe = rl.Recipe(columns=[rl.Seed(pd.DataFrame({"n": range(4)})), rl.cell(last)])
    logging.getLogger("rowloop").disabled = True
    for turn in range(TURNS):
        drawn.clear()
        if RUNS:
            recipe.preview(4, progress=wait_for_drawing)
        else:
            with displays.terminal(snapshot):
                drawn.wait()
                meet.wait()
    for thread in threads:
        thread.join()
    """


FINAL_OF_LOGGING_THROUGH = rf"{re.escape(FINAL)}|preview of last: 4/4 rows in \d\.\ds"


@pytest.mark.parametrize("runs", [False, True], ids=["displays", "runs"])
@pytest.mark.parametrize("turns", [40, pytest.param(500, marks=[pytest.mark.stress, pytest.mark.timeout(300)])])
@pytest.mark.outside
def test_no_log_line_draws_a_closed_display_again(turns, runs):
    """Displays and runs end while 8 threads log: the terminal shows each log line once, whole, and the final lines."""
    body = LOGGING_THROUGH.replace("TURNS", str(turns)).replace("RUNS", str(runs))
    with Terminal(program(body)) as window:
        assert window.wait_until_end(limit=200) == 0
        final, lines = [], []
        for line in filter(None, window.everything):
            (final if re.fullmatch(FINAL_OF_LOGGING_THROUGH, line) else lines).append(line)
        assert len(final) == turns
        wanted = {
            f"thread {name} turn {turn} {when}"
            for name in range(8)
            for turn in range(turns)
            for when in ("before", "after")
        }
        assert sorted(lines) == sorted(wanted)


@pytest.mark.outside
def test_display_adapts_to_the_size_of_the_window():
    """After the window is resized, the display fits it and is shown once."""
    body = """
    with displays.terminal(snapshot):
        for line in sys.stdin:
            log.info(line.strip())
    """
    with Terminal(program(body), columns=120) as window:
        window.wait_until(lambda text: "120 requests" in text)
        for columns, lines in ((44, 12), (150, 40), (60, 8)):
            window.resize(columns, lines)
            window.send(f"now {columns}")
            text = window.wait_until(
                lambda text, columns=columns: (
                    f"now {columns}" in text
                    and text.count("rowloop") == 1
                    and re.search("^rowloop +[━╸]*─* ", text, re.MULTILINE) is not None
                    and text.count("─") // max(1, text.count("%") + text.count("column")) <= columns // 4
                )
            )
            assert all(len(line) < columns for line in text.splitlines())
        window.child.sendeof()
        assert window.wait_until_end() == 0
        assert window.visible.count("rowloop") == 1
        assert "rowloop: 41/100 rows in 2.0s" in window.visible
        assert not set("━╸─%") & set(window.visible)


@pytest.mark.outside
def test_displays_of_two_runs_share_one_terminal():
    """Two displays are shown one below the other; when one ends, the other stays."""
    body = """
    with displays.terminal(lambda: snapshot(10)):
        with displays.terminal(lambda: snapshot(90)):
            sys.stdin.readline()
        log.info("one has ended")
        sys.stdin.readline()
    """
    with Terminal(program(body)) as window:
        window.wait_until(lambda text: "11%" in text and "91%" in text)
        window.send("")
        window.wait_until(lambda text: "one has ended" in text and "11%" in text and "91%" not in text)
        window.send("")
        assert window.wait_until_end() == 0
        assert window.visible.splitlines() == [FINAL.replace("41", "91"), "one has ended", FINAL.replace("41", "11")]


@pytest.mark.outside
def test_forked_child_can_write_while_a_display_is_drawn():
    """A child forked while another thread holds the lock of the screen writes directly and does not hang."""
    body = """
    import warnings
    warnings.simplefilter("ignore")  # Python 3.12 warns of the fork, and the parent cannot print while the lock is held
    with screen.region() as region:
        region.show(["a region"])
        held, over = threading.Event(), threading.Event()

        def hold():
            with screen._lock:
                held.set()
                over.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        if os.fork() == 0:
            print("from the child")
            sys.stdout.flush()
            os._exit(0)
        os.wait()
        over.set()
        thread.join()
    """
    with Terminal(program(body)) as window:
        assert window.wait_until_end() == 0
        assert "from the child" in window.visible


@pytest.mark.parametrize("body", ["snapshot(columns=0)", "snapshot()"])
@pytest.mark.outside
def test_a_run_without_cells_and_a_short_run_show_nothing(body):
    """A run without cells, and a run that ends at once, leave the terminal as it was."""
    quick = f"""
    with displays.terminal(lambda: {body}):
        if "0" in {body!r}:
            drawn.wait()
    """
    with Terminal(program(quick)) as window:
        assert window.wait_until_end() == 0
        assert window.visible == ""


names = st.text(max_size=40)
counts = st.integers(0, 10**9)
columns_of_any_kind = st.lists(
    st.builds(
        ColumnProgress, name=names, total=counts, completed=counts, failed=counts, skipped=counts, running=counts
    ),
    max_size=200,
)


@given(columns_of_any_kind, names, st.integers(2, 300), st.integers(2, 100), st.booleans())
@settings(max_examples=60)
def test_layout_fits_the_window_for_all_names_and_numbers(columns, name, width, height, drawing):
    """Lines are narrower than the window and fewer than its height, for all names and numbers."""
    now = snapshot(columns=0, name=name, rate_limited={name: 65.0})
    now = dataclasses.replace(now, columns=tuple(columns))
    speed = Speed()
    speed.add(now)
    lines = layout(now, speed, width, height, Style(drawing=drawing))
    assert len(lines) <= max(1, height - 3)
    assert all(cell_len(line) < width and line.isprintable() for line in lines)


def test_of_many_columns_the_unfinished_ones_are_shown():
    """Of 200 columns the unfinished ones are listed as far as they fit, and the others are counted."""
    columns = tuple(ColumnProgress(f"c{i}", 10**9, 10**9 if i < 150 else 10**7, 0, 0, 0) for i in range(200))
    speed = Speed()
    for second in range(3):
        speed.add(snapshot(target=10**9, elapsed=float(second), committed=second * 10**7))
    lines = layout(snapshot(target=10**9, columns=0), speed, 100, 24, Style())
    assert "10.0M rows/s" in lines[0]
    lines = layout(ProgressSnapshot(10**9, 0, 0, 1, 0, columns, 8, 0, 0, 0, 0, 0, 9.0), speed, 100, 24, Style())
    assert [line.split()[0] for line in lines[1:10]] == [f"c{i}" for i in range(150, 159)]
    assert lines[10] == "and 191 more columns; 150 of 200 are finished"


@given(st.integers(0, 10**18))
def test_counts_are_short(number):
    """A count has at most five characters, and its digits are right."""
    text = compact(number)
    assert len(text) <= 5
    unit = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}.get(text[-1], 1)
    assert float(text.rstrip("kMGTP")) * unit == pytest.approx(number, rel=0.06 if number >= 10_000 else 0)


def test_rates_and_times_are_short():
    """Rates below one per second are per minute, and times are in the usual units."""
    assert [per_second(rate) for rate in (0, 0.05, 2.54, 123, 1e7)] == [
        "0.0 rows/s",
        "3.0 rows/min",
        "2.5 rows/s",
        "123 rows/s",
        "10.0M rows/s",
    ]
    assert [duration(t) for t in (4.21, 42, 65, 7384, 3 * 86_400 + 4 * 3600, 1e12)] == [
        "4.2s",
        "42s",
        "1:05",
        "2:03:04",
        "3d 4h",
        ">1000d",
    ]


def of_columns(*columns: ColumnProgress, **facts: Any) -> ProgressSnapshot:
    """Make a snapshot of a run of these columns."""
    return dataclasses.replace(snapshot(columns=0, target=columns[0].total), columns=columns, **facts)


def test_only_the_columns_that_take_time_count_towards_the_progress():
    """Seeds and samplers are done at once: the run is at 2 % when its model column is; columns weigh by their cells."""
    seeds = [ColumnProgress(f"seed_{i}", 150, 150, 0, 0, 0, counts=False) for i in range(5)]
    now = of_columns(*seeds, ColumnProgress("answer", 150, 3, 0, 0, 8))
    assert now.share == 3 / 150
    assert now.left == 147
    assert "  2%  3/150 rows" in layout(now, Speed(), 100, 24, Style())[0]
    assert of_columns(ColumnProgress("seed", 150, 75, 0, 0, 0, counts=False)).share == 0.5
    assert of_columns(ColumnProgress("a", 100, 100, 0, 0, 0), ColumnProgress("b", 300, 100, 0, 0, 0)).share == 0.5


def test_after_a_stop_no_bar_is_full_and_no_time_is_left():
    """A run is stopped at 25 of 80 rows: its skipped cells are not done, and the display names the reason."""
    speed = Speed()
    speed.add(of_columns(ColumnProgress("answer", 80, 20, 0, 0, 8), elapsed=2.0))
    now = of_columns(ColumnProgress("answer", 80, 25, 0, 55, 0), elapsed=3.0, committed=25, ending="cancelled")
    speed.add(now)
    lines = layout(now, speed, 100, 24, Style())
    assert " 31%  25/80 rows" in lines[0]
    assert lines[0].endswith("ends early: cancelled")
    assert "    25/80  55 skipped" in lines[1]
    assert all(line.count("━") <= 25 * 25 // 80 for line in lines[:2])
    assert "left" not in "".join(lines)
    assert last_line(now).startswith("rowloop: 25/80 rows in 3.0s, ended early: cancelled, 120 requests")


@given(st.text(max_size=60), st.integers(40, 60), counts, counts, st.floats(0, 1e7))
def test_the_time_left_is_shown_at_40_columns(name, width, done, left, seconds):
    """In a narrow window the speed, the bar and the rows give way to the remaining time, for all names and numbers."""
    total = done + left
    speed = Speed()
    speed.add(of_columns(ColumnProgress(name, total, 0, 0, 0, 1), elapsed=0.0))
    now = of_columns(ColumnProgress(name, total, done, 0, 0, 1), elapsed=seconds, name=name)
    speed.add(now)
    line = layout(now, speed, width, 24, Style())[0]
    assert line.rstrip().endswith(headline(now, speed)[-1])
    assert line.rstrip().endswith((" left", " so far"))


def test_runs_have_names_and_long_paths_keep_their_ends():
    """Five runs side by side are told apart by their directories."""
    names = [f"results/of/a/long/experiment/part-{i}" for i in range(5)]
    heads = [layout(snapshot(name=name), Speed(), 100, 24, Style())[0].split(" ")[0] for name in names]
    assert all(head.startswith("…") and head.endswith(f"/part-{i}") for i, head in enumerate(heads))


def test_the_cost_of_the_whole_run_is_projected_from_what_each_column_has_cost():
    """A cheap column is half done, a dear one has hardly begun: a cell costs what others of its column did."""

    def at(cheap: int, dear: int, elapsed: float) -> ProgressSnapshot:
        columns = (
            ColumnProgress("cheap", 100, cheap, 0, 0, 1, cost=cheap * 0.01),
            ColumnProgress("dear", 100, dear, 0, 0, 1, cost=(dear - 10) * 0.10),
        )
        cost = sum(column.cost or 0.0 for column in columns)
        return of_columns(*columns, cost=cost, elapsed=elapsed, requests=cheap + dear)

    speed = Speed()
    speed.add(at(0, 10, 0.0))  # resumed: ten cells of the dear column have cost nothing in this run
    assert speed.projected(at(50, 10, 30.0)) is None  # nothing is known of the dear column yet
    now = at(50, 20, 60.0)
    speed.add(now)
    assert speed.projected(now) == pytest.approx(100 * 0.01 + 90 * 0.10)
    words = totals(now, speed)
    assert words[:2] == ["70 requests", "60 requests/min"]
    assert words[3] == "$1.50 of about $10.00"


def test_rows_are_counted_when_every_column_has_finished_them():
    """Rows are counted before their row group is written, and dropped rows count as finished."""
    assert finished_rows(snapshot(done=40)) == 40
    assert finished_rows(snapshot(done=40, committed=50, dropped=2)) == 52


def test_speed_is_that_of_the_last_half_minute():
    """The speed and the remaining time of a run that was slow at first are those of its last half minute."""
    speed = Speed()
    now, done = snapshot(), 0
    for second in range(100):
        done = second if second < 50 else 50 + (second - 50) * 100
        now = snapshot(done=done, target=10_000, elapsed=float(second))
        speed.add(now)
    assert speed.rows == pytest.approx(100)
    assert speed.remaining(now) == pytest.approx((10_000 - done) / 100)


def test_the_remaining_time_of_a_run_that_stands_still_grows():
    """One of 100 rows hangs: the remaining time is at least the time since the last progress."""
    speed = Speed()
    speed.add(snapshot(done=0, elapsed=0.0))
    speed.add(snapshot(done=99, elapsed=10.0))
    assert speed.remaining(snapshot(done=99, elapsed=10.0)) == pytest.approx(10 / 99)
    for second in range(11, 36):
        speed.add(snapshot(done=99, elapsed=float(second)))
    assert speed.remaining(snapshot(done=99, elapsed=35.0)) == 25


def test_drawing_uses_a_limited_share_of_the_time():
    """A slow drawing is repeated rarely: drawing takes less than one percent of the time."""
    pauses = []

    class Turns(threading.Event):
        def wait(self, timeout=None):
            pauses.append(timeout)
            return len(pauses) > 3

    def draw():
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    ticker = Ticker(draw, 0.125)
    ticker._stopped = Turns()
    ticker._run()
    assert pauses[0] == 0.125
    assert min(pauses[1:]) >= 2.0


def test_a_closed_terminal_ends_the_display_and_not_the_run():
    """When a drawing cannot be written, the ticker ends without an error."""

    def draw():
        raise OSError("the terminal is gone")

    Ticker(draw, 0)._run()


def test_plain_lines_are_written_at_intervals(capsys):
    """Without a terminal, a line reports the progress at intervals."""
    calls, seen = iter(range(10**6)), threading.Event()

    def look():
        turn = next(calls)
        if turn == 3:
            seen.set()
        return snapshot(done=40 + turn, elapsed=2.0 + turn)

    with plain(look, interval=0.001):
        assert seen.wait(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "rowloop: 41/100 rows, 1.0 rows/s, 59s left, 120 requests, 12.0k tokens, 8 running"


@pytest.mark.parametrize("display", [auto, terminal, notebook, plain])
def test_a_run_takes_each_display_by_its_name(display):
    """The option `progress` takes the name of a display and chooses its function."""
    assert Settings(rows=1, progress=display.__name__).progress is display


def test_plain_display_writes_nothing_for_a_short_run(capsys):
    """A run that is shorter than the interval writes nothing."""
    with plain(snapshot):
        pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("is_terminal", "term", "chosen"), [(True, "xterm", "terminal"), (True, "dumb", "plain"), (False, "xterm", "plain")]
)
def test_auto_chooses_by_the_kind_of_stderr(monkeypatch, is_terminal, term, chosen):
    """A terminal that can move its cursor gets the live display, others get plain lines."""

    class Stream(io.StringIO):
        def isatty(self):
            return is_terminal

    monkeypatch.setattr(sys, "stderr", Stream())
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(displays_module, "terminal", lambda _snapshot, **_options: "terminal")
    monkeypatch.setattr(displays_module, "plain", lambda _snapshot: "plain")
    assert auto(snapshot) == chosen


def test_auto_works_without_stderr(monkeypatch):
    """A process without sys.stderr runs without a display."""
    monkeypatch.setattr(sys, "stderr", None)
    with auto(snapshot):
        pass
