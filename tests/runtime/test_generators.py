"""Generators: dropped ones, and those left at the end, are closed in order, without a message on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time

import pytest

from rowloop.runtime import Runtime


class Nest:
    """Generators that read each other and close what they read, as the layers of an HTTP response do."""

    layers = 7

    def __init__(self) -> None:
        self.closed: list[int] = []
        self.all_closed = threading.Event()

    async def layer(self, depth: int, *, explicit: bool):
        """Yield the items of the layer below; close that layer if `explicit`, otherwise drop it."""
        try:
            if depth == 0:
                while True:
                    yield 0
            inner = self.layer(depth - 1, explicit=explicit)
            async with contextlib.aclosing(inner) if explicit else contextlib.nullcontext():
                async for item in inner:
                    yield item
        finally:
            await asyncio.sleep(0)
            self.closed.append(depth)
            await asyncio.sleep(0)
            if len(self.closed) == self.layers:
                self.all_closed.set()


@pytest.fixture
def complaints(rt) -> list[dict[str, object]]:
    """Return the list of what the loop's exception handler gets."""
    contexts: list[dict[str, object]] = []
    rt.loop.call_soon_threadsafe(rt.loop.set_exception_handler, lambda _, context: contexts.append(context))
    return contexts


@pytest.mark.parametrize("explicit", [True, False], ids=["closing the inner", "dropping the inner"])
def test_nested_generators_in_a_dropped_cycle_are_closed_once_each(rt, complaints, explicit):
    """All layers are collected at once; each is closed once, without a message."""
    nest = Nest()

    async def leave() -> None:
        kept: list[object] = []
        generator = nest.layer(6, explicit=explicit)
        await anext(generator)
        kept += [generator, kept]

    rt.run(leave())
    gc.collect()
    assert nest.all_closed.wait(5)
    rt.run(asyncio.sleep(0))
    assert sorted(nest.closed) == list(range(7))
    assert complaints == []


def test_closing_waits_for_a_collector_that_runs_in_another_thread(rt):
    """The collector finds the inner generator untouched, however long it takes after the outer one."""
    closed: list[str] = []
    all_closed = threading.Event()

    class Slow:
        """An object that the collector finalises between the two generators."""

        def __del__(self) -> None:
            time.sleep(0.05)
            closed.append("collector continued")

    async def inner():
        try:
            while True:
                yield
        finally:
            closed.append("inner begun")
            await asyncio.sleep(0.1)
            closed.append("inner ended")

    async def outer():
        try:
            async with contextlib.aclosing(inner()) as items:
                async for _ in items:
                    yield
        finally:
            all_closed.set()

    async def leave() -> None:
        generator = outer()
        kept: list[object] = [generator, Slow()]
        await anext(generator)
        kept.append(kept)

    gc.collect()
    gc.disable()
    try:
        rt.run(leave())
        gc.collect()
    finally:
        gc.enable()
    assert all_closed.wait(5)
    assert closed == ["collector continued", "inner begun", "inner ended"]


def test_generators_that_the_source_reads_and_drops_are_closed_before_the_with_block_ends(rt, complaints):
    """Closing a stream closes all layers below it, although no layer closes the next."""
    nest = Nest()
    with rt.iterate(nest.layer(6, explicit=False), prefetch=1) as items:
        next(items)
    assert nest.closed == [6, 5, 4, 3, 2, 1, 0]
    assert complaints == []


def test_slow_cleanup_of_one_generator_does_not_delay_those_dropped_later(rt):
    """A generator that was dropped at another moment is closed meanwhile."""
    release, slow_began, quick_closed = asyncio.Event(), threading.Event(), threading.Event()

    async def slow():
        try:
            yield
        finally:
            slow_began.set()
            await release.wait()

    async def quick():
        try:
            yield
        finally:
            quick_closed.set()

    async def drop(generator) -> None:
        await anext(generator)

    rt.run(drop(slow()))
    assert slow_began.wait(5)
    rt.run(drop(quick()))
    assert quick_closed.wait(5)
    rt.loop.call_soon_threadsafe(release.set)


def test_generator_dropped_in_another_thread_is_closed_on_the_loop(rt):
    """The last reference may disappear in any thread; the cleanup runs on the generator's loop."""
    closed_in: list[int] = []
    closed = threading.Event()

    async def generator():
        try:
            yield
        finally:
            await asyncio.sleep(0)
            closed_in.append(threading.get_ident())
            closed.set()

    async def begin():
        made = generator()
        await anext(made)
        return made

    kept = [rt.run(begin())]
    kept.clear()
    assert closed.wait(5)
    assert closed_in != [threading.get_ident()]


def test_failing_cleanup_of_a_dropped_generator_is_reported(rt, complaints):
    """No caller waits for it, so the loop's exception handler gets the error and the generator's name."""
    failed = threading.Event()

    async def fails():
        try:
            yield
        finally:
            failed.set()
            raise ValueError("cleanup")

    async def drop() -> None:
        await anext(fails())

    rt.run(drop())
    assert failed.wait(5)
    rt.run(asyncio.sleep(0))
    [complaint] = complaints
    assert "fails" in str(complaint["message"])
    assert isinstance(complaint["exception"], ValueError)


def test_generators_left_at_the_end_are_closed_outer_first(loop_factory):
    """The runtime closes them one after the other, so an outer one can close the one that it reads."""
    nest, kept = Nest(), []
    complaints: list[dict[str, object]] = []

    async def begin() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        kept.append(nest.layer(6, explicit=True))
        await anext(kept[0])

    with Runtime("held", loop_factory=loop_factory) as rt:
        rt.run(begin())
    assert nest.closed == [0, 1, 2, 3, 4, 5, 6]  # the finally of 6 waits for that of 5, and so on
    assert complaints == []


def test_generator_that_refuses_to_be_closed_is_named_and_does_not_block_the_others(loop_factory):
    """The second generator is closed although the first hangs in its cleanup."""
    closed, kept = [], []

    async def hangs():
        try:
            yield
        finally:
            await asyncio.sleep(60)

    async def ends():
        try:
            yield
        finally:
            closed.append("ends")

    async def begin() -> None:
        for made in (hangs(), ends()):
            kept.append(made)
            await anext(made)

    rt = Runtime("hanging", loop_factory=loop_factory, exit_budget=1.0)
    rt.run(begin())
    with pytest.warns(RuntimeWarning, match=r"async generator .*hangs refuses to be closed"):
        rt.close()
    assert closed == ["ends"]
