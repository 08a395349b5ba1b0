"""Interrupting a cell of a notebook, in a real kernel: it ends what the cell owns, and nothing else."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_client.manager import start_new_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fake_openai import FakeOpenAI

pytestmark = [pytest.mark.outside, pytest.mark.serial]

AWAIT = """
import time
try:
    await {awaited}
finally:
    print(time.monotonic())
"""
"""A cell that prints when its wait has ended. What the kernel then does, such as drawing the traceback, is its own."""

RECIPE = """
import rowloop as rl
recipe = rl.Recipe(
    models={{"m": rl.Model("openai:any", base_url="{url}", api_key="any", max_parallel=4)}},
    columns=[rl.Category("topic", values=["math", "law"]), rl.Text("text", model="m", prompt="About {{{{ topic }}}}")],
)
"""


class Kernel:
    """A kernel in a process of its own, and what it has answered."""

    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3")
        self.pid = int(self.run("import os; print(os.getpid())"))

    def run(self, code: str) -> str:
        """Execute a cell to its end and return the text that it prints; fail on an error."""
        return self.end(self.client.execute(code))

    def end(self, cell: str, *, error: str | None = None) -> str:
        """Wait for the end of a cell that is being executed; return what it prints and check its error."""
        printed: list[str] = []
        while True:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=40)
            if message["parent_header"].get("msg_id") != cell:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream" and content["name"] == "stdout":  # stderr has the report of the run
                printed.append(content["text"])
            elif kind == "error":
                assert content["ename"] == error, content
                error = None
            elif kind == "status" and content["execution_state"] == "idle":
                assert error is None
                return "".join(printed)

    def interrupt(self) -> float:
        """Send the signal that a notebook's stop button sends, and return when."""
        os.kill(self.pid, signal.SIGINT)
        return time.monotonic()


@pytest.fixture
def kernel(tmp_path: Any) -> Iterator[Kernel]:
    """Start a kernel; its working directory is the test's."""
    kernel = Kernel()
    kernel.run(f"import os; os.chdir({str(tmp_path)!r})")
    yield kernel
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("call", ["abuild('out', 400, progress=False)", "apreview(400, progress=False)"])
def test_interrupting_what_a_cell_awaits_ends_it_within_half_a_second(server: FakeOpenAI, kernel: Kernel, call: str):
    """The answers never come. The interrupt reaches the cell, and the server loses its clients."""
    server.configure(fault_hang=1.0)
    kernel.run(RECIPE.format(url=server.url))
    cell = kernel.client.execute(AWAIT.format(awaited=f"recipe.{call}"))
    server.wait_for(in_flight=4)
    at = kernel.interrupt()
    assert float(kernel.end(cell, error="CancelledError")) - at < 0.5
    assert server.wait_for(client_disconnects=4).in_flight == 0


def test_interrupting_the_wait_for_a_run_leaves_the_run(server: FakeOpenAI, kernel: Kernel):
    """The cell ends within half a second; the run of an earlier cell goes on, and completes."""
    server.configure(fault_hang=1.0)
    kernel.run(RECIPE.format(url=server.url) + "run = recipe.start('out', 8, progress=False)")
    server.wait_for(in_flight=4)
    cell = kernel.client.execute("print('waiting', flush=True)" + AWAIT.format(awaited="run"))
    while kernel.client.get_iopub_msg(timeout=20)["content"].get("text") != "waiting\n":
        pass
    at = kernel.interrupt()
    assert float(kernel.end(cell, error="CancelledError")) - at < 0.5
    assert kernel.run("print(run.done())") == "False\n"
    assert server.counters().in_flight == 4
    cell = kernel.client.execute("run.cancel(); print((await run).status)")
    assert kernel.end(cell) == "cancelled\n"
