"""The executor: which exceptions fail a cell, which are retryable, and which end the run."""

from __future__ import annotations

import asyncio
from sys import getsizeof
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from rowloop import ModelError  # the first public name registers the adapters, one of which judges foreign errors
from rowloop.engine.columns.work import Answer, Await, AwaitWhole, Fill, InThread, Nothing, Render
from rowloop.engine.core.errors import CellError
from rowloop.engine.core.events import WHOLE, Admit, Done, Execute, Failed, Usage
from rowloop.engine.core.graph import Lane, Node, compile_graph
from rowloop.engine.core.store import Store
from rowloop.engine.runs.executor import Placement
from rowloop.engine.runs.local_executor import LocalExecutor, failure_of
from rowloop.runtime.threads import Threads

if TYPE_CHECKING:
    from rowloop.engine.columns.work import Work


def answered(status: int) -> httpx.HTTPStatusError:
    """Return the error of a client that the user brings."""
    request = httpx.Request("GET", "http://localhost")
    error = httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))
    error.status_code = status  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue] - as openai's have it
    return error


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (ValueError("x"), False),
        (KeyError("x"), False),
        (AssertionError(), False),
        (asyncio.CancelledError(), False),
        (ConnectionError("x"), True),
        (ConnectionResetError("x"), True),
        (TimeoutError("x"), True),
        (OSError("x"), False),
        *[(answered(status), True) for status in (408, 409, 425, 429, 500, 502, 503, 529)],
        *[(answered(status), False) for status in (400, 401, 403, 404, 422)],
    ],
    ids=lambda value: f"{value!r:.30}{getattr(value, 'status_code', '')}",
)
def test_an_exception_of_a_function_is_classified_by_its_class_and_status(error: BaseException, retryable: bool):  # noqa: FBT001 - a parameter
    """Bare, or as the cause of a CellError; none of them ends the run."""
    wrapped = CellError()
    wrapped.__cause__ = error
    for raised in (error, wrapped):
        failure = failure_of(raised)
        assert (failure.error, failure.retryable, failure.fatal) == (type(error).__name__, retryable, False)
        assert failure.cause is error
        assert failure.rate_limited == (getattr(error, "status_code", None) == 429)
        assert failure.message == str(error)


def test_a_model_error_carries_its_own_classification():
    """Kind, retryable, fatal, and how long to wait."""
    error = ModelError("no", kind="rate_limited", retryable=True, fatal=True, retry_after=3.0, request_id="r1")
    failure = failure_of(error)
    assert (failure.error, failure.message) == ("ModelError(rate_limited)", "no (request r1)")
    assert (failure.retryable, failure.fatal, failure.retry_after, failure.rate_limited) == (True, True, 3.0, True)


def test_a_fault_of_the_cell_with_words_of_its_own_keeps_them():
    """Not that of its cause."""
    error = CellError("the template does not fit")
    error.__cause__ = KeyError("x")
    assert failure_of(error).message == "the template does not fit: 'x'"


class TransportError(Exception):
    """Has the name of httpx's error."""


class StatusError(Exception):
    """Has its status in the same place as httpx's error."""

    def __init__(self, status: int) -> None:
        self.response = type("Response", (), {"status_code": status})()


def wrapped(error: Exception, cause: Exception) -> Exception:
    """Return an error with a cause."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (TransportError("disconnected"), True),
        (StatusError(503), True),
        (StatusError(429), True),
        (StatusError(422), False),
        (wrapped(ValueError("no connection"), ConnectionResetError("reset")), True),
        (wrapped(ValueError("no connection"), wrapped(OSError("x"), TimeoutError("late"))), True),
        (wrapped(ValueError("no number"), KeyError("x")), False),
        (wrapped(StatusError(400), ConnectionResetError("reset")), False),
    ],
    ids=lambda value: f"{value!r:.40}",
)
def test_errors_of_a_users_client_are_classified_by_their_status_and_cause(error, retryable):
    """A status on the response, the name of httpx's own, or a connection that failed underneath."""
    assert failure_of(error).retryable == retryable
    assert failure_of(error).rate_limited == (
        str(getattr(error, "response", None) and error.response.status_code) == "429"
    )


