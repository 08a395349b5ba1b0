"""The end of a process and of a runtime. Child processes must be silent under -X dev -W error."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest

from rowloop.runtime import CallCancelledError, Runtime, RuntimeClosedError
from rowloop.runtime.testing import fresh_runtime

PENDING = """
import asyncio, atexit, contextlib, socket, sys, threading, time
import rowloop.runtime as r
rt = r.Runtime("mine", exit_budget=3.0)

async def pending():
    began.set()
    try:
        await asyncio.sleep(60)
    finally:
        name = await asyncio.to_thread(lambda: "to_thread")
        address = await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        print("cleaned up with", name, bool(address), flush=True)

async def items():
    try:
        yield 1
        yield 2
    finally:
        await asyncio.sleep(0)
        print("generator closed", flush=True)

class Client:
    async def aclose(self):
        await asyncio.sleep(0)
        print("client closed", flush=True)

kept = []
async def start():
    generator = items()
    await anext(generator)
    kept.append(generator)
    kept.append(asyncio.create_task(background()))

async def background():
    try:
        await asyncio.sleep(60)
    finally:
        print("background ended", flush=True)

began = threading.Event()
rt.enter(Client)
rt.run(start())
call = rt.submit(pending())
began.wait()
"""
CLEAN = {"cleaned up with to_thread True", "generator closed", "client closed", "background ended"}


@pytest.mark.parametrize("end", ["", "raise ValueError('main died')", "sys.exit(3)", "thread"])
def test_exit_cancels_cleans_up_and_closes(child, end):
    """Finally blocks can use to_thread and DNS; generators and clients are closed, in whatever way main ends."""
    last = "threading.Thread(target=lambda: sys.exit(5)).start()" if end == "thread" else end
    at = time.monotonic()
    ended = child(PENDING + last, silent=not end or end == "thread")
    assert time.monotonic() - at < 5
    assert set(ended.out.splitlines()) == CLEAN
    assert ended.code == (1 if end.startswith("raise") else 3 if end == "sys.exit(3)" else 0)
    if end.startswith("raise"):
        assert ended.err.strip().endswith("ValueError: main died")
        assert ended.err.count("Traceback") == 1


def test_calls_end_before_the_resources_that_they_use(child):
    """A call's cleanup can still use its client."""
    ended = child("""
        import asyncio, threading
        import rowloop.runtime as r
        class Client:
            closed = False
            async def aclose(self): self.closed = True
        began = threading.Event()
        async def use():
            client = await r.default().aenter(Client)
            try:
                began.set()
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.05)
                print("closed:", client.closed)
        r.default().submit(use())
        began.wait()
    """)
    assert ended.out == "closed: False\n"


def test_unreferenced_runtime_is_drained_at_exit(child):
    """The resources of a runtime without a reference are closed too."""
    ended = child("""
        import gc
        import rowloop.runtime as r
        class Client:
            async def aclose(self):
                print("closed")
        def use():
            r.Runtime("mine").enter(Client)
        use()
        gc.collect()
    """)
    assert ended.out == "closed\n"


def test_leftovers_are_named_and_left_behind_within_the_budget(child):
    """A task that refuses to end, a stuck thread and a client that hangs take the exit budget at most."""
    at = time.monotonic()
    ended = child(
        """
        import asyncio, contextlib, threading, time
        import rowloop.runtime as r
        rt = r.Runtime("mine", exit_budget=1.0)
        began = threading.Event()
        async def stubborn():
            began.set()
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
        class Hangs:
            async def aclose(self):
                await asyncio.sleep(60)
        async def stuck():
            await asyncio.to_thread(sleep)
        def sleep():
            working.set()
            time.sleep(60)
        working = threading.Event()
        rt.enter(Hangs)
        rt.submit(stubborn())
        rt.submit(stuck())
        began.wait()
        working.wait()
        """,
        silent=False,
    )
    assert time.monotonic() - at < 3.5
    assert ended.code == 0
    assert "mine: at exit, task stubborn refuses to be cancelled" in ended.err
    assert "mine: at exit, thread rowloop-mine-worker is still working" in ended.err
    assert "Hangs did not finish closing in time" in ended.err
    assert "ignored" not in ended.err


