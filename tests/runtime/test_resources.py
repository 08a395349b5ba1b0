"""Resources: objects that are bound to the loop, shared by all calls, and closed once."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Self

import pytest

from rowloop.runtime import Runtime, RuntimeClosedError, client, default


class Client:
    """A client that must be entered and closed on its loop, by one task, once."""

    made = 0

    def __init__(self, log: list[str] | None = None, name: str = "client") -> None:
        type(self).made += 1
        self.log = [] if log is None else log
        self.name = name
        self.loop: object = None
        self.task: object = None

    async def __aenter__(self) -> Self:
        """Enter."""
        await asyncio.sleep(0.01)
        self.loop, self.task = asyncio.get_running_loop(), asyncio.current_task()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await asyncio.sleep(0)
        assert (self.loop, self.task) == (asyncio.get_running_loop(), asyncio.current_task())
        self.log.append(self.name)


class Closable:
    """An object that can be closed, and nothing else."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name


class AClose(Closable):
    """An object with aclose()."""

    async def aclose(self) -> None:
        """Close."""
        await asyncio.sleep(0)
        self.log.append(self.name)


class AsyncClose(Closable):
    """An object whose close() is a coroutine."""

    async def close(self) -> None:
        """Close."""
        self.log.append(self.name)


class SyncClose(Closable):
    """An object whose close() is an ordinary method."""

    def close(self) -> None:
        """Close."""
        self.log.append(self.name)


class Failing(Closable):
    """An object whose closing fails."""

    async def aclose(self) -> None:
        """Fail to close."""
        self.log.append(self.name)
        raise OSError("cannot close " + self.name)


def test_racing_first_users_get_one_instance_per_key(rt):
    """16 threads and as many tasks get the same client, made and closed once, on the loop."""
    log: list[str] = []
    Client.made, got, gate = 0, [], threading.Barrier(16)

    def factory() -> Client:
        return Client(log)

    def use() -> None:
        gate.wait()
        got.append(rt.enter(factory, key="client"))

    async def tasks() -> list[object]:
        return await asyncio.gather(*[rt.aenter(factory, key="client") for _ in range(16)])

    threads = [threading.Thread(target=use) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in [*got, *rt.run(tasks())]}) == 1
    assert Client.made == 1
    rt.close()
    rt.close()
    assert log == ["client"]


def test_resources_of_every_kind_are_closed_last_in_first_out(rt):
    """Managers, aclose(), sync and async close(), and coroutines that return one of these."""
    log: list[str] = []

    async def coroutine() -> AClose:
        await asyncio.sleep(0)
        return AClose(log, "coroutine")

    rt.enter(lambda: Client(log, "manager"), key=1)
    rt.enter(lambda: AClose(log, "aclose"), key=2)
    rt.enter(lambda: AsyncClose(log, "async close"), key=3)
    rt.enter(lambda: SyncClose(log, "sync close"), key=4)
    rt.enter(coroutine)
    rt.close()
    assert log == ["coroutine", "sync close", "async close", "aclose", "manager"]


def test_failing_close_does_not_stop_the_others_and_is_raised(rt):
    """Every resource is closed; close() raises the error, which names the resource."""
    log: list[str] = []
    for name in "abc":
        rt.enter(lambda name=name: (Failing if name == "b" else AClose)(log, name), key=name)
    with pytest.raises(ExceptionGroup, match="closing the resources") as caught:
        rt.close()
    assert log == ["c", "b", "a"]
    [error] = caught.value.exceptions
    assert isinstance(error, OSError)
    assert error.__notes__ == ["while closing the resource 'b'"]


def test_failing_factory_raises_in_every_user_and_is_called_again(rt):
    """Every user that waits for the attempt gets its error; later users start a new attempt."""
    attempts = []

    async def factory() -> AClose:
        attempts.append(1)
        await asyncio.sleep(0.02)
        if len(attempts) == 1:
            raise OSError("no route")
        return AClose([], "late")

    async def both() -> list[object]:
        return await asyncio.gather(rt.aenter(factory), rt.aenter(factory), return_exceptions=True)

    assert [str(error) for error in rt.run(both())] == ["no route", "no route"]
    assert rt.enter(factory).name == "late"
    rt.leave(factory)