class Bench:
    """An executor of one column `y` over a filled column `x`, in one open row group of three rows."""

    def __init__(self, work: Work, *, whole: bool = False) -> None:
        """Put the parts together."""
        strategy: Any = "whole" if whole else "cell"
        graph = compile_graph([Node("x", strategy="whole"), Node("y", ("x",), strategy, Lane("l", 1))])
        self.store = Store(graph)
        self.store.admit(Admit(0, 0, 3))
        self.executor = LocalExecutor(graph, [Fill(range), work], self.store, Threads(1))
        self.store.groups[0].values[0] = [10, 11, 12]

    def work(self, row: int, rows: list[int] | None = None) -> Any:
        """Work a task that is awaited."""
        return asyncio.run(self.executor.work(Execute(0, 1, row, rows)))

    @property
    def values(self) -> Any:
        """The values of the column."""
        return self.store.groups[0].values[1]


async def fails(*_: object) -> Any:
    """Raise what no built-in column should."""
    raise AttributeError("a slip")


def test_an_awaited_value_is_put_away_and_an_answer_brings_its_usage():
    """The event has the cost."""

    async def answer(x: int) -> Answer:
        return Answer(x + 1, Usage(1, 2, 0.5))

    bench = Bench(Await(answer))
    assert bench.work(1) == Done(0, 1, 1, Usage(1, 2, 0.5))
    assert bench.values == [None, 12, None]


def test_any_exception_of_the_users_own_code_fails_the_cell_only():
    """The same exception of a built-in column is an error of the engine, for which no row is dropped."""
    foreign = Bench(Await(fails, foreign=True)).work(0)
    assert isinstance(foreign, Failed)
    assert (foreign.failure.error, foreign.failure.message) == ("AttributeError", "a slip")
    with pytest.raises(AttributeError, match="a slip"):
        Bench(Await(fails)).work(0)
    with pytest.raises(AttributeError, match="a slip"):
        Bench(AwaitWhole(fails), whole=True).work(WHOLE, [0, 1])


def test_a_whole_column_gets_the_live_rows_and_its_values_keep_their_positions():
    """Dropped rows have no value."""
    seen: list[Any] = []

    async def double(inputs: list[list[Any]], rows: int) -> list[Any]:
        seen.append((inputs, rows))
        return [2 * x for x in inputs[0]]

    bench = Bench(AwaitWhole(double), whole=True)
    assert bench.work(WHOLE, [0, 2]) == Done(0, 1, WHOLE, rows=2)
    assert (seen, bench.values) == ([([[10, 12]], 2)], [20, None, 24])


def test_a_rendered_value_is_put_away_and_a_fault_of_the_cell_is_a_failure():
    """On the spot."""

    def render(x: int) -> str:
        if x == 11:
            raise CellError("no") from KeyError("k")
        return str(x)

    bench = Bench(Render(render))
    assert bench.executor.work_now(Execute(0, 1, 0)) == Done(0, 1, 0, size=getsizeof("10"))
    assert isinstance(bench.executor.work_now(Execute(0, 1, 1)), Failed)
    assert bench.values == ["10", None, None]


def test_system_exit_and_keyboard_interrupt_fail_no_cell():
    """From a thread they are raised; everything else is a failure."""
    bench = Bench(InThread(str))
    assert bench.executor.outcome(Execute(0, 1, 0), "v", None) == Done(0, 1, 0, size=getsizeof("v"))
    assert isinstance(bench.executor.outcome(Execute(0, 1, 1), None, ValueError("x")), Failed)
    for error in (SystemExit(1), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            bench.executor.outcome(Execute(0, 1, 2), None, error)


def test_each_kind_of_work_has_its_place():
    """Work of microseconds runs on the spot, synchronous code of the user in a thread, the rest is awaited."""
    works: list[Work] = [Fill(range), Render(str), Nothing(), InThread(str), Await(fails), AwaitWhole(fails)]
    graph = compile_graph([Node(str(i)) for i in range(len(works))])
    places = LocalExecutor(graph, works, Store(graph), Threads(1)).places
    assert places == [Placement.ON_THE_SPOT] * 3 + [Placement.IN_THREAD] + [Placement.IN_TASK] * 2
