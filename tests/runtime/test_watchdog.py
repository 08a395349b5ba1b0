"""The watchdog: a blocked loop is reported with the line that blocks it."""

from __future__ import annotations

import asyncio
import queue
import threading
import time

import pytest

from rowloop.runtime import watchdog
from rowloop.runtime.testing import fresh_runtime


def test_blocked_loop_is_reported_once_per_episode_with_the_blocking_line(loop_factory):
    """One report with the stack while the loop is blocked, one line when it runs again; so for each episode."""
    reports: queue.SimpleQueue[str] = queue.SimpleQueue()
    with fresh_runtime("dog", loop_factory=loop_factory) as rt:
        rt.run(asyncio.sleep(0))
        watchdog.Watchdog(rt.thread, 0.05, reports.put).start()
        for _ in range(2):
            release = threading.Event()

            async def block(release=release) -> None:
                release.wait(5)

            call = rt.submit(block())
            report = reports.get(timeout=5)
            assert "dog: the loop has been blocked for 0.05 s by" in report
            assert "release.wait(5)" in report
            time.sleep(0.15)  # not a synchronisation: time for a second report of the same episode
            assert reports.empty()
            release.set()
            call.result()
            assert "dog: the loop is back after" in reports.get(timeout=5)
    assert reports.empty()


def test_loop_that_waits_is_not_reported_as_blocked(rt):
    """A loop that waits for something is not blocked."""
    reports: list[str] = []
    rt.run(asyncio.sleep(0))
    watchdog.Watchdog(rt.thread, 0.1, reports.append).start()
    rt.run(asyncio.sleep(0.5))
    assert reports == []


@pytest.mark.parametrize(
    ("setting", "limit"), [("", None), ("0", None), ("off", None), ("1", 0.5), ("0.2", 0.2), ("yes", 0.5)]
)
def test_watchdog_is_off_unless_the_environment_asks_for_it(setting, limit):
    """ROWLOOP_DEBUG=1 sets the usual limit, another number that many seconds."""
    assert watchdog.wanted(setting) == limit


def test_watchdog_thread_exists_only_when_asked_for(child):
    """Without ROWLOOP_DEBUG there is no thread; with it, reports go to the log of rowloop.runtime.watchdog."""
    script = """
        import os, sys
        os.environ["ROWLOOP_DEBUG"] = {!r}
        import asyncio, logging, threading, time
        logging.basicConfig(stream=sys.stdout, format="%(name)s %(message)s")
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        import rowloop.runtime as r
        async def block():
            time.sleep(0.4)
        r.run_sync(block())
        print([thread.name for thread in threading.enumerate() if "watchdog" in thread.name])
    """
    assert child(script.format("")).out == "[]\n"
    on = child(script.format("0.1")).out
    assert "rowloop.runtime.watchdog rowloop: the loop has been blocked for 0.1 s" in on
    assert "time.sleep(0.4)" in on
    assert "['rowloop-rowloop-watchdog']" in on


def test_watchdog_follows_a_loop_that_failed_to_start_and_the_next_one(monkeypatch):
    """The watchdog of a loop that never runs ends; the loop that the next call starts has one of its own."""
    monkeypatch.setenv("ROWLOOP_DEBUG", "0.05")
    attempts: list[int] = []

    def factory() -> asyncio.AbstractEventLoop:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("no file descriptors left")
        return asyncio.new_event_loop()

    def watchdogs() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "rowloop-pup-watchdog"]

    with fresh_runtime("pup", loop_factory=factory) as rt:
        with pytest.raises(OSError, match="no file descriptors left"):
            rt.run(asyncio.sleep(0))
        for thread in watchdogs():
            thread.join(5)
        assert watchdogs() == []
        rt.run(asyncio.sleep(0))
        assert len(watchdogs()) == 1
