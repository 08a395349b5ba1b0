"""Runs at the end of a process: in threads that the interpreter joins, in exit handlers, and after Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fake_openai import FakeOpenAI

pytestmark = pytest.mark.outside

ROOT = Path(__file__).parents[3]
SCRIPT = """
import asyncio, atexit, sys, threading
import rowloop as rl
from rowloop.runtime import Runtime

url = {url!r}
runtime = Runtime("short", exit_budget=0.4)
recipe = rl.Recipe(
    models={{"m": rl.Model("openai:any", base_url=url, api_key="any")}},
    columns=[rl.Category("topic", values=["math"]), rl.Text("text", model="m", prompt="{{{{ topic }}}}")],
)
options = dict(progress=False, runtime=runtime, row_group_size=2)

def build(path="out"):
    result = recipe.build(path, 6, **options)
    print(path, result.status, result.actual, flush=True)

def wait():
    print("out", recipe.start("out", 6, **options).result().status, flush=True)

def await_it():
    print("out", asyncio.run(recipe.abuild("out", 6, **options)).status, flush=True)

def several():
    build("one")
    build("two")

used = {used}
if used:
    recipe.preview(1, progress=False, runtime=runtime)
"""


@pytest.fixture
def script(tmp_path: Path, server: FakeOpenAI) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts a script whose last line is given; it is killed if it does not end."""
    with contextlib.ExitStack() as started:
        yield lambda last, *, used: started.enter_context(run(tmp_path, server.url, last, used=used))


@contextlib.contextmanager
def run(folder: Path, url: str, last: str, *, used: bool) -> Iterator[subprocess.Popen[str]]:
    """Start a script in a process, which does not outlive the block."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(SCRIPT.format(url=url, used=used)) + last + "\n")
    command = [sys.executable, "-X", "dev", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


LAST_LINES = {
    "threading.Thread(target=build).start()": "out complete 6\n",
    "threading.Thread(target=several).start()": "one complete 6\ntwo complete 6\n",
    "threading.Thread(target=wait).start()": "out complete\n",
    "threading.Thread(target=await_it).start()": "out complete\n",
    "atexit.register(build)": "out complete 6\n",
    "atexit.register(await_it)": "out complete\n",
    "atexit.register(build, 'one'); threading.Thread(target=build, args=['two']).start()": (
        "two complete 6\none complete 6\n"
    ),
}


FEW = {"threading.Thread(target=build).start()", "threading.Thread(target=await_it).start()", "atexit.register(build)"}
"""Those that are not only in the stress tests."""


@pytest.mark.parametrize("use", [pytest.param("used before", marks=pytest.mark.stress), "first use"])
@pytest.mark.parametrize(
    "last",
    [line if line in FEW else pytest.param(line, marks=pytest.mark.stress) for line in LAST_LINES],
)
def test_a_run_at_the_end_of_a_script_completes(
    script: Callable[..., subprocess.Popen[str]], server: FakeOpenAI, last: str, use: str
):
    """Its answers take longer than the exit budget, and it needs clients, files and threads that close at exit."""
    server.configure(latency=0.5)
    process = script(last, used=use == "used before")
    out, err = process.communicate(timeout=50)
    assert out == LAST_LINES[last], err
    assert process.returncode == 0
    assert "Error" not in err


@pytest.mark.parametrize("use", [pytest.param("used before", marks=pytest.mark.stress), "first use"])
def test_ctrl_c_ends_a_run_that_the_interpreter_waits_for(
    script: Callable[..., subprocess.Popen[str]], server: FakeOpenAI, tmp_path: Path, use: str
):
    """The run is cancelled, its directory says so, and the process ends although the answers never come."""
    process = script("input(); threading.Thread(target=build).start()", used=use == "used before")
    asked = 1 if use == "used before" else 0
    server.wait_for(requests=asked, timeout=30)
    server.configure(fault_hang=1.0)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    server.wait_for(in_flight=6, timeout=30)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert server.wait_for(client_disconnects=6).in_flight == 0
    assert json.loads((tmp_path / "out/.rowloop/metadata.json").read_bytes())["status"] == "cancelled"
