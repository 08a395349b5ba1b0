"""The display of a terminal in a real tmux: nothing of it in the scrollback, and always on the screen."""

from __future__ import annotations

import os
import re
import sys
import textwrap

import pytest

from tmux import MISSING, Tmux

pytestmark = [pytest.mark.outside, pytest.mark.tmux, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]

PROGRAM = """
import itertools, logging, sys, threading
from rowloop.adapters.displays.terminal import terminal
from rowloop.engine.telemetry.progress import ColumnProgress, ProgressSnapshot

logging.basicConfig(format="%(name)s %(message)s", level=logging.INFO)
frames, drawn, over = itertools.count(1), threading.Event(), threading.Event()

def snapshot():
    n = next(frames)
    if n > 20:
        drawn.set()
    cells = tuple(ColumnProgress(f"column_{i}", 1000, n, 1, 0, 8) for i in range(3))
    return ProgressSnapshot(1000, 0, 0, 1, 0, cells, 8, 0, 0, 120, 9000, 3000, 1 + n / 8)

def log(name, line, rate):
    for turn in itertools.count():
        logging.getLogger(name).info(line, turn)
        if over.wait(1 / rate):
            return

def logging_threads(line, rate):
    threads = [threading.Thread(target=log, args=(name, line, rate)) for name in ("httpx", "openai", "third")]
    for thread in threads:
        thread.start()
    return threads
"""


def window(body: str, **size: int) -> Tmux:
    """Run a program for a display from the first row of a window."""
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return Tmux([sys.executable, "-c", PROGRAM + textwrap.dedent(body)], env=environment, **size)


def test_a_display_from_the_first_row_leaves_nothing_in_the_scrollback():
    """A display that begins in the first row is drawn 20 times, and no frame is in the scrollback."""
    with window("""
    with terminal(snapshot):
        drawn.wait()
        sys.stdin.readline()
    """) as tmux:
        tmux.wait_until(lambda text: "column_2" in text and re.search(r"2\d/1000", text) is not None)
        assert tmux.scrollback == 0
        tmux.send("")
        tmux.wait_until_end()
        assert tmux.scrollback == 0
        assert not [line for line in tmux.everything() if "column_" in line]


LINES = {
    "short": '"HTTP Request %d: POST http://127.0.0.1/v1/chat/completions 200 OK"',
    "wrapped": '"%d " + "wide " * 50',
    "coloured": r'"\x1b[32mHTTP Request %d\x1b[0m: 200 OK"',
    "several": r'"one %d\ntwo\n\nthree"',
}


@pytest.mark.parametrize("rate", [20, 300])
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_the_display_is_present_while_three_libraries_log(line, rate):
    """More than 99 % of 200 captures have the whole display, and every logged line is whole, in order, above it."""
    with window(f"""
    with terminal(snapshot):
        threads = logging_threads({line}, {rate})
        sys.stdin.readline()
        over.set()
        for thread in threads:
            thread.join()
    """) as tmux:
        tmux.wait_until(lambda text: "column_2" in text)
        captures = [tmux.capture() for _ in range(200)]
        assert sum(whole(lines) for lines in captures) > 198
        tmux.send("")
        tmux.wait_until_end()
        everything = tmux.everything()
    assert not [text for text in everything if "column_" in text]
    for name in ("httpx", "openai", "third"):
        turns = [int(re.findall(r"\d+", text)[0]) for text in everything if text.startswith(name)]
        assert turns == list(range(len(turns)))


def whole(lines: list[str]) -> bool:
    """Return whether the headline, the three columns and the totals are in a capture, once and in their order."""
    starts = [line.split()[0] for line in lines if re.match("rowloop |column_", line)]
    return starts == ["rowloop", "column_0", "column_1", "column_2"] and any("120 requests" in line for line in lines)
