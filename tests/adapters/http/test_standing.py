"""Standing: whether an ambiguous refusal is about every request or about one, by plain calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rowloop.adapters.http.errors import Failures
from rowloop.adapters.http.standing import DoubtedError
from rowloop.engine.core.errors import ModelError


class Endpoint:
    """Answers a request with the status in its name; one with a second word waits until the test releases it."""

    def __init__(self) -> None:
        """Begin as a model that nobody has asked."""
        self.failures = Failures("openai:m")
        self._held: dict[str, asyncio.Event] = {}
        self.ask = self.failures.standing.around(self._send)

    async def _send(self, request: str) -> str:
        status, _, held = request.partition(" ")
        if held:
            await self._event(held).wait()
        if status != "200":
            raise self.failures.status(int(status), {}, b'{"error": {"message": "Not for you"}}')
        return status

    def release(self, held: str) -> None:
        """Answer the requests that wait under this name."""
        self._event(held).set()

    def _event(self, held: str) -> asyncio.Event:
        return self._held.setdefault(held, asyncio.Event())

    async def started(self, *requests: str) -> list[asyncio.Task[str]]:
        """Send requests, and return once each waits or has ended."""
        tasks = [asyncio.create_task(self.ask(request)) for request in requests]
        await asyncio.sleep(0)
        return tasks


def outcome(error: Any) -> tuple[str, bool]:
    """Return the kind of an error, and whether it is fatal."""
    assert isinstance(error, ModelError)
    return error.kind, error.fatal


@pytest.mark.parametrize(("status", "kind"), [("403", "auth"), ("404", "not_found"), ("405", "not_found")])
def test_with_no_other_request_it_is_about_every_one(status: str, kind: str):
    """Nothing shows that key and address are right."""
    endpoint = Endpoint()
    with pytest.raises(DoubtedError, match="Not for you; check") as caught:
        asyncio.run(endpoint.ask(status))
    assert outcome(caught.value) == (kind, True)
    assert caught.value.status == int(status)


@pytest.mark.parametrize(("status", "kind"), [("403", "refused"), ("404", "not_found"), ("302", "not_found")])
def test_after_an_answer_it_is_about_one(status: str, kind: str):
    """Its message is the endpoint's, without advice about keys."""

    async def run() -> None:
        endpoint = Endpoint()
        await endpoint.ask("200")
        with pytest.raises(ModelError) as caught:
            await endpoint.ask(status)
        assert outcome(caught.value) == (kind, False)
        assert "check" not in str(caught.value)

    asyncio.run(run())


def test_it_waits_for_the_requests_beside_it():
    """Those that fail decide nothing; the one that is answered does."""

    async def run() -> None:
        endpoint = Endpoint()
        tasks = await endpoint.started("403 a", "403 a", "500 a", "200 b")
        endpoint.release("a")
        await asyncio.wait([tasks[2]])
        assert not tasks[0].done()
        assert not tasks[1].done()
        endpoint.release("b")
        *refused, server, answer = await asyncio.gather(*tasks, return_exceptions=True)
        assert [outcome(error) for error in refused] == [("refused", False)] * 2
        assert (outcome(server), answer) == (("server", False), "200")

    asyncio.run(run())


def test_it_ends_the_run_once_every_request_beside_it_has_failed():
    """A wrong key is reported as soon as the requests in flight are back."""

    async def run() -> None:
        endpoint = Endpoint()
        tasks = await endpoint.started("403 a", "403 a", "500 b")
        endpoint.release("a")
        endpoint.release("b")
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [outcome(error) for error in found] == [("auth", True), ("auth", True), ("server", False)]

    asyncio.run(run())


def test_a_cancelled_request_is_not_waited_for():
    """Neither one in flight nor one in doubt keeps the others."""

    async def run() -> None:
        endpoint = Endpoint()
        waiting, doubted, other = await endpoint.started("200 a", "403", "403")
        doubted.cancel()
        waiting.cancel()
        with pytest.raises(DoubtedError):
            await other
        assert doubted.cancelled()

    asyncio.run(run())


def test_a_wrong_key_in_mid_run_ends_it():
    """401, and words about the key or the account, are about every request."""

    async def run() -> None:
        endpoint = Endpoint()
        await endpoint.ask("200")
        with pytest.raises(ModelError) as caught:
            await endpoint.ask("401")
        assert outcome(caught.value) == ("auth", True)
        leaked = endpoint.failures.status(403, {}, b'{"error": {"message": "Your API key was reported as leaked."}}')
        assert outcome(leaked) == ("auth", True)

    asyncio.run(run())
