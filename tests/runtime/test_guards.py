"""Guards: calls that would deadlock are refused, and calls that block a loop cause a warning.

Stand-ins for the IPython kernel and eventlet answer the one question that the guards ask; gevent is real.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import types
import warnings

import pytest

from rowloop.runtime import BlockingCallWarning, DeadlockError, guards
from rowloop.runtime.testing import fresh_runtime
from rowloop.runtime.workers import BOUND


async def answer() -> int:
    """Answer."""
    return 42


def test_run_on_its_own_loop_is_refused_at_once_and_awaiting_works_there(rt):
    """The blocking form would wait for itself: its coroutine is closed, and the await form works."""

    async def both() -> int:
        refused = answer()
        at = time.monotonic()
        with pytest.raises(DeadlockError, match=r"await rt.submit"):
            rt.run(refused)
        assert time.monotonic() - at < 0.05
        assert refused.cr_frame is None
        call = rt.submit(asyncio.sleep(0))
        with pytest.raises(DeadlockError):
            call.result()
        await call
        with pytest.raises(DeadlockError):
            rt.close()
        return await rt.submit(answer())

    assert rt.run(both()) == 42


def test_call_under_another_loop_works_and_warns_once_per_call_site(rt, monkeypatch):
    """A blocking call stops the other loop: it works, and one warning names the await form."""
    monkeypatch.setattr(guards, "_warned", set())

    async def twice() -> list[int]:
        return [rt.run(answer()) for _ in range(2)]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert asyncio.run(twice()) == [42, 42]
    assert [w.category for w in caught] == [BlockingCallWarning]
    assert "await rt.submit" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_call_inside_an_ipython_kernel_does_not_warn(rt, monkeypatch):
    """A loop always runs in a notebook, and the user means to block the cell."""
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))

    async def cell() -> int:
        return rt.run(answer())

    assert asyncio.run(cell()) == 42


def test_strict_runtime_raises_instead_of_warning(loop_factory):
    """A strict runtime raises the warning as an error, and closes the coroutine."""

    async def cell() -> None:
        coro = answer()
        with pytest.raises(BlockingCallWarning):
            rt.run(coro)
        assert coro.cr_frame is None

    with fresh_runtime("strict", strict=True, loop_factory=loop_factory) as rt:
        asyncio.run(cell())


@pytest.mark.filterwarnings("ignore::rowloop.runtime.BlockingCallWarning")
@pytest.mark.parametrize("form", ["run", "await", "thread"])
def test_callee_asking_the_blocked_loop_for_work_is_a_deadlock_error_on_both_sides(form):
    """Loop A waits for B, and B's coroutine calls A: refused within 100 ms, directly or through a worker thread."""

    async def callee() -> int:
        if form == "run":
            return a.run(answer())
        if form == "thread":
            return await asyncio.to_thread(a.run, answer())
        return await a.submit(answer())

    async def on_a() -> int:
        return b.run(callee())

    with fresh_runtime("a") as a, fresh_runtime("b") as b:
        b.run(answer())
        at = time.monotonic()
        with pytest.raises(DeadlockError, match="a: its loop is blocked"):
            a.run(on_a())
        assert time.monotonic() - at < 0.1
        assert a.run(answer()) == b.run(answer()) == 42


@pytest.mark.filterwarnings("ignore::rowloop.runtime.BlockingCallWarning")
def test_loops_blocking_each_other_from_unrelated_calls_do_not_hang():
    """The call that would close the circle is refused; then the other one gets its answer."""
    gate = threading.Barrier(2)

    async def ask(other) -> int:
        gate.wait(5)
        return other.run(answer())

    with fresh_runtime("a") as a, fresh_runtime("b") as b:
        calls = [a.submit(ask(b)), b.submit(ask(a))]
        at = time.monotonic()
        errors = [call.exception(5) for call in calls]
        assert time.monotonic() - at < 0.5
        refused = [error for error in errors if isinstance(error, DeadlockError)]
        assert refused
        assert all(error is None or error in refused for error in errors)
        assert a.run(answer()) == b.run(answer()) == 42


@pytest.mark.filterwarnings("ignore::rowloop.runtime.BlockingCallWarning")
def test_asking_a_blocked_loop_without_waiting_is_no_deadlock():
    """A call that is submitted to the blocked loop, and not waited for, runs when the loop is free again."""
    handed = []

    async def callee() -> None:
        handed.append(a.submit(answer()))

    async def on_a() -> None:
        b.run(callee())

    with fresh_runtime("a") as a, fresh_runtime("b") as b:
        a.run(on_a())
        assert handed[0].result(5) == 42


def test_nesting_to_depth_100_does_not_deadlock(rt):
    """Sync code on a worker thread calls async code, which calls sync code ..., deeper than any pool."""

    def sync(depth: int) -> int:
        return rt.run(nested(depth))

    async def nested(depth: int) -> int:
        return 0 if depth == 0 else 1 + await asyncio.to_thread(sync, depth - 1)

    assert sync(100) == 100


def test_default_executor_stays_bounded_for_work_that_does_not_nest(rt):
    """Only threads that wait for the loop free their place: other blocking work has asyncio's own bound."""
    release, lock, full, running = threading.Event(), threading.Lock(), threading.Event(), [0, 0]

    def block() -> None:
        with lock:
            running[0] += 1
            running[1] = max(running)
            if running[0] == BOUND:
                full.set()
        release.wait(5)
        with lock:
            running[0] -= 1

    async def many() -> None:
        await asyncio.gather(*[asyncio.to_thread(block) for _ in range(BOUND * 3)])

    call = rt.submit(many())
    assert full.wait(5)
    time.sleep(0.05)  # not a synchronisation: time for too many to start
    release.set()
    call.result()
    assert running[1] == BOUND


GEVENT = """
from gevent import monkey
monkey.patch_all({})
import asyncio, threading
import rowloop.runtime as r
async def thread():
    await asyncio.sleep(0)
    return threading.get_ident()
for new in (asyncio.new_event_loop, None):
    rt = r.Runtime(**({{"loop_factory": new}} if new else {{}}))
    try:
        print(rt.run(thread()) != threading.get_ident())
    except RuntimeError as error:
        print(error)
"""


def test_process_patched_by_gevent_is_refused_with_advice(child):
    """The first call raises if threads are replaced by greenlets; with unpatched threads all works."""
    refused = child(GEVENT.format("")).out.splitlines()
    assert len(refused) == 2
    assert all("gevent has replaced threads" in line and "patch_all(thread=False)" in line for line in refused)
    assert child(GEVENT.format("thread=False")).out == "True\nTrue\n"


@pytest.mark.parametrize(
    ("module", "check"), [("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched")]
)
def test_process_with_green_threads_is_refused_and_the_coroutine_is_closed(loop_factory, monkeypatch, module, check):
    """A loop would block all greenlets: the first call names the library and closes the coroutine."""
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{check: lambda _: True}))
    coro = answer()
    with (
        fresh_runtime("green", loop_factory=loop_factory) as rt,
        pytest.raises(RuntimeError, match=f"{module.split('.')[0]} has replaced threads"),
    ):
        rt.run(coro)
    assert coro.cr_frame is None
