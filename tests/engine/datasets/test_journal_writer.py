"""The journal writer: an answer is in the journal within 25 ms."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from rowloop.engine.core.events import Admit, Done
from rowloop.engine.core.graph import Node, compile_graph
from rowloop.engine.core.store import Store
from rowloop.engine.datasets.journal import Journal
from rowloop.engine.datasets.journal_records import Facts
from rowloop.engine.datasets.journal_writer import JournalWriter
from rowloop.engine.telemetry.spending import Spending

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

ROWS = 1000


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[JournalWriter]:
    """Give a writer to a journal, and the values of a row group."""
    journal = Journal(tmp_path / "journal.sqlite")
    journal.begin(Facts({}, 7, ROWS, "async", [ROWS]))
    made = JournalWriter(journal, [0])
    store = Store(compile_graph([Node("a")]))
    store.admit(Admit(0, 0, ROWS))
    store.groups[0].values[0] = [f"value {row}" for row in range(ROWS)]
    made.begin(store, Spending)
    yield made
    made.close()
    journal.close()


def test_an_answer_goes_to_the_thread_within_25_ms(
    writer: JournalWriter, virtually: Callable[[Coroutine[Any, Any, Any]], Any]
):
    """What came meanwhile goes with it."""

    async def two_answers() -> None:
        writer.on_event(Done(0, 0, 0))
        await asyncio.sleep(0.005)
        writer.on_event(Done(0, 0, 1))
        await asyncio.sleep(0.02)

    virtually(two_answers())
    virtually(writer.settle())
    assert writer.journal.recall(0).values == {(0, 0): "value 0", (0, 1): "value 1"}


def test_a_loop_that_is_too_busy_for_its_timers_keeps_no_answer_back(
    writer: JournalWriter, virtually: Callable[[Coroutine[Any, Any, Any]], Any]
):
    """It works one answer after the other, without a turn for anything else."""

    async def many_answers() -> int:
        for row in range(ROWS):
            until = time.monotonic() + 0.0001
            while time.monotonic() < until:
                pass
            writer.on_event(Done(0, 0, row))
        return ROWS

    virtually(many_answers())
    virtually(writer.settle())
    assert len(writer.journal.recall(0).values) > ROWS // 2


def test_large_values_are_written_in_pieces(
    writer: JournalWriter, virtually: Callable[[Coroutine[Any, Any, Any]], Any]
):
    """A megabyte does not wait, so that what waits for the thread is no second copy of a row group."""

    async def large_answers() -> None:
        for row in range(4):
            writer.on_event(Done(0, 0, row, None, 600_000))

    virtually(large_answers())
    virtually(writer.settle())
    assert len(writer.journal.recall(0).values) == 4
