"""Resources: objects that live as long as the loop and are shared by all calls, such as HTTP clients.

Theory of operation. A client that was made on one loop breaks on another, and closing it after one call breaks the
other callers. So each resource is made once per key, on the loop, by a task of its own: its holder. The holder enters
the resource, waits, and leaves it, because cancel scopes and task groups must be entered and left by the same task.
Racing first users wait for the same holder. A holder runs in an empty context, so a shared resource does not depend
on its first user. At the end all resources are closed while the loop still runs, last in first out. A resource with
an idle time-out is closed earlier, once it has had no lease for that long.

All of this happens on the loop's thread, so it needs no locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable
    from contextlib import AbstractAsyncContextManager


@dataclass(eq=False, slots=True)
class Resource:
    """One resource and its holder."""

    key: Hashable
    idle: float | None
    ready: asyncio.Future[Any]
    leave: asyncio.Future[None]
    holder: asyncio.Task[None] = field(init=False)
    waiting: int = 0
    leases: int = 0
    timer: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """The key in a readable form."""
        return getattr(self.key, "__qualname__", None) or repr(self.key)


class Resources:
    """The resources of one loop, by key and in the order in which they were entered."""

    def __init__(self) -> None:
        """Start empty."""
        self._by_key: dict[Hashable, Resource] = {}
        self._entered: list[Resource] = []
        self._failures: list[Exception] = []
        self._closing = False

    def names(self) -> list[str]:
        """Name the open resources."""
        return [resource.name for resource in self._entered]

    def holders(self) -> list[asyncio.Task[None]]:
        """Return the holders of the open resources."""
        return [resource.holder for resource in self._entered]

    async def enter(self, factory: Callable[[], Any], key: Hashable, idle: float | None) -> Any:
        """Return the resource of `key`; `factory` makes it if it does not exist yet."""
        resource = await self._found(factory, key, idle)
        self._restart_idle(resource)
        return resource.ready.result()

    @contextlib.asynccontextmanager
    async def lease(self, factory: Callable[[], Any], key: Hashable, idle: float | None) -> AsyncIterator[Any]:
        """Keep the resource of `key` open for the length of the block, whatever its idle time-out."""
        resource = await self._found(factory, key, idle)
        resource.leases += 1
        self._stop_idle(resource)
        try:
            yield resource.ready.result()
        finally:
            resource.leases -= 1
            self._restart_idle(resource)

    def construct(self, factory: Callable[[], Any], key: Hashable) -> Any:
        """Return the resource of `key` without awaiting; make it here and now if it does not exist yet."""
        resource = self._by_key.get(key)
        if resource is None:
            made = constructed(factory)
            resource = self._add(key, None)
            resource.ready.set_result(made)
            self._entered.append(resource)
            self._hold(resource, lambda: Closing(made))
        return resource.ready.result()

    async def leave(self, key: Hashable) -> None:
        """Close the resource of `key` now, if it exists; raise the error of its closing."""
        resource = self._by_key.get(key)
        if resource is not None:
            self._start_closing(resource)
            await asyncio.wait([resource.holder])
            if self._failures:
                raise self._failures.pop()

    async def close(self, until: float) -> list[Exception]:
        """Close all, last in first out, until the loop's clock shows `until`; return the errors."""
        self._closing = True
        for resource in [*reversed(self._entered), *self._by_key.values()]:
            self._start_closing(resource)
            if not resource.holder.done():
                await asyncio.wait([resource.holder], timeout=max(0.0, until - _loop().time()))
            if not resource.holder.done():
                self._failures.append(TimeoutError(f"{resource.name} did not finish closing in time"))
                resource.holder.cancel()
        return self._failures

    async def _found(self, factory: Callable[[], Any], key: Hashable, idle: float | None) -> Resource:
        resource = self._by_key.get(key)
        if resource is None:
            resource = self._add(key, idle)
            self._hold(resource, factory)
        resource.waiting += 1
        try:
            await asyncio.shield(resource.ready)
        except asyncio.CancelledError:
            if resource.waiting == 1 and not resource.ready.done():
                resource.holder.cancel()  # no other user waits for it
            raise
        finally:
            resource.waiting -= 1
        return resource

    def _add(self, key: Hashable, idle: float | None) -> Resource:
        if self._closing:
            message = f"cannot enter {key!r}: the runtime is being closed"
            raise RuntimeError(message)
        resource = Resource(key, idle, _loop().create_future(), _loop().create_future())
        self._by_key[key] = resource
        return resource

    def _hold(self, resource: Resource, factory: Callable[[], Any]) -> None:
        resource.holder = _loop().create_task(
            self._held(resource, factory), name=f"holder of {resource.name}", context=Context()
        )
        resource.holder.add_done_callback(partial(self._ended, resource))

    async def _held(self, resource: Resource, factory: Callable[[], Any]) -> None:
        made = factory()
        if inspect.isawaitable(made):
            made = await made
        async with _entering(made) as value:
            if not resource.ready.done():
                resource.ready.set_result(value)
                self._entered.append(resource)
            await resource.leave

    def _ended(self, resource: Resource, holder: asyncio.Task[None]) -> None:
        self._forget(resource)
        if resource in self._entered:
            self._entered.remove(resource)
        self._stop_idle(resource)
        error: BaseException | None = asyncio.CancelledError() if holder.cancelled() else holder.exception()
        if not resource.ready.done():
            resource.ready.set_exception(error or RuntimeError(f"{resource.name} ended before it began"))
            resource.ready.exception()  # the users may be gone: mark the error as retrieved
        elif isinstance(error, Exception):
            error.add_note(f"while closing the resource {resource.name}")
            self._failures.append(error)

    def _start_closing(self, resource: Resource) -> None:
        self._forget(resource)
        if not resource.ready.done():
            resource.holder.cancel()
        elif not resource.leave.done():
            resource.leave.set_result(None)

    def _forget(self, resource: Resource) -> None:
        if self._by_key.get(resource.key) is resource:
            del self._by_key[resource.key]

    def _stop_idle(self, resource: Resource) -> None:
        if resource.timer is not None:
            resource.timer.cancel()
            resource.timer = None

    def _restart_idle(self, resource: Resource) -> None:
        self._stop_idle(resource)
        if resource.idle is not None and not resource.leases:
            resource.timer = _loop().call_later(resource.idle, self._start_closing, resource)


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def constructed(factory: Callable[[], Any]) -> Any:
    """Return what a factory makes; raise TypeError for an object that cannot be used before something is awaited."""
    made = factory()
    if inspect.isawaitable(made) or not _has_close(made):
        if inspect.iscoroutine(made):
            made.close()
        message = (
            f"{type(made).__qualname__} cannot be used before its __aenter__ has been awaited."
            " Use `await rt.aenter(factory)` in async code, or `rt.enter(factory)` in sync code"
        )
        raise TypeError(message)
    return made


def _has_close(made: object) -> bool:
    return hasattr(made, "aclose") or hasattr(made, "close")


def _entering(made: Any) -> AbstractAsyncContextManager[Any]:
    if hasattr(made, "__aenter__"):
        entering: AbstractAsyncContextManager[Any] = made
        return entering
    if _has_close(made):
        return Closing(made)
    message = f"{type(made).__qualname__} cannot be a resource: it has no __aenter__, no aclose() and no close()"
    raise TypeError(message)


class Closing(contextlib.AbstractAsyncContextManager[Any]):
    """Closes an object with aclose() or close(), whether that returns an awaitable or not."""

    def __init__(self, made: Any) -> None:
        """Take the object."""
        self._made = made

    async def __aenter__(self) -> Any:
        """Return the object."""
        return self._made

    async def __aexit__(self, *_: object) -> None:
        """Close the object."""
        closing = getattr(self._made, "aclose", None) or self._made.close
        ended = closing()
        if inspect.isawaitable(ended):
            await ended