def test_blocked_loop_does_not_hang_the_exit(child):
    """The report names the blocked loop and the line that blocks it."""
    at = time.monotonic()
    ended = child(
        """
        import threading, time
        import rowloop.runtime as r
        rt = r.Runtime("mine", exit_budget=0.5)
        began = threading.Event()
        async def block():
            began.set()
            time.sleep(60)
        rt.submit(block())
        began.wait()
        """,
        silent=False,
    )
    assert time.monotonic() - at < 3
    assert ended.code == 0
    assert "mine: at exit, its loop is blocked" in ended.err
    assert "time.sleep(60)" in ended.err


def test_non_daemon_threads_can_finish_their_calls_at_exit(child):
    """The interpreter joins such threads, so the draining waits for them, for a part of its budget."""
    ended = child("""
        import asyncio, threading
        import rowloop.runtime as r
        def work():
            print(r.run_sync(asyncio.sleep(0.3, "finished")), flush=True)
            print(r.run_sync(asyncio.sleep(0, "one more")), flush=True)
        r.run_sync(asyncio.sleep(0))
        threading.Thread(target=work).start()
    """)
    assert ended.out == "finished\none more\n"


@pytest.mark.parametrize("used", ["r.run_sync(asyncio.sleep(0))", "pass"])
def test_calls_that_may_finish_at_exit_have_the_time_they_need(child, used):
    """They take longer than the exit budget, one begins while the other ends, and both can open a resource."""
    ended = child(f"""
        import asyncio, threading
        import rowloop.runtime as r
        rt = r.Runtime("mine", exit_budget=0.4)
        class Client:
            async def aclose(self): print("closed", flush=True)
        async def use(seconds):
            await asyncio.sleep(seconds)
            await rt.aenter(Client)
            await asyncio.to_thread(int)
            print("finished", flush=True)
            return "returned"
        def work(seconds):
            print(rt.run(use(seconds), finish_at_exit=True), flush=True)
            print(rt.run(use(0), finish_at_exit=True), flush=True)
        {used}
        for seconds in (0.6, 0.9):
            threading.Thread(target=work, args=[seconds]).start()
    """)
    lines = ended.out.splitlines()
    assert lines.count("returned") == lines.count("finished") == 4
    on_loop = [line for line in lines if line != "returned"]  # which threads print, at any time
    assert on_loop[-1] == "closed"


def test_threads_blocked_in_calls_do_not_hang_the_exit(child):
    """Ordinary threads and daemon threads get RuntimeClosedError when their time is up."""
    at = time.monotonic()
    ended = child("""
        import asyncio, os, threading
        import rowloop.runtime as r
        rt = r.Runtime("mine", exit_budget=1.0)
        def work(name):
            try:
                rt.run(asyncio.sleep(60))
            except r.RuntimeClosedError:
                os.write(1, f"{name} closed\\n".encode())
            if not threading.current_thread().daemon:
                threads[0].join()  # else the interpreter may end before a daemon thread gets to write
        threads = [threading.Thread(target=work, args=(str(d),), daemon=d) for d in (True, False)]
        for thread in threads:
            thread.start()
        while len(rt.thread.calls) < 2:
            pass
    """)
    assert time.monotonic() - at < 4
    assert sorted(ended.out.splitlines()) == ["False closed", "True closed"]


def test_calls_from_atexit_handlers_run_or_raise_at_once(child):
    """A handler that runs before the runtime's can run coroutines; a later one gets RuntimeClosedError."""
    ended = child("""
        import atexit, asyncio
        def late():
            coro = asyncio.sleep(0, "late")
            try:
                print(r.run_sync(coro))
            except r.RuntimeClosedError:
                print("closed")
            try:
                r.Runtime("new").run(asyncio.sleep(0))
            except RuntimeError:
                print("no new one")
        atexit.register(late)
        import rowloop.runtime as r
        atexit.register(lambda: print(r.run_sync(asyncio.sleep(0.01, "ran"))))
        atexit.register(lambda: r.default().submit(asyncio.sleep(0.05)))
        r.run_sync(asyncio.sleep(0))
    """)
    assert ended.out.splitlines()[:2] == ["ran", "closed"]


def test_work_left_running_by_an_atexit_handler_ends_with_the_process(child):
    """The exit does not wait for it, and stderr stays empty."""
    at = time.monotonic()
    child("""
        import atexit, asyncio
        import rowloop.runtime as r
        atexit.register(lambda: r.default().submit(asyncio.sleep(60)))
        r.run_sync(asyncio.sleep(0))
    """)
    assert time.monotonic() - at < 3


