"""A run that other processes watch and steer, through files in its directory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import rowloop as rl
from rowloop.engine.datasets import heartbeat
from rowloop.engine.datasets.remote import CONTROL, Cancel, Pause, Resume, SetBudget, SetLimit, post, read_progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fake_openai import FakeOpenAI
    from rowloop.engine.datasets.remote import Progress

pytestmark = pytest.mark.outside


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the heart beat faster."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT", 0.05)


def begun(server: FakeOpenAI, path: Path, rows: int = 2000, **model: Any) -> rl.Run:
    """Start a run of answers that take a tenth of a second."""
    server.configure(latency=0.1, reply="echo")
    writer = rl.Model("openai:m", base_url=server.url, max_parallel=4, **model)
    columns = [rl.Uniform("n"), rl.Text("t", model="writer", prompt="{{ n }}")]
    recipe = rl.Recipe(models={"writer": writer}, columns=columns, seed=1)
    return recipe.start(path, rows, row_group_size=10, progress=False)


def seen(path: Path, condition: Callable[[Progress], bool]) -> Progress:
    """Read progress.json until it meets a condition."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        now = read_progress(path)
        if now is not None and condition(now):
            return now
        time.sleep(0.01)
    raise TimeoutError(read_progress(path))


def from_another_process(path: Path, command: str) -> None:
    """Leave a command from a process of its own."""
    code = f"import pathlib; from rowloop.engine.datasets.remote import *; post(pathlib.Path({str(path)!r}), {command})"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_process_pauses_resumes_and_cancels_a_run(server: FakeOpenAI, tmp_path: Path):
    """progress.json shows what the run does, in the end too; what is complete is kept."""
    run = begun(server, tmp_path)
    assert seen(tmp_path, lambda now: now.snapshot["requests"] > 0).status == "running"
    from_another_process(tmp_path, "Pause()")
    seen(tmp_path, lambda now: now.status == "paused" and now.snapshot["running"] == 0)
    asked = server.counters().requests
    post(tmp_path, Resume())
    seen(tmp_path, lambda now: now.status == "running")
    server.wait_for(requests=asked + 8, timeout=10)
    from_another_process(tmp_path, "Cancel()")
    result = run.result(20)
    assert result.status == "cancelled"
    last = seen(tmp_path, lambda now: now.status == "cancelled")
    assert last.snapshot["committed"] == result.actual
    assert list((tmp_path / CONTROL).iterdir()) == []


def test_another_process_changes_limits_and_caps(server: FakeOpenAI, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A cap that is given changes, the other stays; what cannot be is refused in the log of the run."""
    run = begun(server, tmp_path)
    server.wait_for(answered=4, timeout=10)
    post(tmp_path, SetLimit("writer", 32))
    server.wait_for(peak=20, timeout=10)
    post(tmp_path, SetLimit("nobody", 3))
    (tmp_path / CONTROL / "0.json").write_text('{"type": "dance"}')
    post(tmp_path, SetBudget(max_tokens_total=10))
    result = run.result(20)
    assert (result.status, str(result.reason).split(":")[0]) == ("partial", "max_tokens_total")
    assert "no column calls this model" in caplog.text
    assert "0.json' is no command of rowloop" in caplog.text


@pytest.mark.parametrize("file", ["progress.json", "claims/000001.json"])
def test_what_a_heartbeat_cannot_write_keeps_nothing_else_of_it(
    file: str, server: FakeOpenAI, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """A file that cannot be written is logged once; the other one is renewed, and commands are carried out."""
    run = begun(server, tmp_path)
    seen(tmp_path, lambda now: now.snapshot["requests"] > 0)
    blocked = tmp_path / ".rowloop" / file
    while not blocked.is_dir():
        blocked.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError, NotADirectoryError):  # a heartbeat was faster
            (blocked / "in the way").mkdir(parents=True)
    other = tmp_path / ".rowloop" / ("progress.json" if "claims" in file else "claims/000001.json")
    before = other.read_bytes()
    end = time.monotonic() + 20
    while other.read_bytes() == before:
        assert time.monotonic() < end, "it is not renewed"
    post(tmp_path, Cancel())
    assert run.result(20).status == "cancelled"
    warnings = [record.getMessage() for record in caplog.records if "a heartbeat in" in record.getMessage()]
    assert len(warnings) == 1
    assert str(tmp_path) in warnings[0]


def test_commands_for_an_earlier_run_are_not_carried_out(server: FakeOpenAI, tmp_path: Path):
    """Nor is a half-written one ever seen."""
    assert begun(server, tmp_path, rows=4).result(20).status == "complete"
    post(tmp_path, Cancel())
    post(tmp_path, Pause())
    (tmp_path / CONTROL / ".1.json.abc.tmp").write_text('{"type": "ca')
    recipe_run = begun(server, tmp_path / "other", rows=4)
    assert recipe_run.result(20).status == "complete"
    model = rl.Model("openai:m", base_url=server.url, max_parallel=4)
    columns = [rl.Uniform("n"), rl.Text("t", model="writer", prompt="{{ n }}")]
    recipe = rl.Recipe(models={"writer": model}, columns=columns, seed=1)
    assert recipe.build(tmp_path, 8, resume="always", progress=False).status == "complete"
    shown = json.loads((tmp_path / ".rowloop/progress.json").read_bytes())
    assert (shown["status"], shown["snapshot"]["committed"]) == ("complete", 8)


def test_the_last_progress_is_that_of_the_end(server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """However often the heart beats while a run ends: nothing is written after it, and no two write at once."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT", 0.0002)
    for number in range(8):
        assert begun(server, tmp_path / str(number), rows=2).result(20).status == "complete"
        last = read_progress(tmp_path / str(number))
        assert last is not None
        assert last.status == "complete"
