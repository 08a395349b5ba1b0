"""Stalls: slow requests and runs without progress are reported in warnings, at the right time and by name."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import openai
import pytest

import rowloop as rl
from rowloop.engine.core.errors import ModelError
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.lane_queue import LaneState
from rowloop.engine.core.policy import RetryPolicy
from rowloop.engine.core.row_groups import Plan
from rowloop.engine.models.bytes_received import Arrival, received
from rowloop.engine.telemetry.stalls import View, Watch
from virtual_run import VirtualRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from fake_openai import FakeOpenAI
    from rowloop.engine.models.model import Model


def waits(seconds: dict[int, float]):
    """Make a function that takes these seconds for some rows, and one second for the others."""

    async def call(row: int) -> int:
        await asyncio.sleep(seconds.get(row, 1.0))
        return row

    return call


def times(run: VirtualRun) -> list[float]:
    """Return the times of the warnings."""
    return [at for at, _ in run.warnings]


def test_a_slow_request_is_named_in_repeated_warnings_with_model_column_row_and_age(virtually):
    """Row 7 takes 100 s: warnings come at 30, 60 and 90 s, at most an eighth of 30 s late, while others end."""
    run = VirtualRun(waits({7: 100}), rows=200, row_group_size=5)
    virtually(run(slow_request_after=30))
    for (at, said), due in zip(run.warnings, (30, 60, 90), strict=True):
        assert due <= at <= due + 8
        age = re.fullmatch(r"no answer for more than 30 s: openai:m0, column 'c0', row 7, for (\d+) s", said)
        assert age is not None, said
        assert at - 6 <= int(age[1]) <= at


def test_many_slow_requests_are_one_warning_the_oldest_first(virtually):
    """A dozen hung requests do not make a dozen lines: five are named, the oldest first, and the others counted."""
    run = VirtualRun(waits(dict.fromkeys(range(1, 13), 45.0)), rows=13, parallel=12)
    virtually(run(slow_request_after=30))
    (_, said), *_ = run.warnings
    assert len(run.warnings) == 1
    assert [int(row) for row in re.findall(r"row (\d+)", said)] == [1, 2, 3, 4, 5]
    assert said.endswith("and 7 more")


def test_no_warning_for_a_request_that_is_in_time(virtually):
    """29 s are not more than 30, however many requests take that long one after the other."""
    run = VirtualRun(waits(dict.fromkeys(range(40), 29.0)), rows=40, parallel=2)
    virtually(run(slow_request_after=30))
    assert run.elapsed > 500
    assert run.warnings == []


def test_each_attempt_has_an_age_of_its_own(virtually):
    """Four attempts of 20 s each at one cell are not one request of 80 s."""
    tries = iter(range(4))

    async def flaky(row: int) -> int:
        await asyncio.sleep(20)
        if next(tries) < 3:
            raise ModelError("busy", kind="server", retryable=True)
        return row

    run = VirtualRun(flaky, rows=1, retry=RetryPolicy(attempts=5, wait=lambda _: 1.0))
    virtually(run(slow_request_after=30))
    assert run.elapsed > 80
    assert run.warnings == []


def test_none_switches_the_warnings_off(virtually):
    """slow_request_after=None and stall_after=None: no warning, however long it takes."""
    run = VirtualRun(waits({0: 1000}), rows=1)
    virtually(run(stall_after=None, slow_request_after=None))
    assert run.warnings == []


def test_a_warning_has_the_bytes_received_so_far(virtually):
    """A trickling answer has bytes that grow from warning to warning; another has none."""

    async def trickles(row: int) -> int:
        with Arrival() as answer:
            came = 0
            answer.count = lambda: came
            for _ in range(100):
                await asyncio.sleep(1)
                came += 50 * row
        return row

    run = VirtualRun(trickles, rows=2)
    virtually(run(slow_request_after=30))
    assert len(run.warnings) == 3
    for at, said in run.warnings:
        assert "row 0" in said
        assert "nothing received so far" in said.partition("row 1")[0]
        came = re.search(r"row 1, for \d+ s, ([\d,]+) bytes so far", said)
        assert came is not None, said
        assert at - 1 <= int(came[1].replace(",", "")) / 50 <= at + 1


def test_the_count_of_bytes_is_forgotten_with_the_answer(virtually):
    """After an answer, a failure or a cancellation, no count is left behind."""

    async def main() -> None:
        me = asyncio.current_task()
        assert me is not None
        assert received(me) is None
        with Arrival():
            assert received(me) == 0
        with pytest.raises(RuntimeError), Arrival():
            raise RuntimeError
        assert received(me) is None

        async def hangs() -> None:
            with Arrival():
                await asyncio.sleep(1000)

        task = asyncio.create_task(hangs())
        await asyncio.sleep(1)
        assert received(task) == 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert received(task) is None

    virtually(main())


def by_address(url: str, **options) -> Model:
    """Take the fast path."""
    return rl.Model("openai:slow", base_url=url, **options)


def by_client(url: str, **options) -> Model:
    """Bring a client of the openai package."""
    return rl.Model("openai:slow", client=lambda: openai.AsyncOpenAI(base_url=url, api_key="any"), **options)


both_transports = pytest.mark.parametrize("model", [by_address, by_client], ids=["aiohttp", "sdk"])


def recipe(model: Model) -> rl.Recipe:
    """Ask a model once a row."""
    return rl.Recipe(models={"m": model}, columns=[rl.Uniform("n"), rl.Text("a", model="m", prompt="{{ n }}")], seed=1)


@both_transports
def test_a_trickling_body_is_named_with_the_bytes_so_far(
    server: FakeOpenAI, model: Callable[..., Model], caplog: pytest.LogCaptureFixture
):
    """A real server sends its body in pieces for a second: the warnings have the growing number of bytes."""
    server.configure(fault_trickle=1.0, trickle_seconds=1.0, fault_hang=0.0)
    recipe(model(server.url)).preview(1, progress=False, slow_request_after=0.15)
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("no answer")]
    found = [re.search(r"openai:slow.*column 'a', row 0, for \d\.\d s, ([\d,]+) bytes so far", line) for line in said]
    counts = [int(match[1].replace(",", "")) for match in found if match is not None]
    assert len(counts) >= 2
    assert counts == sorted(counts)
    assert 0 < counts[0] < counts[-1]


@both_transports
def test_a_time_limit_ends_a_body_that_trickles(server: FakeOpenAI, model: Callable[..., Model]):
    """More bytes do not prolong an attempt: it ends in time, and its connection too, and is retried."""
    server.configure(fault_trickle=1.0, trickle_seconds=50.0, fault_attempts=1)
    server.reset()
    result = recipe(model(server.url, timeout=0.3)).preview(2, progress=False)
    assert result.status == "complete"
    assert 0.3 <= result.elapsed < 10
    assert result.report.retries == {"ModelError(timeout)": 2}
    assert server.wait_for(client_disconnects=2).requests == 4


def test_a_run_without_progress_is_reported_with_lanes_and_the_oldest_cell(virtually):
    """Everything hangs: after 30 s a warning has the counts of each lane and the oldest cell, and every 30 s again."""
    hang = dict.fromkeys(range(3, 50), 100.0)
    run = VirtualRun(waits(hang), waits({}), rows=50)
    virtually(run(stall_after=30))
    (at, said), *more = run.warnings
    # the other column is over after 13 s, the last thing that moves until the first hung request ends
    assert 43 <= at <= 43 + 8
    assert said.startswith("no progress for ")
    assert "openai:m0: 4 of at most 4 in flight, 43 ready, 0 waiting to retry" in said
    assert "m1" not in said
    assert re.search(r"the oldest is column 'c0', row 3, in flight for \d+ s$", said)
    assert all(later - earlier >= 30 - 4 for earlier, later in zip([at, *times(run)], times(run)[1:], strict=False))
    assert len(more) >= 10


def test_waiting_for_retries_is_not_progress(virtually):
    """All remaining tasks wait for a retry: the warning has their lane and number."""
    tries: dict[int, int] = {}

    async def limited(row: int) -> int:
        tries[row] = tries.get(row, 0) + 1
        if tries[row] == 1:
            raise ModelError("slow down", kind="rate_limited", retryable=True, retry_after=100.0)
        return row

    run = VirtualRun(limited, rows=3, retry=RetryPolicy(longest_wait=200))
    virtually(run(stall_after=30))
    assert len(run.warnings) == 3
    assert "openai:m0: 0 of at most 4 in flight, 0 ready, 3 waiting to retry" in run.warnings[0][1]
    assert re.search(r"the oldest is column 'c0', row \d, waiting to retry for \d+ s", run.warnings[0][1])


def test_a_stalled_run_quotes_the_last_refusal(virtually):
    """So that a user knows what the endpoint wants, while the run waits for it."""
    tries: dict[int, int] = {}

    async def limited(row: int) -> int:
        tries[row] = tries.get(row, 0) + 1
        raise ModelError(
            f"try {tries[row]}: tokens per day", kind="rate_limited", retryable=tries[row] < 3, retry_after=40
        )

    run = VirtualRun(limited, waits({}), rows=1, retry=RetryPolicy(longest_wait=200))
    virtually(run(stall_after=30))
    assert [said.count("its last refusal") for _, said in run.warnings] == [1] * len(run.warnings)
    assert "1 waiting to retry; its last refusal: try 1: tokens per day; the oldest" in run.warnings[0][1]
    assert "its last refusal: try 2: tokens per day" in run.warnings[-1][1]


def test_a_slow_disk_is_named(virtually):
    """Only writing is left, and it takes long: the warning names the row groups being written."""
    run = VirtualRun(waits({}), rows=4, row_group_size=2, writing=50)
    virtually(run(stall_after=30))
    assert len(run.warnings) == 1
    assert run.warnings[0][1].endswith("row groups being written: 0, 1")


def test_no_warning_for_slow_progress(virtually):
    """An answer every 25 s is progress."""
    run = VirtualRun(waits(dict.fromkeys(range(20), 25.0)), rows=20, parallel=1)
    virtually(run(stall_after=30))
    assert run.elapsed >= 500
    assert run.warnings == []


def test_a_second_stall_is_reported_again(virtually):
    """Two rows hang one after the other: the second stall counts from the progress in between."""
    run = VirtualRun(waits({0: 40.0, 5: 40.0}), rows=10, parallel=1)
    virtually(run(stall_after=30))
    assert len(run.warnings) == 2
    first, second = times(run)
    assert 30 <= first <= 38
    assert 44 + 30 <= second <= 44 + 38


def test_a_stall_warning_names_an_outage():
    """Rows wait for an endpoint that is down; the times are those of the run's clock."""
    graph = compile_graph([Node("a", lane=Lane("openai:m", 8, start=8))])
    watch = Watch(graph, Plan(20), 30.0, None)
    lanes = [LaneState("openai:m", 8, 1, 19, open_since=70.0, outages=1)]
    assert watch.inspect(1000.0, View(0, lanes, [], began=900.0)) == []
    (warning,) = watch.inspect(1031.0, View(0, lanes, [], began=900.0))
    assert warning == (
        "no progress for 31 s; openai:m: 1 of at most 8 in flight, 19 ready, 0 waiting to retry;"
        " its endpoint has been down for 61 s; its rows wait, and single requests probe it"
    )
