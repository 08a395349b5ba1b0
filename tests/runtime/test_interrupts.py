"""Interrupts and time limits.

Ctrl-C on Windows is tested through the sliced waiter that Windows uses, without a Windows machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from rowloop.runtime import waiting
from rowloop.runtime.testing import fresh_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator


class Alarm(Exception):  # noqa: N818 - raised by a signal handler
    """An exception of a user's signal handler."""


def interrupt_after(event: threading.Event, signum: int = signal.SIGINT) -> threading.Thread:
    """Send this process a signal as soon as the event is set."""

    def send() -> None:
        event.wait(10)
        os.kill(os.getpid(), signum)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


class Work:
    """A coroutine that reports when it begins, is cancelled, and ends."""

    def __init__(self, cleanup: float = 0.0) -> None:
        self.cleanup = cleanup
        self.began = threading.Event()
        self.cancelled = threading.Event()
        self.ended = threading.Event()

    async def run(self) -> None:
        """Work until cancelled, then clean up."""
        try:
            self.began.set()
            await asyncio.sleep(60)
        finally:
            self.cancelled.set()
            await asyncio.sleep(self.cleanup)
            self.ended.set()


def test_ctrl_c_cancels_awaits_cleanup_then_raises(rt):
    """KeyboardInterrupt surfaces after the coroutine's cleanup; the caller's own `with` blocks end after it."""
    work, order = Work(cleanup=0.05), []
    sender = interrupt_after(work.began)

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        try:
            yield
        finally:
            order.append(work.ended.is_set())

    with pytest.raises(KeyboardInterrupt), block():
        rt.run(work.run())
    sender.join()
    assert order == [True]


def test_second_ctrl_c_during_cleanup_ends_the_wait_within_50_ms(rt):
    """The second interrupt does not wait for the cleanup, which continues."""
    work, left = Work(cleanup=0.6), []
    first = interrupt_after(work.began)
    second = interrupt_after(work.cancelled)
    original = signal.getsignal(signal.SIGINT)

    def note(signum, frame) -> None:
        left.append(time.monotonic())
        original(signum, frame)  # type: ignore[operator] # Python's own

    signal.signal(signal.SIGINT, note)
    try:
        with pytest.raises(KeyboardInterrupt):
            rt.run(work.run())
        assert time.monotonic() - left[-1] < 0.05
    finally:
        signal.signal(signal.SIGINT, original)
    assert len(left) == 2
    assert not work.ended.is_set()
    first.join()
    second.join()
    assert work.ended.wait(5)


async def stubborn(began: threading.Event, until: threading.Event) -> None:
    """Refuse every cancellation."""
    began.set()
    while not until.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


def test_coroutine_that_refuses_cancellation_delays_at_most_the_grace(loop_factory):
    """KeyboardInterrupt surfaces a grace later, with a note that names the coroutine."""
    began, until = threading.Event(), threading.Event()
    with fresh_runtime("graceful", grace=0.2, loop_factory=loop_factory) as rt:
        sender = interrupt_after(began)
        at = time.monotonic()
        with pytest.raises(KeyboardInterrupt) as caught:
            rt.run(stubborn(began, until))
        assert 0.2 <= time.monotonic() - at < 0.6
        assert "stubborn on graceful did not end within the grace" in caught.value.__notes__[0]
        sender.join()
        until.set()
        _until(lambda: not rt.thread.calls)


def test_an_exception_raised_by_any_signal_handler_is_handled_like_ctrl_c(rt):
    """The exception of a handler cancels the coroutine and surfaces after its cleanup."""

    def handler(*_: object) -> None:
        raise Alarm

    work = Work(cleanup=0.05)
    original = signal.signal(signal.SIGUSR1, handler)
    try:
        sender = interrupt_after(work.began, signal.SIGUSR1)
        with pytest.raises(Alarm):
            rt.run(work.run())
        assert work.ended.is_set()
        sender.join()
    finally:
        signal.signal(signal.SIGUSR1, original)
    assert rt.run(asyncio.sleep(0, "next")) == "next"


