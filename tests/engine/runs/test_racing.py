"""`Model(hedge=True)`, end to end: slow and hung requests, what is paid, and what a run shows of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import looptime
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rowloop as rl
from rowloop.engine.core.errors import DatasetGenerationError
from rowloop.engine.core.events import Done, Execute, Failed, Failure, Hedge, HedgeEnded, Slow, Usage
from rowloop.engine.runs.executor import Placement
from rowloop.engine.runs.racing import Racing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fake_openai import FakeOpenAI

Ending = Literal["answer", "flaky", "broken", "raises"]


def recipe(server: FakeOpenAI, **model: Any) -> rl.Recipe:
    """Make a recipe of one hedged column."""
    writer = rl.Model("openai:m", base_url=server.url, hedge=True, max_parallel=16, price=rl.Price(10, 10), **model)
    return rl.Recipe(
        models={"m": writer}, columns=[rl.Uniform("id"), rl.Text("a", model="m", prompt="{{ id }}")], seed=1
    )


def test_cells_whose_request_hangs_get_their_answer_from_a_second_one(server: FakeOpenAI, tmp_path: Path):
    """No row waits for the time limit of 15 s; both requests are counted, and paid as far as is known."""
    server.configure(latency=0.02, reply="echo", fault_hang=0.01, fault_attempts=1, seed=3)
    result = recipe(server).build(tmp_path / "out", rows=400, progress=False, trace=True)
    assert result.status == "complete"
    assert result.elapsed < 10
    hung = server.counters().by_fault["hang"]
    assert hung >= 2
    assert hung <= result.usage.hedges <= 0.03 * result.usage.requests
    assert result.usage.hedges_won >= hung
    assert result.usage.requests == 400 + result.usage.hedges
    assert 400 + hung <= server.counters().requests <= result.usage.requests  # some are cancelled before they arrive
    assert result.usage.cost is not None
    (column,) = [column for column in result.metadata["columns"] if column["name"] == "a"]
    assert (column["hedges"], column["hedges_won"]) == (result.usage.hedges, result.usage.hedges_won)
    assert f"{result.usage.hedges:,} second requests, {result.usage.hedges_won:,} won" in str(result.report)
    frame = result.to_pandas()
    assert all(str(number) in answer for number, answer in zip(frame["id"], frame["a"], strict=True))
    traces = [trace for trace in result.task_traces if trace.column == "a"]
    assert len(traces) == result.usage.requests
    twice = [trace for trace in traces if trace.outcome == "cancelled"]
    assert len(twice) == result.usage.hedges
    assert all(trace.finished >= trace.started >= 0 for trace in traces)


class Scripted:
    """An executor whose cells end as they are told: after so many seconds, with an answer or a failure."""

    places = (Placement.HEDGED,)

    def __init__(self, script: dict[int, list[tuple[float, Ending]]]) -> None:
        """Take how the requests of each row end, in order; any other row is answered after a tenth of a second."""
        self.script = script
        self.cancelled = 0

    async def work(self, run: Execute) -> Done | Failed:
        """Work a cell; the number of the request is in its usage."""
        endings = self.script.get(run.row)
        if endings is None:
            await asyncio.sleep(0.1)
            return Done(run.group, run.column, run.row)
        (seconds, ending), number = endings.pop(0), 2 - len(endings)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if ending == "raises":
            raise DatasetGenerationError(f"request {number}", stage="engine")
        usage = Usage(prompt_tokens=number)
        if ending == "answer":
            return Done(run.group, run.column, run.row, usage)
        return Failed(run.group, run.column, run.row, Failure("error", "", retryable=ending == "flaky"), usage)

    def work_now(self, run: Execute) -> Done | Failed:
        """Not used."""
        raise NotImplementedError

    def work_in_thread(self, run: Execute, ended: Callable[[Execute, Any, BaseException | None], None]) -> None:
        """Not used."""
        raise NotImplementedError

    def outcome(self, run: Execute, value: Any, error: BaseException | None) -> Done | Failed:
        """Not used."""
        raise NotImplementedError


def expected(first: tuple[float, Ending], second: tuple[float, Ending]) -> tuple[int, float]:
    """Return which request has the cell's outcome, and when."""
    (one, how_one), two = first, 0.2 + second[0]
    if one < 0.2:
        return 1, one
    if one < two:
        return (2, two) if how_one == "flaky" else (1, one)
    return (2, two) if second[1] in {"answer", "raises"} else (1, one)