def test_cancelled_first_user_does_not_take_the_resource_from_the_others(rt):
    """The second user gets the client that the first has begun to make; without users the making is cancelled."""
    log: list[str] = []

    def factory() -> Client:
        return Client(log)

    async def race() -> str:
        first = asyncio.create_task(rt.aenter(factory))
        await asyncio.sleep(0)
        second = asyncio.create_task(rt.aenter(factory))
        await asyncio.sleep(0)
        first.cancel()
        return (await second).name

    async def give_up() -> None:
        task = asyncio.create_task(rt.aenter(lambda: asyncio.sleep(60), key="slow"))
        await asyncio.sleep(0.01)
        task.cancel()

    assert rt.run(race()) == "client"
    rt.run(give_up())
    rt.leave(factory)
    assert log == ["client"]


def test_leased_resource_stays_open_and_an_idle_one_is_closed(rt):
    """A leased resource stays open; the idle time counts from the end of its last lease."""
    log: list[str] = []

    def factory() -> AClose:
        return AClose(log, "idle")

    async def lease() -> None:
        async with rt.lease(factory, idle=0.05) as first:
            await asyncio.sleep(0.1)
            async with rt.lease(factory, idle=0.05) as second:
                assert first is second
            await asyncio.sleep(0.1)
            assert log == []
        await asyncio.sleep(0.02)
        assert log == []
        await asyncio.sleep(0.1)
        assert log == ["idle"]

    rt.run(lease())
    assert rt.enter(factory, idle=0.01)
    rt.run(asyncio.sleep(0.1))
    assert log == ["idle", "idle"]


def test_object_without_a_close_and_a_late_resource_are_refused(rt):
    """Each of these has a clear error: an object without a close, an async form off the loop, a closed runtime."""
    with pytest.raises(TypeError, match=r"no __aenter__, no aclose\(\) and no close\(\)"):
        rt.enter(object)
    with pytest.raises(RuntimeError, match="use `enter` elsewhere"):
        rt.lease(object)
    rt.close()
    with pytest.raises(RuntimeClosedError):
        rt.enter(object)


def test_resource_does_not_see_the_first_users_context(rt):
    """A shared resource must not depend on its first user."""
    var = contextvars.ContextVar("var", default="unset")

    class Looks(AClose):
        def __init__(self) -> None:
            super().__init__([], var.get())

    contextvars.copy_context().run(lambda: (var.set("first"), rt.enter(Looks)))
    assert rt.enter(Looks).name == "unset"
    rt.leave(Looks)


class Sync(AClose):
    """A client like openai's: usable once constructed, closed with aclose()."""

    def __init__(self, name: str, **options: object) -> None:
        super().__init__([], name)
        self.options = options
        self.loop = asyncio.get_running_loop()


class NeedsEntering:
    """A client that cannot be used before its __aenter__."""

    async def __aenter__(self) -> Self:
        """Enter."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave."""


def test_client_is_the_same_from_sync_code_and_inside_column_functions():
    """client(factory, *args) is shared by arguments, made on the loop, and needs no await inside async code."""

    async def column() -> object:
        return client(Sync, "a", headers={"x": ["1"]})

    try:
        outside = client(Sync, "a", headers={"x": ["1"]})
        assert default().run(column()) is outside
        assert outside.loop is default().loop
        assert client(Sync, "b") is not outside
        assert client(Sync, "a", headers={"x": [True]}) is not outside
        with pytest.raises(TypeError, match="aenter"):
            client(NeedsEntering)
        with pytest.raises(TypeError, match="not hashable"):
            client(Sync, "a", headers=bytearray())
        circle: list[object] = []
        circle.append(circle)
        repeated: list[object] = []
        for _ in range(40):
            repeated = [repeated] * 9
        for endless in (circle, repeated):
            with pytest.raises(TypeError, match=r"more than 250 values; use rt\.enter"):
                client(Sync, "a", headers=endless)
    finally:
        default().close()


def test_client_inside_a_runtime_belongs_to_that_runtime(rt):
    """Async code gets the client of the loop that it runs on, not that of the default runtime."""

    async def column() -> object:
        return client(Sync, "a")

    one = rt.run(column())
    assert one.loop is rt.loop
    rt.close()
    assert one.log == ["a"]


def test_one_callers_end_does_not_close_the_client_under_the_other(rt):
    """Two parallel callers share one client; it is closed with the runtime, not with either."""
    log: list[str] = []

    def factory() -> AClose:
        return AClose(log, "shared")

    async def call(seconds: float) -> list[str]:
        shared = await rt.aenter(factory)
        await asyncio.sleep(seconds)
        return list(shared.log)

    short, long = rt.submit(call(0)), rt.submit(call(0.05))
    assert short.result() == long.result() == []
    rt.close()
    assert log == ["shared"]


def test_default_is_made_anew_after_it_was_closed():
    """After the default runtime was closed, later callers get a new one."""
    first = default()
    first.close()
    assert default() is not first
    assert isinstance(default(), Runtime)
