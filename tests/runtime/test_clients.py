"""Real HTTP clients on one loop: shared, cut off, collected late, open at exit; silent under -X dev -W error."""

from __future__ import annotations

import pytest

CALLS = 400

PRELUDE = """
import asyncio, gc, sys, threading, warnings
from concurrent.futures import ThreadPoolExecutor
{imports}
import rowloop.runtime as r
URL = {url!r}
BODY = dict(model="m", messages=[dict(role="user", content="hello")])
"""

CLIENTS = {
    "openai": (
        "import openai",
        """
def make():
    return openai.AsyncOpenAI(base_url=URL, api_key="any", max_retries=0)
async def call(client):
    return (await client.chat.completions.create(**BODY)).choices[0].message.content
async def items(client):
    async for chunk in await client.chat.completions.create(**BODY, stream=True):
        yield chunk
""",
    ),
    "httpx": (
        "import httpx",
        """
def make():
    return httpx.AsyncClient(timeout=30)
async def call(client):
    return (await client.post(URL + "/chat/completions", json=BODY)).json()["choices"][0]["message"]["content"]
async def items(client):
    async with client.stream("POST", URL + "/chat/completions", json=dict(BODY, stream=True)) as response:
        async for line in response.aiter_lines():
            yield line
""",
    ),
    "aiohttp": (
        "import aiohttp",
        """
def make():
    return aiohttp.ClientSession()
async def call(client):
    async with client.post(URL + "/chat/completions", json=BODY) as response:
        return (await response.json())["choices"][0]["message"]["content"]
async def items(client):
    async with client.post(URL + "/chat/completions", json=dict(BODY, stream=True)) as response:
        async for line in response.content:
            yield line
""",
    ),
}
CLIENTS["httpx2"] = (CLIENTS["httpx"][0].replace("httpx", "httpx2"), CLIENTS["httpx"][1].replace("httpx.", "httpx2."))


@pytest.fixture(params=list(CLIENTS))
def script(request: pytest.FixtureRequest, server):
    """Return the start of a script, with functions that make a client, call it and stream from it."""
    imports, code = CLIENTS[request.param]
    return PRELUDE.format(imports=imports, url=server.url) + code


def test_one_client_serves_8_threads_and_400_calls(child, server, script):
    """One client on one loop; the interpreter's exit closes it."""
    ended = child(
        script
        + f"""
async def one():
    return await call(await r.default().aenter(make))
with ThreadPoolExecutor(8) as pool:
    answers = list(pool.map(lambda _: r.run_sync(one()), range({CALLS})))
print(len(answers), all(answers))
"""
    )
    assert ended.out == f"{CALLS} True\n"
    assert server.counters().requests == CALLS


def test_client_one_liner_works_in_sync_and_async_code(child, script):
    """rowloop.client(make) returns the same client everywhere; the exit closes it."""
    ended = child(
        script
        + """
async def column():
    return r.client(make), await call(r.client(make))
inside, answer = r.run_sync(column())
print(inside is r.client(make), bool(answer))
"""
    )
    assert ended.out == "True True\n"


def test_stream_cut_by_the_server_is_closed_on_the_live_loop(child, server, script):
    """A body that ends in mid-stream raises in the consumer, and the response is closed on its loop."""
    server.configure(fault_cut=1.0)
    ended = child(
        script
        + """
rt = r.default()
client = rt.enter(make)
for _ in range(5):
    got = 0
    try:
        with rt.iterate(items(client)) as stream:
            for item in stream:
                got += 1
    except Exception as error:
        print(got > 0, type(error).__name__)
rt.leave(make)
"""
    )
    lines = ended.out.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("True ") for line in lines), lines


def test_stream_left_early_or_collected_late_leaves_nothing_open(child, script):
    """A consumer that breaks off, and one that drops its iterator in a reference cycle, leave nothing open."""
    ended = child(
        script
        + """
rt = r.default()
client = rt.enter(make)
with rt.iterate(items(client), prefetch=1) as stream:
    next(stream)
cycle = [rt.iterate(items(client), prefetch=1)]
next(cycle[0])
cycle.append(cycle)
del cycle
gc.collect()
abandoned = rt.iterate(items(client), prefetch=1)
next(abandoned)
print("left")
"""
    )
    assert ended.out == "left\n"


def test_calls_in_flight_at_exit_are_cancelled_in_silence(child, server, script):
    """An interpreter that ends during calls cancels them and closes the client, with an empty stderr."""
    server.configure(latency=30.0)
    ended = child(
        script
        + f"""
import urllib.request
rt = r.default()
async def one():
    return await call(await rt.aenter(make))
calls = [rt.submit(one()) for _ in range(16)]
urllib.request.urlopen("{server._control}/control/wait?in_flight=16", timeout=10).close()
print(sum(call.done() for call in calls))
"""
    )
    assert ended.out == "0\n"
    server.wait_for(client_disconnects=16)
