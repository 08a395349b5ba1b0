"""What the engine's tests share: a loop with a virtual clock, and a server to talk to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import looptime
import pytest

from fake_openai import Behaviour, FakeOpenAI
from rowloop.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")


@pytest.fixture
def virtually() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Run a coroutine on a loop whose waits take no time, but all of it by `loop.time()`; it ends after a day."""

    def run(coro: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=0, end=86_400)) as runner:
            return runner.run(coro)

    return run


@pytest.fixture
def virtual_runtime() -> Iterator[Runtime]:
    """Give a runtime whose loop's waits take no time: whole runs, from the user's side, in virtual time."""
    with Runtime("virtual", loop_factory=lambda: looptime.new_event_loop(start=0, end=86_400)) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def server_process() -> Iterator[FakeOpenAI]:
    """Share one server process in a module, since each takes half a second to start."""
    with FakeOpenAI() as process:
        yield process


@pytest.fixture
def server(server_process: FakeOpenAI) -> FakeOpenAI:
    """Give the module's server out as if it were new."""
    server_process.start()
    server_process.configure(Behaviour())
    server_process.reset()
    return server_process
