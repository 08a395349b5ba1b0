"""The display of a notebook, against a stand-in for IPython, and in a real kernel in a process of its own."""

from __future__ import annotations

import dataclasses
import sys
import threading
import types

import pytest
from jupyter_client.manager import start_new_kernel

from rowloop.adapters.displays.auto import auto
from rowloop.adapters.displays.notebook import in_kernel, notebook, page
from rowloop.adapters.displays.wording import Speed
from rowloop.engine.telemetry.progress import ColumnProgress, ProgressSnapshot


def snapshot(done: int = 3, columns: int = 1, name: str = "<b>answer</b>") -> ProgressSnapshot:
    """Make a snapshot of a run of ten rows."""
    cells = tuple(ColumnProgress(name, 10, done, 1, 0, 2) for _ in range(columns))
    return ProgressSnapshot(10, 0, 0, 1, 0, cells, 2, 0, 0, 5, 100, 50, 4.0)


@pytest.fixture
def output(monkeypatch):
    """Replace IPython by a stand-in for a kernel, and return what it displays, in order."""
    shown: list[str] = []
    changed = threading.Event()

    class Handle:
        def update(self, markup):
            shown.append(markup)
            changed.set()

    def display(markup, display_id):
        assert display_id is True
        shown.append(markup)
        return Handle()

    class ZMQInteractiveShell:
        pass

    ipython, parts = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    vars(ipython)["get_ipython"] = ZMQInteractiveShell
    vars(parts).update(display=display, HTML=str)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", parts)
    vars(parts)["changed"] = changed
    return shown


def test_a_kernel_is_distinguished_from_a_terminal(output, monkeypatch):
    """A notebook has a kernel; plain Python and IPython in a terminal do not."""
    assert output == []
    assert in_kernel()
    vars(sys.modules["IPython"])["get_ipython"] = lambda: None
    assert not in_kernel()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_kernel()


def test_notebook_shows_the_progress_and_keeps_the_last_state(output):
    """The output area is drawn at once, redrawn during the run, and shows the final counts afterwards."""
    done = [3]
    with auto(lambda: snapshot(done[0])):
        assert len(output) == 1
        assert vars(sys.modules["IPython.display"])["changed"].wait(10)
        done[0] = 9
    assert "10/10" in output[-1]
    assert "10/10" not in output[0]


def test_notebook_keeps_the_last_state_of_a_failed_run(output):
    """The error of a run is raised, and the output area shows the progress so far."""

    def fail() -> None:
        with notebook(snapshot):
            raise RuntimeError("the run failed")

    with pytest.raises(RuntimeError, match="the run failed"):
        fail()
    assert len(output) == 2


def test_page_escapes_names_and_counts_hidden_columns():
    """A column name is escaped, and of 200 columns 20 are shown."""
    text = page(snapshot(columns=200), Speed())
    assert "<b>answer" not in text
    assert "&lt;b&gt;answer" in text
    assert "and 180 more columns" in text


def test_page_escapes_the_names_of_runs_and_of_models():
    """A model that is named in HTML, and a directory that is, are shown as text."""
    now = dataclasses.replace(snapshot(), name="<u>out</u>\x1b", rate_limited={"openai:<script>x</script>\x00": 65.0})
    text = page(now, Speed())
    assert "<script" not in text
    assert "<u>" not in text
    assert "openai:&lt;script&gt;x&lt;/script&gt;\\x00 rate limited for 1:05" in text
    assert "&lt;u&gt;out&lt;/u&gt;\\x1b" in text


def test_page_does_not_count_skipped_cells_as_done():
    """After a stop at 25 of 80 rows no bar is full, and no time is left."""
    column = ColumnProgress("answer", 80, 25, 0, 55, 0)
    now = dataclasses.replace(snapshot(), target=80, committed=25, columns=(column,), ending="max_cost")
    text = page(now, Speed())
    assert text.count("<progress value='0.3125' max='1'>") == 2
    assert "ends early: max_cost" in text
    assert "left" not in text.replace("text-align: left", "")


@pytest.mark.outside
def test_a_real_kernel_receives_the_display():
    """A real kernel sends the display as display_data and its updates, not as text on stderr."""
    kernel, client = start_new_kernel(kernel_name="python3")
    try:
        messages: list[str] = []
        client.execute_interactive(
            "import threading\n"
            "from rowloop.adapters.displays.auto import auto\n"
            "from rowloop.engine.telemetry.progress import ColumnProgress, ProgressSnapshot\n"
            "looks = iter(range(100)); enough = threading.Event()\n"
            "def look():\n"
            "    if next(looks) == 2: enough.set()\n"
            "    return ProgressSnapshot(9, 0, 0, 1, 0, (ColumnProgress('a', 9, 3, 0, 0, 2),), 2, 0, 0, 5, 9, 9, 4.0)\n"
            "with auto(look):\n"
            "    assert enough.wait(10)\n",
            output_hook=lambda message: messages.append(message["msg_type"]),
            timeout=30,
        )
        assert messages.count("display_data") == 1
        assert messages.count("update_display_data") >= 2
        assert "stream" not in messages
        assert "error" not in messages
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
