"""Clients of host loops, and coroutines that something other than asyncio runs."""

from __future__ import annotations

import asyncio
from types import FunctionType
from typing import TYPE_CHECKING

import aiohttp
import pytest

from rowloop.runtime import client, default

if TYPE_CHECKING:
    from collections.abc import Callable

    from fake_openai import FakeOpenAI
    from rowloop.runtime import Runtime


class Bound:
    """A client that is bound to the loop on which it is made."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loop = asyncio.get_running_loop()
        self.closed_on: asyncio.AbstractEventLoop | None = None

    async def aclose(self) -> None:
        """Close it; takes a turn of the loop."""
        await asyncio.sleep(0)
        self.closed_on = asyncio.get_running_loop()


def of_helper(name: str) -> Bound:
    """Get a client in a synchronous function of the user's."""
    return client(Bound, name)


@pytest.mark.parametrize("get", [lambda name: client(Bound, name), of_helper])
def test_async_code_of_a_host_loop_gets_the_client_of_that_loop(
    get: Callable[[str], Bound], loop_factory: Callable[[], asyncio.AbstractEventLoop]
):
    """One for equal arguments, for as long as the loop runs; it is closed on the loop, which is then forgotten."""

    async def main() -> list[Bound]:
        async def task() -> Bound:
            return get("a")

        return [get("a"), get("b"), await asyncio.create_task(task())]

    clients = []
    for _ in range(2):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            a, b, again = runner.run(main())
            assert again is a
            assert b is not a
            assert a.loop is b.loop is runner.get_loop()
            clients += [a, b]
    assert len(set(clients)) == 4
    assert all(made.closed_on is made.loop for made in clients)


def test_a_real_client_works_in_request_after_request_on_a_host_loop(server: FakeOpenAI):
    """A session of aiohttp keeps its connection, and is closed with the loop."""

    async def ask() -> int:
        async with client(aiohttp.ClientSession).get(f"{server.url}/models") as answer:
            await answer.read()
            return answer.status

    async def main() -> tuple[list[int], aiohttp.ClientSession]:
        return [await ask() for _ in range(5)], client(aiohttp.ClientSession)

    for _ in range(2):
        statuses, session = asyncio.run(main())
        assert len(set(statuses)) == 1
        assert session.closed


def test_a_client_that_must_be_entered_is_refused_on_a_host_loop_too():
    """The error names what to use."""

    async def main() -> None:
        client(asyncio.Lock)

    with pytest.raises(TypeError, match=r"cannot be used before its __aenter__ has been awaited.*rt\.aenter"):
        asyncio.run(main())


def test_synchronous_code_gets_the_client_of_the_shared_runtime_beside_a_running_loop():
    """A callback of a loop is synchronous code, and so is a notebook's cell that awaits nothing."""
    found: list[Bound] = []

    async def cell() -> None:
        """Run a cell as the kernel does, whose coroutines are those of another module."""
        exec("found.append(client(Bound, 'a'))", {"client": client, "Bound": Bound, "found": found})  # noqa: S102

    names = {**globals(), "__name__": "IPython.core.interactiveshell"}
    kernel = FunctionType(cell.__code__, names, "cell", (), cell.__closure__)
    try:
        with pytest.warns(RuntimeWarning, match="blocking call"):
            asyncio.run(kernel())
        assert found[0].loop is default().loop
    finally:
        default().close()


def step(coroutine) -> None:
    """Run a coroutine to its first suspension, as a framework other than asyncio does."""
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


def test_awaiting_a_call_under_another_framework_is_refused_and_cancels_it(rt: Runtime):
    """The error says what to do instead; the coroutine does not run on, unseen."""
    call = rt.submit(asyncio.sleep(60))

    async def main() -> None:
        await call

    with pytest.raises(RuntimeError, match=r"works on asyncio's event loops.*trio\.to_thread\.run_sync"):
        step(main())
    with pytest.raises(asyncio.CancelledError):
        call.result(10)
