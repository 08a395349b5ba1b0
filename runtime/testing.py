"""Testing: a pytest fixture that gives each test a fresh runtime and fails the test if it leaves anything behind.

    from rowloop.runtime.testing import runtime  # in conftest.py, or in the test module

    def test_answer(runtime):
        assert runtime.run(answer()) == 42

`fresh_runtime` does the same for a `with` block and takes the settings of a Runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from .draining import busy_workers
from .runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 5.0  # seconds that threads get to end; a worker that has delivered its result is still busy for a moment


@pytest.fixture
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """Return a runtime for this test only."""
    with fresh_runtime(request.node.name) as fresh:
        yield fresh


@contextlib.contextmanager
def fresh_runtime(name: str = "test", **settings: Any) -> Iterator[Runtime]:
    """Give the block a fresh runtime; fail the test if the block leaves a thread behind, or anything on the runtime."""
    before = set(threading.enumerate())
    fresh = Runtime(name, **settings)
    yield fresh
    left = _leftovers(fresh)
    fresh.close()
    left += _surviving_threads(before, name)
    if left:
        message = "\n  ".join([f"{name} left behind:", *left])
        pytest.fail(message, pytrace=False)


def _leftovers(fresh: Runtime) -> list[str]:
    if fresh.is_closed or not fresh.thread.begun:
        return []
    return fresh.run(_on_loop(fresh))


async def _on_loop(fresh: Runtime) -> list[str]:
    await asyncio.sleep(0)  # tasks that have just been cancelled end now
    thread, own = fresh.thread, asyncio.current_task()
    calls = [f"call {call.name}" for call in thread.calls if call.task is not own]
    known = {own, *(call.task for call in thread.calls), *thread.resources.holders()}
    tasks = [f"task {task.get_name()}: {task.get_coro()!r}" for task in asyncio.all_tasks() if task not in known]
    resources = [f"resource {name}" for name in thread.resources.names()]
    generators = [f"async generator {name}" for name in thread.generators.open()]
    threads = [f"thread {name}" for name in await busy_workers(thread, asyncio.get_running_loop().time() + PATIENCE)]
    return calls + tasks + generators + resources + threads


def _surviving_threads(before: set[threading.Thread], name: str) -> list[str]:
    """Name the new threads that do not end in time; threads of other runtimes, such as the default one, may stay."""
    until = time.monotonic() + PATIENCE
    new = [thread for thread in threading.enumerate() if thread not in before and not _of_another(thread, name)]
    for thread in new:
        thread.join(max(0.0, until - time.monotonic()))
    return [f"thread {thread.name}" for thread in new if thread.is_alive()]


def _of_another(thread: threading.Thread, name: str) -> bool:
    return thread.name.startswith("rowloop-") and not thread.name.startswith(f"rowloop-{name}")