def test_keyboard_interrupt_is_never_turned_into_success(rt):
    """A coroutine that swallows the cancellation and returns does not hide the interrupt."""
    began = threading.Event()

    async def swallow() -> str:
        began.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "fine"

    sender = interrupt_after(began)
    with pytest.raises(KeyboardInterrupt):
        rt.run(swallow())
    sender.join()


def test_timeout_cancels_awaits_cleanup_and_raises(rt):
    """TimeoutError is raised after the cleanup, and names the coroutine and the limit."""
    work = Work(cleanup=0.1)
    with pytest.raises(TimeoutError, match=r"Work.run on .* did not end within 0.05 s"):
        rt.run(work.run(), timeout=0.05)
    assert work.ended.is_set()


def test_result_that_arrives_while_cancelling_is_returned(rt):
    """As with asyncio.timeout, a coroutine that returns after its cancellation has a result."""

    async def finish() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "just in time"

    assert rt.run(finish(), timeout=0.02) == "just in time"


def test_error_of_the_cleanup_is_raised_instead_of_timeout_error(rt):
    """A TimeoutError does not hide the error of the cleanup."""

    async def fail() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("cleanup")

    with pytest.raises(ValueError, match="cleanup"):
        rt.run(fail(), timeout=0.02)


def test_timeout_zero_means_at_once(rt):
    """A limit of 0 cancels the first await; a coroutine that awaits nothing returns."""
    at = time.monotonic()
    with pytest.raises(TimeoutError):
        rt.run(asyncio.sleep(60), timeout=0)
    assert time.monotonic() - at < 0.5

    async def at_once() -> int:
        return 1

    assert rt.run(at_once(), timeout=0) == 1


def test_asyncio_timeout_inside_the_coroutine_keeps_its_own_limit(rt):
    """The coroutine's own limit runs out, not the caller's."""

    async def inner() -> str:
        try:
            async with asyncio.timeout(0.02):
                await asyncio.sleep(60)
        except TimeoutError:
            return "inner"
        return "none"

    assert rt.run(inner(), timeout=30) == "inner"


def test_caller_leaves_a_blocked_loop_after_limit_and_grace_and_gets_its_stack(loop_factory):
    """A loop that cannot run the cancellation does not hold its callers; the error shows the blocking line."""
    release = threading.Event()

    async def block_the_loop() -> None:
        release.wait(10)

    with fresh_runtime("standstill", grace=0.2, loop_factory=loop_factory) as rt:
        rt.run(asyncio.sleep(0))
        at = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            rt.run(block_the_loop(), timeout=0.3)
        assert 0.5 <= time.monotonic() - at < 0.8
        assert "standstill" in str(caught.value)
        assert "release.wait(10)" in str(caught.value)
        release.set()
        assert rt.run(asyncio.sleep(0, 1)) == 1


def test_sliced_wait_notices_an_interrupt_within_0_2_s(rt, monkeypatch):
    """Python delivers signals between two slices, and the thread does not busy-wait."""
    looked = []
    monkeypatch.setattr(waiting._here, "waiter", waiting.SlicedWaiter(lambda: looked.append(1)))
    work = Work()
    sender = interrupt_after(work.began)
    at = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        rt.run(work.run())
    assert time.monotonic() - at < 0.3
    sender.join()
    looked.clear()
    with pytest.raises(TimeoutError):
        rt.run(asyncio.sleep(60), timeout=0.5)
    assert len(looked) <= 6


def test_main_thread_waits_in_slices_on_every_system():
    """The thread that runs the signal handlers never blocks for longer than a slice."""
    assert isinstance(waiting.waiter(), waiting.SlicedWaiter)
    assert waiting.SLICE <= 0.2


def _until(condition) -> None:
    """Wait for a condition that has no event."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
