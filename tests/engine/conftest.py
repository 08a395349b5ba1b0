"""What the engine's tests share: a loop with a virtual clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import looptime
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


@pytest.fixture
def virtually() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Run a coroutine on a loop whose waits take no time, but all of it by `loop.time()`; it ends after a day."""

    def run(coro: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=0, end=86_400)) as runner:
            return runner.run(coro)

    return run
