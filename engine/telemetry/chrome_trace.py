"""Traces as Chrome's trace event JSON, which ui.perfetto.dev and chrome://tracing open.

A lane is shown as a process and each of its slots as a thread, in which attempts follow one another. The format is
Google's "Trace Event Format": M events name processes and threads, X events are complete slices, in microseconds.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from .traces import TaskTrace


def export(path: Path, tasks: Iterable[TaskTrace], lanes: Mapping[str, str]) -> None:
    """Write a file; `lanes` maps each column to its lane."""
    with path.open("wb") as file:
        file.write(b'{"displayTimeUnit":"ms","traceEvents":[')
        for i, event in enumerate(_events(tasks, lanes)):
            file.write(b",\n" if i else b"\n")
            file.write(msgspec.json.encode(event))
        file.write(b"\n]}\n")


def _events(tasks: Iterable[TaskTrace], lane_of: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    numbers = {lane: number for number, lane in enumerate(dict.fromkeys(lane_of.values()), start=1)}
    slots: dict[str, _Slots] = {}
    for task in sorted(tasks, key=lambda task: task.started):
        lane = lane_of[task.column]
        started = _nanoseconds(task.started)
        number = numbers[lane]
        if lane not in slots:
            slots[lane] = _Slots()
            yield _named("process_name", number, 0, lane)
        new, slot = slots[lane].take(task.started, task.finished)
        if new:
            yield _named("thread_name", number, slot, f"slot {slot}")
        yield {
            "ph": "X",
            "name": task.column,
            "cat": task.outcome,
            "pid": number,
            "tid": slot,
            "ts": started / 1e3,
            "dur": (_nanoseconds(task.finished) - started) / 1e3,
            "args": {
                "row_group": task.row_group,
                "row": task.row,
                "queued_ms": round((task.started - task.queued) * 1e3, 3),
                "outcome": task.outcome,
                "error": task.error,
                "prompt_tokens": task.prompt_tokens,
                "completion_tokens": task.completion_tokens,
            },
        }


def _nanoseconds(seconds: float) -> int:
    """Round a time once, so that an attempt that ends when the next one starts also does so in the file."""
    return round(seconds * 1e9)


class _Slots:
    """The permits of a lane, numbered from 1; a task takes the lowest free one."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._taken: list[tuple[float, int]] = []

    def take(self, started: float, finished: float) -> tuple[bool, int]:
        """Return whether the slot is new, and the slot; must be called in the order of `started`."""
        while self._taken and self._taken[0][0] <= started:
            heappush(self._free, heappop(self._taken)[1])
        new = not self._free
        slot = len(self._taken) + 1 if new else heappop(self._free)
        heappush(self._taken, (finished, slot))
        return new, slot


def _named(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}