ENDINGS = st.sampled_from(Ending.__args__)


@given(
    st.tuples(st.sampled_from([0.15, 0.23, 0.5, 1.0, 1e5]), ENDINGS),
    st.tuples(st.sampled_from([0.0, 0.1, 0.41, 2.0, 1e4]), ENDINGS),
    st.sampled_from([None, None, 0.17, 0.27, 0.9]),
)
def test_the_first_good_answer_of_two_requests_is_the_cell_s(
    first: tuple[float, Ending], second: tuple[float, Ending], cancelled_at: float | None
):
    """A retryable failure leaves the cell to the other request; there is one outcome, and one end of each race."""
    executor = Scripted({77: [first, second]})
    told: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def feed(event: object) -> None:
            told.append(event)
            if isinstance(event, Slow):
                told.append("hedged")
                racing.hedge(Hedge(event.group, event.column, event.row))

        racing = Racing(executor, feed, loop.create_task, lambda: True)
        await asyncio.gather(*[racing.work(Execute(0, 0, row)) for row in range(50)])
        told.clear()
        began = loop.time()
        work = loop.create_task(racing.work(Execute(0, 0, 77)))
        if cancelled_at is not None:
            loop.call_later(cancelled_at, work.cancel)
        which, after = expected(first, second)
        over = cancelled_at is not None and cancelled_at < after
        ended = (await asyncio.wait([work]))[0].pop()
        assert loop.time() - began == pytest.approx(cancelled_at if over else after, abs=0.01)
        if over:
            assert ended.cancelled()
        elif (first, second)[which - 1][1] == "raises":
            assert str(ended.exception()).endswith(f"request {which}")
        else:
            assert getattr(ended.result(), "usage", None) == Usage(prompt_tokens=which)
        ends = [event for event in told if isinstance(event, HedgeEnded)]
        assert len(ends) == told.count("hedged") <= 1
        if ends and not over:
            assert ends[0].won == (which == 2)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=0, end=1e6)) as runner:
        runner.run(main())


def test_a_column_without_slow_cells_sends_nothing_twice(server: FakeOpenAI, tmp_path: Path):
    """A second request is for cells that take twice as long as nearly all others."""
    server.configure(latency=0.1, reply="echo")
    result = recipe(server).build(tmp_path / "out", rows=64, progress=False)
    assert result.usage.hedges == 0
    assert server.counters().requests == 64
    assert "second requests" not in str(result.report)


def test_a_cancelled_run_cancels_both_requests(server: FakeOpenAI, tmp_path: Path):
    """Nothing is left in flight, and what is complete is kept."""
    server.configure(latency=0.02, reply="echo", fault_hang=0.03, seed=3)
    run = recipe(server).start(tmp_path / "out", rows=2000, progress=False)
    server.wait_for(requests=300, timeout=20)
    run.cancel()
    result = run.result(10)
    assert result.status == "cancelled"
    counters = server.counters()
    gone = server.wait_for(client_disconnects=counters.requests - counters.answered, timeout=5)
    assert gone.in_flight == 0


@pytest.mark.parametrize("model", [lambda prompt: prompt, "local:gemma-3-270m"], ids=["function", "local"])
def test_models_in_this_process_cannot_be_hedged(model: Any):
    """A second call is only more work there, and a function may have effects that must not happen twice."""
    with pytest.raises(rl.RecipeError, match=r"hedge.*do not use this field"):
        rl.Recipe(models={"m": rl.Model(model, hedge=True)}, columns=[rl.Text("a", model="m", prompt="Hi.")]).preview(
            1, progress=False
        )


def test_hedging_survives_a_change_of_the_model_to_a_function(server: FakeOpenAI):
    """A function that stands in for an endpoint in tests is not hedged."""
    changed = recipe(server).replace_model("m", spec=lambda prompt: f"echo {prompt}")
    assert changed.preview(2, progress=False).status == "complete"