def test_first_use_at_exit_neither_hangs_nor_complains(child):
    """A runtime whose first use is in an exit handler works, or refuses the call."""
    ended = child("""
        import atexit, asyncio
        import rowloop.runtime as r
        def late():
            try:
                print(r.run_sync(asyncio.sleep(0, "ran")))
            except RuntimeError:
                print("refused")
        atexit.register(late)
    """)
    assert ended.out in ("ran\n", "refused\n")


def test_close_is_idempotent_and_works_from_any_thread(rt):
    """Eight threads close at once, then once more; a runtime that was never used closes too."""
    rt.run(asyncio.sleep(0))
    threads = [threading.Thread(target=rt.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)
    rt.close()
    assert rt.is_closed
    unused = Runtime("unused")
    unused.close()
    with pytest.raises(RuntimeClosedError, match="unused is closed"):
        unused.run(asyncio.sleep(0))
    with Runtime("block") as block:
        block.run(asyncio.sleep(0))
    assert block.is_closed


def test_close_from_its_own_worker_thread_does_not_wait_for_itself(rt):
    """`await asyncio.to_thread(rt.close)`, which the error recommends to code on the loop, closes the runtime."""

    async def close() -> None:
        await asyncio.to_thread(rt.close)

    at = time.monotonic()
    with pytest.raises(RuntimeClosedError):
        rt.run(close())
    assert rt.thread.join(5)
    assert time.monotonic() - at < 1


def test_close_during_calls_gives_each_caller_runtime_closed_error(rt):
    """Each caller gets the error; its cause is the cancellation."""
    errors, ended = [], threading.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    def wait() -> None:
        try:
            rt.run(work())
        except RuntimeClosedError as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(rt.thread.calls) < 8:
        time.sleep(0.001)
    rt.close()
    for thread in threads:
        thread.join(5)
    assert len(errors) == 8
    assert all(isinstance(error.__cause__, asyncio.CancelledError) for error in errors)
    assert ended.is_set()


def test_a_call_that_refuses_its_end_does_not_hold_its_caller(loop_factory):
    """Close fails the call of a coroutine that refuses its cancellation, and names it."""
    release = threading.Event()

    async def stubborn() -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.02)

    rt = Runtime("refusing", exit_budget=0.5, loop_factory=loop_factory)
    call = rt.submit(stubborn())
    rt.run(asyncio.sleep(0))
    with pytest.warns(RuntimeWarning, match="task .*stubborn refuses to be cancelled"):
        rt.close()
    with pytest.raises(RuntimeClosedError, match="refuses to be cancelled"):
        call.result(5)
    release.set()
    assert rt.thread.join(5)


def test_a_loop_thread_that_died_is_reported_with_its_cause():
    """The callers that wait, and later callers, get the error that ended the loop."""
    broken = OSError("epoll went away")

    class Broken(asyncio.SelectorEventLoop):
        fail = False

        def _run_once(self) -> None:
            if self.fail:
                raise broken
            super()._run_once()  # type: ignore[misc]

    with fresh_runtime("dying", loop_factory=Broken) as rt:
        waiting = rt.submit(asyncio.sleep(60))
        rt.run(asyncio.sleep(0))
        rt.loop.call_soon_threadsafe(setattr, rt.loop, "fail", True)  # noqa: FBT003 - setattr's form
        with pytest.raises(RuntimeClosedError, match="died of OSError") as caught:
            waiting.result(5)
        assert caught.value.__cause__ is broken
        with pytest.raises(RuntimeClosedError, match="epoll went away"):
            rt.run(asyncio.sleep(0))
        assert rt.is_closed


def test_stopping_the_loop_from_inside_does_not_end_it(rt):
    """Calls still work after a coroutine called loop.stop(), as some libraries do."""

    async def stop() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)

    rt.run(stop())
    assert rt.run(asyncio.sleep(0, 1)) == 1


def test_closed_error_is_no_cancellation_for_an_awaiting_task(rt):
    """An awaiting task can distinguish RuntimeClosedError from CallCancelledError."""
    assert not issubclass(RuntimeClosedError, CallCancelledError)
    rt.run(asyncio.sleep(0))
