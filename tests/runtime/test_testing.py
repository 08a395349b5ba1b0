"""The pytest fixture: it fails a test that leaves something behind, and waits for threads that are about to end."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from rowloop.runtime import testing
from rowloop.runtime.testing import fresh_runtime
from rowloop.runtime.workers import Workers

if TYPE_CHECKING:
    from concurrent.futures import Future

    from rowloop.runtime import Runtime


def test_fixture_names_everything_that_a_test_left_behind(loop_factory, monkeypatch):
    """A running call, a task, a generator, a resource and a busy thread are each named."""
    monkeypatch.setattr(testing, "PATIENCE", 0.1)
    working, release = threading.Event(), threading.Event()

    class Client:
        async def aclose(self) -> None:
            release.set()  # the worker is busy until the runtime is closed

    def work() -> None:
        working.set()
        release.wait(5)

    async def generator():
        yield 1
        yield 2

    async def leave_things(rt: Runtime, kept: list[object]) -> None:
        kept.append(asyncio.create_task(asyncio.sleep(60), name="stray"))
        kept.append(generator())
        await anext(kept[-1])  # type: ignore[call-overload]
        asyncio.get_running_loop().run_in_executor(None, work)
        await rt.aenter(Client, key="my client")

    def leaving() -> None:
        with fresh_runtime("messy", loop_factory=loop_factory) as rt:
            rt.submit(asyncio.sleep(60))
            rt.run(leave_things(rt, kept))
            assert working.wait(5)

    kept: list[object] = []
    with pytest.raises(pytest.fail.Exception) as caught:
        leaving()
    message = str(caught.value)
    for name in ("call sleep", "task stray", "async generator", "resource 'my client'", "thread rowloop-messy-worker"):
        assert name in message, message


def test_worker_that_has_returned_its_result_gets_the_time_to_become_idle(loop_factory, monkeypatch):
    """The teardown of the fixture finds the worker still busy with the callbacks of its future, and waits for it."""
    registered, seen_busy = threading.Event(), threading.Event()
    busy = Workers.busy

    def look(workers: Workers) -> list[str]:
        names = busy(workers)
        if names:
            seen_busy.set()
        return names

    def answer() -> int:
        registered.wait(5)
        return 42

    def stay_busy(_: Future[int]) -> None:
        seen_busy.wait(5)

    async def call_worker(rt: Runtime) -> int:
        workers = rt.thread.workers
        assert workers is not None
        future = workers.submit(answer)
        waiting = asyncio.wrap_future(future)  # its callback runs first: the result is here before the worker is idle
        future.add_done_callback(stay_busy)
        registered.set()
        return await waiting

    monkeypatch.setattr(Workers, "busy", look)
    with fresh_runtime("teardown", loop_factory=loop_factory) as rt:
        assert rt.run(call_worker(rt)) == 42
    assert seen_busy.is_set()


def test_thread_that_needs_longer_than_half_a_second_to_end_is_not_left_behind(loop_factory):
    """The fixture grants the threads of a test the whole of its patience."""
    end = threading.Event()

    class Slow(threading.Thread):
        """A thread that ends only if its end is awaited for more than half a second."""

        def join(self, timeout: float | None = None) -> None:
            """Wait for the end of the thread."""
            if timeout is None or timeout > 0.5:
                end.set()
            super().join(timeout)

    with fresh_runtime("teardown", loop_factory=loop_factory):
        thread = Slow(target=end.wait, args=(20,))
        thread.start()
    assert not thread.is_alive()


def test_process_exits_after_the_last_test_using_the_fixture(child, tmp_path):
    """A test session with the public fixture ends by itself; the error of a test names what it left behind."""
    (tmp_path / "test_it.py").write_text(
        "import asyncio\n"
        "from rowloop.runtime.testing import runtime\n"
        "def test_clean(runtime):\n    assert runtime.run(asyncio.sleep(0, 1)) == 1\n"
        "def test_leaves(runtime):\n    runtime.submit(asyncio.sleep(60))\n"
    )
    ended = child(
        "import os, sys\n"
        "os.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'\n"
        "import pytest\n"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'test_it.py']))",
        silent=False,
    )
    assert "2 passed, 1 error" in ended.out
    assert "test_leaves left behind:\n  call sleep" in ended.out
