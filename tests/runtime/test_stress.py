"""Stress: interrupts at random points of a process that makes one call after the other."""

from __future__ import annotations

import pytest

INTERRUPTS = """
import asyncio, gc, os, random, signal, sys, threading, time, warnings
import rowloop.runtime as r
rt = r.default()
signum = getattr(signal, "{signal}")
class Alarm(Exception): pass
def alarm(signum, frame): raise Alarm
if signum != signal.SIGINT:
    signal.signal(signum, alarm)
Interrupt = KeyboardInterrupt if signum == signal.SIGINT else Alarm
alive = 0
seen = alive_at_interrupt = 0
async def work(seconds):
    global alive
    alive += 1
    try:
        await asyncio.sleep(seconds)
        return seconds
    finally:
        try:
            await asyncio.sleep(0)
        finally:
            alive -= 1
rt.run(work(0))
go, stop = threading.Semaphore(0), threading.Event()
def interrupt():
    for _ in range({count}):
        go.acquire()
        time.sleep(random.random() * {spread})
        os.kill(os.getpid(), signum)
thread = threading.Thread(target=interrupt, daemon=True)
thread.start()
armed = False
while seen < {count}:
    try:
        if not armed:
            armed = True
            go.release()
        while True:
            seconds = random.random() * {spread} / 2
            assert rt.run(work(seconds)) == seconds
    except Interrupt:
        armed = False
        seen += 1
        alive_at_interrupt += alive
        assert rt.run(work(0)) == 0
print("interrupts", seen, "alive", alive_at_interrupt)
"""


@pytest.mark.parametrize("signal", ["SIGINT", "SIGUSR1"])
def test_60_interrupts_at_random_points_leave_no_coroutine_alive(child, signal):
    """No coroutine is alive when the exception surfaces, none was "never awaited", and the next call works."""
    ended = child(INTERRUPTS.format(signal=signal, count=60, spread=0.01))
    assert ended.out == "interrupts 60 alive 0\n"


@pytest.mark.stress
@pytest.mark.parametrize("signal", ["SIGINT", "SIGUSR1"])
def test_500_interrupts_at_random_points_leave_no_coroutine_alive(child, signal):
    """The long form."""
    ended = child(INTERRUPTS.format(signal=signal, count=500, spread=0.02), seconds=55)
    assert ended.out == "interrupts 500 alive 0\n"
