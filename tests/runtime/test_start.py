"""Start and identity of a runtime.

Free-threaded builds of 3.14, where threads inherit their creator's context, are not tested here;
`workers.daemon_thread` gives its threads an empty context there.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time

import pytest

from rowloop.runtime import Runtime
from rowloop.runtime.testing import fresh_runtime


async def here() -> tuple[int, int]:
    """Return the identity of the loop and of its thread."""
    return id(asyncio.get_running_loop()), threading.get_ident()


class LateLoop(asyncio.SelectorEventLoop):
    """A loop that its thread runs late."""

    def run_forever(self) -> None:
        """Run, 20 ms late."""
        time.sleep(0.02)
        super().run_forever()


def test_64_first_callers_get_one_loop_and_one_thread():
    """Racing first calls all wait for the same start, however late the loop runs."""
    loops, results, gate = [], [], threading.Barrier(64)

    def factory() -> asyncio.AbstractEventLoop:
        loops.append(LateLoop())
        return loops[-1]

    with fresh_runtime("racing", loop_factory=factory) as rt:

        def first_call() -> None:
            gate.wait()
            results.append(rt.run(here()))

        threads = [threading.Thread(target=first_call) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(loops) == 1
    assert len(results) == 64
    assert len(set(results)) == 1


def test_failing_loop_creation_raises_in_every_waiting_caller_and_is_tried_again():
    """Eight first callers get the factory's error; the next call gets a loop."""
    errors, attempts, gate = [], [], threading.Event()

    def factory() -> asyncio.AbstractEventLoop:
        attempts.append(1)
        if len(attempts) == 1:
            gate.wait()
            message = "no file descriptors left"
            raise OSError(message)
        return asyncio.new_event_loop()

    with fresh_runtime("failing", loop_factory=factory) as rt:

        def first_call() -> None:
            try:
                rt.run(here())
            except OSError as error:
                errors.append(str(error))

        threads = [threading.Thread(target=first_call) for _ in range(8)]
        for thread in threads:
            thread.start()
        while len(rt.thread.published._locks) < len(threads):  # a late caller would make another, successful attempt
            time.sleep(0.001)
        gate.set()
        for thread in threads:
            thread.join()
        assert errors == ["no file descriptors left"] * 8
        assert rt.run(here())[1] != threading.get_ident()
        assert len(attempts) == 2


def test_importing_and_constructing_start_no_thread(child):
    """A process that only imports and constructs has one thread."""
    ended = child("""
        import threading
        import rowloop.runtime as r
        r.Runtime("mine"), r.default()
        print(threading.active_count())
    """)
    assert ended.out == "1\n"


def test_gc_callbacks_are_left_alone_until_the_first_loop_starts(child):
    """Importing and constructing add no callback; the first loop adds the only one."""
    ended = child("""
        import asyncio, gc
        before = list(gc.callbacks)
        import rowloop, rowloop.runtime as r
        runtimes = [r.Runtime(f"r{number}") for number in range(3)]
        print(gc.callbacks == before, end=" ")
        for runtime in runtimes:
            runtime.run(asyncio.sleep(0))
            print(len(gc.callbacks) - len(before), end=" ")
            runtime.close()
        print(gc.callbacks[: len(before)] == before)
    """)
    assert ended.out == "True 1 1 1 True\n"


def test_runtimes_coexist_and_name_their_calls():
    """Two runtimes have two loops; their threads and errors carry their names."""
    with fresh_runtime("left") as left, fresh_runtime("right") as right:
        assert left.run(here()) != right.run(here())
        assert {"rowloop-left", "rowloop-right"} <= {thread.name for thread in threading.enumerate()}
        with pytest.raises(TimeoutError, match="on right"):
            right.run(asyncio.sleep(60), timeout=0)


def test_current_is_the_runtime_whose_loop_runs_here(rt):
    """Runtime.current() is the runtime of the code on the loop, and None elsewhere."""

    async def current() -> Runtime | None:
        return Runtime.current()

    assert rt.run(current()) is rt
    assert Runtime.current() is None


def test_first_callers_context_does_not_reach_later_calls(rt):
    """The loop's base context is empty: callbacks and later callers do not see the first caller's variables."""
    var = contextvars.ContextVar("var", default="unset")
    seen = []

    async def look() -> str:
        return var.get()

    context = contextvars.copy_context()
    context.run(var.set, "first")
    assert context.run(rt.run, look()) == "first"
    assert contextvars.Context().run(rt.run, look()) == "unset"
    done = threading.Event()
    rt.loop.call_soon_threadsafe(lambda: (seen.append(var.get()), done.set()), context=contextvars.Context())
    rt.thread.post(lambda: seen.append(len(list(contextvars.copy_context()))))
    rt.run(asyncio.sleep(0))
    assert done.wait(5)
    assert seen == ["unset", 0]
