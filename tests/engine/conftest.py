"""What the engine's tests share: a loop with a virtual clock, and the two ways to ask an endpoint."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import looptime
import pytest

from rowloop.adapters.providers.wire import dialect
from rowloop.runtime import Runtime
from rowloop.runtime.one_thread import OneThread
from ways import by_address, by_client

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from rowloop import Model

T = TypeVar("T")


@pytest.fixture
def virtually() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Run a coroutine on a loop whose waits take no time, but all of it by `loop.time()`; it ends after a day."""

    def run(coro: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=0, end=86_400)) as runner:
            return runner.run(coro)

    return run


@pytest.fixture
def virtual_runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """Give a runtime whose loop's waits take no time: whole runs, from the user's side, in virtual time.

    The loop leaves the clock alone while it waits for a thread, but only for those of its own executors.
    """
    call = OneThread.call

    async def watched(thread: OneThread, function: Callable[[], Any]) -> Any:
        done = threading.Event()
        asyncio.get_running_loop().run_in_executor(None, done.wait)
        try:
            return await call(thread, function)
        finally:
            done.set()

    monkeypatch.setattr(OneThread, "call", watched)
    with Runtime("virtual", loop_factory=lambda: looptime.new_event_loop(start=0, end=86_400)) as runtime:
        yield runtime


@pytest.fixture(params=[by_address, by_client], ids=["aiohttp", "sdk"])
def way(request: pytest.FixtureRequest) -> Callable[..., Model]:
    """Return what makes a model from an address: each way must do the same."""
    return request.param


@pytest.fixture
def nothing_known() -> Iterator[None]:
    """Begin as a process that has talked to nobody."""
    dialect.forget()
    yield
    dialect.forget()
